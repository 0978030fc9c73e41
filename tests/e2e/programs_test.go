package e2e

import (
	"testing"

	"ambit/tests/e2e/stage"
)

// Every client program talks to every server program. What their logs say, and nothing else, is on the spans.
func TestPrograms(t *testing.T) {
	n := newNetwork(t)
	st := n.stage(t)
	upstream := newGoServer(t, n.server, upstreamPort)
	static, proxy := newNginx(t, n.server, upstream)
	for _, s := range []struct {
		name string
		*webServer
	}{
		{"Go", newGoServer(t, n.server, goPort)},
		{"Node", newNodeServer(t, n.server)},
		{"Python", newPythonServer(t, n.server)},
		{"nginx's files", static},
		{"nginx as a proxy", proxy},
	} {
		for _, c := range webClients {
			t.Run(c.name+" to "+s.name, func(t *testing.T) { converse(t, n, st, c, s.webServer) })
		}
	}
}

// converse lets one client do its plan with one server.
func converse(t *testing.T, n *network, st *stage.Stage, c webClient, s *webServer) {
	first, second := keptAlive, simple
	if s.files {
		first, second = files, files
	}
	plan := s.connections(c.name, first, second)
	if c.more != nil {
		plan = append(plan, c.more(s)...)
	}
	clientLines, release := c.do(t, n.clientNS, plan)
	count := len(clientLines)
	serverLines := s.lines(t, count)
	var upstreamLines map[string]line
	sides := 2
	if s.app != nil {
		upstreamLines = s.app.lines(t, count)
		sides = 4
	}
	spans, counts := st.Spans(t, sides*count)
	release()
	if counts.DroppedTotal() > 0 {
		t.Errorf("exchanges were dropped: %v", counts)
	}

	var hops []hop
	for _, conn := range plan {
		ports := map[uint16]bool{}
		for _, r := range conn.Requests {
			l := clientLines[r.ID]
			ports[l.LocalPort] = true
			if l.Status != r.status() {
				t.Errorf("%s was answered with %d, want %d", r.ID, l.Status, r.status())
			}
			hops = append(hops, hop{asked: r, client: l, server: serverLines[r.ID], services: [2]string{c.name, s.name}})
			if s.app != nil {
				hops = append(hops, hop{
					asked: r, client: l, server: upstreamLines[r.ID], services: [2]string{s.name, s.app.name}, proxied: true,
				})
			}
		}
		if len(ports) != 1 && !conn.Urllib {
			t.Errorf("the requests to %s went over %d connections", conn.Host, len(ports))
		}
	}
	verify(t, spans, hops)
	for _, span := range spans {
		if !span.Client() && span.Attributes["network.local.port"] == int64(s.port) && span.Resource["process.pid"] != int64(s.process.PID()) {
			t.Errorf("the server's process is %v, want %d", span.Resource["process.pid"], s.process.PID())
		}
	}
}
