package topology

import (
	"testing"

	"ambit/tests/harness"
)

// shares are the rates that are tried.
var shares = []float64{0.5, 0.1, 0.01}

// The rate in force decides how many traces are kept, and a trace is kept whole.
func TestRates(t *testing.T) {
	ns, d, target := alone(t)
	for _, share := range shares {
		d.rate(t, share)
		w := work{Target: target, Requests: 20_000, Connections: 8, PerConnection: 1000}
		before := d.status(t)
		do(t, ns, w)
		spans := d.exact(t, before, 2*uint64(w.Requests))
		within(t, "loopback", len(spans)/2, w.Requests, share)
		both(t, spans)
	}
}

// both checks that of each request both sides were kept, joined, and returns the traces by kind of header.
func both(t *testing.T, spans []span) map[string]int {
	t.Helper()
	wrong := complaints{t: t}
	clients := make(map[string]*span)
	for i := range spans {
		if s := &spans[i]; !s.server {
			clients[s.path] = s
		}
	}
	kinds := make(map[string]int)
	servers := 0
	for i := range spans {
		s := &spans[i]
		if !s.server {
			continue
		}
		servers++
		client := clients[s.path]
		if client == nil || client.trace != s.trace || s.parent != client.id || s.state != client.state || s.reason != client.reason {
			wrong.add("CLIENT %v, SERVER %v", client, s)
			continue
		}
		kinds[kindOf(s.path)]++
	}
	if servers != len(clients) {
		t.Errorf("%d CLIENT spans and %d SERVER spans were kept", len(clients), servers)
	}
	wrong.done()
	return kinds
}

// Two daemons that share nothing but the key keep the same traces, whatever the trace ID comes from.
func TestTwoDaemonsKeepTheSameTraces(t *testing.T) {
	kinds := []string{headersNone, headersRequestID, headersB3, headersParent}
	for _, c := range networks[1:3] {
		t.Run(c.name, func(t *testing.T) {
			n := c.make(t)
			here := trace(t, n.lab, []*harness.Namespace{n.client}, "--peers", everywhere)
			there := trace(t, n.lab, []*harness.Namespace{n.server}, "--peers", everywhere)
			w := work{Target: n.v4.target, Requests: 16_384, Connections: 8, PerConnection: 100, Headers: kinds}
			for _, share := range shares {
				here.rate(t, share)
				there.rate(t, share)
				before, beforeThere := here.status(t), there.status(t)
				do(t, n.client, w)
				spans := append(here.exact(t, before, uint64(w.Requests)), there.exact(t, beforeThere, uint64(w.Requests))...)
				got := both(t, spans)
				each := w.Requests / len(kinds)
				for _, kind := range []string{headersNone, headersRequestID, headersB3} {
					within(t, kind, got[kind], each, share)
				}
				if got[headersParent] != each/2 {
					t.Errorf("%d of the %d requests that the caller sampled were kept", got[headersParent], each/2)
				}
			}
		})
	}
}
