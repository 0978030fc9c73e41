package parser

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ambit/bpf"
)

// fieldsOf makes pairs of names and values fields.
func fieldsOf(pairs ...string) []hpack.HeaderField {
	var out []hpack.HeaderField
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

// said is one step of a conversation: a side's header block, or what else it says.
type said struct {
	side   int
	fields []hpack.HeaderField
	end    bool
	bytes  []byte
}

// spoken makes a conversation of steps on stream 1.
func spoken(steps ...said) conversation {
	encoders := [2]headerEncoder{newNetEncoder(), newNetEncoder()}
	c := conversation{ask(http2.ClientPreface)}
	for _, s := range steps {
		b := s.bytes
		if s.fields != nil {
			b = layout{end: s.end}.headers(1, encoders[s.side].block(s.fields))
		}
		c = append(c, turn{side: s.side, text: string(b)})
	}
	return c
}

// What the random conversations leave to chance, or never do.
func TestH2Rules(t *testing.T) {
	d := start(t)
	asked := said{opener, fieldsOf(":method", "POST", ":scheme", "http", ":path", "/a", ":authority", "b"), true, nil}
	answered := said{acceptor, fieldsOf(":status", "200"), true, nil}
	for about, c := range map[string]conversation{
		"an interim response says nothing": spoken(asked,
			said{acceptor, fieldsOf(":status", "103", "content-type", "application/grpc", "grpc-status", "5", "grpc-message", "no"), false, nil},
			said{acceptor, fieldsOf(":status", "200", "content-type", "text/html"), true, nil}),
		"an interim response alone": spoken(asked,
			said{acceptor, fieldsOf(":status", "103", "content-type", "application/grpc", "grpc-status", "5", "grpc-message", "no"), false, nil}),
		"the first of two values": spoken(
			said{opener, fieldsOf(":method", "GET", ":method", "PUT", ":path", "/a", ":path", "/b", ":authority", "a", "host", "b", "user-agent", "c",
				"user-agent", "d", "content-type", "application/grpc", "content-type", "e", "x-request-id", "f", "x-request-id", "g"), true, nil},
			said{acceptor, fieldsOf(":status", "200", ":status", "404", "grpc-status", "1", "grpc-status", "2", "grpc-message", "a", "grpc-message", "b"), true, nil}),
		"the second content type is gRPC's": spoken(
			said{opener, fieldsOf(":method", "GET", "content-type", "text/html", "content-type", "application/grpc"), true, nil},
			said{acceptor, fieldsOf(":status", "200", "content-type", "text/html", "content-type", "application/grpc-web"), true, nil}),
		"trailers repeat the head": spoken(asked,
			said{acceptor, fieldsOf(":status", "200", "grpc-status", "1", "grpc-message", "a", "content-type", "b"), false, nil},
			said{acceptor, fieldsOf(":status", "404", "grpc-status", "2", "grpc-message", "c", "content-type", "d"), true, nil}),
		"two lists of tracestate": spoken(
			said{opener, fieldsOf(":method", "GET", "tracestate", "a=1", "tracestate", "b=2"), true, nil}, answered),
		"trailers of the request": spoken(
			said{opener, asked.fields, false, nil},
			said{opener, fieldsOf("user-agent", "late", "x-request-id", "late", "content-type", "late", ":path", "/late"), true, nil}, answered),
		"the acceptor speaks first": append(conversation{reply(string(settingsFrame())), reply(string(frame(http2.FrameSettings, 1, 0)))},
			spoken(asked, answered)...),
		"reset by the opener": spoken(asked, said{opener, nil, false, resetFrame(1, 8)}, answered),
		"reset by the acceptor behind its head": spoken(asked, said{acceptor, answered.fields, false, nil},
			said{acceptor, nil, false, frame(http2.FrameData, 0, 1, 'x')}, said{acceptor, nil, false, resetFrame(1, 2)}),
		"reset behind the response": spoken(said{opener, asked.fields, false, nil}, answered, said{acceptor, nil, false, resetFrame(1, 0)}),
		"refused":                   spoken(asked, said{acceptor, nil, false, goAwayFrame(0, 7)}),
		"a body behind the response": spoken(said{opener, asked.fields, false, nil}, answered,
			said{opener, nil, false, frame(http2.FrameData, 1, 1, 'x')}),
		"DATA in part": spoken(said{opener, asked.fields, false, nil},
			said{opener, nil, false, layout{padded: true, pad: 9}.data(1, make([]byte, 100))[:60]}, answered),
	} {
		t.Run(about, func(t *testing.T) {
			for _, cuts := range [][]int{nil, everyByte(c)} {
				segments := c.segments(cuts...)
				if o, err := d.playH2(t, segments); err != nil {
					t.Fatalf("%v\ncounters %v\n%s", err, o.counters, h2Trace(c.segments()))
				}
			}
		})
	}
}

// More streams at once than are kept are counted, and the others keep their responses.
func TestH2TooManyStreams(t *testing.T) {
	d := start(t)
	for _, n := range []int{256, 257, 258, 290} {
		c := conversation{ask(http2.ClientPreface)}
		var answers conversation
		for i := range n {
			stream := uint32(2*i + 1)
			c = append(c, ask(string(block(stream, true, get...))))
			answers = append(answers, reply(string(block(stream, true, 0x88))))
		}
		slices.Reverse(answers)
		o, err := d.playH2(t, append(c, answers...).segments())
		if err != nil {
			t.Fatalf("%d streams: %v", n, err)
		}
		if over := uint64(2 * max(0, n-streamsMax)); o.counters["drop_streams"] != over {
			t.Errorf("%d streams: %v, want %d sides dropped", n, o.counters, over)
		}
	}
}

// Of a table that is larger than what is kept nothing wrong is read, and of the first 4 KiB nothing is missing.
func TestH2LargeTables(t *testing.T) {
	d := start(t)
	exchanges, unknown := 0, 0
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 28))
		talk := randomH2Talk(rng, h2Plan{streams: 10, steps: 300, tables: []uint32{1 << 16, 8192, 4096, 5000, 1 << 20}})
		c := packed(talk.turns)
		segments := c.segments()
		o := d.run(t, played(segments))[0]
		err := referenceOf(segments, bpf.EndingClosed).compareSeen(&o)
		if err == nil && o.counters["http2_broken"]+o.counters["drop_gap"] > 0 {
			err = errors.New("the connection was given up")
		}
		if err != nil {
			t.Fatalf("seed %d: %v\ncounters %v\n%s", seed, err, o.counters, h2Trace(segments))
		}
		exchanges += len(o.records)
		for i := range o.records {
			if o.records[i].Flags&(bpf.FlagRequestUnknown|bpf.FlagResponseUnknown) != 0 {
				unknown++
			}
		}
	}
	t.Logf("%d of %d exchanges have something unknown", unknown, exchanges)
	if unknown > exchanges/2 {
		t.Error("too many exchanges have something unknown")
	}
}

// What the fuzzer does for hours, for seconds and from fixed seeds: conversations that are damaged.
func TestDamagedH2(t *testing.T) {
	d := start(t)
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 29))
		c := randomH2Talk(rng, h2Plan{streams: 4, steps: 5 + rng.IntN(60), tables: []uint32{0, 100, 4096}, long: rng.IntN(4) == 0}).turns
		d.fuzzH2(t, damage(rng, c.stream(opener)[len(http2.ClientPreface):]), damage(rng, c.stream(acceptor)), seed)
	}
}

// A connection that HTTP/1 upgrades goes on with the response of its first request, which is stream 1.
func TestH2Upgrade(t *testing.T) {
	d := start(t)
	c := conversation{
		ask("GET /first HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n\r\n"),
		reply("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + string(settingsFrame())),
		ask(http2.ClientPreface + string(settingsFrame())),
		reply(string(block(1, false, 0x88)) + string(layout{end: true}.data(1, []byte("body")))),
		ask(string(block(3, true, get...))),
		reply(string(block(3, true, 0x8d))),
	}
	for _, cuts := range append(single(c.size()), nil) {
		o := outcomeOf(t, d, c, cuts...)
		if err := o.check(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range o.records {
			r := &o.records[i]
			line, _ := field(r, bpf.FieldRequestLine)
			path, _ := field(r, bpf.FieldPath)
			got = append(got, fmt.Sprint(r.Stream, line, path, r.Status, r.ResponseBody, r.Ending))
		}
		if want := []string{"1GET /first HTTP/1.1200 4 0", "3/404 0 0"}; !slices.Equal(got, want) {
			t.Fatalf("cut at %v: %q, want %q, %v", cuts, got, want, o.counters)
		}
	}
}
