package http2

import (
	"fmt"
	"testing"
)

// A connection that begins as HTTP/1 and asks to go on as HTTP/2: its first request is one exchange, like each that follows.
// Behind the proxy that agrees to it all is HTTP/2.
func TestUpgrade(t *testing.T) {
	n := cable(t)
	st := n.stage(t)
	app := newGoServer(t, n, true)
	proxy := newNghttpx(t, n, app)
	_, _, target := n.addresses(proxy.port)
	for _, c := range []struct {
		webClient
		streams int
	}{
		{webClient{name: "curl", do: func(t *testing.T, n *network, c connection) (map[string]line, func()) {
			return curlBy(t, n, c, "--http2")
		}}, 1},
		{webClient{name: "curl", do: func(t *testing.T, n *network, c connection) (map[string]line, func()) {
			return curlBy(t, n, c, "--http2")
		}}, 10},
		{webClient{name: "nghttp", do: func(t *testing.T, n *network, c connection) (map[string]line, func()) {
			return nghttpBy(t, n, c, "--upgrade")
		}, plain: true}, 100},
	} {
		t.Run(fmt.Sprintf("%s, %d streams", c.name, c.streams), func(t *testing.T) {
			// Without the last target, of which the proxy makes a tidy one.
			plan := connection{Address: target.String(), Authority: target.String(), Streams: c.streams, Requests: numbered(plain[:len(plain)-1], 3)}
			clientLines, release := c.do(t, n, plan)
			hops := app.hops(t, n, plan, clientLines, [2]string{c.name, proxy.name})
			for i := range hops {
				h := &hops[i]
				h.upgraded = i == 0
				h.source, h.local, h.target = n.addresses(proxy.port)
				behind := *h
				behind.services, behind.proxied, behind.upgraded = [2]string{proxy.name, app.name}, true, false
				behind.source, behind.local, behind.target = own(app.port)
				h.server = line{Authority: h.server.Authority, Agent: h.server.Agent, Received: -1, Sent: h.server.Sent}
				hops = append(hops, behind)
			}
			spans, counts := st.Spans(t, 2*len(hops))
			release()
			if counts.DroppedTotal() > 0 {
				t.Errorf("exchanges were dropped: %v", counts)
			}
			verify(t, spans, hops)
		})
	}
}
