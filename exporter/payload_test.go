package exporter

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

func TestPayloadIsKeptForWhomItWasLentTo(t *testing.T) {
	q := testQueue(t, 2, 64<<10, 10, time.Second, QueryKeys)
	b := newBatch("1", 64<<10, 10)
	build := func(n int) {
		t.Helper()
		if reason := q.add(numbered(n), time.Now); reason != dropNone {
			t.Fatal(reason)
		}
		s := takeNow(t, q)
		b.build(s)
		q.release(s)
	}
	build(1)
	first := b.payload
	data, err := newPayloadCodec().Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Clone(first.bytes)

	build(2)
	if b.payload == first || cap(b.payload.bytes) < cap(first.bytes) {
		t.Errorf("while gRPC reads a payload of %d bytes, the next has %d, the same: %v", cap(first.bytes), cap(b.payload.bytes), b.payload == first)
	}
	if !bytes.Equal(data.Materialize(), sent) {
		t.Error("what gRPC reads has changed")
	}
	data.Free()
	if n := first.lent.Load(); n != 0 {
		t.Errorf("%d buffers are lent when all are free", n)
	}

	second := b.payload
	build(3)
	if b.payload != second {
		t.Error("a payload that nobody reads is not used again")
	}
}

func TestPayloadCodecIsProtobufsForMessages(t *testing.T) {
	want := &coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: 3}}
	codec := newPayloadCodec()
	data, err := codec.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := new(coltracepb.ExportTraceServiceResponse)
	if err := codec.Unmarshal(data, got); err != nil || !proto.Equal(got, want) {
		t.Errorf("%v became %v: %v", want, got, err)
	}
}

func TestNothingIsLentBehindAnAnswer(t *testing.T) {
	c := startCollector(t, nil)
	o := startOTLPHere(t, quick(c.addr))
	payload := o.sender.batch.payload
	for i := range 2000 {
		o.Add(numbered(i))
		if i%500 == 499 {
			if err := o.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "gRPC frees the payload", func() bool { return payload.lent.Load() == 0 })
		}
	}
	if payload != o.sender.batch.payload {
		t.Error("another payload was made")
	}
}

// stall accepts one HTTP/2 connection after the other and never opens a window beyond the first.
func stall(t *testing.T) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				framer := http2.NewFramer(conn, conn)
				if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil || framer.WriteSettings() != nil {
					return
				}
				for {
					if _, err := framer.ReadFrame(); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestAttemptThatIsGivenUpFreesItsPayload(t *testing.T) {
	cfg := quick(stall(t))
	cfg.Timeout = 200 * time.Millisecond
	o := startOTLPHere(t, cfg)
	payload := o.sender.batch.payload
	for i := range 500 { // of 880 bytes: more than the window
		o.Add(numbered(i))
	}
	eventually(t, "the payload is on its way", func() bool { return payload.lent.Load() > 0 })
	eventually(t, "attempts are given up", func() bool { return o.Stats().Retries > 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := o.Close(ctx); err == nil {
		t.Error("spans were sent to nobody")
	}
	eventually(t, "gRPC frees the payload", func() bool { return payload.lent.Load() == 0 })
}
