package stage

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	colmetricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Span is a span as it came over OTLP. IDs are hexadecimal, an absent one is "".
type Span struct {
	TraceID, SpanID, ParentID string
	Name                      string
	Kind                      tracepb.Span_SpanKind
	Start, End                time.Time
	TraceState                string
	Flags                     uint32
	Failed                    bool           // its status is an error
	Message                   string         // the status's description
	Attributes                map[string]any // string, int64, float64, bool, or []any of them
	Resource                  map[string]any
}

// Client tells the side that opened the connection.
func (s *Span) Client() bool { return s.Kind == tracepb.Span_SPAN_KIND_CLIENT }

// collector is an OTLP receiver on a loopback port of the host's namespace, which no stage taps. A batch with a
// string that is not valid UTF-8 can't be decoded: it is refused, and the exporter's counters show it.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer
	address string
	metrics metrics

	mu    sync.Mutex
	spans []Span
}

func newCollector(t testing.TB) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: listener.Addr().String()}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	coltracepb.RegisterTraceServiceServer(server, c)
	colmetricspb.RegisterMetricsServiceServer(server, &c.metrics)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return c
}

// Export takes a batch.
func (c *collector) Export(_ context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	var spans []Span
	for _, rs := range req.ResourceSpans {
		resource := values(rs.Resource.GetAttributes())
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				spans = append(spans, read(s, resource))
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, spans...)
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

func read(s *tracepb.Span, resource map[string]any) Span {
	return Span{
		TraceID:    hex.EncodeToString(s.TraceId),
		SpanID:     hex.EncodeToString(s.SpanId),
		ParentID:   hex.EncodeToString(s.ParentSpanId),
		Name:       s.Name,
		Kind:       s.Kind,
		Start:      time.Unix(0, int64(s.StartTimeUnixNano)),
		End:        time.Unix(0, int64(s.EndTimeUnixNano)),
		TraceState: s.TraceState,
		Flags:      s.Flags,
		Failed:     s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		Message:    s.Status.GetMessage(),
		Attributes: values(s.Attributes),
		Resource:   resource,
	}
}

// take hands over what came since it was last called, by start; equal ones as they came.
func (c *collector) take() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := c.spans
	c.spans = nil
	slices.SortStableFunc(spans, func(a, b Span) int {
		return a.Start.Compare(b.Start)
	})
	return spans
}

func values(attributes []*commonpb.KeyValue) map[string]any {
	m := make(map[string]any, len(attributes))
	for _, a := range attributes {
		if _, twice := m[a.Key]; twice {
			m[a.Key] = fmt.Errorf("%s is there twice", a.Key)
			continue
		}
		m[a.Key] = value(a.Value)
	}
	return m
}

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
		list := make([]any, len(v.ArrayValue.GetValues()))
		for i, e := range v.ArrayValue.GetValues() {
			list[i] = value(e)
		}
		return list
	}
	return nil
}
