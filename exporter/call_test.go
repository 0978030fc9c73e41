package exporter

import (
	"reflect"
	"testing"

	"ambit/l7"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

func TestCallHasEveryField(t *testing.T) {
	got := encodeCaptured(t, exampleCall(), everything)
	if got.Name != "shop.v1.Cart/AddItem" || got.Kind != tracepb.Span_SPAN_KIND_CLIENT {
		t.Errorf("name %q, kind %v", got.Name, got.Kind)
	}
	if got.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || got.Status.GetMessage() != "no such item: 4711" {
		t.Errorf("status is %v", got.Status)
	}
	want := map[string]any{
		"rpc.system.name":                   "grpc",
		"rpc.method":                        "shop.v1.Cart/AddItem",
		"rpc.response.status_code":          "NOT_FOUND",
		"rpc.request.metadata.x-request-id": []string{"6f9ea5a4-4f3e-4c0f-9f2c-1c1f3e5a6b7c"},
		"error.type":                        "NOT_FOUND",
		"server.address":                    "cart",
		"server.port":                       int64(50051),
		"network.peer.address":              "10.96.12.7",
		"network.peer.port":                 int64(80),
		"network.local.address":             "10.244.1.17",
		"network.local.port":                int64(41234),
		"network.transport":                 "tcp",
		"network.type":                      "ipv4",
		"network.protocol.name":             "http",
		"network.protocol.version":          "2",
		"http.request.body.size":            int64(17),
		"http.response.body.size":           int64(512),
		"http.request.header.content-type":  []string{"application/grpc+proto"},
		"http.response.header.content-type": []string{"application/grpc"},
		"user_agent.original":               "grpc-go/1.75.0",
		"ambit.http2.stream":                int64(5),
		"ambit.time_to_first_byte":          0.0015,
		"ambit.sampling.reason":             "head",
		"ambit.sampling.rule":               "items",
		"ambit.sampling.class":              "normal",
		"ambit.sampling.threshold":          "8",
		"ambit.sampling.generation":         int64(7),
	}
	if attrs := attributesOf(t, got.Attributes); !reflect.DeepEqual(attrs, want) {
		t.Errorf("attributes are\n%v\nnot\n%v", attrs, want)
	}
}

func TestCallAttributes(t *testing.T) {
	cases := []struct {
		what    string
		capture Capture
		change  func(*l7.Span)
		name    string
		message string
		want    map[string]any
	}{
		{
			what:    "a failed call's message is left out where it is not to be sent",
			capture: Capture{ContentType: true},
			change:  func(s *l7.Span) { s.Cut = l7.CutGRPCMessage },
			name:    "shop.v1.Cart/AddItem",
			want:    map[string]any{"error.type": "NOT_FOUND", "ambit.cut": absent{}},
		},
		{
			what:    "content types are left out by default",
			capture: Capture{GRPCMessage: true},
			change:  func(s *l7.Span) { s.Cut = l7.CutContentType | l7.CutResponseType | l7.CutGRPCMessage },
			name:    "shop.v1.Cart/AddItem",
			message: "no such item: 4711",
			want: map[string]any{
				"http.request.header.content-type": absent{}, "http.response.header.content-type": absent{},
				"ambit.cut": []string{"grpc-message"},
			},
		},
		{
			what:    "a call that did not fail has no status, whatever the message says",
			capture: everything,
			change:  func(s *l7.Span) { s.Kind = l7.Server },
			name:    "shop.v1.Cart/AddItem",
			want:    map[string]any{"rpc.response.status_code": "NOT_FOUND", "error.type": absent{}, "client.port": int64(80)},
		},
		{
			what:   "a path that names no method is _OTHER, and no name",
			change: func(s *l7.Span) { s.Path = "/health" },
			name:   "grpc",
			want:   map[string]any{"rpc.method": "_OTHER", "rpc.method_original": "/health", "url.path": absent{}},
		},
		{
			what:   "half of a path names none either",
			change: func(s *l7.Span) { s.Cut = l7.CutPath },
			name:   "grpc",
			want: map[string]any{
				"rpc.method": "_OTHER", "rpc.method_original": "/shop.v1.Cart/AddItem", "ambit.cut": []string{"path"},
			},
		},
		{
			what: "an unknown path is an unknown method",
			change: func(s *l7.Span) {
				s.Path, s.Method, s.Scheme, s.RequestUnknown = "", "", "", true
			},
			name: "grpc",
			want: map[string]any{
				"rpc.system.name": "grpc", "rpc.method": absent{}, "rpc.method_original": absent{},
				"ambit.unknown": []string{"request"},
			},
		},
		{
			what:   "a status of HTTP is told where it is not 200",
			change: func(s *l7.Span) { s.Status, s.GRPCStatus = 503, l7.NoGRPCStatus },
			name:   "shop.v1.Cart/AddItem",
			want:   map[string]any{"http.response.status_code": int64(503), "rpc.response.status_code": "UNAVAILABLE"},
		},
		{
			what:    "gRPC-Web is a call and a request",
			capture: everything,
			change:  func(s *l7.Span) { s.RPC, s.GRPCStatus, s.GRPCMessage = l7.GRPCWeb, l7.NoGRPCStatus, "" },
			name:    "shop.v1.Cart/AddItem",
			want: map[string]any{
				"rpc.system.name": "grpc", "rpc.method": "shop.v1.Cart/AddItem", "rpc.response.status_code": absent{},
				"http.request.method": "POST", "http.response.status_code": int64(200), "url.path": "/shop.v1.Cart/AddItem",
				"url.full":                         "http://cart:50051/shop.v1.Cart/AddItem",
				"http.request.header.x-request-id": []string{"6f9ea5a4-4f3e-4c0f-9f2c-1c1f3e5a6b7c"},
			},
		},
		{
			what:    "gRPC-Web with grpc-status in a header has its status",
			capture: everything,
			change:  func(s *l7.Span) { s.RPC, s.Method, s.MethodOriginal = l7.GRPCWeb, "_OTHER", "BREW" },
			name:    "shop.v1.Cart/AddItem",
			message: "no such item: 4711",
			want: map[string]any{
				"rpc.response.status_code": "NOT_FOUND", "error.type": "NOT_FOUND", "http.response.status_code": int64(200),
				"http.request.method": "_OTHER", "http.request.method_original": "BREW",
			},
		},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			s := exampleCall()
			c.change(s)
			got := encodeCaptured(t, s, c.capture)
			holds(t, attributesOf(t, got.Attributes), c.want)
			if got.Name != c.name || got.Status.GetMessage() != c.message {
				t.Errorf("name is %q, status %v", got.Name, got.Status)
			}
		})
	}
}

func TestStreamAttributes(t *testing.T) {
	cases := []struct {
		what   string
		change func(*l7.Span)
		want   map[string]any
	}{
		{
			"HTTP/1 has no streams",
			func(s *l7.Span) {},
			map[string]any{"ambit.http2.stream": absent{}, "ambit.http2.error_code": absent{}, "ambit.reset_by": absent{}},
		},
		{
			"a stream that its client cancelled",
			func(s *l7.Span) {
				s.Stream, s.Ending, s.ErrorCode, s.ResetByClient = 7, l7.EndedByStreamReset, l7.CancelStream, true
			},
			map[string]any{
				"ambit.http2.stream": int64(7), "ambit.http2.error_code": "CANCEL", "ambit.reset_by": "client", "error.type": "CANCEL",
			},
		},
		{
			"a stream that its server reset with a code that RFC 9113 does not have",
			func(s *l7.Span) { s.Stream, s.Ending, s.ErrorCode = 7, l7.EndedByStreamReset, 0x1f },
			map[string]any{"ambit.http2.error_code": "0x1f", "ambit.reset_by": "server", "error.type": "0x1f"},
		},
		{
			"a stream that GOAWAY gave back",
			func(s *l7.Span) { s.Stream, s.Ending, s.Status, s.FirstByte = 7, l7.EndedByRefusal, 0, 0 },
			map[string]any{"ambit.http2.error_code": "NO_ERROR", "ambit.reset_by": "server", "error.type": "REFUSED_STREAM"},
		},
		{
			"what is unknown of both heads is named",
			func(s *l7.Span) { s.RequestUnknown, s.ResponseUnknown = true, true },
			map[string]any{"ambit.unknown": []string{"request", "response"}},
		},
		{
			"what is unknown of the response alone too",
			func(s *l7.Span) { s.ResponseUnknown = true },
			map[string]any{"ambit.unknown": []string{"response"}},
		},
		{
			"without its path a URL would be another one",
			func(s *l7.Span) { s.Path, s.HasQuery, s.RequestUnknown = "", false, true },
			map[string]any{"url.path": absent{}, "url.full": absent{}, "server.address": "backend.demo.svc.cluster.local"},
		},
		{
			"what was cut of HTTP/2's heads is named, in order",
			func(s *l7.Span) {
				s.Cut = l7.CutMethod | l7.CutPath | l7.CutScheme | l7.CutHost | l7.CutContentType | l7.CutResponseType
			},
			map[string]any{"ambit.cut": []string{"method", "path", "scheme", "host", "request.content-type", "response.content-type"}},
		},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			s := exampleSpan()
			c.change(s)
			holds(t, attributesOf(t, encodeCaptured(t, s, everything).Attributes), c.want)
		})
	}
}

func TestEncodingCallsAllocatesNothing(t *testing.T) {
	client, server := exampleCall(), exampleCall()
	server.Kind, server.GRPCStatus, server.Ending, server.Path = l7.Server, l7.NoGRPCStatus, l7.EndedByStreamReset, "/shop.v1.Cart/Drop"
	server.ErrorCode = l7.EnhanceYourCalm
	e := encoder{capture: everything}
	buf := make([]byte, 0, 8192)
	if n := testing.AllocsPerRun(100, func() {
		buf = e.appendSpan(buf[:0], client)
		buf = e.appendSpan(buf[:0], server)
	}); n != 0 {
		t.Errorf("two spans take %v allocations", n)
	}
}
