package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const receiverRole = "receiver"

// receiver is the role of an OTLP receiver over gRPC on a port of loopback, which is its first line; its last is the
// number of spans that it took. It walks through a request as far as counting needs: it shares the processors with
// what is measured, and what a collector does with spans is no cost of ambit.
func receiver([]string) error {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	taken := new(traces)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.ForceServerCodecV2(counting{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: coltracepb.TraceService_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Export", Handler: taken.export}},
	}, taken)
	go server.Serve(listener)
	fmt.Println(listener.Addr())
	untilTerminated()
	server.GracefulStop()
	fmt.Println(taken.spans.Load())
	return nil
}

// traces is the service that counts.
type traces struct{ spans atomic.Uint64 }

func (t *traces) export(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var r request
	if err := decode(&r); err != nil {
		return nil, err
	}
	t.spans.Add(r.spans)
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

// request is an ExportTraceServiceRequest of which only the number of spans is read.
type request struct{ spans uint64 }

// Fields of ExportTraceServiceRequest, ResourceSpans and ScopeSpans on the way to the spans.
var wayToSpans = []protowire.Number{1, 2, 2}

func countSpans(b []byte, way []protowire.Number) (n uint64, err error) {
	for len(b) > 0 {
		field, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		b = b[size:]
		size = protowire.ConsumeFieldValue(field, kind, b)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		if field == way[0] && kind == protowire.BytesType {
			if len(way) == 1 {
				n++
			} else {
				inner, _ := protowire.ConsumeBytes(b)
				more, err := countSpans(inner, way[1:])
				if err != nil {
					return 0, err
				}
				n += more
			}
		}
		b = b[size:]
	}
	return n, nil
}

// counting is the codec of such requests; it encodes answers as protobuf does.
type counting struct{}

var _ encoding.CodecV2 = counting{}

func (counting) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

func (counting) Unmarshal(data mem.BufferSlice, v any) error {
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	var err error
	v.(*request).spans, err = countSpans(buffer.ReadOnlyData(), wayToSpans)
	return err
}

func (counting) Name() string { return "proto" }
