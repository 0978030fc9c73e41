package e2e

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

// exchange is one request and its response as the endpoints logged them. Every attribute that a span of it
// may have follows from this; a span with another one, or without one of these, is wrong.
type exchange struct {
	method    string // "" is GET
	target    string // as sent, up to where it is cut; "" is "/"
	host      string // server.address where a Host or a target named one
	port      int    // beside host; 0 is 80
	scheme    string // "" is http
	path      string // where it is not what target has before "?"
	query     string // and behind it
	userAgent string
	requestID string
	version   string // "" is 1.1; "-" is none
	status    int    // 0 is none
	request   int64  // bytes of the bodies
	response  int64
	failure   string   // error.type where the exchange did not end with a response
	cut       []string // ambit.cut
	joined    bool
	reason    string    // "" is head
	services  [2]string // of the client's process and of the server's; "" is this program

	trace  string // trace ID by a header; "" is any
	parent string // the CLIENT span's
	state  string // tracestate; "" is ot=th:0
	flags  uint32 // trace flags; 0 is sampled and random

	place int // among the conversation's exchanges, from 1; 0 is the same as among those that are wanted
	// anytime is for parts of a step in several pieces: when each begins and ends is not known.
	anytime bool
}

// at says which of the conversation's exchanges, counted from 0, x is: others were lost.
func at(place int, x exchange) exchange {
	x.place = place + 1
	return x
}

var known = map[string]bool{
	"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "CONNECT": true, "OPTIONS": true, "TRACE": true,
	"PATCH": true, "QUERY": true,
}

// attributes is what the span of one side must have, the time to the first byte apart.
func (x exchange) attributes(isClient bool, ends [2]netip.AddrPort) map[string]any {
	peer, local := ends[server], ends[client]
	if !isClient {
		peer, local = local, peer
	}
	family := "ipv6"
	if peer.Addr().Is4() {
		family = "ipv4"
	}
	a := map[string]any{
		"network.transport": "tcp", "network.protocol.name": "http", "network.type": family,
		"network.peer.address": peer.Addr().String(), "network.peer.port": int64(peer.Port()),
		"network.local.address": local.Addr().String(), "network.local.port": int64(local.Port()),
		"ambit.sampling.reason": or(x.reason, "head"),
		"url.scheme":            or(x.scheme, "http"),
	}
	if !isClient {
		a["client.address"], a["client.port"] = a["network.peer.address"], a["network.peer.port"]
	}
	method := or(x.method, "GET")
	a["http.request.method"] = method
	if !known[method] {
		a["http.request.method"], a["http.request.method_original"] = "_OTHER", method
	}
	if x.version != "-" {
		a["network.protocol.version"] = or(x.version, "1.1")
	}
	path, query, hasQuery := strings.Cut(or(x.target, "/"), "?")
	if x.path != "" {
		path, query, hasQuery = x.path, x.query, x.query != ""
	}
	if method == "CONNECT" {
		path, hasQuery = "", false
	}
	if path != "" {
		a["url.path"] = path
	}
	if hasQuery {
		a["url.query"] = query
	}
	host, port := x.host, x.port
	if host == "" {
		host, port = ends[server].Addr().String(), int(ends[server].Port())
	} else if port == 0 {
		port = 80
	}
	a["server.address"], a["server.port"] = host, int64(port)
	if isClient {
		a["url.full"] = fullURL(or(x.scheme, "http"), host, port, path, query, hasQuery)
	}
	for key, text := range map[string]string{"user_agent.original": x.userAgent, "error.type": x.errorType(isClient)} {
		if text != "" {
			a[key] = text
		}
	}
	for key, n := range map[string]int64{
		"http.response.status_code": int64(x.status), "http.request.body.size": x.request, "http.response.body.size": x.response,
	} {
		if n != 0 {
			a[key] = n
		}
	}
	if x.requestID != "" {
		a["http.request.header.x-request-id"] = []any{x.requestID}
	}
	if x.cut != nil {
		list := make([]any, len(x.cut))
		for i, field := range x.cut {
			list[i] = field
		}
		a["ambit.cut"] = list
	}
	if x.joined {
		a["ambit.connection.joined"] = true
	}
	return a
}

func (x exchange) errorType(isClient bool) string {
	if x.status >= 500 || x.status >= 400 && isClient {
		return fmt.Sprint(x.status)
	}
	return x.failure
}

func fullURL(scheme, host string, port int, path, query string, hasQuery bool) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if !(scheme == "http" && port == 80 || scheme == "https" && port == 443) {
		host = fmt.Sprintf("%s:%d", host, port)
	}
	if path == "*" {
		path = ""
	}
	url := scheme + "://" + host + path
	if hasQuery {
		url += "?" + query
	}
	return url
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// slack is what the clocks of a test and of the kernel may differ by.
const slack = time.Millisecond

func (m moment) has(t time.Time) bool {
	return !t.Before(m.from.Add(-slack)) && !t.After(m.to.Add(slack))
}

// compare holds the spans of one connection, by start, to its exchanges, in their order.
func compare(t testing.TB, spans []stage.Span, want []exchange, c *conversation, sides int) {
	t.Helper()
	clients, servers := sorted(spans)
	if len(clients) != 0 && len(clients) != len(want) || len(servers) != 0 && len(servers) != len(want) || len(spans) != sides*len(want) {
		t.Errorf("%d CLIENT and %d SERVER spans came, want %d of %d sides", len(clients), len(servers), len(want), sides)
		return
	}
	for i, x := range want {
		place := i
		if x.place > 0 {
			place = x.place - 1
		}
		var when times
		if place < len(c.times) && !x.anytime {
			when = c.times[place]
		}
		if len(clients) > 0 {
			compareSpan(t, i, clients[i], x, c, when)
		}
		if len(servers) > 0 {
			compareSpan(t, i, servers[i], x, c, when)
		}
		if len(clients) > 0 && len(servers) > 0 {
			if servers[i].ParentID != clients[i].SpanID || servers[i].TraceID != clients[i].TraceID {
				t.Errorf("exchange %d: the SERVER span %s/%s is no child of the CLIENT span %s/%s", i,
					servers[i].TraceID, servers[i].ParentID, clients[i].TraceID, clients[i].SpanID)
			}
		}
	}
}

func sorted(spans []stage.Span) (clients, servers []stage.Span) {
	for _, s := range spans {
		if s.Client() {
			clients = append(clients, s)
		} else {
			servers = append(servers, s)
		}
	}
	return clients, servers
}

func compareSpan(t testing.TB, i int, s stage.Span, x exchange, c *conversation, when times) {
	t.Helper()
	complain := func(format string, args ...any) {
		t.Helper()
		t.Errorf("exchange %d, %v: %s", i, s.Kind, fmt.Sprintf(format, args...))
	}
	got := maps.Clone(s.Attributes)
	first, hasFirst := got["ambit.time_to_first_byte"].(float64)
	delete(got, "ambit.time_to_first_byte")
	for _, difference := range append(stage.TakeSampling(&s, got, false), differences(got, x.attributes(s.Client(), c.addresses))...) {
		complain("%s", difference)
	}
	name := or(x.method, "GET")
	if !known[name] {
		name = "HTTP"
	}
	if s.Name != name {
		complain("it is named %q, want %q", s.Name, name)
	}
	if s.Failed != (x.errorType(s.Client()) != "") {
		complain("its status says failed: %v", s.Failed)
	}
	if x.trace != "" && s.TraceID != x.trace {
		complain("the trace is %s, want %s", s.TraceID, x.trace)
	}
	if s.Client() && s.ParentID != x.parent {
		complain("the parent is %q, want %q", s.ParentID, x.parent)
	}
	if state := x.tracestate(); s.TraceState != state {
		complain("tracestate is %q, want %q", s.TraceState, state)
	}
	flags := x.flags
	if flags == 0 {
		flags = 3
	}
	if s.Flags&0xff != flags {
		complain("flags are %x, want %x", s.Flags&0xff, flags)
	}
	service := x.services[server]
	if s.Client() {
		service = x.services[client]
	}
	if s.Resource["service.name"] != or(service, "e2e.test") {
		complain("service.name is %v, want %s", s.Resource["service.name"], or(service, "e2e.test"))
	}
	if !x.anytime {
		compareTimes(complain, s, when, first, hasFirst)
	}
}

func (x exchange) tracestate() string {
	switch x.state {
	case "":
		return "ot=th:0"
	case "-":
		return ""
	}
	return x.state
}

// compareTimes holds start, first byte and end to when the endpoints wrote and read them.
func compareTimes(complain func(string, ...any), s stage.Span, when times, first float64, hasFirst bool) {
	if !when.asked.from.IsZero() && !when.asked.has(s.Start) {
		complain("it starts %v after the request was written", s.Start.Sub(when.asked.from))
	}
	if hasFirst != !when.answered.from.IsZero() {
		complain("it has a time to the first byte: %v", hasFirst)
	}
	if hasFirst {
		at := s.Start.Add(time.Duration(first * 1e9))
		if !when.answered.has(at) {
			complain("the response begins %v after it was written", at.Sub(when.answered.from))
		}
	}
	if !when.ended.from.IsZero() && !when.ended.has(s.End) {
		complain("it ends %v after its last byte was written", s.End.Sub(when.ended.from))
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
		if !reflect.DeepEqual(got[key], want[key]) {
			out = append(out, fmt.Sprintf("%s is %.200q, want %.200q", key, fmt.Sprint(got[key]), fmt.Sprint(want[key])))
		}
	}
	return out
}
