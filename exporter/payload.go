package exporter

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// payload is a batch as the bytes of its ExportTraceServiceRequest. Over gRPC they go to the connection as they are:
// the client makes a message of its own, and one layer below it, where the answers are read, the payload takes the
// message's place. It reaches that layer through the attempt's context. To marshal the message is to copy it, into
// memory that has to be cleared before.
type payload struct {
	bytes []byte
	// lent counts the buffers that gRPC has not freed yet.
	lent atomic.Int32
}

var _ mem.BufferPool = (*payload)(nil)

func newPayload(capacity int) *payload {
	return &payload{bytes: make([]byte, 0, capacity)}
}

// lend gives the bytes to gRPC, which frees them when it will not read them any more: behind the call, or later where
// the call was given up.
func (p *payload) lend() mem.Buffer {
	p.lent.Add(1)
	return mem.NewBuffer(&p.bytes, p)
}

// Put is what freeing does.
func (p *payload) Put(*[]byte) { p.lent.Add(-1) }

// Get is never called: nobody but lend makes buffers of this pool.
func (p *payload) Get(length int) *[]byte {
	b := make([]byte, length)
	return &b
}

// payloadCodec is the codec of protobuf that passes payloads through.
type payloadCodec struct{ encoding.CodecV2 }

func newPayloadCodec() encoding.CodecV2 {
	return payloadCodec{encoding.GetCodecV2(protocodec.Name)}
}

func (c payloadCodec) Marshal(v any) (mem.BufferSlice, error) {
	if p, ok := v.(*payload); ok {
		return mem.BufferSlice{p.lend()}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Name is nothing, so that the content type is what it is without this codec: application/grpc.
func (payloadCodec) Name() string { return "" }

type payloadKey struct{}

func withPayload(ctx context.Context, p *payload) context.Context {
	return context.WithValue(ctx, payloadKey{}, p)
}

func payloadOf(ctx context.Context) *payload {
	p, _ := ctx.Value(payloadKey{}).(*payload)
	return p
}
