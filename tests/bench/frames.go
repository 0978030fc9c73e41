package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Sizes of the segments of DATA. The last one is a frame of the size that nobody has to announce, with its header.
var dataSizes = []int{64, 1024, frameHeader + 16384}

const (
	frameHeader = 9
	// longFrame is how many segments a frame has where segments begin inside of it.
	longFrame = 1000
)

// tenStreams is how many exchanges are under way at once on a connection where it is more than one.
const tenStreams = 10

// addHTTP2 adds the talks of HTTP/2. They begin with prior knowledge, and the first exchange of a connection, which
// inserts what later header blocks refer to, is in the openings.
func addHTTP2(all map[string]*talk) {
	for _, c := range []struct {
		name string
		call call
	}{{"get", get}, {"grpc", unary}, {"grpc-path", unaryLiteral}} {
		all[c.name] = c.call.talk(1, 1)
		all[c.name+"-apart"] = c.call.talk(tenStreams, tenStreams)
		all[c.name+"-together"] = c.call.talk(tenStreams, 1)
	}
	for name, block := range map[string]func(*speech) []byte{
		"block-empty":   func(*speech) []byte { return nil },
		"block-one":     func(*speech) []byte { return []byte{0x83} },
		"block-indexed": func(s *speech) []byte { return s.encode(unaryFields...) },
		"block-path":    literalPath,
	} {
		all[name] = blockCall(block).talk(1, 1)
	}
	for _, size := range dataSizes {
		all[fmt.Sprint("data-whole-", size)] = stream(dataFrame(size), [][]byte{dataFrame(size)})
		// The first part of a turn ends a frame, the rest begins the next one.
		frame := dataFrame(size)
		middle := size / 2
		all[fmt.Sprint("data-across-", size)] = stream(frame[:middle], [][]byte{slices.Concat(frame[middle:], frame[:middle])})
		segment := make([]byte, size)
		inside := slices.Repeat([][]byte{segment}, longFrame)
		inside[0] = append(frameOf(http2.FrameData, 0, 1, longFrame*size), segment...)
		all[fmt.Sprint("data-inside-", size)] = stream(nil, inside)
	}
}

// call is an exchange of HTTP/2: what it adds to what each side says. first is set for a connection's first.
type call struct {
	ask, answer func(s *speech, number uint32, first bool)
}

// talk is one call in the openings, and then so many at once, which each side sends in so many parts.
func (c call) talk(streams, writes int) *talk {
	script := func(opening []byte, add func(s *speech, number uint32, first bool)) script {
		s := newSpeech(opening)
		add(s, 1, true)
		out := script{opening: s.take(), writes: writes, step: uint32(2 * streams)}
		for i := range streams {
			add(s, uint32(3+2*i), false)
		}
		turn := s.take()
		out.turns, out.numbers = [][]byte{turn}, numbers(turn)
		return out
	}
	return &talk{
		ask: script(openerPreface(), c.ask), answer: script(acceptorPreface(), c.answer),
		opened: 1, each: uint64(streams),
	}
}

var get = call{
	ask: func(s *speech, number uint32, _ bool) {
		s.headers(number, true, s.encode(field(":method", "GET"), field(":scheme", "http"),
			field(":path", "/api/v1/users/12345?fields=name"), field(":authority", "backend.shop.svc.cluster.local:8080"),
			field("user-agent", "bench/1.0"), field("accept", "*/*")))
	},
	answer: func(s *speech, number uint32, _ bool) {
		s.headers(number, false, s.encode(field(":status", "200"), field("content-type", "application/json"),
			field("content-length", "13"), field("date", "Mon, 23 Nov 2026 10:00:00 GMT")))
		s.data(number, true, []byte("hello, world\n"))
	},
}

// unaryFields are what a client of grpc-go sends, in its order. All but two are in the dynamic table afterwards.
var unaryFields = []hpack.HeaderField{
	field(":method", "POST"), field(":scheme", "http"), field(":path", unaryPath),
	field(":authority", "backend.shop.svc.cluster.local:8080"), field("content-type", "application/grpc"),
	field("user-agent", "grpc-go/1.84.0"), field("te", "trailers"),
}

// unaryPath has 30 characters.
const unaryPath = "/shop.v1.Inventory/ReserveItem"

var unary = call{
	ask: func(s *speech, number uint32, _ bool) {
		s.headers(number, false, s.encode(unaryFields...))
		s.data(number, true, message())
	},
	answer: func(s *speech, number uint32, _ bool) {
		s.headers(number, false, s.encode(field(":status", "200"), field("content-type", "application/grpc")))
		s.data(number, false, message())
		s.headers(number, true, s.encode(field("grpc-status", "0"), field("grpc-message", "")))
	},
}

// unaryLiteral is the same with the path spelled out in every request.
var unaryLiteral = call{
	ask: func(s *speech, number uint32, first bool) {
		if first {
			unary.ask(s, number, first)
			return
		}
		s.headers(number, false, literalPath(s))
		s.data(number, true, message())
	},
	answer: unary.answer,
}

// blockCall is an exchange of nothing but a header block each way: after the first, the request's is the given one.
func blockCall(block func(*speech) []byte) call {
	return call{
		ask: func(s *speech, number uint32, first bool) {
			if first {
				s.headers(number, true, s.encode(unaryFields...))
				return
			}
			s.headers(number, true, block(s))
		},
		// The response makes it a call, whatever is in the request.
		answer: func(s *speech, number uint32, _ bool) {
			s.headers(number, true, s.encode(field(":status", "200"), field("content-type", "application/grpc"), field("grpc-status", "0")))
		},
	}
}

// literalPath is the block of a gRPC request whose path is Huffman-coded and goes into no table.
func literalPath(s *speech) []byte {
	const path = 4 // in the static table
	literal := append([]byte{path, 0x80 | byte(hpack.HuffmanEncodeLength(unaryPath))}, hpack.AppendHuffmanString(nil, unaryPath)...)
	return slices.Concat(s.encode(unaryFields[:2]...), literal, s.encode(unaryFields[3:]...))
}

// message is a small one of gRPC's.
func message() []byte { return append([]byte{0, 0, 0, 0, 16}, "a small message!"...) }

// stream is the talk of one stream that goes on until its connection ends: each side says the turns, after a beginning.
func stream(begins []byte, turns [][]byte) *talk {
	script := func(opening []byte, fields ...hpack.HeaderField) script {
		s := newSpeech(opening)
		s.headers(1, false, s.encode(fields...))
		return script{opening: append(s.take(), begins...), turns: turns, writes: 1}
	}
	return &talk{
		ask:    script(openerPreface(), unaryFields...),
		answer: script(acceptorPreface(), field(":status", "200"), field("content-type", "application/grpc")),
		opened: 1,
	}
}

func openerPreface() []byte {
	return append([]byte(http2.ClientPreface), frameOf(http2.FrameSettings, 0, 0, 0)...)
}

func acceptorPreface() []byte {
	return append(frameOf(http2.FrameSettings, 0, 0, 0), frameOf(http2.FrameSettings, http2.FlagSettingsAck, 0, 0)...)
}

// frameOf is the header of a frame whose payload has so many bytes.
func frameOf(kind http2.FrameType, flags http2.Flags, number uint32, size int) []byte {
	b := []byte{byte(size >> 16), byte(size >> 8), byte(size), byte(kind), byte(flags)}
	return binary.BigEndian.AppendUint32(b, number)
}

// dataFrame is one of the first stream, of so many bytes with its header.
func dataFrame(size int) []byte {
	return append(frameOf(http2.FrameData, 0, 1, size-frameHeader), make([]byte, size-frameHeader)...)
}

// numbers is where frames have the numbers of their streams.
func numbers(frames []byte) (at []int) {
	for i := 0; i < len(frames); i += frameHeader + int(frames[i])<<16 + int(frames[i+1])<<8 + int(frames[i+2]) {
		at = append(at, i+5)
	}
	return at
}

// speech is what one side of a connection says, frame by frame.
type speech struct {
	said    []byte
	block   bytes.Buffer
	encoder *hpack.Encoder
}

func newSpeech(opening []byte) *speech {
	s := &speech{said: opening}
	s.encoder = hpack.NewEncoder(&s.block)
	return s
}

// take is what was said since the last time.
func (s *speech) take() []byte {
	said := s.said
	s.said = nil
	return said
}

func field(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }

func (s *speech) encode(fields ...hpack.HeaderField) []byte {
	s.block.Reset()
	for _, f := range fields {
		if err := s.encoder.WriteField(f); err != nil {
			panic(err) // a buffer takes everything
		}
	}
	return bytes.Clone(s.block.Bytes())
}

func (s *speech) headers(number uint32, end bool, block []byte) {
	s.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, number, end, block)
}

func (s *speech) data(number uint32, end bool, payload []byte) {
	s.frame(http2.FrameData, 0, number, end, payload)
}

func (s *speech) frame(kind http2.FrameType, flags http2.Flags, number uint32, end bool, payload []byte) {
	if end {
		flags |= http2.FlagDataEndStream // the same bit for HEADERS
	}
	s.said = append(append(s.said, frameOf(kind, flags, number, len(payload))...), payload...)
}
