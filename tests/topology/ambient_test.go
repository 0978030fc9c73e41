package topology

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/admin"
	"ambit/tests/harness"
	"ambit/tests/harness/labtest"
)

const (
	backendPort = harness.BackendPort // in pod b
	outsidePort = 9090                // in pod w, outside of the mesh
)

// mesh is an ambient pair with a server in b and w, and one or two ambits that trace all of it.
type mesh struct {
	*harness.Pair
	ambits []*instance
}

// ambient makes a mesh: with one node and one ambit, or with two of both that know of each other.
func ambient(t *testing.T, twoNodes bool, flags ...string) *mesh {
	t.Helper()
	lab := labtest.New(t)
	pair, err := harness.AmbientPair(context.Background(), lab, harness.PairConfig{TwoNodes: twoNodes})
	must(t, err)
	startServer(t, pair.B.Namespace, backendPort)
	startServer(t, pair.W.Namespace, outsidePort)
	m := &mesh{Pair: pair}
	first := []*harness.Namespace{pair.Nodes[0].Namespace, pair.A.Namespace, pair.W.Namespace}
	if twoNodes {
		flags = append(flags, "--peers", "10.9.0.0/24,fd09::/64")
		m.ambits = append(m.ambits, trace(t, lab, []*harness.Namespace{pair.Nodes[1].Namespace, pair.B.Namespace}, flags...))
	} else {
		first = append(first, pair.B.Namespace)
	}
	m.ambits = append(m.ambits, trace(t, lab, first, flags...))
	return m
}

// traced is what the ambits make of something: together so many exchange sides, and nothing lost.
func (m *mesh) traced(t *testing.T, sides int, something func()) []span {
	t.Helper()
	before := make([]admin.Status, len(m.ambits))
	for i, d := range m.ambits {
		before[i] = d.status(t)
	}
	something()
	var spans []span
	for i, d := range m.ambits {
		seen := d.settled(t, before[i].Exchanges).Seen
		spans = append(spans, d.exact(t, before[i], seen)...)
	}
	if len(spans) != sides {
		t.Errorf("%d spans, want %d", len(spans), sides)
	}
	return spans
}

// way is one of the ways of a request through an ambient pair.
type way struct {
	name   string
	from   *harness.Namespace
	source netip.Addr // of the client
	target netip.AddrPort
	to     *harness.Namespace
	local  netip.AddrPort // of the server's socket
	whole  bool           // nothing ends the connection in between: both spans are one trace
}

func (m *mesh) ways() []way {
	a, b, w, host := m.A.Namespace, m.B.Namespace, m.W.Namespace, m.Nodes[0].Namespace
	port := netip.AddrPortFrom
	b4, b6 := port(harness.AddressB4, backendPort), port(harness.AddressB6, backendPort)
	w4, w6 := port(harness.AddressW4, outsidePort), port(harness.AddressW6, outsidePort)
	host4, host6 := m.Nodes[0].IP4, m.Nodes[0].IP6
	lo4, lo6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	return []way{
		{"a to the service", a, harness.AddressA4, harness.VIP4, b, b4, false},
		{"a to the other service", a, harness.AddressA4, harness.OtherVIP4, b, b4, false},
		{"a to the service, IPv6", a, harness.AddressA6, harness.VIP6, b, b6, false},
		{"a to b's address", a, harness.AddressA4, b4, b, b4, false},
		{"a to b's address, IPv6", a, harness.AddressA6, b6, b, b6, false},
		{"w to b's address, plaintext", w, harness.AddressW4, b4, b, b4, false},
		{"w to b's address, plaintext, IPv6", w, harness.AddressW6, b6, b, b6, false},
		{"the host to b", host, host4, b4, b, b4, false},
		{"the host to b, IPv6", host, host6, b6, b, b6, false},
		{"the host to w", host, host4, w4, w, w4, true},
		{"the host to w, IPv6", host, host6, w6, w, w6, true},
		{"w to itself", w, harness.AddressW4, w4, w, w4, true},
		{"b to itself", b, harness.AddressB4, b4, b, b4, true},
		{"b to itself, IPv6", b, harness.AddressB6, b6, b, b6, true},
		{"b to its own service", b, harness.AddressB4, harness.VIP4, b, b4, false},
		{"b to its own service, IPv6", b, harness.AddressB6, harness.VIP6, b, b6, false},
		{"b over loopback", b, lo4, port(lo4, backendPort), b, port(lo4, backendPort), true},
		{"b over loopback, IPv6", b, lo6, port(lo6, backendPort), b, port(lo6, backendPort), true},
		{"a to w, out of the mesh", a, harness.AddressA4, w4, w, w4, false},
		{"a to w, out of the mesh, IPv6", a, harness.AddressA6, w6, w, w6, false},
	}
}

// Each request is one CLIENT and one SERVER span, whatever proxies, bridges and veths it passes, and each names
// the application at the other end.
func TestAmbientPair(t *testing.T) {
	for _, twoNodes := range []bool{false, true} {
		t.Run(map[bool]string{false: "one node", true: "two nodes"}[twoNodes], func(t *testing.T) {
			m := ambient(t, twoNodes)
			for _, c := range m.ways() {
				t.Run(c.name, func(t *testing.T) {
					w := work{
						Target: c.target, Requests: 40, Connections: 2, PerConnection: 5,
						Headers: []string{headersNone, headersParent, headersNone, headersRequestID},
					}
					spans := m.traced(t, 2*w.Requests-unsampled(w), func() { do(t, c.from, w) })
					checkWay(t, c, w, spans)
				})
			}
		})
	}
}

// unsampled is how many spans the callers' decisions against them cost.
func unsampled(w work) int {
	n := 0
	for i := range w.Requests {
		if w.Headers[i%len(w.Headers)] == headersParent && sampledFlag(i) == 0 {
			n += 2
		}
	}
	return n
}

func checkWay(t *testing.T, c way, w work, spans []span) {
	t.Helper()
	wrong := complaints{t: t}
	pairs := make(map[string]*[2]*span)
	for i := range spans {
		s := &spans[i]
		pair := pairs[s.path]
		if pair == nil {
			pair = new([2]*span)
			pairs[s.path] = pair
		}
		side := 0
		if s.server {
			side = 1
		}
		if pair[side] != nil {
			wrong.add("twice: %v and %v", pair[side], s)
		}
		pair[side] = s
	}
	for path, pair := range pairs {
		client, server := pair[0], pair[1]
		if client == nil || server == nil {
			wrong.add("%s lacks a span: CLIENT %v, SERVER %v", path, client, server)
			continue
		}
		if client.namespace != c.from.Name() || client.peer != c.target || client.local.Addr() != c.source {
			wrong.add("not from %s, %v to %v: %v", c.from.Name(), c.source, c.target, client)
		}
		if server.namespace != c.to.Name() || server.peer.Addr() != c.source || server.client != c.source.String() || server.local != c.local {
			wrong.add("not in %s, %v from %v: %v", c.to.Name(), c.local, c.source, server)
		}
		if c.whole && server.peer != client.local {
			wrong.add("not one connection: %v and %v", client, server)
		}
		var none [8]byte
		kind := kindOf(path)
		carried := kind == headersParent || kind == headersRequestID
		if (client.trace == server.trace) != (c.whole || carried) {
			wrong.add("one trace? %v and %v", client, server)
		}
		switch {
		case client.parent == none == (kind == headersParent):
			wrong.add("a parent without a header, or none with one: %v", client)
		case c.whole && server.parent != client.id:
			wrong.add("not joined: %v and %v", client, server)
		case !c.whole && server.parent != client.parent:
			wrong.add("not the parent of the header: %v", server)
		}
	}
	wrong.done()
}

// One port of a client leads to two services at once, and conntrack changes it for one of them on the way.
func TestTwoServicesFromOnePort(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			m := ambient(t, false)
			source, services := harness.AddressA4, []netip.AddrPort{harness.VIP4, harness.OtherVIP4}
			if v6 {
				source, services = harness.AddressA6, []netip.AddrPort{harness.VIP6, harness.OtherVIP6}
			}
			const rounds = 10
			spans := m.traced(t, 2*2*rounds, func() { fromOnePort(t, m.A.Namespace, netip.AddrPortFrom(source, 33333), services, rounds) })
			found := make(map[string]int)
			servers := make(map[string]netip.AddrPort)
			for _, s := range spans {
				var round, service int
				if _, err := fmt.Sscanf(s.path, "/%d/%d", &service, &round); err != nil || service >= len(services) {
					t.Fatalf("a span of nobody: %v", s)
				}
				found[s.kind()+s.path]++
				if !s.server && (s.peer != services[service] || s.local != netip.AddrPortFrom(source, 33333)) {
					t.Errorf("not to %v: %v", services[service], s)
				}
				if s.server && s.peer.Addr() != source {
					t.Errorf("not from %v: %v", source, s)
				}
				if s.server {
					connection := fmt.Sprint(service)
					if p, ok := servers[connection]; ok && p != s.peer {
						t.Errorf("one connection is %v and %v", p, s.peer)
					}
					servers[connection] = s.peer
				}
			}
			for what, n := range found {
				if n != 1 {
					t.Errorf("%s has %d spans", what, n)
				}
			}
			if len(found) != 2*2*rounds {
				t.Errorf("%d different spans, want %d", len(found), 2*2*rounds)
			}
		})
	}
}

// fromOnePort makes requests "/SERVICE/ROUND" to each service in turn, all from one local port.
func fromOnePort(t *testing.T, ns *harness.Namespace, local netip.AddrPort, services []netip.AddrPort, rounds int) {
	t.Helper()
	var conns []net.Conn
	for _, service := range services {
		must(t, ns.Do(func() error {
			dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(local), Timeout: 5 * time.Second, Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) {
					_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // connect tells if not
				})
			}}
			conn, err := dialer.Dial("tcp", service.String())
			if err == nil {
				conns = append(conns, conn)
			}
			return err
		}))
	}
	for round := range rounds {
		for i, conn := range conns {
			fmt.Fprintf(conn, "GET /%d/%d HTTP/1.1\r\nHost: example.test\r\n\r\n", i, round)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			if got, err := io.ReadAll(response.Body); err != nil || string(got) != body {
				t.Fatalf("service %d answered %q: %v", i, got, err)
			}
		}
	}
	for _, conn := range conns {
		conn.Close()
	}
}
