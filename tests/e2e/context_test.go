package e2e

import (
	"net/netip"
	"strings"
	"testing"

	"ambit/tests/e2e/stage"
)

const (
	trace32  = "0af7651916cd43dd8448eb211c80319c"
	trace16  = "8448eb211c80319c"
	span16   = "b7ad6b7169203331"
	sampled  = "traceparent: 00-" + trace32 + "-" + span16 + "-01"
	unmarked = "traceparent: 00-" + trace32 + "-" + span16 + "-00"
)

// asks is a request with these header lines, and its response.
func asks(headers ...string) script {
	return script{ask(1, lines(append([]string{"GET / HTTP/1.1", "Host: shop"}, headers...)...)), tell(1, okay)}
}

// traced is what comes of a caller who decided.
func traced(trace, state string) exchange {
	x := plainly
	x.trace, x.parent, x.flags, x.reason, x.state = trace, span16, 1, "parent", state
	return x
}

func TestContext(t *testing.T) {
	undecided := plainly
	undecided.trace, undecided.parent, undecided.flags = "0000000000000000"+trace16, span16, 1
	alone := plainly
	alone.flags, alone.reason, alone.state = 3, "parent", "-"
	random := traced(trace32, "-")
	random.flags = 3
	everywhere(t, []scene{
		{name: "traceparent, sampled", say: asks(sampled), want: []exchange{traced(trace32, "-")}},
		{name: "its flags stay", say: asks(strings.Replace(sampled, "-01", "-03", 1)), want: []exchange{random}},
		{name: "traceparent, not sampled", say: asks(unmarked), unsampled: 1},
		{name: "a traceparent that is none", say: asks("traceparent: 00-" + strings.Repeat("0", 32) + "-" + span16 + "-01"), want: []exchange{plainly}},
		{
			name: "tracestate with a threshold that keeps",
			say:  asks(sampled, "tracestate: vendor=x,ot=th:8;rv:ffffffffffffff"),
			want: []exchange{traced(trace32, "ot=th:8;rv:ffffffffffffff,vendor=x")},
		},
		{
			name: "tracestate with a threshold that would not have kept",
			say:  asks(sampled, "tracestate: ot=rv:00000000000001;th:8,vendor=x"),
			want: []exchange{traced(trace32, "ot=rv:00000000000001,vendor=x")},
		},
		{name: "tracestate in two lines", say: asks(sampled, "tracestate: a=1", "tracestate: b=2"), want: []exchange{traced(trace32, "a=1,b=2")}},
		{name: "b3 in one line", say: asks("b3: " + trace32 + "-" + span16 + "-1"), want: []exchange{traced(trace32, "-")}},
		{name: "b3 in one line, not sampled", say: asks("b3: " + trace32 + "-" + span16 + "-0"), unsampled: 1},
		{name: "b3 in one line, debug, 64 bits", say: asks("B3: " + trace16 + "-" + span16 + "-d"), want: []exchange{traced("0000000000000000"+trace16, "-")}},
		{name: "b3 in one line, undecided", say: asks("b3: " + trace16 + "-" + span16), want: []exchange{undecided}},
		{name: "b3, a refusal alone", say: asks("b3: 0"), unsampled: 1},
		{name: "b3, a decision alone", say: asks("b3: 1"), want: []exchange{alone}},
		{
			name: "b3 in several lines",
			say:  asks("X-B3-Sampled: 1", "X-B3-SpanId: "+span16, "X-B3-TraceId: "+trace32, "X-B3-ParentSpanId: 00000000000000aa"),
			want: []exchange{traced(trace32, "-")},
		},
		{name: "b3 in several lines, not sampled", say: asks("X-B3-TraceId: "+trace32, "X-B3-SpanId: "+span16, "X-B3-Sampled: 0"), unsampled: 1},
		{name: "b3 in several lines, by flags", say: asks("X-B3-TraceId: "+trace32, "X-B3-SpanId: "+span16, "X-B3-Flags: 1"), want: []exchange{traced(trace32, "-")}},
		{name: "b3 in several lines, undecided", say: asks("X-B3-TraceId: "+trace16, "X-B3-SpanId: "+span16), want: []exchange{undecided}},
		{name: "traceparent goes before b3", say: asks("b3: "+trace16+"-00000000000000aa-0", sampled), want: []exchange{traced(trace32, "-")}},
	})
}

// The same x-request-id is the same trace, on any connection; without one no two requests share a trace.
func TestRequestID(t *testing.T) {
	n := newNetwork(t)
	st := n.stage(t)
	traces := map[string]map[string]bool{}
	for range 2 {
		for _, p := range n.places() {
			c := connect(t, p, netip.AddrPort{})
			stage.Must(t, c.play(append(append(append(asks("x-request-id: a"), asks("X-Request-ID: b")...), asks("x-request-id:  a ")...), asks()...)))
			c.close()
			spans, _ := st.Spans(t, 4*p.spans)
			a, b, none := plainly, plainly, plainly
			a.requestID, b.requestID = "a", "b"
			compare(t, spans, []exchange{a, b, a, none}, c, p.spans)
			for _, s := range spans {
				id := "none"
				if list, ok := s.Attributes["http.request.header.x-request-id"].([]any); ok {
					id = list[0].(string)
				}
				if traces[id] == nil {
					traces[id] = map[string]bool{}
				}
				traces[id][s.TraceID] = true
			}
		}
	}
	connections := 2 * len(n.places())
	if len(traces["a"]) != 1 || len(traces["b"]) != 1 || len(traces["none"]) != connections {
		t.Errorf("the traces are %v, want one of a, one of b and %d others", traces, connections)
	}
}

// Headers are believed by the client's address.
func TestTrustContext(t *testing.T) {
	n := newNetwork(t)
	st := n.stage(t, "--trust-context", "10.77.0.0/24,fd99::/16")
	places := n.places()
	for _, test := range []struct {
		place    place
		believed bool
	}{{places[0], false}, {places[1], true}, {places[2], false}, {places[3], true}, {places[4], false}} {
		t.Run(test.place.name, func(t *testing.T) {
			say := append(asks(sampled, "tracestate: vendor=x"), asks(unmarked, "tracestate: vendor=x")...)
			say = append(append(say, asks("b3: "+trace32+"-"+span16+"-0")...), asks("x-request-id: a")...)
			named := plainly
			named.requestID = "a"
			want := []exchange{plainly, plainly, plainly, named}
			unsampled := 0
			if test.believed {
				want, unsampled = []exchange{traced(trace32, "vendor=x"), at(3, named)}, 2
			}
			c := connect(t, test.place, netip.AddrPort{})
			stage.Must(t, c.play(say))
			c.close()
			spans, counts := st.Spans(t, len(want)*test.place.spans)
			compare(t, spans, want, c, test.place.spans)
			if counts.Unsampled != uint64(unsampled*test.place.spans) {
				t.Errorf("%v", counts)
			}
			for _, s := range spans {
				if !test.believed && s.TraceID == trace32 {
					t.Error("a stranger chose the trace")
				}
			}
		})
	}
}
