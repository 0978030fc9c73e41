package parser

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Direction is what one side says.
type h2Direction struct {
	preface string // still to come
	unread  []byte // less than a frame
	began   int    // which piece brought its first byte
	framer  *http2.Framer
	whole   bytes.Buffer // what the framer reads: one frame
	decoder *hpack.Decoder
	allowed uint32 // the largest table that the other side ever offered
	fields  []hpack.HeaderField
	block   []byte // of HEADERS or PUSH_PROMISE, without END_HEADERS so far
	head    http2.FrameHeader
}

func frameLength(b []byte) int { return int(b[0])<<16 + int(b[1])<<8 + int(b[2]) }

// allows tells whether the frame may follow from this side: nothing comes between the parts of a header block, and the
// opener neither promises anything nor speaks on streams that are the acceptor's.
func (d *h2Direction) allows(side int, b []byte) error {
	kind, stream := http2.FrameType(b[3]), binary.BigEndian.Uint32(b[5:])<<1>>1
	goesOn := kind == http2.FrameContinuation
	if goesOn != (d.block != nil) || goesOn && d.head.StreamID != stream {
		return fmt.Errorf("frame of type %v out of order", kind)
	}
	if side == opener && (kind == http2.FramePushPromise || kind == http2.FrameHeaders && stream&1 == 0) {
		return fmt.Errorf("%v on stream %d of the opener", kind, stream)
	}
	return nil
}

// decode reads a block. hpack.Decoder takes no second size update at its beginning, which RFC 7541 allows.
func (d *h2Direction) decode(block []byte) ([]hpack.HeaderField, error) {
	d.fields = []hpack.HeaderField{}
	d.decoder.SetAllowedMaxDynamicTableSize(d.allowed)
	for len(block) > 0 && block[0]&0xe0 == 0x20 {
		size, n := hpackInteger(block, 5)
		if n == 0 || size > uint64(d.allowed) {
			return nil, fmt.Errorf("size update to %d of %d", size, d.allowed)
		}
		d.decoder.SetMaxDynamicTableSize(uint32(size))
		block = block[n:]
	}
	if _, err := d.decoder.Write(block); err != nil {
		return nil, err
	}
	return d.fields, d.decoder.Close()
}

// hpackInteger reads an integer with a prefix of so many bits and tells how many bytes it has; 0: it is not whole, or
// of more than 62 bits.
func hpackInteger(b []byte, bits uint) (uint64, int) {
	v := uint64(b[0]) & (1<<bits - 1)
	if v < 1<<bits-1 {
		return v, 1
	}
	for i, c := range b[1:] {
		if i == 9 {
			break
		}
		v += uint64(c&127) << (7 * i)
		if c < 128 {
			return v, i + 2
		}
	}
	return 0, 0
}

// opened is the stream whose header block has begun and is not whole; 0 is none.
func (d *h2Direction) opened() uint32 {
	if d.block != nil {
		return d.head.StreamID
	}
	if b := d.unread; len(b) >= 9 && len(b) < 9+frameLength(b) && b[3] == byte(http2.FrameHeaders) {
		return binary.BigEndian.Uint32(b[5:]) << 1 >> 1
	}
	return 0
}

// coming is how much of a stream's DATA there is of a frame that is not whole.
func (d *h2Direction) coming(stream uint32) int {
	b := d.unread
	if len(b) < 9 || len(b) >= 9+frameLength(b) || b[3] != byte(http2.FrameData) || binary.BigEndian.Uint32(b[5:])<<1>>1 != stream {
		return 0
	}
	length, b := frameLength(b), b[9:]
	if http2.Flags(d.unread[4]).Has(http2.FlagDataPadded) {
		if len(b) == 0 {
			return 0
		}
		length -= 1 + int(b[0])
		b = b[1:]
	}
	return max(0, min(len(b), length))
}

// doomed tells whether a frame or block that never became whole may be known to be wrong by what came of it. It spoils
// the direction.
func (d *h2Direction) doomed(side int) bool {
	block := d.block
	if b := d.unread; len(b) >= 9 && d.preface == "" {
		n := frameLength(b)
		if n > 16384 || d.allows(side, b) != nil {
			return true
		}
		d.whole.Reset()
		d.whole.Write(append(bytes.Clone(b), make([]byte, 9+n-len(b))...))
		if _, err := d.framer.ReadFrame(); err != nil {
			return true
		}
		part, last := fragment(b)
		block = append(block, part...)
		if last {
			_, err := d.decode(block)
			return err != nil
		}
	}
	if len(block) == 0 {
		return false
	}
	_, err := d.decode(block)
	return err != nil && (!strings.Contains(err.Error(), "truncated") || wrongName(block))
}

// wrongName tells whether a block breaks off in a field whose name is there, and is no Huffman code. hpack.Decoder looks at
// neither before it has the value.
func wrongName(block []byte) bool {
	for len(block) > 0 {
		texts, bits := 1, uint(4)
		switch c := block[0]; {
		case c&0x80 != 0:
			texts, bits = 0, 7
		case c&0x40 != 0:
			bits = 6
		case c&0x20 != 0:
			texts, bits = 0, 5
		}
		index, n := hpackInteger(block, bits)
		if n == 0 {
			return false
		}
		block = block[n:]
		if index == 0 {
			texts *= 2
		}
		for i := range texts {
			if len(block) == 0 {
				return false
			}
			size, n := hpackInteger(block, 7)
			if n == 0 || size > uint64(len(block)-n) {
				return false
			}
			if huffman := block[0]&0x80 != 0; huffman && i == 0 && index == 0 {
				if _, err := hpack.HuffmanDecodeToString(block[n : n+int(size)]); err != nil {
					return true
				}
			}
			block = block[n+int(size):]
		}
	}
	return false
}

// fragment is what there is of a header block in a frame of which the end may be missing; last: it ends the block, and
// padding alone is missing.
func fragment(b []byte) (part []byte, last bool) {
	kind, flags, rest, pad := http2.FrameType(b[3]), http2.Flags(b[4]), b[9:], 0
	if kind != http2.FrameHeaders && kind != http2.FramePushPromise && kind != http2.FrameContinuation {
		return nil, false
	}
	skip := 0
	if kind != http2.FrameContinuation && flags.Has(http2.FlagHeadersPadded) {
		if len(rest) == 0 {
			return nil, false
		}
		pad, skip = int(rest[0]), 1
	}
	if kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersPriority) {
		skip += 5
	}
	if kind == http2.FramePushPromise {
		skip += 4
	}
	size := max(frameLength(b)-pad, 0)
	end := min(len(rest), size)
	return rest[min(skip, end):end], end == size && flags.Has(http2.FlagHeadersEndHeaders)
}
