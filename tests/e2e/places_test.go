package e2e

import (
	"maps"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

func TestMain(m *testing.M) {
	roles.Dispatch()
	os.Exit(stage.Main(m))
}

// Two namespaces with a cable between them.
var (
	clientIP4 = netip.MustParseAddr("10.77.0.1")
	serverIP4 = netip.MustParseAddr("10.77.0.2")
	clientIP6 = netip.MustParseAddr("fd77::1")
	serverIP6 = netip.MustParseAddr("fd77::2")
)

// network is what most tests act in.
type network struct {
	lab              *harness.Lab
	clientNS, server *harness.Namespace
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	n := &network{lab: stage.NewLab(t)}
	n.clientNS, n.server = stage.Cable(t, n.lab,
		[2]netip.Prefix{netip.PrefixFrom(clientIP4, 24), netip.PrefixFrom(serverIP4, 24)},
		[2]netip.Prefix{netip.PrefixFrom(clientIP6, 64), netip.PrefixFrom(serverIP6, 64)},
	)
	return n
}

func (n *network) stage(t testing.TB, flags ...string) *stage.Stage {
	t.Helper()
	return stage.Start(t, stage.Config{Lab: n.lab, Namespaces: []*harness.Namespace{n.clientNS, n.server}, Flags: flags})
}

func (n *network) loopback() place {
	return place{
		name: "loopback", clientNS: n.server, server: n.server, to: netip.MustParseAddr("127.0.0.1"),
		listen: "127.0.0.1:0", spans: 2,
	}
}

func (n *network) cable() place {
	return place{name: "two namespaces", clientNS: n.clientNS, server: n.server, to: serverIP4, listen: "0.0.0.0:0", spans: 2}
}

// places are all the ways from a client to a server.
func (n *network) places() []place {
	return []place{
		n.loopback(),
		n.cable(),
		{name: "IPv6", clientNS: n.clientNS, server: n.server, to: serverIP6, listen: "[fd77::2]:0", spans: 2},
		{name: "IPv4 to a dual-stack listener", clientNS: n.clientNS, server: n.server, to: serverIP4, listen: "[::]:0", spans: 2},
		{name: "IPv6 loopback", clientNS: n.server, server: n.server, to: netip.IPv6Loopback(), listen: "[::1]:0", spans: 2},
	}
}

// reuse lets a port be used again at once.
func reuse(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // connect tells if not
	})
}

// scene is a conversation and what must come of it.
type scene struct {
	name string // a sentence
	say  script
	want []exchange
	// dropped are exchange sides lost by reason, unsampled those not kept, both on one side of a connection;
	// events are counted once per tap of the connection where the value is positive, and at will where it is 0.
	dropped   map[string]int
	unsampled int
	events    map[string]int
}

// ordinary are events that are part of every conversation.
var ordinary = map[string]bool{"connections": true, "connections_ended": true}

// check plays a scene at a place and holds what the stage saw against it.
func (sc scene) check(t *testing.T, st *stage.Stage, p place) {
	t.Helper()
	c := connect(t, p, netip.AddrPort{})
	if err := c.play(sc.say); err != nil {
		t.Errorf("the script failed: %v", err)
	}
	c.close()
	sc.verify(t, st, p, c)
}

func (sc scene) verify(t *testing.T, st *stage.Stage, p place, c *conversation) {
	t.Helper()
	spans, counts := st.Spans(t, p.spans*len(sc.want))
	compare(t, spans, sc.want, c, p.spans)
	sc.count(t, counts, p)
}

func (sc scene) count(t *testing.T, counts stage.Counts, p place) {
	t.Helper()
	dropped := make(map[string]uint64)
	for reason, n := range sc.dropped {
		dropped[reason] = uint64(n * p.spans)
	}
	if !maps.Equal(counts.Dropped, dropped) {
		t.Errorf("dropped were %v, want %v", counts.Dropped, dropped)
	}
	if counts.Unsampled != uint64(sc.unsampled*p.spans) {
		t.Errorf("%d sides were not sampled, want %d", counts.Unsampled, sc.unsampled*p.spans)
	}
	taps := uint64(1)
	if p.clientNS != p.server {
		taps = 2
	}
	for event, n := range sc.events {
		if n > 0 && counts.Events[event] != uint64(n)*taps {
			t.Errorf("event %s was counted %d times, want %d", event, counts.Events[event], uint64(n)*taps)
		}
	}
	for event, n := range counts.Events {
		if _, ok := sc.events[event]; !ok && !ordinary[event] {
			t.Errorf("event %s was counted %d times", event, n)
		}
	}
}

// everywhere plays scenes at every place.
func everywhere(t *testing.T, scenes []scene) {
	n := newNetwork(t)
	st := n.stage(t)
	for _, p := range n.places() {
		t.Run(p.name, func(t *testing.T) {
			for _, sc := range scenes {
				t.Run(sc.name, func(t *testing.T) { sc.check(t, st, p) })
			}
		})
	}
}
