package admin

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// stage is a Backend that a test sets up.
type stage struct {
	mu      sync.Mutex
	state   State
	status  Status
	rates   Rates
	query   RatesQuery
	rules   RuleSet
	forced  Forcing
	request ForceRequest // of the last Force
	traces  []TraceSummary
	trace   TraceDetail
	top     Top
	err     error // of everything that can fail
	asked   int   // n of the last Traces
	width   int   // of the last Trace
	id      string
	pausing chan struct{} // Pause waits for it, if not nil
	ended   error         // of Pause's context, when it went on
}

func (s *stage) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *stage) Status(context.Context) (Status, error) { return s.status, s.err }
func (s *stage) Rates(q RatesQuery) (Rates, error) {
	s.query = q
	return s.rates, s.err
}

func (s *stage) SetRates(_ context.Context, share float64) (Rates, error) {
	if s.err == nil {
		s.rates.Override = &share
		s.rates.Generation++
	}
	return s.rates, s.err
}

func (s *stage) ClearRates(context.Context) (Rates, error) {
	if s.err == nil {
		s.rates.Override = nil
	}
	return s.rates, s.err
}

func (s *stage) Rules() (RuleSet, error) { return s.rules, s.err }

func (s *stage) Reload(context.Context) (RuleSet, error) {
	if s.err == nil {
		s.rules.Generation++
	}
	return s.rules, s.err
}

func (s *stage) Force(_ context.Context, r ForceRequest) (Forcing, error) {
	s.request = r
	return s.forced, s.err
}

func (s *stage) Forcing(id string) (Forcing, error) {
	s.id = id
	return s.forced, s.err
}

func (s *stage) Unforce(_ context.Context, id string) (Forcing, error) {
	s.id = id
	if s.err == nil {
		s.forced.Over = true
	}
	return s.forced, s.err
}

func (s *stage) Pause(ctx context.Context) error {
	if s.pausing != nil {
		<-s.pausing
		s.mu.Lock()
		s.ended = ctx.Err()
		s.mu.Unlock()
	}
	return s.become(Paused)
}

func (s *stage) Resume(context.Context) error { return s.become(Tracing) }

func (s *stage) HandOver(context.Context) error { return s.become(HandedOver) }

func (s *stage) become(state State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.state = state
	}
	return s.err
}

func (s *stage) Top(context.Context) (Top, error) { return s.top, s.err }

func (s *stage) Traces(n int) ([]TraceSummary, error) {
	s.asked = n
	return s.traces, s.err
}

func (s *stage) Trace(id string, width int) (TraceDetail, error) {
	s.id, s.width = id, width
	if s.err == nil && s.trace.TraceID == "" {
		return TraceDetail{}, NotFound("there is no such trace")
	}
	return s.trace, s.err
}

var errStage = errors.New("the map is gone")

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve listens with b until the test ends.
func serve(t *testing.T, b Backend) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "ambit.sock")
	s, err := Listen(Config{Address: "127.0.0.1:0", Socket: path, Log: quiet()}, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s, path
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

func fullStatus() Status {
	return Status{
		Handover: Handover{Kept: 37, TakenOver: true},
		Version:  "1.2.3", PID: 4242, Started: at("2026-03-01T00:00:00Z"), UptimeSeconds: 93784, State: Tracing, ABI: 1, Kernel: "6.18.0",
		Attachments: []Attachment{
			{Namespace: "host", NetNSCookie: 1, Inode: 4026531840, Interface: "lo", Ifindex: 1, Hook: "egress", Method: "tcx", Program: "ambit_lo"},
			{Namespace: "pod-a", NetNSCookie: 12, Inode: 4026532001, Interface: "eth0", Ifindex: 14, Hook: "ingress", Method: "clsact", Program: "ambit_ingress"},
			{Hook: "sockops", Method: "link", Program: "ambit_sockops"},
		},
		Untapped: []Untapped{
			{Namespace: "pod-b", NetNSCookie: 13, Inode: 4026532002, PID: 77, Reason: "tapped by another daemon, pid 77"},
			{Namespace: "pod-a", NetNSCookie: 12, Inode: 4026532001, Interface: "eth1", Reason: "attach to egress: no memory"},
		},
		Unmatched: []Unmatched{{"pod-c", "no such file"}},
		Exchanges: Exchanges{Seen: 1234567, Unsampled: 1111111, Submitted: 123444, InFlight: 3, Queued: 40, Exported: 123400,
			Dropped: map[string]uint64{"ring_full": 9, "queue_full": 4, "gap": 0}},
		Rules:    RulesStatus{Generation: 7, Count: 12, Loaded: at("2026-03-01T00:00:01Z"), LastError: "/etc/ambit.yaml:3: live: given twice", LastErrorTime: at("2026-03-02T00:00:00Z")},
		Events:   map[string]uint64{"flows": 1000, "desync": 0, "not_http": 12},
		Programs: []Program{{Name: "ambit_lo", RunCount: 2000000, RunTimeNS: 1600000000, AverageNS: 800}, {Name: "ambit_sockops"}},
		RunStats: true,
		Memory: Memory{Maps: []MapMemory{{"flows", 1 << 20}, {"ring", 4 << 20}}, MapsBytes: 5 << 20, SocketStorage: 2000,
			ProcessRSS: 39 << 20, ProcessHeap: 9<<20 + 300<<10, ProcessMaps: 8 << 20, Total: 36 << 20},
		Exporter: Exporter{Kind: "otlp", Endpoint: "http://collector:4317", State: ExporterFailing, Queued: 40, QueuedBytes: 20480,
			Exported: 123400, Dropped: map[string]uint64{"queue_full": 4}, LastError: "connection refused", LastErrorTime: at("2026-03-02T02:03:04.5Z")},
	}
}
