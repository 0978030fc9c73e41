package exporter

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"ambit/l7"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

var frontend = &l7.Resource{
	ServiceName: "frontend",
	Attributes: []l7.Attribute{
		{Key: "service.name", Str: "frontend"},
		{Key: "process.pid", Int: 4711, IsInt: true},
		{Key: "container.id", Str: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		{Key: "k8s.pod.uid", Str: "8d1f9c1e-0a3a-4b8e-9a53-6f6f5a1c2b3d"},
		{Key: "host.name", Str: "node-1"},
	},
}

var backend = &l7.Resource{
	ServiceName: "backend",
	Attributes:  []l7.Attribute{{Key: "service.name", Str: "backend"}},
}

var startOfTest = time.Date(2026, 9, 1, 12, 30, 15, 250e6, time.UTC).UnixNano()

// exampleSpan is a CLIENT span with every field that such a span usually has.
func exampleSpan() *l7.Span {
	return &l7.Span{
		TraceID:    [16]byte{0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36},
		SpanID:     [8]byte{1, 2, 3, 4, 5, 6, 7, 8},
		ParentID:   [8]byte{8, 7, 6, 5, 4, 3, 2, 1},
		Kind:       l7.Client,
		Start:      startOfTest,
		FirstByte:  startOfTest + 1_500_000,
		End:        startOfTest + 2_000_000,
		Method:     "GET",
		Scheme:     "http",
		Path:       "/api/v1/items/4711",
		Query:      "user=bob&page=2",
		HasQuery:   true,
		Host:       "backend.demo.svc.cluster.local",
		Port:       80,
		Version:    "1.1",
		UserAgent:  "curl/8.5.0",
		RequestID:  "6f9ea5a4-4f3e-4c0f-9f2c-1c1f3e5a6b7c",
		TraceState: "ot=th:8",
		Status:     200,

		ResponseBody: 512,
		Local:        netip.MustParseAddrPort("10.244.1.17:41234"),
		Remote:       netip.MustParseAddrPort("10.96.12.7:80"),
		Route:        "/api/v1/items/{number}",
		Reason:       l7.ReasonHead,
		Rule:         "items",
		Class:        l7.ClassNormal,
		Generation:   7,
		Threshold:    1 << 55,
		HasThreshold: true,
		TraceFlags:   1,
		Anomaly:      &l7.Anomaly{At: startOfTest, Kind: "latency_shift", Value: 0.5, Usual: 0.25},
		Resource:     frontend,
	}
}

// exampleCall is the same of a gRPC call that failed.
func exampleCall() *l7.Span {
	s := exampleSpan()
	s.Method, s.Path, s.Query, s.HasQuery, s.Version = "POST", "/shop.v1.Cart/AddItem", "", false, "2"
	s.Host, s.Port, s.UserAgent, s.Stream = "cart", 50051, "grpc-go/1.75.0", 5
	s.RequestType, s.ResponseType, s.RequestBody = "application/grpc+proto", "application/grpc", 17
	s.RPC, s.GRPCStatus, s.GRPCMessage = l7.GRPC, l7.GRPCNotFound, "no such item: 4711"
	return s
}

// everything is what may be sent beside queries.
var everything = Capture{GRPCMessage: true, ContentType: true}

// numbered is exampleSpan with IDs of its own.
func numbered(n int) *l7.Span {
	s := exampleSpan()
	binary.BigEndian.PutUint64(s.TraceID[:], uint64(n)+1)
	binary.BigEndian.PutUint64(s.SpanID[:], uint64(n)+1)
	return s
}

// decodeSpan reads an encoded span back with the generated types. It fails the test on anything unknown.
func decodeSpan(t *testing.T, body []byte) *tracepb.Span {
	t.Helper()
	var s tracepb.Span
	if err := proto.Unmarshal(body, &s); err != nil {
		t.Fatalf("the span is no protobuf: %v", err)
	}
	noUnknown(t, &s)
	for _, a := range s.Attributes {
		noUnknown(t, a)
		noUnknown(t, a.Value)
	}
	return &s
}

func noUnknown(t *testing.T, m proto.Message) {
	t.Helper()
	if n := len(m.ProtoReflect().GetUnknown()); n > 0 {
		t.Fatalf("%T has %d bytes of unknown fields", m, n)
	}
}

// value is what an AnyValue holds: string, int64, float64, bool or []string.
func value(v *commonpb.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return v.IntValue
	case *commonpb.AnyValue_DoubleValue:
		return v.DoubleValue
	case *commonpb.AnyValue_BoolValue:
		return v.BoolValue
	case *commonpb.AnyValue_ArrayValue:
		var list []string
		for _, e := range v.ArrayValue.Values {
			list = append(list, e.GetStringValue())
		}
		return list
	}
	return nil
}

// attributesOf are the attributes by key. A key that occurs twice fails the test.
func attributesOf(t *testing.T, list []*commonpb.KeyValue) map[string]any {
	t.Helper()
	m := make(map[string]any, len(list))
	for _, a := range list {
		if _, ok := m[a.Key]; ok {
			t.Fatalf("attribute %s occurs twice", a.Key)
		}
		m[a.Key] = value(a.Value)
	}
	return m
}

// absent marks an attribute that must not be there.
type absent struct{}

// holds fails the test where attrs is not what want says.
func holds(t *testing.T, attrs, want map[string]any) {
	t.Helper()
	for key, want := range want {
		have, ok := attrs[key]
		if _, none := want.(absent); none {
			if ok {
				t.Errorf("%s is %v, and should be absent", key, have)
			}
		} else if !reflect.DeepEqual(have, want) {
			t.Errorf("%s is %v, not %v", key, have, want)
		}
	}
}

// encodeSpan encodes s under capture and reads it back.
func encodeSpan(t *testing.T, s *l7.Span, capture QueryCapture) *tracepb.Span {
	t.Helper()
	return encodeCaptured(t, s, Capture{Query: capture})
}

func encodeCaptured(t *testing.T, s *l7.Span, capture Capture) *tracepb.Span {
	t.Helper()
	e := encoder{capture: capture}
	return decodeSpan(t, e.appendSpan(nil, s))
}

// roundTrip marshals messages as the clients do and reads them back.
func roundTrip(t *testing.T, messages []*tracepb.ResourceSpans) []*tracepb.ResourceSpans {
	t.Helper()
	wire, err := proto.Marshal(&coltracepb.ExportTraceServiceRequest{ResourceSpans: messages})
	if err != nil {
		t.Fatal(err)
	}
	var req coltracepb.ExportTraceServiceRequest
	if err := proto.Unmarshal(wire, &req); err != nil {
		t.Fatal(err)
	}
	for _, rs := range req.ResourceSpans {
		noUnknown(t, rs)
		noUnknown(t, rs.Resource)
		for _, ss := range rs.ScopeSpans {
			noUnknown(t, ss)
			noUnknown(t, ss.Scope)
			for _, s := range ss.Spans {
				noUnknown(t, s)
			}
		}
	}
	return req.ResourceSpans
}

func testQueue(t testing.TB, slabs, slabBytes, slabSpans int, delay time.Duration, capture QueryCapture) *queue {
	t.Helper()
	q, err := newQueue(slabs, slabBytes, slabSpans, delay, Capture{Query: capture})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.close(); err != nil {
			t.Error(err)
		}
	})
	return q
}
