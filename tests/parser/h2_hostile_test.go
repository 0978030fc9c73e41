package parser

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/http2"
)

// block is a HEADERS frame of one whole block.
func block(stream uint32, end bool, b ...byte) []byte {
	return layout{end: end}.headers(stream, b)
}

// get is a request's block: GET / http.
var get = []byte{0x82, 0x84, 0x86}

// after is a request on stream 1, its answer, and what one side says next.
func after(side int, b ...byte) exchangeBytes {
	e := exchangeBytes{request: block(1, true, get...), response: block(1, true, 0x88)}
	if side == opener {
		e.request = slices.Concat(e.request, b, block(9, true, get...))
	} else {
		e.request = slices.Concat(e.request, block(3, true, get...))
		e.response = slices.Concat(e.response, b, block(3, true, 0x88))
	}
	return e
}

// exchangeBytes is what both sides say behind the preface.
type exchangeBytes struct {
	about             string
	request, response []byte
}

func (e exchangeBytes) called(about string) exchangeBytes {
	e.about = about
	return e
}

// field is one literal field with a name of its own, raw; insert: with incremental indexing.
func literal(insert bool, name, value string) []byte {
	b := []byte{0}
	if insert {
		b[0] = 0x40
	}
	e := newRandomEncoder(rand.New(rand.NewPCG(1, 1)))
	b = append(e.integer(b, 0, 7, uint64(len(name))), name...)
	return append(e.integer(b, 0, 7, uint64(len(value))), value...)
}

// hostile is what nobody who means well sends, and some that is odd but right.
var hostile = []exchangeBytes{
	after(opener).called("two requests"),
	after(opener, block(3, true, 0x80)...).called("index 0"),
	after(opener, block(3, true, 0xbe)...).called("an index behind the table"),
	after(opener, block(3, true, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f)...).called("an index of 32 bits"),
	after(opener, block(3, true, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)...).called("an index of 63 bits"),
	after(opener, block(3, true, 0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00)...).called("an integer that does not end"),
	after(opener, block(3, true, 0x82, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f)...).called("a name of 4 GiB"),
	after(opener, block(3, true, 0x82, 0x04, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)...).called("a value of 2^63"),
	after(opener, block(3, true, 0x82, 0x04, 0x05, '/', 'a')...).called("a value that does not end"),
	after(opener, block(3, true, 0x82, 0x44)...).called("a field without its value"),
	after(opener, block(3, true, 0x82, 0x44, 0x82, 0xff, 0xff)...).called("a Huffman string of ones"),
	after(opener, block(3, true, 0x82, 0x44, 0x84, 0xff, 0xff, 0xff, 0xff)...).called("a Huffman string with its end"),
	after(opener, block(3, true, 0x82, 0x44, 0x81, 0x00)...).called("Huffman padding of zeros"),
	after(opener, block(3, true, 0x82, 0x00, 0x01, 'x', 0x82, 0xff, 0xff)...).called("the same in a value that nobody needs"),
	after(opener, block(3, true, 0x82, 0x40, 0x01, 'x', 0x82, 0xff, 0xff)...).called("the same in one that is inserted"),
	after(opener, block(3, true, 0x3f, 0xe2, 0x1f, 0x82)...).called("a table larger than was offered"),
	after(opener, block(3, true, 0x3f, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x82)...).called("a table of 4 GiB"),
	after(opener, block(3, true, slices.Concat(literal(true, "x", "y"), []byte{0x20, 0x82})...)...).called("a size update behind a field"),
	after(opener, block(3, true, append(bytes.Repeat([]byte{0x3f, 0xe1, 0x1f, 0x20}, 3000), get...)...)...).called("thousands of size updates"),
	after(opener, block(3, true, slices.Concat([]byte{0x20}, literal(true, "x", "y"), []byte{0xbe})...)...).called("an entry in a table of no size"),
	after(opener, block(3, true, slices.Concat(literal(true, "x", string(make([]byte, 5000))), []byte{0xbe})...)...).called("an entry larger than the table"),
	after(opener, block(3, true, bytes.Repeat([]byte{0x40, 0, 0}, 5000)...)...).called("thousands of empty entries"),
	after(opener, block(3, true, bytes.Repeat([]byte{0x82}, 16000)...)...).called("thousands of methods"),
	after(opener, block(3, true)...).called("an empty block"),
	after(opener, slices.Concat(frame(http2.FrameHeaders, 0, 3), bytes.Repeat(frame(http2.FrameContinuation, 0, 3), 2000))...).called("CONTINUATION without an end, empty"),
	after(opener, slices.Concat(frame(http2.FrameHeaders, 0, 3), bytes.Repeat(frame(http2.FrameContinuation, 0, 3, 0x82), 2000), frame(http2.FrameContinuation, 4, 3))...).called("a byte in each CONTINUATION"),
	after(opener, slices.Concat(frame(http2.FrameHeaders, 0, 3), frame(http2.FramePing, 0, 0, make([]byte, 8)...))...).called("PING inside of a block"),
	after(opener, slices.Concat(frame(http2.FrameHeaders, 0, 3), frame(http2.FrameContinuation, 4, 5, get...))...).called("CONTINUATION of another stream"),
	after(opener, frame(http2.FrameContinuation, 4, 3, get...)...).called("CONTINUATION of nothing"),
	after(opener, frame(http2.FrameHeaders, 4|8, 3, 9, 0x82)...).called("padding longer than HEADERS"),
	after(opener, frame(http2.FrameHeaders, 4|0x20, 3, 0, 0)...).called("HEADERS without the priority that they announce"),
	after(opener, frame(http2.FrameData, 8, 1, 2, 0)...).called("padding longer than DATA"),
	after(opener, frame(http2.FrameData, 8, 1)...).called("DATA without the length of its padding"),
	after(opener, frame(http2.FrameData, 0, 0, 1)...).called("DATA of the connection"),
	after(opener, frame(http2.FrameHeaders, 4, 0, get...)...).called("HEADERS of the connection"),
	after(opener, frame(http2.FrameHeaders, 4, 2, get...)...).called("a request on an even stream"),
	after(opener, layout{promise: 4}.headers(1, get)...).called("PUSH_PROMISE of the opener"),
	after(acceptor, layout{promise: 2}.headers(1, get)...).called("PUSH_PROMISE"),
	after(acceptor, layout{promise: 2, cuts: []int{1, 2}}.headers(1, get)...).called("PUSH_PROMISE that goes on"),
	after(acceptor, frame(http2.FramePushPromise, 4, 1, 0, 0)...).called("PUSH_PROMISE without a stream"),
	after(opener, frame(http2.FramePing, 0, 0, 1)...).called("PING of one byte"),
	after(opener, frame(http2.FramePing, 0, 1, make([]byte, 8)...)...).called("PING of a stream"),
	after(opener, frame(http2.FrameSettings, 0, 0, 1)...).called("SETTINGS of one byte"),
	after(opener, frame(http2.FrameSettings, 1, 0, make([]byte, 6)...)...).called("SETTINGS that confirm and set"),
	after(opener, frame(http2.FrameSettings, 0, 1)...).called("SETTINGS of a stream"),
	after(opener, frame(http2.FrameSettings, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff)...).called("a window of 4 GiB in SETTINGS"),
	after(opener, frame(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 0)...).called("WINDOW_UPDATE by nothing, of the connection"),
	after(opener, frame(http2.FrameWindowUpdate, 0, 1, 0, 0, 0, 0)...).called("the same of a stream"),
	after(opener, frame(http2.FrameWindowUpdate, 0, 1, 0)...).called("WINDOW_UPDATE of one byte"),
	after(opener, frame(http2.FramePriority, 0, 1, 0)...).called("PRIORITY of one byte"),
	after(opener, frame(http2.FramePriority, 0, 0, 0, 0, 0, 0, 0)...).called("PRIORITY of the connection"),
	after(opener, frame(http2.FrameRSTStream, 0, 1, 0)...).called("RST_STREAM of one byte"),
	after(opener, resetFrame(0, 1)...).called("RST_STREAM of the connection"),
	after(acceptor, frame(http2.FrameGoAway, 0, 0, 0)...).called("GOAWAY of one byte"),
	after(acceptor, frame(http2.FrameGoAway, 0, 1, make([]byte, 8)...)...).called("GOAWAY of a stream"),
	after(acceptor, goAwayFrame(1, 0)...).called("GOAWAY"),
	after(acceptor, slices.Concat(goAwayFrame(1<<31-1, 0), goAwayFrame(1, 2, 'x'))...).called("GOAWAY twice"),
	after(opener, goAwayFrame(0, 0)...).called("GOAWAY of the opener"),
	after(opener, []byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}...).called("DATA of 16 MiB"),
	after(opener, bytes.Repeat(frame(0xee, 0xff, 0x7fffffff, 1), 3000)...).called("thousands of frames that nobody knows"),
	after(acceptor, block(3, false, 0x08, 3, '1', '0', '3')...).called("an interim response"),
	after(acceptor, block(3, true, 0x08, 3, '1', '0', '0')...).called("an interim response that ends the stream"),
	after(acceptor, block(3, false, 0x0f, 0x10, 0)...).called("a response without a status"),
	after(acceptor, frame(http2.FrameData, 1, 3, 'x')...).called("DATA in place of a response"),
	after(acceptor, block(5, true, 0x88)...).called("a response that nobody asked for"),
	after(opener, block(1, true, get...)...).called("a request on a stream that is over"),
}

// What is hostile is read as the reference does, up to where the connection breaks, and nothing behind.
func TestH2Hostile(t *testing.T) {
	d := start(t)
	for _, s := range hostile {
		t.Run(s.about, func(t *testing.T) {
			for seed := range uint64(10) {
				d.fuzzH2(t, s.request, s.response, seed)
			}
			for n := range min(len(s.request), 60) {
				d.fuzzH2(t, s.request[:n], s.response, uint64(n))
			}
			for n := range min(len(s.response), 60) {
				d.fuzzH2(t, s.request, s.response[:n], uint64(n))
			}
		})
	}
}
