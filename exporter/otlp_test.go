package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/codes"
)

// quick is a configuration whose times suit a test.
func quick(endpoint string) OTLPConfig {
	return OTLPConfig{
		Endpoint: "http://" + endpoint, Version: "test",
		BatchDelay: 10 * time.Millisecond, Timeout: 5 * time.Second,
		RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
	}
}

// startOTLP starts an exporter of which every Stats, taken over and over while the test runs, must add up.
func startOTLP(t *testing.T, cfg OTLPConfig) *OTLP {
	t.Helper()
	clearEnvironment(t)
	return startOTLPHere(t, cfg)
}

func startOTLPHere(t *testing.T, cfg OTLPConfig) *OTLP {
	t.Helper()
	o, err := NewOTLP(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
				exact(t, o)
			}
		}
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		o.Close(ctx)
		close(stop)
		<-stopped
		exact(t, o)
	})
	return o
}

// exact holds the sum that Stats promises.
func exact(t *testing.T, o *OTLP) Stats {
	t.Helper()
	s := o.Stats()
	if s.Added != s.Exported+s.DroppedTotal()+uint64(s.Queued) || s.InFlight > s.Queued || s.Queued < 0 {
		t.Errorf("added %d != exported %d + dropped %v + queued %d (in flight %d)", s.Added, s.Exported, s.Dropped, s.Queued, s.InFlight)
	}
	return s
}

func addSpans(o *OTLP, from, n int) {
	for i := range n {
		o.Add(numbered(from + i))
	}
}

// closeWithin closes o, which must take no longer than limit.
func closeWithin(t *testing.T, o *OTLP, limit time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	start := time.Now()
	err := o.Close(ctx)
	if took := time.Since(start); took > limit+500*time.Millisecond {
		t.Errorf("Close took %v, with a deadline in %v", took, limit)
	}
	return err
}

func TestEverySpanIsDeliveredOnce(t *testing.T) {
	c := startCollector(t, nil)
	o := startOTLP(t, quick(c.addr))
	const n = 20_000
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range n / 4 {
				for o.Stats().QueuedBytes > 3<<20 {
					time.Sleep(time.Millisecond)
				}
				o.Add(numbered(g*n/4 + i))
			}
		})
	}
	wg.Wait()
	if err := closeWithin(t, o, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	s := exact(t, o)
	if s.Exported != n || s.DroppedTotal() != 0 || s.Queued != 0 || s.Retries != 0 || s.LastError != "" {
		t.Errorf("stats are %+v", s)
	}
	if _, received, distinct := c.counts(); received != n || distinct != n {
		t.Errorf("the collector has %d spans, %d of them different", received, distinct)
	}
}

func TestWhatArrivesIsWhatWasAdded(t *testing.T) {
	c := startCollector(t, nil)
	o := startOTLP(t, quick(c.addr))
	o.Add(exampleSpan())
	if err := o.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.last) != 1 || len(c.last[0].ScopeSpans) != 1 || len(c.last[0].ScopeSpans[0].Spans) != 1 {
		t.Fatalf("the collector has %v", c.last)
	}
	if c.last[0].ScopeSpans[0].Scope.Version != "test" || attributesOf(t, c.last[0].Resource.Attributes)["service.name"] != "frontend" {
		t.Errorf("the collector has %v", c.last[0])
	}
	attrs := attributesOf(t, c.last[0].ScopeSpans[0].Spans[0].Attributes)
	if attrs["url.query"] != "user=REDACTED&page=REDACTED" || len(attrs) != 26 {
		t.Errorf("%d attributes: %v", len(attrs), attrs)
	}
}

func TestCollectorThatComesLate(t *testing.T) {
	c := absentCollector(t)
	log := &logLines{}
	cfg := quick(c.addr)
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	o := startOTLP(t, cfg)
	addSpans(o, 0, 500)
	eventually(t, "attempts fail", func() bool { return o.Stats().Retries >= 3 })
	if s := exact(t, o); s.FailingSince.IsZero() || s.LastError == "" || s.Queued != 500 || s.Exported != 0 {
		t.Errorf("while the collector is away: %+v", s)
	}
	c.start(t, c.addr)
	eventually(t, "all spans are exported", func() bool { return o.Stats().Exported == 500 })
	if s := exact(t, o); !s.FailingSince.IsZero() || s.DroppedTotal() != 0 || s.LastError == "" || s.LastErrorAt.IsZero() {
		t.Errorf("after the collector came: %+v", s)
	}
	if f, r := log.count("failing"), log.count("recovered"); f != 1 || r != 1 {
		t.Errorf("the log tells %d times of a failure and %d times of its end: %v", f, r, log.lines)
	}
}

func TestCollectorKilledAndBack(t *testing.T) {
	c := startCollector(t, nil)
	o := startOTLP(t, quick(c.addr))
	next := 0
	for round := range 2 {
		addSpans(o, next, 300)
		next += 300
		eventually(t, "what was added is exported", func() bool { return o.Stats().Exported == uint64(next) })
		c.stop()
		addSpans(o, next, 300)
		next += 300
		eventually(t, "the failure is seen", func() bool { return !o.Stats().FailingSince.IsZero() })
		c.start(t, c.addr)
		eventually(t, fmt.Sprintf("delivery resumes, round %d", round), func() bool { return o.Stats().Exported == uint64(next) })
	}
	if s := exact(t, o); s.DroppedTotal() != 0 || !s.FailingSince.IsZero() {
		t.Errorf("stats are %+v", s)
	}
	if _, _, distinct := c.counts(); distinct != next {
		t.Errorf("the collector has %d different spans of %d", distinct, next)
	}
}

func TestCollectorKilledInTheMiddleOfACall(t *testing.T) {
	inside := make(chan struct{}, 1)
	c := startCollector(t, func(ctx context.Context, attempt, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
		if attempt == 1 {
			inside <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, nil
	})
	o := startOTLP(t, quick(c.addr))
	addSpans(o, 0, 10)
	<-inside
	if s := exact(t, o); s.InFlight != 10 {
		t.Errorf("%d spans are in flight", s.InFlight)
	}
	c.stop()
	c.start(t, c.addr)
	eventually(t, "the batch is sent again", func() bool { return o.Stats().Exported == 10 })
}

func TestSlowCollector(t *testing.T) {
	c := startCollector(t, func(ctx context.Context, attempt, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
		if attempt <= 2 { // slower than the time-out of an attempt
			<-ctx.Done()
			return nil, ctx.Err()
		}
		time.Sleep(20 * time.Millisecond)
		return nil, nil
	})
	cfg := quick(c.addr)
	cfg.Timeout = 150 * time.Millisecond
	cfg.BatchBytes, cfg.QueueBytes = 64<<10, 256<<10
	o := startOTLP(t, cfg)
	const n = 2000 // some five times what the queue holds
	addSpans(o, 0, n)
	eventually(t, "the queue is empty", func() bool { return o.Stats().Queued == 0 })
	s := exact(t, o)
	if s.Retries != 2 || s.Exported == 0 || s.Dropped[DropQueueFull] == 0 || s.Exported+s.Dropped[DropQueueFull] != n {
		t.Errorf("stats are %+v", s)
	}
	if _, received, _ := c.counts(); received != int(s.Exported) {
		t.Errorf("the collector has %d spans, %d were exported", received, s.Exported)
	}
}

func TestBatchIsGivenUpAfterRetryFor(t *testing.T) {
	c := absentCollector(t)
	cfg := quick(c.addr)
	cfg.RetryFor, cfg.BatchSpans = 100*time.Millisecond, 10
	o := startOTLP(t, cfg)
	addSpans(o, 0, 20)
	eventually(t, "both batches are given up", func() bool { return o.Stats().Dropped[DropExpired] == 20 })
	if s := exact(t, o); s.Queued != 0 || s.Batches != 2 {
		t.Errorf("stats are %+v", s)
	}
}

func TestFullQueueKeepsTheOldest(t *testing.T) {
	c := absentCollector(t)
	cfg := quick(c.addr)
	cfg.BatchBytes, cfg.QueueBytes = minBatchBytes, 4*minBatchBytes
	o := startOTLP(t, cfg)
	addSpans(o, 0, 1000)
	eventually(t, "a batch is on its way", func() bool { return o.Stats().InFlight > 0 })
	addSpans(o, 1000, 1000)
	s := exact(t, o)
	if s.Dropped[DropQueueFull] == 0 || s.QueuedBytes > s.CapacityBytes+minBatchBytes || s.CapacityBytes != cfg.QueueBytes {
		t.Errorf("stats are %+v", s)
	}
	kept := s.Queued
	c.start(t, c.addr)
	eventually(t, "what was kept is exported", func() bool { return o.Stats().Exported == uint64(kept) })
	c.mu.Lock()
	defer c.mu.Unlock()
	if id := numbered(0).SpanID; c.seen[string(id[:])] == 0 {
		t.Error("the first span of all was dropped")
	}
}

func TestFlush(t *testing.T) {
	c := startCollector(t, nil)
	cfg := quick(c.addr)
	cfg.BatchDelay = time.Hour
	o := startOTLP(t, cfg)
	if err := o.Flush(context.Background()); err != nil {
		t.Errorf("flush of nothing: %v", err)
	}
	for round := range 5 {
		addSpans(o, round*10, 10)
		if err := o.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		if s := exact(t, o); s.Exported != uint64(round+1)*10 {
			t.Fatalf("after flush %d: %+v", round, s)
		}
	}
	c.stop()
	addSpans(o, 50, 10)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := o.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "10 are not sent") {
		t.Errorf("flush to a collector that is away: %v", err)
	}
	if s := exact(t, o); s.Queued != 10 {
		t.Errorf("a flush that ended early dropped spans: %+v", s)
	}
}

func TestCloseWithinItsDeadline(t *testing.T) {
	hang := func(ctx context.Context, _, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	throttled := func(context.Context, int, int) (*coltracepb.ExportTraceServiceResponse, error) {
		return nil, withRetryInfo(codes.Unavailable, time.Hour)
	}
	cases := []struct {
		what   string
		answer answerFunc
		away   bool
	}{
		{"a collector that is away", nil, true},
		{"a collector that never answers", hang, false},
		{"a collector that asks for an hour", throttled, false},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			col := startCollector(t, c.answer)
			if c.away {
				col.stop()
			}
			cfg := quick(col.addr)
			cfg.Timeout, cfg.BatchSpans = time.Minute, 100
			o := startOTLP(t, cfg)
			addSpans(o, 0, 500)
			eventually(t, "a batch is on its way", func() bool { return o.Stats().InFlight > 0 })
			if err := closeWithin(t, o, 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close says %v", err)
			}
			o.Add(exampleSpan())
			if s := exact(t, o); s.Dropped[DropShutdown] != 501 || s.Queued != 0 {
				t.Errorf("stats are %+v", s)
			}
			if err := o.Close(context.Background()); err != nil {
				t.Errorf("closing twice: %v", err)
			}
		})
	}
}

func TestCloseDeliversToACollectorThatComesBack(t *testing.T) {
	c := absentCollector(t)
	cfg := quick(c.addr)
	cfg.RetryMin, cfg.RetryMax = 10*time.Second, 10*time.Second // Close must not wait for that
	o := startOTLP(t, cfg)
	addSpans(o, 0, 100)
	eventually(t, "the first attempt fails", func() bool { return !o.Stats().FailingSince.IsZero() })
	c.start(t, c.addr)
	if err := closeWithin(t, o, 5*time.Second); err != nil {
		t.Error(err)
	}
	if s := exact(t, o); s.Exported != 100 {
		t.Errorf("stats are %+v", s)
	}
}

func TestSpansThatFitNoBatchAreCounted(t *testing.T) {
	c := startCollector(t, nil)
	o := startOTLP(t, quick(c.addr))
	s := exampleSpan()
	s.UserAgent = strings.Repeat("x", 1<<20)
	o.Add(s)
	bad := exampleSpan()
	bad.UserAgent = "\xff"
	o.Add(bad)
	if err := o.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if st := exact(t, o); st.Dropped[DropTooLarge] != 1 || st.Exported != 1 || st.Repaired != 1 {
		t.Errorf("stats are %+v", st)
	}
}

func TestAddDoesNotWaitForTheCollector(t *testing.T) {
	c := startCollector(t, func(ctx context.Context, _, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	o := startOTLP(t, quick(c.addr))
	start := time.Now()
	addSpans(o, 0, 50_000)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("50,000 spans took %v", took)
	}
}
