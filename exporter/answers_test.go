package exporter

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func withRetryInfo(code codes.Code, delay time.Duration) error {
	st, err := status.New(code, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func TestAnswersWithAnError(t *testing.T) {
	const pause = 300 * time.Millisecond
	cases := []struct {
		what    string
		err     error
		retried bool
		waits   time.Duration
	}{
		{"canceled", status.Error(codes.Canceled, "x"), true, 0},
		{"deadline exceeded", status.Error(codes.DeadlineExceeded, "x"), true, 0},
		{"aborted", status.Error(codes.Aborted, "x"), true, 0},
		{"out of range", status.Error(codes.OutOfRange, "x"), true, 0},
		{"unavailable", status.Error(codes.Unavailable, "x"), true, 0},
		{"data loss", status.Error(codes.DataLoss, "x"), true, 0},
		{"unavailable for a time that it names", withRetryInfo(codes.Unavailable, pause), true, pause},
		{"exhausted, with word of when to come back", withRetryInfo(codes.ResourceExhausted, pause), true, pause},
		{"exhausted for good", status.Error(codes.ResourceExhausted, "x"), false, 0},
		{"invalid argument", status.Error(codes.InvalidArgument, "x"), false, 0},
		{"not permitted", status.Error(codes.PermissionDenied, "x"), false, 0},
		{"not authenticated", status.Error(codes.Unauthenticated, "x"), false, 0},
		{"no traces here", status.Error(codes.Unimplemented, "x"), false, 0},
		{"a failure of its own", status.Error(codes.Internal, "x"), false, 0},
		{"an unknown failure", errors.New("x"), false, 0},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			col := startCollector(t, func(_ context.Context, attempt, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
				if attempt == 1 {
					return nil, c.err
				}
				return nil, nil
			})
			o := startOTLP(t, quick(col.addr))
			addSpans(o, 0, 7)
			start := time.Now()
			eventually(t, "the batch is done", func() bool { return o.Stats().Batches == 1 })
			took := time.Since(start)
			s := exact(t, o)
			if c.retried && (s.Exported != 7 || s.Retries != 1 || !s.FailingSince.IsZero()) {
				t.Errorf("it should be tried again: %+v", s)
			}
			if !c.retried && (s.Dropped[DropRefused] != 7 || s.Retries != 0 || s.FailingSince.IsZero()) {
				t.Errorf("it should be given up: %+v", s)
			}
			if took < c.waits {
				t.Errorf("it came back after %v, before the %v asked for", took, c.waits)
			}
			addSpans(o, 7, 1)
			eventually(t, "the next batch goes through", func() bool { s := o.Stats(); return s.Queued == 0 && s.FailingSince.IsZero() })
		})
	}
}

func TestPartialSuccess(t *testing.T) {
	cases := []struct {
		what     string
		rejected int64
		message  string
		lost     uint64
	}{
		{"some spans", 3, "too old", 3},
		{"a message alone rejects nothing", 0, "a word of advice", 0},
		{"all spans", 10, "", 10},
		{"more spans than there were are all", 1000, "nonsense", 10},
		{"less than none are none", -5, "nonsense", 0},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			col := startCollector(t, func(context.Context, int, int) (*coltracepb.ExportTraceServiceResponse, error) {
				return &coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{
					RejectedSpans: c.rejected, ErrorMessage: c.message,
				}}, nil
			})
			log := &logLines{}
			cfg := quick(col.addr)
			cfg.Log = slog.New(slog.NewTextHandler(log, nil))
			cfg.BatchSpans = 10
			o := startOTLP(t, cfg)
			addSpans(o, 0, 20)
			eventually(t, "both batches are done", func() bool { return o.Stats().Batches == 2 })
			s := exact(t, o)
			if s.Dropped[DropRejected] != 2*c.lost || s.Exported != 20-2*c.lost || s.Retries != 0 || !s.FailingSince.IsZero() {
				t.Errorf("stats are %+v", s)
			}
			if c.message != "" && s.LastError != c.message {
				t.Errorf("the collector's message is told as %q", s.LastError)
			}
			if n := log.count("lost"); c.lost > 0 && n != 1 || c.lost == 0 && n != 0 {
				t.Errorf("the log tells %d times of losses: %v", n, log.lines)
			}
			if n := log.count("failing"); n != 0 {
				t.Errorf("the log tells of a failure: %v", log.lines)
			}
		})
	}
}

func TestErrorTextIsFitForATerminal(t *testing.T) {
	c := startCollector(t, func(context.Context, int, int) (*coltracepb.ExportTraceServiceResponse, error) {
		return nil, status.Error(codes.InvalidArgument, "no\n\x1b[31m good \x00"+strings.Repeat("é", 1000))
	})
	o := startOTLP(t, quick(c.addr))
	o.Add(exampleSpan())
	eventually(t, "the batch is refused", func() bool { return o.Stats().Dropped[DropRefused] == 1 })
	text := o.Stats().LastError
	if !strings.HasPrefix(text, `InvalidArgument: no \x1b[31m good \x00éé`) || !strings.HasSuffix(text, "…") || len([]rune(text)) != maxErrorText {
		t.Errorf("the error is told as %q", text)
	}
}
