//go:build tools

// Package server holds the version of Jaeger that tests run, in a module of its own: its versions of other modules are not
// ambit's.
package server

import _ "github.com/jaegertracing/jaeger/cmd/all-in-one"
