package faults

import (
	"context"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Whatever a collector answers, every span is exported or dropped for a reason that is told, and what the next
// calls bring is not harmed.
func TestAnswers(t *testing.T) {
	s := newScene(t)
	const made = 1000 // requests of each case
	ok := func() (*coltracepb.ExportTraceServiceResponse, error) {
		return new(coltracepb.ExportTraceServiceResponse), nil
	}
	for _, c := range []struct {
		about   string
		answer  answer
		dropped string // reason of all that is lost
		least   uint64 // so many are
		most    uint64
	}{
		{"slow", func(ctx context.Context, _, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
			select {
			case <-time.After(400 * time.Millisecond):
			case <-ctx.Done():
			}
			return ok()
		}, "", 0, 0},
		{"refusing for good", func(context.Context, int, int) (*coltracepb.ExportTraceServiceResponse, error) {
			return nil, status.Error(codes.InvalidArgument, "not with me")
		}, "export_refused", 2 * made, 2 * made},
		{"unavailable at first", func(_ context.Context, call, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
			if call <= 3 {
				return nil, status.Error(codes.Unavailable, "starting")
			}
			return ok()
		}, "", 0, 0},
		{"overloaded, with a time to wait", func(_ context.Context, call, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
			if call > 1 {
				return ok()
			}
			st, err := status.New(codes.ResourceExhausted, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
			if err != nil {
				return nil, err
			}
			return nil, st.Err()
		}, "", 0, 0},
		{"taking all but three spans of a call", func(context.Context, int, int) (*coltracepb.ExportTraceServiceResponse, error) {
			return &coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{
				RejectedSpans: 3, ErrorMessage: "three of them smell",
			}}, nil
		}, "export_rejected", 3, 60},
		{"rejecting more than it was sent", func(context.Context, int, int) (*coltracepb.ExportTraceServiceResponse, error) {
			return &coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: 1 << 40}}, nil
		}, "export_rejected", 2 * made, 2 * made},
	} {
		t.Run(c.about, func(t *testing.T) {
			collector := newCollector(t)
			collector.setAnswer(c.answer)
			collector.come(t)
			d := s.trace(t, collector)
			requests(t, s.pod, made)
			e := d.settled(t, 20*time.Second, made)
			lost := e.Dropped[c.dropped]
			if e.DroppedTotal() != lost || lost < c.least || lost > c.most {
				t.Errorf("%+v", e)
			}
			if x := d.status(t).Exporter; c.dropped != "" && x.LastError == "" && c.about != "rejecting more than it was sent" {
				t.Errorf("the collector's words are not told: %+v", x)
			}
			collector.setAnswer(nil)
			requests(t, s.pod, made)
			after := d.settled(t, 20*time.Second, 2*made)
			if after.Exported-e.Exported != 2*made {
				t.Errorf("behind it: %+v", after)
			}
		})
	}
}
