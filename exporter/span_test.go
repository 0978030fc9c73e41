package exporter

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"ambit/l7"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

func TestVersionOfConventionsIsThatOfTheImport(t *testing.T) {
	if !strings.HasSuffix(SchemaURL, "/"+SemconvVersion) {
		t.Fatalf("schema URL %s does not end in %s", SchemaURL, SemconvVersion)
	}
}

func TestClientSpanHasEveryField(t *testing.T) {
	s := exampleSpan()
	got := encodeSpan(t, s, QueryKeys)
	if string(got.TraceId) != string(s.TraceID[:]) || string(got.SpanId) != string(s.SpanID[:]) || string(got.ParentSpanId) != string(s.ParentID[:]) {
		t.Errorf("IDs are %x %x %x", got.TraceId, got.SpanId, got.ParentSpanId)
	}
	if got.TraceState != "ot=th:8" || got.Name != "GET" || got.Kind != tracepb.Span_SPAN_KIND_CLIENT || got.Flags != 1 {
		t.Errorf("trace state %q, name %q, kind %v, flags %#x", got.TraceState, got.Name, got.Kind, got.Flags)
	}
	if got.StartTimeUnixNano != uint64(s.Start) || got.EndTimeUnixNano != uint64(s.End) {
		t.Errorf("from %d to %d", got.StartTimeUnixNano, got.EndTimeUnixNano)
	}
	if got.Status != nil {
		t.Errorf("status is %v", got.Status)
	}
	want := map[string]any{
		"server.address":                   "backend.demo.svc.cluster.local",
		"server.port":                      int64(80),
		"network.peer.address":             "10.96.12.7",
		"network.peer.port":                int64(80),
		"network.local.address":            "10.244.1.17",
		"network.local.port":               int64(41234),
		"network.transport":                "tcp",
		"network.type":                     "ipv4",
		"network.protocol.name":            "http",
		"network.protocol.version":         "1.1",
		"http.request.method":              "GET",
		"http.response.status_code":        int64(200),
		"http.response.body.size":          int64(512),
		"http.request.header.x-request-id": []string{"6f9ea5a4-4f3e-4c0f-9f2c-1c1f3e5a6b7c"},
		"url.scheme":                       "http",
		"url.path":                         "/api/v1/items/4711",
		"url.query":                        "user=REDACTED&page=REDACTED",
		"url.full":                         "http://backend.demo.svc.cluster.local/api/v1/items/4711?user=REDACTED&page=REDACTED",
		"user_agent.original":              "curl/8.5.0",
		"ambit.time_to_first_byte":         0.0015,
		"url.template":                     "/api/v1/items/{number}",
		"ambit.sampling.reason":            "head",
		"ambit.sampling.rule":              "items",
		"ambit.sampling.class":             "normal",
		"ambit.sampling.threshold":         "8",
		"ambit.sampling.generation":        int64(7),
	}
	if attrs := attributesOf(t, got.Attributes); !reflect.DeepEqual(attrs, want) {
		t.Errorf("attributes are\n%v\nnot\n%v", attrs, want)
	}
}

func TestSpanAttributes(t *testing.T) {
	cases := []struct {
		what    string
		capture QueryCapture
		change  func(*l7.Span)
		name    string // "" is "GET"
		want    map[string]any
		failed  bool
	}{
		{
			what:   "a SERVER span has its client, and no URL as a whole",
			change: func(s *l7.Span) { s.Kind = l7.Server },
			want: map[string]any{
				"client.address": "10.96.12.7", "client.port": int64(80), "url.full": absent{},
				"network.peer.address": "10.96.12.7", "network.local.address": "10.244.1.17",
				"server.address": "backend.demo.svc.cluster.local", "server.port": int64(80),
			},
		},
		{
			what:   "without Host a CLIENT span's server is the original destination",
			change: func(s *l7.Span) { s.Host, s.Port = "", 0; s.Remote = netip.MustParseAddrPort("10.96.12.7:8080") },
			want: map[string]any{
				"server.address": "10.96.12.7", "server.port": int64(8080),
				"url.full": "http://10.96.12.7:8080/api/v1/items/4711?user=REDACTED&page=REDACTED",
			},
		},
		{
			what:   "without Host a SERVER span's server is its own socket",
			change: func(s *l7.Span) { s.Kind, s.Host, s.Port = l7.Server, "", 0 },
			want:   map[string]any{"server.address": "10.244.1.17", "server.port": int64(41234)},
		},
		{
			what:   "without any address nothing is invented",
			change: func(s *l7.Span) { s.Host, s.Port, s.Local, s.Remote = "", 0, netip.AddrPort{}, netip.AddrPort{} },
			want: map[string]any{
				"server.address": absent{}, "server.port": absent{}, "url.full": absent{}, "network.type": absent{},
				"network.peer.address": absent{}, "network.peer.port": absent{},
				"network.local.address": absent{}, "network.local.port": absent{},
			},
		},
		{
			what: "IPv6 is plain in addresses and in brackets in URLs",
			change: func(s *l7.Span) {
				s.Host, s.Port = "", 0
				s.Remote, s.Local = netip.MustParseAddrPort("[fd00::7]:8080"), netip.MustParseAddrPort("[fd00::1]:5")
			},
			want: map[string]any{
				"server.address": "fd00::7", "network.peer.address": "fd00::7", "network.type": "ipv6",
				"url.full": "http://[fd00::7]:8080/api/v1/items/4711?user=REDACTED&page=REDACTED",
			},
		},
		{
			what:   "an IPv6 literal in Host loses its brackets in server.address alone",
			change: func(s *l7.Span) { s.Host, s.Port, s.HasQuery = "[fd00::9]", 8080, false },
			want: map[string]any{
				"server.address": "fd00::9", "server.port": int64(8080), "url.query": absent{},
				"url.full": "http://[fd00::9]:8080/api/v1/items/4711",
			},
		},
		{
			what: "v4-mapped addresses are IPv4",
			change: func(s *l7.Span) {
				s.Remote, s.Local = netip.MustParseAddrPort("[::ffff:10.1.2.3]:80"), netip.MustParseAddrPort("[::ffff:10.1.2.4]:5")
			},
			want: map[string]any{"network.peer.address": "10.1.2.3", "network.local.address": "10.1.2.4", "network.type": "ipv4"},
		},
		{
			what:   "userinfo in an authority is in no attribute",
			change: func(s *l7.Span) { s.Host, s.HasQuery = "bob:secret@shop.example", false },
			want:   map[string]any{"server.address": "shop.example", "url.full": "http://shop.example/api/v1/items/4711"},
		},
		{
			what:   "the scheme's default port is left out of the URL alone",
			change: func(s *l7.Span) { s.Scheme, s.Port, s.HasQuery = "https", 443, false },
			want: map[string]any{
				"server.port": int64(443), "url.scheme": "https",
				"url.full": "https://backend.demo.svc.cluster.local/api/v1/items/4711",
			},
		},
		{
			what:    "capture.query values keeps the query",
			capture: QueryValues,
			change:  func(*l7.Span) {},
			want: map[string]any{
				"url.query": "user=bob&page=2",
				"url.full":  "http://backend.demo.svc.cluster.local/api/v1/items/4711?user=bob&page=2",
			},
		},
		{
			what:    "capture.query none leaves no trace of a query",
			capture: QueryNone,
			change:  func(*l7.Span) {},
			want:    map[string]any{"url.query": absent{}, "url.full": "http://backend.demo.svc.cluster.local/api/v1/items/4711"},
		},
		{
			what:   "an empty query is there, and differs from none",
			change: func(s *l7.Span) { s.Query = "" },
			want:   map[string]any{"url.query": "", "url.full": "http://backend.demo.svc.cluster.local/api/v1/items/4711?"},
		},
		{
			what:   "a path without a slash cannot change the host",
			change: func(s *l7.Span) { s.Path, s.HasQuery = ".evil.example/x", false },
			want:   map[string]any{"url.path": ".evil.example/x", "url.full": "http://backend.demo.svc.cluster.local/.evil.example/x"},
		},
		{
			what:   "OPTIONS of the server itself has a URL without a path",
			change: func(s *l7.Span) { s.Method, s.Path, s.HasQuery = "OPTIONS", "*", false },
			name:   "OPTIONS",
			want:   map[string]any{"url.path": "*", "url.full": "http://backend.demo.svc.cluster.local"},
		},
		{
			what:   "CONNECT has an authority and no path",
			change: func(s *l7.Span) { s.Method, s.Path, s.Port, s.HasQuery = "CONNECT", "", 8443, false },
			name:   "CONNECT",
			want:   map[string]any{"url.path": absent{}, "url.full": "http://backend.demo.svc.cluster.local:8443"},
		},
		{
			what:   "an unknown method is _OTHER, with the original beside it",
			change: func(s *l7.Span) { s.Method, s.MethodOriginal = "_OTHER", "BREW" },
			name:   "HTTP",
			want:   map[string]any{"http.request.method": "_OTHER", "http.request.method_original": "BREW"},
		},
		{
			what: "of a request that was never seen only what is known is told",
			change: func(s *l7.Span) {
				s.Method, s.Scheme, s.Path, s.HasQuery, s.Host, s.Port, s.Version = "", "", "", false, "", 0, ""
				s.UserAgent, s.RequestID, s.TraceState, s.FirstByte, s.ResponseBody, s.Reason = "", "", "", 0, 0, 0
			},
			name: "HTTP",
			want: map[string]any{
				"http.request.method": absent{}, "url.scheme": absent{}, "url.path": absent{}, "url.query": absent{},
				"url.full": absent{}, "network.protocol.version": absent{}, "user_agent.original": absent{},
				"http.request.header.x-request-id": absent{}, "ambit.time_to_first_byte": absent{},
				"http.response.body.size": absent{}, "http.request.body.size": absent{}, "ambit.sampling.reason": absent{},
				"ambit.sampling.rule": absent{}, "ambit.sampling.class": absent{}, "ambit.sampling.generation": absent{}, "url.template": absent{},
			},
		},
		{
			what:   "body sizes are those of the two bodies",
			change: func(s *l7.Span) { s.RequestBody, s.ResponseBody = 1<<40, 3 },
			want:   map[string]any{"http.request.body.size": int64(1 << 40), "http.response.body.size": int64(3)},
		},
		{
			what:   "404 is an error of a CLIENT",
			change: func(s *l7.Span) { s.Status = 404 },
			want:   map[string]any{"error.type": "404", "http.response.status_code": int64(404)},
			failed: true,
		},
		{
			what:   "404 is none of a SERVER",
			change: func(s *l7.Span) { s.Kind, s.Status = l7.Server, 404 },
			want:   map[string]any{"error.type": absent{}, "http.response.status_code": int64(404)},
		},
		{
			what:   "503 is an error of a SERVER",
			change: func(s *l7.Span) { s.Kind, s.Status = l7.Server, 503 },
			want:   map[string]any{"error.type": "503"},
			failed: true,
		},
		{
			what:   "a status that no convention knows is an error",
			change: func(s *l7.Span) { s.Kind, s.Status = l7.Server, 999 },
			want:   map[string]any{"error.type": "999"},
			failed: true,
		},
		{
			what:   "a redirect is no error",
			change: func(s *l7.Span) { s.Status = 302 },
			want:   map[string]any{"error.type": absent{}},
		},
		{
			what:   "a connection that closed before the response",
			change: func(s *l7.Span) { s.Status, s.Ending, s.FirstByte, s.ResponseBody = 0, l7.EndedByClose, 0, 0 },
			want:   map[string]any{"error.type": "connection_closed", "http.response.status_code": absent{}},
			failed: true,
		},
		{
			what:   "a connection that was reset within a response of 200",
			change: func(s *l7.Span) { s.Ending = l7.EndedByReset },
			want:   map[string]any{"error.type": "connection_reset", "http.response.status_code": int64(200)},
			failed: true,
		},
		{
			what:   "a status that is an error goes before the ending",
			change: func(s *l7.Span) { s.Status, s.Ending = 500, l7.EndedByReset },
			want:   map[string]any{"error.type": "500"},
			failed: true,
		},
		{
			what:   "ambit's own idle limit",
			change: func(s *l7.Span) { s.Kind, s.Status, s.Ending = l7.Server, 0, l7.EndedByIdle },
			want:   map[string]any{"error.type": "timeout"},
			failed: true,
		},
		{
			what: "what was cut is named, in order",
			change: func(s *l7.Span) {
				s.Cut = l7.CutRequestLine | l7.CutHost | l7.CutUserAgent | l7.CutRequestID | l7.CutTraceState
			},
			want: map[string]any{"ambit.cut": []string{"request_line", "host", "user_agent", "x-request-id", "tracestate"}},
		},
		{
			what:   "one cut field is named alone",
			change: func(s *l7.Span) { s.Cut = l7.CutUserAgent },
			want:   map[string]any{"ambit.cut": []string{"user_agent"}},
		},
		{
			what:   "a connection joined in the middle says so, and the caller's decision is a reason",
			change: func(s *l7.Span) { s.Joined, s.Reason = true, l7.ReasonParent },
			want:   map[string]any{"ambit.connection.joined": true, "ambit.sampling.reason": "parent", "ambit.cut": absent{}},
		},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			s := exampleSpan()
			c.change(s)
			got := encodeSpan(t, s, c.capture)
			attrs := attributesOf(t, got.Attributes)
			holds(t, attrs, c.want)
			if c.name == "" {
				c.name = "GET"
			}
			if got.Name != c.name {
				t.Errorf("name is %q, not %q", got.Name, c.name)
			}
			if failed := got.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR; failed != c.failed {
				t.Errorf("status is %v", got.Status)
			}
			if got.Status.GetMessage() != "" {
				t.Errorf("status has the message %q, which error.type tells already", got.Status.Message)
			}
			for key, v := range attrs {
				if text, ok := v.(string); ok && strings.Contains(text, "secret") {
					t.Errorf("%s tells a password: %s", key, text)
				}
			}
		})
	}
}

func TestFlagsAndParent(t *testing.T) {
	cases := []struct {
		what   string
		change func(*l7.Span)
		flags  uint32
		parent bool
	}{
		{"a root has no parent ID, and is sampled", func(s *l7.Span) { s.ParentID = [8]byte{} }, 0x1, false},
		{"the sampled bit is set even where the flags lack it", func(s *l7.Span) { s.TraceFlags = 0 }, 0x1, true},
		{"other trace flags stay", func(s *l7.Span) { s.TraceFlags = 3 }, 0x3, true},
		{"the parent of a SERVER span is in another process", func(s *l7.Span) { s.Kind = l7.Server }, 0x301, true},
		{"a SERVER root has no parent to be remote", func(s *l7.Span) { s.Kind, s.ParentID = l7.Server, [8]byte{} }, 0x1, false},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			s := exampleSpan()
			c.change(s)
			got := encodeSpan(t, s, QueryKeys)
			if got.Flags != c.flags || len(got.ParentSpanId) > 0 != c.parent {
				t.Errorf("flags %#x, parent %x", got.Flags, got.ParentSpanId)
			}
		})
	}
}

// textFields are the strings of a span that come from the network.
func textFields(s *l7.Span) map[string]*string {
	return map[string]*string{
		"method": &s.Method, "original method": &s.MethodOriginal, "scheme": &s.Scheme, "path": &s.Path,
		"query": &s.Query, "host": &s.Host, "version": &s.Version, "user agent": &s.UserAgent,
		"request ID": &s.RequestID, "trace state": &s.TraceState, "command": &s.Owner.Comm,
		"request's type": &s.RequestType, "response's type": &s.ResponseType, "grpc-message": &s.GRPCMessage,
	}
}

func TestEveryByteInEveryFieldIsValidUTF8(t *testing.T) {
	for _, field := range slices.Sorted(maps.Keys(textFields(&l7.Span{}))) {
		for b := range 256 {
			s := exampleSpan()
			*textFields(s)[field] = "a" + string([]byte{byte(b)}) + "z=1"
			s.RPC, s.GRPCStatus = l7.GRPCWeb, l7.GRPCInternal // all of them are sent
			e := encoder{capture: everything}
			got := decodeSpan(t, e.appendSpan(nil, s)) // proto.Unmarshal refuses a string that is not UTF-8
			if repaired := e.repaired > 0; repaired != (b >= 0x80 && field != "command") {
				t.Errorf("%s with byte %#x: %d strings repaired", field, b, e.repaired)
			}
			for _, a := range got.Attributes {
				if text, ok := value(a.Value).(string); ok && !utf8.ValidString(text) {
					t.Errorf("%s with byte %#x: %s is %q", field, b, a.Key, text)
				}
			}
		}
	}
}

func TestLongFieldsKeepTheirLength(t *testing.T) {
	for _, n := range []int{0, 1, 113, 119, 120, 126, 127, 128, 129, 16_370, 16_384, 20_000} {
		s := exampleSpan()
		s.UserAgent, s.RequestID = strings.Repeat("u", n+1), strings.Repeat("r", n+1)
		attrs := attributesOf(t, encodeSpan(t, s, QueryKeys).Attributes)
		if attrs["user_agent.original"] != s.UserAgent || !reflect.DeepEqual(attrs["http.request.header.x-request-id"], []string{s.RequestID}) {
			t.Errorf("text of %d bytes changed", n+1)
		}
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	client, server := exampleSpan(), exampleSpan()
	server.Kind, server.Status, server.Cut = l7.Server, 503, l7.CutHost
	client.Host = ""
	e := encoder{}
	buf := make([]byte, 0, 8192)
	if n := testing.AllocsPerRun(100, func() {
		buf = e.appendSpan(buf[:0], client)
		buf = e.appendSpan(buf[:0], server)
	}); n != 0 {
		t.Errorf("two spans take %v allocations", n)
	}
}
