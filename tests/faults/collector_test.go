package faults

import (
	"context"
	"net"
	"sync"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// answer is what a collector does with a call of so many spans. It sees the number of the call, from 1.
type answer func(ctx context.Context, call, spans int) (*coltracepb.ExportTraceServiceResponse, error)

// collector is an OTLP receiver over gRPC on a port of the host's loopback, which can go away and come back.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer
	addr string // stays the same over restarts

	mu       sync.Mutex
	server   *grpc.Server
	answer   answer // nil takes everything
	calls    int
	distinct map[[8]byte]struct{} // span IDs of the calls that were answered without an error
}

// newCollector makes one that is absent: nobody listens at its address.
func newCollector(t testing.TB) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, listener.Close())
	c := &collector{addr: listener.Addr().String(), distinct: make(map[[8]byte]struct{})}
	t.Cleanup(c.kill)
	return c
}

// come starts it.
func (c *collector) come(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", c.addr)
	must(t, err)
	server := grpc.NewServer()
	coltracepb.RegisterTraceServiceServer(server, c)
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	go server.Serve(listener)
}

// kill ends it as a signal does: connections and calls break off.
func (c *collector) kill() {
	c.mu.Lock()
	server := c.server
	c.server = nil
	c.mu.Unlock()
	if server != nil {
		server.Stop()
	}
}

func (c *collector) setAnswer(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = a
}

// received is the number of different spans that it has taken.
func (c *collector) received() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.distinct)
}

// Export is the service's only call.
func (c *collector) Export(ctx context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	var ids [][8]byte
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				ids = append(ids, [8]byte(s.SpanId))
			}
		}
	}
	c.mu.Lock()
	c.calls++
	call, answer := c.calls, c.answer
	c.mu.Unlock()
	resp := new(coltracepb.ExportTraceServiceResponse)
	if answer != nil {
		var err error
		if resp, err = answer(ctx, call, len(ids)); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.distinct[id] = struct{}{}
	}
	return resp, nil
}
