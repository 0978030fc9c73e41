package parser

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ambit/bpf"
)

// streamsMax is how many exchanges of one connection are followed at once.
const streamsMax = 257

// h2Exchange is one stream by the reference's word.
type h2Exchange struct {
	stream    uint32
	request   []hpack.HeaderField
	response  []hpack.HeaderField // head of the final response
	trailers  []hpack.HeaderField // of the response
	sent      [2]int              // bytes of DATA per side, without padding
	ending    uint8
	errorCode uint32
	byOpener  bool
	odd       bool // the response is none by RFC 9113: neither what is read of it nor its end is compared
	late      bool // it began behind a GOAWAY that refuses it
	torn      bool // a head or trailers of the response had begun when the exchange ended: they may be read or not
	ended     int  // by which piece of the conversation
}

// h2Reference is what golang.org/x/net makes of a connection's two streams of bytes.
type h2Reference struct {
	sides   [2]h2Direction
	open    map[uint32]*h2Exchange
	done    []*h2Exchange // in the order in which they ended
	dropped int           // for too many were open
	highest uint32        // stream that the opener began
	goAway  uint32        // the lowest last stream of the acceptor's GOAWAYs
	pieces  int           // of the conversation, so far

	torn   uint32        // stream whose request was never whole
	broken error         // why nothing is read any more
	since  int           // the first piece of what broke it, or would have if all of it had come
	lost   []*h2Exchange // open when it broke
}

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

func newH2Reference() *h2Reference {
	r := &h2Reference{open: make(map[uint32]*h2Exchange), goAway: 1<<31 - 1}
	for i := range r.sides {
		d := &r.sides[i]
		d.framer = http2.NewFramer(nil, &d.whole)
		d.framer.AllowIllegalReads = true // of the order of frames it does not know that PUSH_PROMISE may go on
		d.allowed = 4096
		d.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) { d.fields = append(d.fields, f) })
	}
	r.sides[opener].preface = http2.ClientPreface
	return r
}

// referenceOf reads segments that come in order, as often as they may be repeated, up to the connection's end.
func referenceOf(segments []segment, ending uint8) *h2Reference {
	r := newH2Reference()
	next := [2]uint32{openerISN + 1, acceptorISN + 1}
	for _, g := range segments {
		old := int32(next[g.side] - g.seq)
		if old < 0 {
			panic("a gap in front of the reference")
		}
		if int(old) >= len(g.bytes) {
			continue
		}
		next[g.side] = g.seq + uint32(len(g.bytes))
		r.say(g.side, g.bytes[old:])
	}
	r.end(ending)
	return r
}

// say hands the next bytes of a side over.
func (r *h2Reference) say(side int, b []byte) {
	d := &r.sides[side]
	r.pieces++
	if len(d.unread) == 0 {
		d.began = r.pieces
	}
	d.unread = append(d.unread, b...)
	for r.broken == nil {
		if n := min(len(d.preface), len(d.unread)); n > 0 {
			if d.preface[:n] != string(d.unread[:n]) {
				r.fail(d, errors.New("no preface"))
				return
			}
			d.preface, d.unread = d.preface[n:], d.unread[n:]
			continue
		}
		if len(d.unread) < 9 {
			return
		}
		n := 9 + frameLength(d.unread)
		if len(d.unread) < n {
			// What GOAWAY says is said when its numbers are there; the text behind them may be long.
			if side == acceptor && d.unread[3] == byte(http2.FrameGoAway) && len(d.unread) >= 17 && d.allows(side, d.unread) == nil {
				r.refuse(binary.BigEndian.Uint32(d.unread[9:])<<1>>1, binary.BigEndian.Uint32(d.unread[13:]))
			}
			return
		}
		one := d.unread[:n]
		d.unread = d.unread[n:]
		if err := r.frame(side, one); err != nil {
			r.fail(d, err)
			return
		}
		if d.block == nil {
			d.began = r.pieces
		}
	}
}

func frameLength(b []byte) int { return int(b[0])<<16 + int(b[1])<<8 + int(b[2]) }

// fail ends the reading of the connection.
func (r *h2Reference) fail(d *h2Direction, err error) {
	r.broken, r.since = err, d.began
	for _, e := range r.open {
		r.lost = append(r.lost, e)
	}
	clear(r.open)
}

// frame reads one whole frame.
func (r *h2Reference) frame(side int, b []byte) error {
	d := &r.sides[side]
	if http2.FrameType(b[3]) == http2.FramePriorityUpdate {
		b = bytes.Clone(b)
		b[3] = 0xff // an extension, which RFC 9113 does not know
	}
	if err := d.allows(side, b); err != nil {
		return err
	}
	d.whole.Reset()
	d.whole.Write(b)
	f, err := d.framer.ReadFrame()
	var stream http2.StreamError
	if errors.As(err, &stream) && b[3] != byte(http2.FrameHeaders) {
		return nil
	}
	// Numbers out of their range end the connection too, but it is for the one who gets them to say so.
	if err == http2.ConnectionError(http2.ErrCodeFlowControl) || err != nil && b[3] == byte(http2.FrameWindowUpdate) && len(b) == 13 {
		return nil
	}
	if err != nil {
		// Padding that is longer than HEADERS is an error of the connection too: the block is missing in the table.
		return fmt.Errorf("frame of type %d: %w", b[3], err)
	}
	h := f.Header()
	switch f := f.(type) {
	case *http2.DataFrame:
		r.data(side, h.StreamID, len(f.Data()), f.StreamEnded())
	case *http2.HeadersFrame:
		d.block, d.head = append([]byte{}, f.HeaderBlockFragment()...), h
		return r.blockEnds(side, f.HeadersEnded())
	case *http2.PushPromiseFrame:
		d.block, d.head = append([]byte{}, f.HeaderBlockFragment()...), h
		return r.blockEnds(side, f.HeadersEnded())
	case *http2.ContinuationFrame:
		d.block = append(d.block, f.HeaderBlockFragment()...)
		return r.blockEnds(side, f.HeadersEnded())
	case *http2.RSTStreamFrame:
		if e := r.open[h.StreamID]; e != nil {
			e.errorCode, e.byOpener = uint32(f.ErrCode), side == opener
			r.close(e, bpf.EndingStreamReset)
		}
	case *http2.GoAwayFrame:
		if side == acceptor {
			r.refuse(f.LastStreamID, uint32(f.ErrCode))
		}
	case *http2.SettingsFrame:
		if v, ok := f.Value(http2.SettingHeaderTableSize); ok && !f.IsAck() {
			other := &r.sides[1-side]
			other.allowed = max(other.allowed, v)
		}
	}
	return nil
}

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

func (r *h2Reference) refuse(last, code uint32) {
	if last >= r.goAway {
		return
	}
	r.goAway = last
	var refused []*h2Exchange
	for _, e := range r.open {
		if e.stream > last {
			refused = append(refused, e)
		}
	}
	slices.SortFunc(refused, func(a, b *h2Exchange) int { return cmp.Compare(a.stream, b.stream) })
	for _, e := range refused {
		e.errorCode = code
		r.close(e, bpf.EndingRefused)
	}
}

func (r *h2Reference) data(side int, stream uint32, n int, ends bool) {
	e := r.open[stream]
	if e == nil {
		return
	}
	e.sent[side] += n
	if side == opener {
		return
	}
	e.odd = e.odd || e.response == nil
	if ends {
		r.close(e, bpf.EndingResponse)
	}
}

// blockEnds decodes a header block when its last frame is there.
func (r *h2Reference) blockEnds(side int, ends bool) error {
	d := &r.sides[side]
	if !ends {
		return nil
	}
	fields, err := d.decode(d.block)
	d.block = nil
	if err != nil {
		return err
	}
	h := d.head
	if h.Type == http2.FramePushPromise || h.StreamID&1 == 0 {
		return nil
	}
	e := r.open[h.StreamID]
	switch {
	case side == opener && h.StreamID > r.highest:
		r.highest = h.StreamID
		if len(r.open) == streamsMax {
			r.dropped++
			return nil
		}
		r.open[h.StreamID] = &h2Exchange{stream: h.StreamID, request: fields, late: h.StreamID > r.goAway}
	case side == acceptor && e != nil:
		r.respond(e, fields, h.Flags.Has(http2.FlagHeadersEndStream))
	}
	return nil
}

func (r *h2Reference) respond(e *h2Exchange, fields []hpack.HeaderField, ends bool) {
	interim := e.response == nil && statusOf(fields)/100 == 1
	switch {
	case interim && !ends:
		return
	case interim:
		e.odd = true
	case e.response == nil:
		e.response = fields
		e.odd = e.odd || statusOf(fields) == 0
	default:
		e.odd = e.odd || !ends || e.trailers != nil
		e.trailers = fields
	}
	if ends {
		r.close(e, bpf.EndingResponse)
	}
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

// close ends an exchange.
func (r *h2Reference) close(e *h2Exchange, ending uint8) {
	e.ending, e.ended = ending, r.pieces
	for side := range r.sides {
		e.sent[side] += r.sides[side].coming(e.stream)
	}
	delete(r.open, e.stream)
	e.torn = r.sides[acceptor].opened() == e.stream
	r.done = append(r.done, e)
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

// end is the connection's.
func (r *h2Reference) end(ending uint8) {
	for i := range r.sides {
		if d := &r.sides[i]; r.broken == nil && d.doomed(i) && (r.since == 0 || d.began < r.since) {
			r.since = d.began
		}
	}
	if stream := r.sides[opener].opened(); r.broken == nil && stream&1 != 0 && stream > r.highest {
		r.torn = stream
	}
	var open []*h2Exchange
	for _, e := range r.open {
		open = append(open, e)
	}
	slices.SortFunc(open, func(a, b *h2Exchange) int { return cmp.Compare(a.stream, b.stream) })
	for _, e := range open {
		r.close(e, ending)
	}
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
		block = append(block, fragment(b)...)
	}
	_, err := d.decode(block)
	return err != nil && !strings.Contains(err.Error(), "truncated")
}

// fragment is what there is of a header block in a frame of which the end may be missing.
func fragment(b []byte) []byte {
	kind, flags, rest, pad := http2.FrameType(b[3]), http2.Flags(b[4]), b[9:], 0
	if kind != http2.FrameHeaders && kind != http2.FramePushPromise && kind != http2.FrameContinuation {
		return nil
	}
	skip := 0
	if kind != http2.FrameContinuation && flags.Has(http2.FlagHeadersPadded) {
		if len(rest) == 0 {
			return nil
		}
		pad, skip = int(rest[0]), 1
	}
	if kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersPriority) {
		skip += 5
	}
	if kind == http2.FramePushPromise {
		skip += 4
	}
	end := min(len(rest), frameLength(b)-pad)
	return rest[min(skip, max(end, 0)):max(end, 0)]
}
