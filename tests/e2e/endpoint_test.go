package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

// line is what an endpoint logged of one request. Times are milliseconds since 1970; 0 is unknown, and so is a size of -1.
type line struct {
	ID        string  `json:"id"` // the User-Agent
	Method    string  `json:"method"`
	Target    string  `json:"target"`
	Host      string  `json:"host,omitempty"`
	Version   string  `json:"version,omitempty"`
	Status    int     `json:"status"`
	Sent      int64   `json:"sent"` // bytes of the body, without framing
	Received  int64   `json:"received"`
	Begun     float64 `json:"begun"` // by a server: when it had read the head
	Ended     float64 `json:"ended,omitempty"`
	Local     string  `json:"local"`
	LocalPort uint16  `json:"local_port"`
	Peer      string  `json:"peer"`
	PeerPort  uint16  `json:"peer_port"`

	// nginx alone
	Framing string `json:"framing,omitempty"`
	Expect  string `json:"expect,omitempty"`
}

func (l *line) setEnds(local, peer string) {
	here, there := netip.MustParseAddrPort(local), netip.MustParseAddrPort(peer)
	l.Local, l.LocalPort = here.Addr().Unmap().String(), here.Port()
	l.Peer, l.PeerPort = there.Addr().Unmap().String(), there.Port()
}

func (l *line) local() (netip.AddrPort, error) {
	address, err := netip.ParseAddr(l.Local)
	return netip.AddrPortFrom(address, l.LocalPort), err
}

func (l *line) peer() (netip.AddrPort, error) {
	address, err := netip.ParseAddr(l.Peer)
	return netip.AddrPortFrom(address, l.PeerPort), err
}

// parse reads a log: a line of JSON per request.
func parse(log []byte) ([]line, error) {
	var all []line
	for text := range bytes.Lines(log) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return all, fmt.Errorf("read %q: %w", text, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// hop is one request over one connection, by the logs of both its ends. A proxy logs no line as a client: then the
// times of the client before it bound this one.
type hop struct {
	asked          asked
	client, server line
	services       [2]string
	proxied        bool // a proxy sent it
}

// agree holds the two logs against each other: where endpoints differ, no span could be right.
func (h *hop) agree(t testing.TB) {
	t.Helper()
	c, s := h.client, h.server
	if c.Status != s.Status || c.Method != s.Method || c.Received != s.Sent && s.Sent >= 0 || c.Sent != s.Received && s.Received >= 0 {
		t.Errorf("the logs differ:\n%+v\n%+v", c, s)
	}
	if !h.proxied && (c.Local != s.Peer || c.LocalPort != s.PeerPort || c.Peer != s.Local || c.PeerPort != s.LocalPort) {
		t.Errorf("the logs name other connections:\n%+v\n%+v", c, s)
	}
}

// exchange is what the spans of both sides must say.
func (h *hop) exchange(t testing.TB) (exchange, *conversation) {
	t.Helper()
	c, s := h.client, h.server
	x := exchange{
		method: s.Method, target: h.asked.Target, userAgent: s.ID, version: strings.TrimPrefix(s.Version, "HTTP/"),
		status: s.Status, request: c.Sent, response: c.Received, services: h.services, requestID: h.asked.Headers["X-Request-Id"],
	}
	host := s.Host
	if rest, absolute := strings.CutPrefix(x.target, "http://"); absolute {
		authority, path, _ := strings.Cut(rest, "/")
		host = authority
		x.path, x.query, _ = strings.Cut("/"+path, "?")
	}
	if address, err := netip.ParseAddrPort(host); err == nil {
		x.host, x.port = address.Addr().String(), int(address.Port())
	} else if name, port, found := strings.Cut(host, ":"); found {
		x.host = name
		if _, err := fmt.Sscan(port, &x.port); err != nil {
			t.Errorf("Host %q: %v", host, err)
		}
	} else {
		x.host = host
	}
	if header := h.asked.Headers["Traceparent"]; header != "" {
		x.trace, x.parent, x.flags, x.reason, x.state = header[3:35], header[36:52], 1, "parent", "-"
	}
	local, err := s.local()
	stage.Must(t, err)
	peer, err := s.peer()
	stage.Must(t, err)
	return x, &conversation{addresses: [2]netip.AddrPort{client: peer, server: local}}
}

// times are the bounds that the logs give: the server had the head before the response began.
func (h *hop) times() times {
	at := func(ms float64) time.Time { return time.UnixMicro(int64(ms * 1e3)) }
	begun, ended := at(h.client.Begun), at(h.client.Ended)
	seen := ended
	after := begun
	if h.server.Begun > 0 {
		seen = at(h.server.Begun)
		after = seen
	}
	return times{asked: moment{begun, seen}, answered: moment{after, ended}, ended: moment{after, ended}}
}

// verify finds the two spans of every hop and holds them against the logs. No other span may have come.
func verify(t *testing.T, spans []stage.Span, hops []hop) {
	t.Helper()
	type key struct {
		id     string
		client bool
		port   int64
	}
	found := make(map[key]*stage.Span)
	for i := range spans {
		s := &spans[i]
		k := key{fmt.Sprint(s.Attributes["user_agent.original"]), s.Client(), s.Attributes["network.local.port"].(int64)}
		if found[k] != nil {
			t.Errorf("two spans are of %+v", k)
		}
		found[k] = s
	}
	for i := range hops {
		h := &hops[i]
		t.Run(h.asked.ID+" to "+h.services[server], func(t *testing.T) {
			h.agree(t)
			x, c := h.exchange(t)
			keys := [2]key{{h.asked.ID, true, int64(c.addresses[client].Port())}, {h.asked.ID, false, int64(c.addresses[server].Port())}}
			sides := [2]*stage.Span{found[keys[0]], found[keys[1]]}
			for e, s := range sides {
				if s == nil {
					t.Fatalf("no span is of %+v", keys[e])
				}
				compareSpan(t, 0, *s, x, c, h.times())
				delete(found, keys[e])
			}
			if sides[server].ParentID != sides[client].SpanID || sides[server].TraceID != sides[client].TraceID {
				t.Errorf("the SERVER span %s/%s is no child of the CLIENT span %s/%s",
					sides[server].TraceID, sides[server].ParentID, sides[client].TraceID, sides[client].SpanID)
			}
		})
	}
	for k, s := range found {
		t.Errorf("an unexpected span is of %+v: %v", k, s.Attributes)
	}
}
