package e2e

import (
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

func TestIdleLimit(t *testing.T) {
	n := newNetwork(t)
	st := n.stage(t, "--idle-limit", "1s")
	begun := "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"
	quiet := script{ask(1, plain)}
	partly := exchange{host: "shop", status: 200, response: 4, failure: "timeout"}
	upload := exchange{method: "POST", target: "/up", host: "shop", request: 4, failure: "timeout"}
	for _, p := range n.places()[1:3] {
		t.Run(p.name, func(t *testing.T) {
			var all []*conversation
			scripts := []script{quiet, {ask(1, plain), head(begun)}, {ask(1, lines("POST /up HTTP/1.1", "Host: shop", "Content-Length: 10")+"0123")}}
			for _, say := range scripts {
				c := connect(t, p, netip.AddrPort{})
				stage.Must(t, c.play(say))
				all = append(all, c)
			}
			spans, counts := st.Spans(t, p.spans*len(all))
			for i, want := range []exchange{unanswered("timeout"), partly, upload} {
				want.anytime = true
				compare(t, of(spans, all[i]), []exchange{want}, all[i], p.spans)
			}
			if counts.DroppedTotal() > 0 {
				t.Errorf("%v", counts)
			}
			for _, s := range spans {
				if took := s.End.Sub(s.Start); took < time.Second {
					t.Errorf("it was given up after %v", took)
				}
			}
			// What comes later belongs to nothing any more, and the next turn is right.
			stage.Must(t,
				all[0].play(script{{from: server, data: okay}, ask(1, plain), step{from: server, data: okay}}),
				all[1].play(script{{from: server, data: "456789"}, ask(1, plain), step{from: server, data: okay}}),
			)
			spans, _ = st.Spans(t, 2*p.spans)
			next := plainly
			next.anytime = true
			for _, c := range all[:2] {
				compare(t, of(spans, c), []exchange{next}, c, p.spans)
			}
			for _, c := range all {
				c.close()
			}
			st.Settled(t)
		})
	}
}

// of are the spans of one connection.
func of(spans []stage.Span, c *conversation) []stage.Span {
	var own []stage.Span
	for _, s := range spans {
		for e := range c.addresses {
			here, there := c.addresses[e], c.addresses[1-e]
			if s.Attributes["network.local.port"] == int64(here.Port()) && s.Attributes["network.peer.port"] == int64(there.Port()) {
				own = append(own, s)
			}
		}
	}
	return own
}

// A ring buffer that nobody empties fills; what finds no room is counted, and what comes afterwards is whole.
func TestRingFull(t *testing.T) {
	const turns = 600
	n := newNetwork(t)
	st := n.stage(t, "--ring-size", "64KiB")
	p := n.loopback()
	turn := script{ask(1, plain), tell(1, okay)}
	c := connect(t, p, netip.AddrPort{})
	thaw := st.Freeze(t)
	stage.Must(t, c.play(repeat(turns, turn)))
	thaw()
	spans, counts := st.Settled(t)
	full, pressed := counts.Dropped["ring_full"], counts.Events["sides_ring_pressed"]
	if counts.Seen != 2*turns || full == 0 || counts.DroppedTotal() != full || counts.Unsampled != pressed ||
		counts.Exported+full+pressed != 2*turns || uint64(len(spans)) != counts.Exported {
		t.Errorf("%d spans came of %d sides; %v", len(spans), 2*turns, counts)
	}
	// The first ones are all there: seven eighths of the buffer take everything.
	whole := slices.DeleteFunc(spans, func(s stage.Span) bool { return s.TraceState != "ot=th:0" })
	if len(whole) < 60 {
		t.Errorf("%d spans say that all were kept, want those that 56 KiB hold", len(whole))
	}
	compare(t, whole, several(len(whole)/2, plainly), c, 2)
	for range 3 {
		c := connect(t, p, netip.AddrPort{})
		stage.Must(t, c.play(repeat(20, turn)))
		c.close()
		scene{want: several(20, plainly)}.verify(t, st, p, c)
	}
}

// As the ring buffer fills up thresholds rise: what comes through says how many it stands for.
func TestRingPressed(t *testing.T) {
	const turns = 2000
	n := newNetwork(t)
	st := n.stage(t, "--ring-size", "1MiB")
	c := connect(t, n.loopback(), netip.AddrPort{})
	thaw := st.Freeze(t)
	stage.Must(t, c.play(repeat(turns, script{ask(1, plain), tell(1, okay)})))
	thaw()
	spans, counts := st.Settled(t)
	pressed := counts.Events["sides_ring_pressed"]
	if counts.DroppedTotal() > 0 || pressed < turns/10 || counts.Unsampled != pressed || counts.Exported+pressed != 2*turns {
		t.Errorf("%d spans came, %v", len(spans), counts)
	}
	for _, kind := range []bool{true, false} {
		var estimate, variance float64
		for i := range spans {
			if spans[i].Client() == kind {
				p, known := stage.Probability(t, &spans[i])
				if !known {
					t.Fatalf("span %d has no threshold", i)
				}
				estimate += 1 / p
				variance += (1 - p) / (p * p)
			}
		}
		off := (estimate - turns) / math.Sqrt(variance)
		t.Logf("client %v: estimate %.0f of %d, off by %.2f standard errors", kind, estimate, turns, off)
		if math.Abs(off) > 4 {
			t.Errorf("client %v: the estimate is %.0f, want %d; off by %.1f standard errors", kind, estimate, turns, off)
		}
	}
}

// Connections beyond the table's size are not followed, and counted; when others have ended there is room again.
func TestConnectionsTableFull(t *testing.T) {
	const limit, connections = 64, 100
	n := newNetwork(t)
	st := n.stage(t, "--max-connections", "64")
	p := n.loopback()
	turn := script{ask(1, plain), tell(1, okay)}
	for range 2 {
		var all []*conversation
		for range connections {
			c := connect(t, p, netip.AddrPort{})
			stage.Must(t, c.play(turn))
			all = append(all, c)
		}
		spans, counts := st.Spans(t, 2*limit)
		if n := counts.Events["connections_table_full"]; n < connections-limit || counts.Seen != 2*limit {
			t.Errorf("%v", counts)
		}
		for i, c := range all {
			var want []exchange
			if i < limit {
				want = []exchange{plainly}
			}
			compare(t, of(spans, c), want, c, 2)
			c.close()
		}
		st.Settled(t)
	}
	scene{say: turn, want: []exchange{plainly}}.check(t, st, p)
}
