package parser

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"golang.org/x/net/http2"
)

// frame is one frame as it is sent, whatever it says: its length alone is always right.
func frame(kind http2.FrameType, flags http2.Flags, stream uint32, payload ...byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), byte(kind), byte(flags)}
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// Frames whose payload is numbers.
func resetFrame(stream, code uint32) []byte {
	return frame(http2.FrameRSTStream, 0, stream, binary.BigEndian.AppendUint32(nil, code)...)
}

func goAwayFrame(last, code uint32, debug ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, last)
	return frame(http2.FrameGoAway, 0, 0, append(binary.BigEndian.AppendUint32(b, code), debug...)...)
}

func settingsFrame(settings ...http2.Setting) []byte {
	var b []byte
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return frame(http2.FrameSettings, 0, 0, b...)
}

// layout is how a header block or a body is put into frames.
type layout struct {
	end      bool // END_STREAM
	padded   bool // by pad bytes
	pad      byte
	priority bool  // HEADERS with what RFC 9113 deprecates
	cuts     []int // the rest of the block goes on in CONTINUATION frames
	promise  uint32
}

// randomLayout spreads a block of n bytes over up to four frames; an empty one may be anywhere.
func randomLayout(rng *rand.Rand, n int, end bool) layout {
	l := layout{end: end, padded: rng.IntN(4) == 0, priority: rng.IntN(4) == 0}
	if l.padded {
		l.pad = byte(rng.IntN(1 + rng.IntN(256)))
	}
	if rng.IntN(3) == 0 {
		for range rng.IntN(4) {
			l.cuts = append(l.cuts, rng.IntN(n+1))
		}
		slices.Sort(l.cuts)
	}
	return l
}

// headers are the frames of one header block: HEADERS, or PUSH_PROMISE, and CONTINUATION.
func (l layout) headers(stream uint32, block []byte) []byte {
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if l.end {
		flags |= http2.FlagHeadersEndStream
	}
	var head, tail []byte
	if l.padded {
		flags |= http2.FlagHeadersPadded
		head = append(head, l.pad)
		tail = make([]byte, l.pad)
	}
	switch {
	case l.promise != 0:
		kind = http2.FramePushPromise
		flags &^= http2.FlagHeadersEndStream
		head = binary.BigEndian.AppendUint32(head, l.promise)
	case l.priority:
		flags |= http2.FlagHeadersPriority
		head = append(head, 0x80, 0, 0, 0, 15)
	}
	var out []byte
	from := 0
	for i, to := range append(slices.Clone(l.cuts), len(block)) {
		if i == len(l.cuts) {
			flags |= http2.FlagHeadersEndHeaders
		}
		if i > 0 {
			kind, head, tail, flags = http2.FrameContinuation, nil, nil, flags&http2.FlagHeadersEndHeaders
		}
		out = append(out, frame(kind, flags, stream, slices.Concat(head, block[from:to], tail)...)...)
		from = to
	}
	return out
}

// data is one DATA frame.
func (l layout) data(stream uint32, body []byte) []byte {
	var flags http2.Flags
	if l.end {
		flags |= http2.FlagDataEndStream
	}
	if l.padded {
		flags |= http2.FlagDataPadded
		body = slices.Concat([]byte{l.pad}, body, make([]byte, l.pad))
	}
	return frame(http2.FrameData, flags, stream, body...)
}
