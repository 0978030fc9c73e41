package topology

import (
	"fmt"
	"math"
	"net/netip"
	"testing"

	"ambit/tests/harness"
	"ambit/tests/harness/labtest"
)

// alone is a namespace with a server on port 8080 and an ambit that traces both.
func alone(t *testing.T, flags ...string) (*harness.Namespace, *instance, netip.AddrPort) {
	t.Helper()
	lab := labtest.New(t)
	ns, err := lab.Namespace("alone")
	if err != nil {
		t.Fatal(err)
	}
	startServer(t, ns, 8080)
	return ns, trace(t, lab, []*harness.Namespace{ns}, flags...), netip.MustParseAddrPort("127.0.0.1:8080")
}

// Every loopback request is one CLIENT and one SERVER span, with whatever lifetime of its connection.
func TestLoopbackIsExact(t *testing.T) {
	ns, d, target := alone(t)
	for _, c := range []struct {
		name string
		work work
		// addresses share the requests, one after the other: the side that closes a connection keeps its ports for a
		// minute, and there are 28,000 to one address.
		addresses int
	}{
		{"keep-alive", work{Requests: 100_000, Connections: 8}, 1},
		{"ten requests per connection", work{Requests: 20_000, Connections: 8, PerConnection: 10}, 1},
		{"a connection each, the server closes", work{Requests: 100_000, Connections: 8, PerConnection: 1, ServerCloses: true}, 8},
		{"a connection each, the client closes", work{Requests: 100_000, Connections: 8, PerConnection: 1}, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.work.Requests /= c.addresses
			for i := range c.addresses {
				address := target.Addr().As4()
				address[3] += byte(i)
				c.work.Target = netip.AddrPortFrom(netip.AddrFrom4(address), target.Port())
				before := d.status(t)
				do(t, ns, c.work)
				spans := d.exact(t, before, 2*uint64(c.work.Requests))
				byPath(t, spans, c.work, func(int) bool { return true })
				// No exchange was lost by these, and there are not so many that it is luck.
				n := d.status(t).Events["segments_contended"] - before.Events["segments_contended"]
				if n > uint64(c.work.Requests)/1000 {
					t.Errorf("segments_contended was counted %d times in %d requests", n, c.work.Requests)
				}
			}
		})
	}
}

// byPath checks that each request that should have is one CLIENT and one SERVER span, that no two share a trace,
// and that the SERVER span is the CLIENT span's child. It returns the pairs by path.
func byPath(t testing.TB, spans []span, w work, kept func(n int) bool) map[string][2]*span {
	t.Helper()
	if len(w.Headers) == 0 {
		w.Headers = []string{headersNone}
	}
	pairs := make(map[string][2]*span, w.Requests)
	wrong := complaints{t: t}
	for i := range spans {
		s := &spans[i]
		pair := pairs[s.path]
		side := 0
		if s.server {
			side = 1
		}
		if pair[side] != nil {
			wrong.add("two spans of one request: %v and %v", pair[side], s)
		}
		if s.status != 200 || s.errorType != "" {
			wrong.add("not as it was answered: %v", s)
		}
		pair[side] = s
		pairs[s.path] = pair
	}
	traces := make(map[[16]byte]string, w.Requests)
	for n := range w.Requests {
		path := fmt.Sprintf("/%s/%d", w.Headers[n%len(w.Headers)], n)
		pair := pairs[path]
		client, server := pair[0], pair[1]
		if !kept(n) {
			if client != nil || server != nil {
				wrong.add("%s should not have been kept: %v, %v", path, client, server)
			}
			continue
		}
		if client == nil || server == nil {
			wrong.add("%s lacks a span: CLIENT %v, SERVER %v", path, client, server)
			continue
		}
		if client.trace != server.trace || server.parent != client.id || client.state != server.state {
			wrong.add("not joined: %v and %v", client, server)
		}
		if client.parent == [8]byte{} == (w.Headers[n%len(w.Headers)] == headersB3 || w.Headers[n%len(w.Headers)] == headersParent) {
			wrong.add("a parent without a header, or none with one: %v", client)
		}
		if other := traces[client.trace]; other != "" {
			wrong.add("%s and %s share a trace", path, other)
		}
		traces[client.trace] = path
	}
	wrong.done()
	return pairs
}

// complaints reports the first few errors of many.
type complaints struct {
	t testing.TB
	n int
}

func (c *complaints) add(format string, args ...any) {
	c.t.Helper()
	if c.n++; c.n <= 5 {
		c.t.Errorf(format, args...)
	}
}

func (c *complaints) done() {
	c.t.Helper()
	if c.n > 5 {
		c.t.Errorf("and %d more like these", c.n-5)
	}
}

// within checks that of n decisions at rate p the number kept is within four standard deviations of n*p.
func within(t testing.TB, what string, kept, n int, p float64) {
	t.Helper()
	mean, deviation := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	if math.Abs(float64(kept)-mean) > 4*deviation {
		t.Errorf("%s: at rate %v %d of %d were kept, want %.0f +- %.0f", what, p, kept, n, mean, 4*deviation)
	}
}
