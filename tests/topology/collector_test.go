package topology

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip"
)

// span is what the tests look at of a span.
type span struct {
	trace  [16]byte
	id     [8]byte
	parent [8]byte
	server bool

	path      string
	status    int64
	peer      netip.AddrPort
	local     netip.AddrPort
	client    string // client.address
	errorType string
	reason    string
	state     string // tracestate
	namespace string // the network namespace's name
	service   string
}

func (s span) kind() string {
	if s.server {
		return "SERVER"
	}
	return "CLIENT"
}

func (s span) String() string {
	return fmt.Sprintf("%s %s in %s (%s) status %d, %v to %v, trace %s span %s parent %s reason %s %s",
		s.kind(), s.path, s.namespace, s.service, s.status, s.local, s.peer,
		hex.EncodeToString(s.trace[:]), hex.EncodeToString(s.id[:]), hex.EncodeToString(s.parent[:]), s.reason, s.errorType)
}

// collector is an OTLP receiver over gRPC on the host's loopback. It holds every span until it is emptied.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer
	addr string

	mu    sync.Mutex
	spans []span
}

// newCollector starts a collector, which ends with the test.
func newCollector(t testing.TB) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: listener.Addr().String()}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	coltracepb.RegisterTraceServiceServer(server, c)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return c
}

func (c *collector) Export(_ context.Context, request *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		namespace := text(resource.Resource.Attributes, "ambit.network.namespace")
		service := text(resource.Resource.Attributes, "service.name")
		for _, scope := range resource.ScopeSpans {
			for _, received := range scope.Spans {
				s := read(received)
				s.namespace, s.service = namespace, service
				c.spans = append(c.spans, s)
			}
		}
	}
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

// take empties the collector.
func (c *collector) take() []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := c.spans
	c.spans = nil
	return spans
}

func read(received *tracepb.Span) span {
	s := span{
		trace: [16]byte(received.TraceId), id: [8]byte(received.SpanId),
		server: received.Kind == tracepb.Span_SPAN_KIND_SERVER, state: received.TraceState,
	}
	copy(s.parent[:], received.ParentSpanId)
	var peer, local netip.Addr
	var peerPort, localPort int64
	for _, a := range received.Attributes {
		switch a.Key {
		case "url.path":
			s.path = a.Value.GetStringValue()
		case "http.response.status_code":
			s.status = a.Value.GetIntValue()
		case "error.type":
			s.errorType = a.Value.GetStringValue()
		case "client.address":
			s.client = a.Value.GetStringValue()
		case "ambit.sampling.reason":
			s.reason = a.Value.GetStringValue()
		case "network.peer.address":
			peer, _ = netip.ParseAddr(a.Value.GetStringValue()) // the zero Addr shows as a difference
		case "network.peer.port":
			peerPort = a.Value.GetIntValue()
		case "network.local.address":
			local, _ = netip.ParseAddr(a.Value.GetStringValue())
		case "network.local.port":
			localPort = a.Value.GetIntValue()
		}
	}
	s.peer = netip.AddrPortFrom(peer, uint16(peerPort))
	s.local = netip.AddrPortFrom(local, uint16(localPort))
	return s
}

func text(attributes []*commonpb.KeyValue, key string) string {
	for _, a := range attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}
