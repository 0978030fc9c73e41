// Package ambient holds tests against Istio's own Go packages. It is a module of its own, so that nothing else
// has to fetch Istio.
package ambient
