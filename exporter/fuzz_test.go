package exporter

import (
	"testing"

	"ambit/l7"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// FuzzSpan takes any text in any field: what is sent must be protobuf with nothing unknown in it, and what
// is shown must not steer a terminal.
func FuzzSpan(f *testing.F) {
	f.Add("GET", "/a", "b=c&d", "host.example", "curl", "id", "ot=th:8", uint16(80), 200, uint8(0), uint16(3))
	f.Add("\xff", "*", "\x00", "[::1]", "\x1b[2J", "", "", uint16(0), 0, uint8(7), uint16(0xffff))
	f.Fuzz(func(t *testing.T, method, path, query, host, agent, id, state string, port uint16, status int, bits uint8, cut uint16) {
		s := exampleSpan()
		s.Method, s.Path, s.Query, s.Host, s.UserAgent, s.RequestID, s.TraceState = method, path, query, host, agent, id, state
		s.Port, s.Status, s.Cut = port, status, l7.Cut(cut)
		s.Kind, s.Ending, s.HasQuery = l7.Kind(bits&1), l7.Ending(bits>>1&7), bits&8 == 0
		s.RPC, s.GRPCStatus, s.GRPCMessage = l7.RPC(cut>>12%3), l7.GRPCCode(port), query
		s.ErrorCode, s.Stream, s.RequestType, s.ResponseType = l7.ErrorCode(port), uint32(cut), agent, id
		s.RequestUnknown, s.ResponseUnknown, s.ResetByClient = cut&1 != 0, cut&2 != 0, cut&4 != 0
		s.Route, s.RouteFromRule, s.Rule, s.Reason, s.Class = path, cut&8 != 0, agent, l7.Reason(bits), l7.Class(bits>>2)
		s.Threshold, s.HasThreshold, s.Generation = uint64(port)<<40, cut&16 != 0, uint32(cut)
		if bits&2 != 0 {
			s.Anomaly = nil
		}
		e := encoder{capture: Capture{
			Query: QueryCapture(bits >> 4 % 3), GRPCMessage: bits&64 != 0, ContentType: bits&32 != 0, GuessedRoute: bits&128 != 0,
		}}
		e.appendSpan(nil, exampleSpan())
		body := e.appendSpan(nil, s)
		if again, fresh := e.appendSpan(nil, s), (&encoder{capture: e.capture}).appendSpan(nil, s); string(again) != string(body) || string(fresh) != string(body) {
			t.Fatalf("the encoding depends on what went before:\n%q\n%q\n%q", body, again, fresh)
		}
		var got tracepb.Span
		if err := proto.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		noUnknown(t, &got)
		for _, a := range got.Attributes {
			noUnknown(t, a)
			noUnknown(t, a.Value)
		}
		visible(t, "line", Line(s, Style{Width: int(bits), Query: e.capture.Query}))
	})
}
