package http2

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"ambit/tests/e2e/stage"
)

// Every client program talks to every server program. What their logs say, and nothing else, is on the spans.
func TestPrograms(t *testing.T) {
	n := cable(t)
	st := n.stage(t)
	for _, s := range []*webServer{
		newGoServer(t, n, true), newNodeServer(t, n), newNginx(t, n), newNghttpd(t, n),
	} {
		for _, c := range webClients {
			for _, streams := range c.streams {
				t.Run(fmt.Sprintf("%s to %s, %d streams", c.name, s.name, streams), func(t *testing.T) {
					converse(t, n, st, c, s, streams)
				})
			}
		}
	}
}

// What ends a connection in between is not seen on the spans, except for the addresses.
func TestProgramsInMesh(t *testing.T) {
	n := ambient(t)
	st := n.stage(t)
	s := newGoServer(t, n, true)
	for _, c := range webClients {
		t.Run(c.name+" to Go", func(t *testing.T) { converse(t, n, st, c, s, slices.Max(c.streams)) })
	}
	stop(t, s.process)
	s = newNghttpd(t, n)
	t.Run("nghttp to nghttpd", func(t *testing.T) { converse(t, n, st, webClients[1], s, 100) })
}

// converse lets one client do its plan with one server.
func converse(t *testing.T, n *network, st *stage.Stage, c webClient, s *webServer, streams int) {
	_, _, target := n.addresses(s.port)
	requests := slices.Concat(mixed, evicting)
	switch {
	case s.files:
		requests = files
	case c.plain:
		requests = plain
	case c.alone:
		requests = byCurl
	}
	if c.plain {
		requests = slices.DeleteFunc(slices.Clone(requests), func(r asked) bool { return r.Headers != nil || r.Method != "" && r.Method != "GET" })
	}
	plan := connection{Address: target.String(), Authority: target.String(), Streams: streams, Requests: numbered(requests, 2), alone: c.alone}
	if target.Port() == 80 {
		plan.Address = target.Addr().String() // as a URL has it
		plan.Authority = plan.Address
	}
	if streams == 1 {
		plan.Authority = "shop.example"
	}
	clientLines, release := c.do(t, n, plan)
	hops := s.hops(t, n, plan, clientLines, [2]string{c.name, s.name})
	spans, counts := st.Spans(t, 2*len(hops))
	release()
	if counts.DroppedTotal() > 0 {
		t.Errorf("exchanges were dropped: %v", counts)
	}
	for event := range counts.Events {
		if !ordinary[event] {
			t.Errorf("event %s was counted: %v", event, counts)
		}
	}
	verify(t, spans, hops)
}

// hops are the requests of a plan by the logs of client and server.
func (s *webServer) hops(t *testing.T, n *network, plan connection, clientLines map[string]line, services [2]string) []hop {
	t.Helper()
	serverLines := map[string]line{}
	if s.log != nil {
		for _, l := range s.log.next(t, len(plan.Requests), s.process) {
			serverLines[l.Target] = l
		}
	}
	var hops []hop
	ports := map[string]bool{}
	for _, r := range plan.Requests {
		h := hop{asked: r, client: clientLines[r.Target], server: serverLines[r.Target], services: services, version: "2", whole: !n.mesh}
		h.source, h.local, h.target = n.addresses(s.port)
		if h.client.Status != r.status && r.status != 0 {
			t.Errorf("%s was answered with %d, want %d", r.Target, h.client.Status, r.status)
		}
		if h.client.Received < 0 && h.server.Sent <= 0 {
			h.client.Received = r.size
		}
		ports[h.client.Local] = true
		hops = append(hops, h)
	}
	if len(ports) != 1 && !plan.alone {
		t.Errorf("the requests went over %d connections", len(ports))
	}
	return hops
}

// own is a connection within the server's namespace.
func own(port uint16) (source netip.Addr, local, target netip.AddrPort) {
	source = netip.MustParseAddr("127.0.0.1")
	local = netip.AddrPortFrom(source, port)
	return source, local, local
}
