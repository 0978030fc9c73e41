package http2

import (
	"fmt"
	"testing"

	"ambit/tests/e2e/stage"
)

// A server that gives connections up by GOAWAY: what it had not looked at is refused on the spans of both sides, and its
// client asks for it again over the next connection.
func TestGoaway(t *testing.T) {
	n := cable(t)
	st := n.stage(t)
	s := newNginxFor(t, n, 50)
	c := webClients[2]
	_, _, target := n.addresses(s.port)
	plan := connection{
		Address: target.String(), Authority: target.String(), Streams: 16, Requests: numbered(files, 60), alone: true,
	}
	clientLines, release := c.do(t, n, plan)
	hops := s.hops(t, n, plan, clientLines, [2]string{c.name, s.name})
	for i := range hops {
		hops[i].client.Local = hops[i].server.Peer // it logged the first try's
	}
	spans, counts := st.Settled(t)
	release()
	if counts.DroppedTotal() > 0 || counts.Events["connections"] < uint64(2*len(hops)/50) {
		t.Errorf("%v", counts)
	}
	refused := map[string]int{}
	var answered []stage.Span
	for _, span := range spans {
		if span.Attributes["http.response.status_code"] != nil {
			answered = append(answered, span)
			continue
		}
		refused[fmt.Sprint(span.Attributes["error.type"], " ", span.Attributes["ambit.reset_by"], " ", span.Attributes["ambit.http2.error_code"])]++
	}
	t.Logf("without an answer: %v", refused)
	delete(refused, "REFUSED_STREAM server NO_ERROR")
	if len(refused) > 0 {
		t.Errorf("without an answer are %v", refused)
	}
	verify(t, answered, hops)
}
