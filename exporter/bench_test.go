package exporter

import (
	"context"
	"testing"
	"time"

	"ambit/l7"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// BenchmarkAppendSpan is the encoding of one span.
func BenchmarkAppendSpan(b *testing.B) {
	e := encoder{}
	s := exampleSpan()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.appendSpan(buf[:0], s)
	}
	b.ReportMetric(float64(len(buf)), "B/span")
}

// BenchmarkAddToWire is all that ambit and protobuf do to a span from Add to the bytes that gRPC sends:
// encode, queue, group by resource, marshal.
func BenchmarkAddToWire(b *testing.B) {
	const slabBytes, slabSpans = 512 << 10, 1024
	q := testQueue(b, 2, slabBytes, slabSpans, time.Second, QueryKeys)
	batch := newBatch("1.0.0", slabBytes, slabSpans)
	spans := []*l7.Span{exampleSpan(), exampleSpan()}
	spans[1].Kind, spans[1].Resource = l7.Server, backend
	wire := make([]byte, 0, 2*slabBytes)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if q.add(spans[i&1], time.Now) != dropNone {
			b.Fatal("the queue is full")
		}
		if len(q.ready) == 0 {
			continue
		}
		s, _ := q.take(time.Time{}, false)
		req := &coltracepb.ExportTraceServiceRequest{ResourceSpans: batch.build(s)}
		proto.Size(req) // as the client does for its limit
		proto.Size(req) // as gRPC does before it marshals
		var err error
		if wire, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(wire[:0], req); err != nil {
			b.Fatal(err)
		}
		q.release(s)
	}
	b.ReportMetric(1e9/(float64(b.Elapsed().Nanoseconds())/float64(b.N)), "spans/s")
}

// BenchmarkAddToSocket goes on through the client and gRPC to a server in this process that reads the bytes and
// does not decode them. Its reading is in the figure.
func BenchmarkAddToSocket(b *testing.B) {
	c := startCollector(b, nil, grpc.ForceServerCodecV2(deafCodec{}))
	o, err := NewOTLP(context.Background(), OTLPConfig{Endpoint: "http://" + c.addr, Log: testLogger(b)})
	if err != nil {
		b.Fatal(err)
	}
	s := exampleSpan()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for i%256 == 0 && o.Stats().Queued > 3000 {
			time.Sleep(20 * time.Microsecond)
		}
		o.Add(s)
	}
	if err := o.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	st := o.Stats()
	b.ReportMetric(float64(st.Exported)/b.Elapsed().Seconds(), "spans/s")
	b.ReportMetric(float64(st.DroppedTotal()), "dropped")
}

// deafCodec takes every request and answers with the empty response.
type deafCodec struct{}

func (deafCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }
func (deafCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
func (deafCodec) Name() string                         { return "proto" }

// BenchmarkAddWhenFull is what a span costs that finds no room.
func BenchmarkAddWhenFull(b *testing.B) {
	q := testQueue(b, 2, minBatchBytes, 1024, time.Second, QueryKeys)
	s := exampleSpan()
	for q.add(s, time.Now) == dropNone {
	}
	b.ReportAllocs()
	for b.Loop() {
		q.add(s, time.Now)
	}
}

// BenchmarkLine is one span on a terminal.
func BenchmarkLine(b *testing.B) {
	s := exampleSpan()
	st := Style{Width: 160, Color: true}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = appendLine(buf[:0], s, st)
	}
}

// BenchmarkStoreAdd is one span into a full store.
func BenchmarkStoreAdd(b *testing.B) {
	st := NewStore(DefaultStoreTraces, DefaultStoreBytes)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s := exampleSpan()
		s.TraceID[0], s.TraceID[1], s.TraceID[2] = byte(i>>1), byte(i>>9), byte(i>>17)
		st.Add(s)
	}
}
