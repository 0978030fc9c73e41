package http2

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

// ordinary are events that are part of every conversation.
var ordinary = map[string]bool{"connections": true, "connections_ended": true, "connections_http2": true}

// A hop is one request over one connection, by the logs of its two ends: of one of them there may be none, with no target.
type hop struct {
	asked          asked
	client, server line
	services       [2]string // of the client and of the server
	version        string
	source         netip.Addr
	local, target  netip.AddrPort // of the server's socket, and what the client connected to
	whole          bool           // nothing ends the connection in between
	// proxied says that a proxy asked, which keeps no log: the client's times bound it.
	proxied bool
	// upgraded says that the request came as HTTP/1, and the response as HTTP/2.
	upgraded bool
}

// agree holds the two logs against each other: where endpoints differ, no span could be right.
func (h *hop) agree(t testing.TB) {
	t.Helper()
	c, s := h.client, h.server
	if c.Target == "" || s.Target == "" {
		return
	}
	differ := c.Status != s.Status || c.Method != s.Method || c.Target != s.Target || c.Received != s.Sent && s.Sent >= 0 && c.Received >= 0 ||
		c.Sent != s.Received && s.Received >= 0
	if h.whole && !h.proxied && c.Local != "" {
		here, _ := end(c.Local)
		there, _ := end(s.Peer)
		differ = differ || here != there
	}
	if differ {
		t.Errorf("the logs differ:\n%+v\n%+v", c, s)
	}
}

func known[T comparable](values ...T) (v T) {
	for _, v = range values {
		if v != *new(T) {
			return v
		}
	}
	return v
}

// methods are those that the conventions know.
var methods = map[string]bool{
	"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "CONNECT": true, "OPTIONS": true, "TRACE": true,
	"PATCH": true, "QUERY": true,
}

// anything is the value of an attribute that has to be there and of which no log tells.
const anything = "anything"

// attributes is what the span of one side must have.
func (h *hop) attributes(t testing.TB, client bool) map[string]any {
	t.Helper()
	c, s := h.client, h.server
	a := map[string]any{
		"network.transport": "tcp", "network.type": "ipv4", "network.protocol.name": "http", "network.protocol.version": h.version,
		"url.scheme": "http", "ambit.sampling.reason": "head",
	}
	if h.upgraded {
		a["network.protocol.version"] = "1.1"
	}
	if h.asked.Headers["traceparent"] != "" {
		a["ambit.sampling.reason"] = "parent"
	}
	path, query, hasQuery := strings.Cut(h.asked.Target, "?")
	a["url.path"] = path
	if hasQuery {
		a["url.query"] = query
	}
	method := h.asked.Method
	a["http.request.method"] = method
	if !methods[method] {
		a["http.request.method"], a["http.request.method_original"] = "_OTHER", method
	}
	authority := known(s.Authority, c.Authority)
	name, port := authority, int64(80)
	if host, number, found := strings.Cut(authority, ":"); found {
		name = host
		_, err := fmt.Sscan(number, &port)
		stage.Must(t, err)
	}
	a["server.address"], a["server.port"] = name, port
	if client {
		if port != 80 {
			name = fmt.Sprintf("%s:%d", name, port)
		}
		a["url.full"] = "http://" + name + h.asked.Target
	}
	a["user_agent.original"] = known(s.Agent, c.Agent, anything)
	if id := known(s.RequestID, c.RequestID); id != "" {
		a["http.request.header.x-request-id"] = []any{id}
	}
	status := known(c.Status, s.Status)
	a["http.response.status_code"] = int64(status)
	if status >= 500 || status >= 400 && client {
		a["error.type"] = fmt.Sprint(status)
	}
	if n := max(c.Sent, s.Received); n > 0 {
		a["http.request.body.size"] = n
	}
	if n := max(c.Received, s.Sent); n > 0 {
		a["http.response.body.size"] = n
	}
	h.ends(t, client, a)
	return a
}

// ends are the attributes of the connection.
func (h *hop) ends(t testing.TB, client bool, a map[string]any) {
	t.Helper()
	// The port of the client's socket: beyond ztunnel it is another one.
	ofClient, err := end(h.client.Local)
	stage.Must(t, err)
	ofServer, err := end(h.server.Peer)
	stage.Must(t, err)
	if h.proxied {
		ofClient = netip.AddrPort{}
	}
	if h.whole {
		ofClient = known(ofClient, ofServer)
		ofServer = ofClient
	}
	port := func(at netip.AddrPort) any {
		if at.Port() == 0 {
			return anything
		}
		return int64(at.Port())
	}
	if client {
		a["network.peer.address"], a["network.peer.port"] = h.target.Addr().String(), int64(h.target.Port())
		a["network.local.address"], a["network.local.port"] = h.source.String(), port(ofClient)
		return
	}
	a["network.local.address"], a["network.local.port"] = h.local.Addr().String(), int64(h.local.Port())
	a["network.peer.address"], a["network.peer.port"] = h.source.String(), port(ofServer)
	a["client.address"], a["client.port"] = a["network.peer.address"], a["network.peer.port"]
}

// complaints keeps what is wrong from flooding the terminal.
type complaints struct {
	t testing.TB
	n int
}

func (c *complaints) add(format string, args ...any) {
	c.t.Helper()
	if c.n++; c.n <= 10 {
		c.t.Errorf(format, args...)
	}
}

func (c *complaints) done() {
	c.t.Helper()
	if c.n > 10 {
		c.t.Errorf("%d more of the kind", c.n-10)
	}
}

// verify finds the two spans of every hop and holds them against the logs. No other span may have come.
func verify(t *testing.T, spans []stage.Span, hops []hop) {
	t.Helper()
	type key struct {
		target string
		client bool
		port   int64
	}
	wrong := complaints{t: t}
	defer wrong.done()
	found := make(map[key]*stage.Span)
	for i := range spans {
		s := &spans[i]
		k := key{client: s.Client()}
		k.target, _ = s.Attributes["url.path"].(string)
		if query, ok := s.Attributes["url.query"].(string); ok {
			k.target += "?" + query
		}
		if k.client {
			k.port, _ = s.Attributes["network.peer.port"].(int64)
		} else {
			k.port, _ = s.Attributes["network.local.port"].(int64)
		}
		if found[k] != nil {
			wrong.add("two spans are of %+v", k)
		}
		found[k] = s
	}
	for i := range hops {
		h := &hops[i]
		h.agree(t)
		keys := [2]key{{h.asked.Target, true, int64(h.target.Port())}, {h.asked.Target, false, int64(h.local.Port())}}
		sides := [2]*stage.Span{found[keys[0]], found[keys[1]]}
		for e, s := range sides {
			if s == nil {
				wrong.add("no span is of %+v", keys[e])
				continue
			}
			delete(found, keys[e])
			h.compare(&wrong, s)
		}
		if sides[0] != nil && sides[1] != nil {
			h.join(&wrong, sides[0], sides[1])
		}
	}
	for k, s := range found {
		wrong.add("an unexpected span is of %+v: %v", k, s.Attributes)
	}
}

// join holds the two spans of one request against each other.
func (h *hop) join(wrong *complaints, client, server *stage.Span) {
	header := h.asked.Headers["traceparent"]
	carried := header != "" || h.asked.Headers["x-request-id"] != ""
	if joined := server.TraceID == client.TraceID; joined != (h.whole || carried) {
		wrong.add("%s: one trace is %v", h.asked.Target, joined)
	}
	if h.whole && server.ParentID != client.SpanID || !h.whole && server.ParentID != client.ParentID {
		wrong.add("%s: the SERVER span's parent is %q, the CLIENT span is %s, its parent %q", h.asked.Target, server.ParentID, client.SpanID, client.ParentID)
	}
	if header != "" && (client.TraceID != header[3:35] || client.ParentID != header[36:52]) {
		wrong.add("%s: the CLIENT span is %s of trace %s, the header says %s", h.asked.Target, client.ParentID, client.TraceID, header)
	}
	if h.whole && client.Attributes["ambit.http2.stream"] != server.Attributes["ambit.http2.stream"] {
		wrong.add("%s is stream %v and %v", h.asked.Target, client.Attributes["ambit.http2.stream"], server.Attributes["ambit.http2.stream"])
	}
}

// slack is what the clocks of a test and of the kernel may differ by.
const slack = time.Millisecond

func (h *hop) compare(wrong *complaints, s *stage.Span) {
	got := maps.Clone(s.Attributes)
	first, _ := got["ambit.time_to_first_byte"].(float64)
	delete(got, "ambit.time_to_first_byte")
	if h.version == "2" && !h.upgraded {
		if stream, ok := got["ambit.http2.stream"].(int64); !ok || stream%2 != 1 {
			wrong.add("%s, %v: stream %v", h.asked.Target, s.Kind, got["ambit.http2.stream"])
		}
		delete(got, "ambit.http2.stream")
	}
	want := h.attributes(wrong.t, s.Client())
	if d := append(stage.TakeSampling(s, got, h.upgraded), differences(got, want)...); d != nil {
		wrong.add("%s, %v: %s", h.asked.Target, s.Kind, strings.Join(d, "; "))
	}
	name := h.asked.Method
	if !methods[name] {
		name = "HTTP"
	}
	failed := want["error.type"] != nil
	service := h.services[1]
	if s.Client() {
		service = h.services[0]
	}
	if s.Name != name || s.Failed != failed || s.Resource["service.name"] != service {
		wrong.add("%s, %v: it is %s of %v, failed %v; want %s of %s, failed %v", h.asked.Target, s.Kind, s.Name, s.Resource["service.name"], s.Failed,
			name, service, failed)
	}
	answered := s.Start.Add(time.Duration(first * 1e9))
	if first <= 0 || answered.After(s.End) {
		wrong.add("%s, %v: it lasts from %v to %v, the first byte after %v s", h.asked.Target, s.Kind, s.Start, s.End, first)
	}
	at := func(ms float64) time.Time { return time.UnixMicro(int64(ms * 1e3)) }
	if c := h.client; c.Target != "" && (s.Start.Before(at(c.Begun).Add(-slack)) || s.End.After(at(c.Ended).Add(slack))) {
		wrong.add("%s, %v: it lasts from %v to %v, by the client from %v to %v", h.asked.Target, s.Kind, s.Start, s.End, at(c.Begun), at(c.Ended))
	}
	if begun := h.server.Begun; begun > 0 && s.Start.After(at(begun).Add(slack)) {
		wrong.add("%s, %v: it starts at %v, the server had its head at %v", h.asked.Target, s.Kind, s.Start, at(begun))
	}
}

// differences lists what two sets of attributes differ in.
func differences(got, want map[string]any) []string {
	keys := slices.Collect(maps.Keys(got))
	for key := range want {
		if _, ok := got[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var out []string
	for _, key := range keys {
		if want[key] == anything && got[key] != nil || reflect.DeepEqual(got[key], want[key]) {
			continue
		}
		out = append(out, fmt.Sprintf("%s is %.200q, want %.200q", key, fmt.Sprint(got[key]), fmt.Sprint(want[key])))
	}
	return out
}
