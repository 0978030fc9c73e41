package topology

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"ambit/tests/harness"
)

// everywhere makes every address a peer's.
const everywhere = "0.0.0.0/0,::/0"

// Without any header each SERVER span is the child of its CLIENT span: by one ambit that traces all, and by two
// that know of each other and nothing else.
func TestJoining(t *testing.T) {
	for _, c := range networks {
		t.Run(c.name, func(t *testing.T) {
			n := c.make(t)
			t.Run("one ambit", func(t *testing.T) {
				d := trace(t, n.lab, n.namespaces())
				joins(t, n, d, d)
			})
			if n.client == n.server {
				return // a namespace is one ambit's
			}
			t.Run("two", func(t *testing.T) {
				joins(t, n, trace(t, n.lab, []*harness.Namespace{n.client, n.between}, "--peers", everywhere),
					trace(t, n.lab, []*harness.Namespace{n.server}, "--peers", everywhere))
			})
		})
	}
}

// joins makes requests over IPv4 and IPv6 and checks the spans that the ambits of the client and of the server make.
func joins(t *testing.T, n *network, here, there *instance) {
	t.Helper()
	for _, r := range []route{n.v4, n.v6} {
		w := work{Target: r.target, Requests: 10_000, Connections: 8, PerConnection: 100}
		if r == n.v6 {
			w.Requests = 2_000
		}
		before, beforeThere := here.status(t), there.status(t)
		do(t, n.client, w)
		var spans []span
		if here == there {
			spans = here.exact(t, before, 2*uint64(w.Requests))
		} else {
			spans = append(here.exact(t, before, uint64(w.Requests)), there.exact(t, beforeThere, uint64(w.Requests))...)
		}
		byPath(t, spans, w, func(int) bool { return true })
		checkEnds(t, spans, n, r)
	}
}

// checkEnds checks the addresses of every span: the client's socket and the original destination on CLIENT spans,
// the server's socket and the client on SERVER spans.
func checkEnds(t *testing.T, spans []span, n *network, r route) {
	t.Helper()
	wrong := complaints{t: t}
	clients := make(map[[8]byte]netip.AddrPort)
	for i := range spans {
		s := &spans[i]
		if s.server {
			continue
		}
		clients[s.id] = s.local
		if s.peer != r.target || s.namespace != n.client.Name() {
			wrong.add("the peer is not %v: %v", r.target, s)
		}
	}
	for i := range spans {
		s := &spans[i]
		if s.server && (s.peer != clients[s.parent] || s.local != r.backend || s.client != s.peer.Addr().String() ||
			s.namespace != n.server.Name()) {
			wrong.add("the peer is not %v or the local end not %v: %v", clients[s.parent], r.backend, s)
		}
	}
	wrong.done()
}

// No span names a parent that nobody could send.
func TestNoParentThatNoSpanHas(t *testing.T) {
	t.Run("a client that nobody traces", func(t *testing.T) {
		n := bridged(t)
		d := trace(t, n.lab, []*harness.Namespace{n.server})
		roots(t, d, n, 200)
	})
	t.Run("a client that nobody traces, not among the peers", func(t *testing.T) {
		n := bridged(t)
		d := trace(t, n.lab, []*harness.Namespace{n.server}, "--peers", "10.5.0.3/32,fd05::/64")
		roots(t, d, n, 200)
	})
	t.Run("an excluded client", func(t *testing.T) {
		n := bridged(t)
		d := trace(t, n.lab, n.namespaces(), "--exclude-namespaces", n.client.Name(), "--peers", "fd05::/64")
		roots(t, d, n, 200)
	})
	t.Run("a sidecar", func(t *testing.T) {
		n := bridged(t)
		d := trace(t, n.lab, n.namespaces(), "--peers", everywhere)
		before := d.status(t)
		w := work{Target: n.v4.target, Requests: 200, Connections: 4, PerConnection: 10, UID: 1337}
		do(t, n.client, w)
		allRoots(t, d.exact(t, before, uint64(w.Requests)))
	})
}

// roots checks that each request is a SERVER span without a parent and nothing else.
func roots(t *testing.T, d *instance, n *network, requests int) {
	t.Helper()
	before := d.status(t)
	do(t, n.client, work{Target: n.v4.target, Requests: requests, Connections: 4, PerConnection: 10})
	spans := d.exact(t, before, uint64(requests))
	allRoots(t, spans)
}

func allRoots(t *testing.T, spans []span) {
	t.Helper()
	wrong := complaints{t: t}
	for i := range spans {
		if s := &spans[i]; !s.server || s.parent != [8]byte{} {
			wrong.add("not the root: %v", s)
		}
	}
	wrong.done()
}

// A server that accepts once the first bytes are there has no established socket when they come.
func TestDeferredAccept(t *testing.T) {
	for _, c := range networks[:2] {
		t.Run(c.name, func(t *testing.T) {
			n := c.make(t)
			startServer(t, n.server, 8081, "deferred")
			d := trace(t, n.lab, n.namespaces())
			w := work{Target: netip.AddrPortFrom(n.v4.target.Addr(), 8081), Requests: 1000, Connections: 4, PerConnection: 2}
			before := d.status(t)
			do(t, n.client, w)
			byPath(t, d.exact(t, before, 2*uint64(w.Requests)), w, func(int) bool { return true })
		})
	}
}

// Connections that were open before ambit started are traced from their next message on: both spans of a request are in
// one trace, and where it is known who opened the connection the server's is the client's child. Behind a redirect in
// the server's own namespace a response has to pass before the requests are known to be the server's.
func TestOpenBefore(t *testing.T) {
	const connections, requests = 8, 50
	for _, c := range networks {
		t.Run(c.name, func(t *testing.T) {
			n := c.make(t)
			var conns []net.Conn
			for range connections {
				must(t, n.client.Do(func() error {
					conn, err := net.DialTimeout("tcp", n.v4.target.String(), 5*time.Second)
					conns = append(conns, conn)
					return err
				}))
			}
			ask := func(path string) {
				for i, conn := range conns {
					_, err := fmt.Fprintf(conn, "GET /none/%d%s HTTP/1.1\r\nHost: example.test\r\n\r\n", i, path)
					must(t, err)
					response, err := http.ReadResponse(bufio.NewReader(conn), nil)
					must(t, err)
					_, err = io.Copy(io.Discard, response.Body)
					must(t, err)
				}
			}
			ask("/before")
			d := trace(t, n.lab, n.namespaces())
			before := d.status(t)
			for r := range requests {
				ask(fmt.Sprintf("/%d", r))
			}
			e := d.settled(t, before.Exchanges)
			if e.Seen > 2*connections*requests || e.Seen < 2*connections*requests-connections || e.DroppedTotal() > 0 ||
				e.Exported != e.Seen {
				t.Errorf("of %d exchange sides: %+v", 2*connections*requests, e)
			}
			for _, conn := range conns {
				must(t, conn.Close())
			}
			spans := d.take()
			clients := make(map[string]span)
			for _, s := range spans {
				if !s.server {
					clients[s.path] = s
				}
			}
			if len(clients) != connections*requests {
				t.Errorf("%d CLIENT spans, want %d", len(clients), connections*requests)
			}
			wrong := complaints{t: t}
			for _, s := range spans {
				client := clients[s.path]
				if s.server && (s.trace != client.trace || (s.parent != [8]byte{} && s.parent != client.id)) {
					wrong.add("CLIENT %v, SERVER %v", client, s)
				}
			}
			wrong.done()
		})
	}
}
