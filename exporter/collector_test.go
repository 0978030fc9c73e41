package exporter

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
)

// answerFunc answers one export; nil takes everything. The spans of a call that it refuses with an error do
// not count as received.
type answerFunc func(ctx context.Context, attempt, spans int) (*coltracepb.ExportTraceServiceResponse, error)

// collector is a real OTLP receiver over gRPC that can go away and come back.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer

	addr string // stays the same over restarts

	mu       sync.Mutex
	answer   answerFunc
	attempts int
	received int            // spans of calls that were answered without an error
	seen     map[string]int // span ID to how often it was received
	last     []*tracepb.ResourceSpans
	header   metadata.MD
	server   *grpc.Server
	options  []grpc.ServerOption
}

// startCollector starts one on a port of loopback. It ends with the test.
func startCollector(t testing.TB, answer answerFunc, options ...grpc.ServerOption) *collector {
	t.Helper()
	c := &collector{answer: answer, seen: make(map[string]int), options: options}
	c.start(t, "127.0.0.1:0")
	t.Cleanup(c.stop)
	return c
}

// absentCollector has an address and does not listen on it.
func absentCollector(t testing.TB) *collector {
	t.Helper()
	c := startCollector(t, nil)
	c.stop()
	return c
}

func (c *collector) start(t testing.TB, addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(c.options...)
	coltracepb.RegisterTraceServiceServer(server, c)
	c.mu.Lock()
	c.addr, c.server = listener.Addr().String(), server
	c.mu.Unlock()
	go server.Serve(listener)
}

// stop ends the server as a kill does: connections and calls end at once.
func (c *collector) stop() {
	c.mu.Lock()
	server := c.server
	c.server = nil
	c.mu.Unlock()
	if server != nil {
		server.Stop()
	}
}

func (c *collector) Export(ctx context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	var ids []string
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				ids = append(ids, string(s.SpanId))
			}
		}
	}
	c.mu.Lock()
	c.attempts++
	attempt, answer := c.attempts, c.answer
	c.header, _ = metadata.FromIncomingContext(ctx)
	c.mu.Unlock()
	resp := &coltracepb.ExportTraceServiceResponse{}
	if answer != nil {
		var err error
		if resp, err = answer(ctx, attempt, len(ids)); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received += len(ids)
	for _, id := range ids {
		c.seen[id]++
	}
	c.last = req.ResourceSpans
	return resp, nil
}

// counts returns the calls, the spans received, and the different ones among them.
func (c *collector) counts() (attempts, received, distinct int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts, c.received, len(c.seen)
}

// testLogger writes to the test's log.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{t}, nil))
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s it does not hold that %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// logLines collects messages.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logLines) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, message) {
			n++
		}
	}
	return n
}
