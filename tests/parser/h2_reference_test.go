package parser

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

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
	unpadded  bool // and perhaps its padding alone was missing, with which the stream ends
	torn      bool // a head or trailers of the response had begun when the exchange ended: they may be read or not
	ended     int  // by which piece of the conversation
}

// h2Reference is what golang.org/x/net makes of a connection's two streams of bytes.
type h2Reference struct {
	sides      [2]h2Direction
	open       map[uint32]*h2Exchange
	done       []*h2Exchange // in the order in which they ended
	dropped    int           // for too many were open
	highest    uint32        // stream that the opener began
	goAway     uint32        // the lowest last stream of the acceptor's GOAWAYs
	goAwayCode uint32        // and why
	saying     *h2Direction  // whose bytes are read
	pieces     int           // of the conversation, so far

	torn   uint32        // stream whose request was never whole
	broken error         // why nothing is read any more
	since  int           // the first piece of what broke it, or would have if all of it had come
	lost   []*h2Exchange // open when it broke
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
	r.saying = d
	defer func() { r.saying = nil }()
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

func (r *h2Reference) refuse(last, code uint32) {
	if last >= r.goAway {
		return
	}
	r.goAway, r.goAwayCode = last, code
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
		e := &h2Exchange{stream: h.StreamID, request: fields}
		r.open[h.StreamID] = e
		if h.StreamID > r.goAway {
			e.errorCode = r.goAwayCode
			r.close(e, bpf.EndingRefused)
		}
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

// close ends an exchange.
func (r *h2Reference) close(e *h2Exchange, ending uint8) {
	e.ending, e.ended = ending, r.pieces
	for side := range r.sides {
		if d := &r.sides[side]; d != r.saying {
			e.sent[side] += d.coming(e.stream)
		}
	}
	delete(r.open, e.stream)
	if d := &r.sides[acceptor]; d.opened() == e.stream {
		e.torn = true
		e.unpadded = d.block == nil && d.unread[4]&0x9 == 0x9 || d.block != nil && d.head.Flags&0x9 == 0x9
	}
	r.done = append(r.done, e)
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
