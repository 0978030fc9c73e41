package parser

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ambit/bpf"
)

// h2Talk makes a conversation in HTTP/2, one turn for each step that a side takes on a stream. It knows what it says,
// so that the reference can be held against it.
type h2Talk struct {
	rng      *rand.Rand
	turns    conversation
	encoders [2]headerEncoder
	limits   [2]uint32 // of each side's encoder: what the other side has offered last
	open     []*h2Stream
	done     []*h2Exchange
	next     uint32 // stream of the opener
	pushed   uint32 // stream of the acceptor
	answered uint32 // the highest stream that the acceptor said anything of
	leaving  bool   // GOAWAY was said
}

// h2Stream is one that is open.
type h2Stream struct {
	h2Exchange
	asked  bool // END_STREAM of the opener was said
	pushed bool // the opener knows it by PUSH_PROMISE
}

// h2Plan is what kinds of conversation there are.
type h2Plan struct {
	streams, steps int
	tables         []uint32 // that the sides offer each other
	long           bool     // texts that are longer than what is kept
}

func newH2Talk(rng *rand.Rand) *h2Talk {
	t := &h2Talk{rng: rng, next: 1, limits: [2]uint32{4096, 4096}}
	for side := range t.encoders {
		if rng.IntN(3) == 0 {
			t.encoders[side] = newNetEncoder()
		} else {
			t.encoders[side] = newRandomEncoder(rng)
		}
	}
	return t
}

// randomH2Talk says hello, then takes random steps. Streams may still be open at its end.
func randomH2Talk(rng *rand.Rand, plan h2Plan) *h2Talk {
	t := newH2Talk(rng)
	t.say(opener, []byte(http2.ClientPreface))
	for side := range 2 {
		t.settings(plan, side)
	}
	for range plan.steps {
		side := rng.IntN(2)
		switch {
		case rng.IntN(6) == 0:
			t.control(plan, side)
		case side == opener && len(t.open) < plan.streams && !t.leaving && rng.IntN(2) == 0:
			t.begin(plan)
		case rng.IntN(40) == 0:
			t.push(plan)
		case rng.IntN(150) == 0 && !t.leaving:
			t.goAway()
		case len(t.open) > 0:
			t.step(plan, side, t.open[rng.IntN(len(t.open))])
		}
	}
	return t
}

func (t *h2Talk) say(side int, b []byte) {
	t.turns = append(t.turns, turn{side: side, text: string(b)})
}

// settings offers the other side a table, whose encoder takes it up with its next block.
func (t *h2Talk) settings(plan h2Plan, side int) {
	list := []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1000}, {ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}, {ID: 0x99, Val: 7}}
	size := uint32(4096)
	if len(plan.tables) > 0 && t.rng.IntN(2) == 0 {
		size = plan.tables[t.rng.IntN(len(plan.tables))]
		list = append(list, http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})
		t.limits[1-side] = size
	}
	t.say(side, settingsFrame(list...))
	t.say(1-side, frame(http2.FrameSettings, http2.FlagSettingsAck, 0))
	t.encoders[1-side].resize(t.limits[1-side])
}

// control is a frame that no exchange hears of.
func (t *h2Talk) control(plan h2Plan, side int) {
	stream := uint32(t.rng.IntN(int(t.next) + 2))
	switch t.rng.IntN(8) {
	case 0:
		t.say(side, frame(http2.FramePing, http2.Flags(t.rng.IntN(2)), 0, make([]byte, 8)...))
	case 1:
		t.settings(plan, side)
	case 2:
		t.say(side, frame(http2.FrameWindowUpdate, 0, stream, 0, 0, 1, byte(t.rng.Uint32())))
	case 3:
		t.say(side, frame(http2.FramePriority, 0, max(stream, 1), 0, 0, 0, 0, 9))
	case 4:
		// Within what was offered, an encoder may have any table.
		t.encoders[side].resize(uint32(t.rng.IntN(int(t.limits[side]) + 1)))
	case 5:
		t.say(side, frame(http2.FramePriorityUpdate, 0, 0, append([]byte{0, 0, 0, 1}, "u=3"...)...))
	default:
		noise := make([]byte, t.rng.IntN(300))
		for i := range noise {
			noise[i] = byte(t.rng.Uint32())
		}
		t.say(side, frame(http2.FrameType(0x11+t.rng.IntN(0xee)), http2.Flags(t.rng.Uint32()), stream, noise...))
	}
}

func (t *h2Talk) headers(side int, stream uint32, fields []hpack.HeaderField, l func(n int) layout) {
	block := t.encoders[side].block(fields)
	t.say(side, l(len(block)).headers(stream, block))
}

// random lays a block out; end: it is the side's last word on the stream.
func (t *h2Talk) random(end bool) func(n int) layout {
	return func(n int) layout { return randomLayout(t.rng, n, end) }
}

func (t *h2Talk) begin(plan h2Plan) {
	s := &h2Stream{h2Exchange: h2Exchange{stream: t.next, request: t.request(plan)}}
	t.next += 2 + 2*uint32(t.rng.IntN(3)/2)
	s.asked = t.rng.IntN(2) == 0
	t.open = append(t.open, s)
	t.headers(opener, s.stream, s.request, t.random(s.asked))
}

// push announces a stream of the acceptor's and may answer it, which makes no exchange.
func (t *h2Talk) push(plan h2Plan) {
	if len(t.open) == 0 {
		return
	}
	t.pushed += 2
	t.headers(acceptor, t.open[0].stream, t.request(plan), func(n int) layout {
		l := randomLayout(t.rng, n, false)
		l.priority, l.promise = false, t.pushed
		return l
	})
	if t.rng.IntN(2) == 0 {
		t.headers(acceptor, t.pushed, t.response(plan, "200"), t.random(false))
		t.say(acceptor, randomLayout(t.rng, 0, true).data(t.pushed, []byte("pushed")))
	}
}

func (t *h2Talk) goAway() {
	t.leaving = true
	// What the acceptor has answered it can't have overlooked.
	last := t.answered + uint32(t.rng.IntN(int(t.next-t.answered)+1))
	code := uint32(t.rng.IntN(14))
	t.say(acceptor, goAwayFrame(last, code, []byte("bye")[:t.rng.IntN(4)]...))
	for _, s := range slices.Clone(t.open) {
		if s.stream > last {
			s.errorCode = code
			t.close(s, bpf.EndingRefused)
		}
	}
}

func (t *h2Talk) close(s *h2Stream, ending uint8) {
	s.ending = ending
	t.open = slices.DeleteFunc(t.open, func(o *h2Stream) bool { return o == s })
	t.done = append(t.done, &s.h2Exchange)
}

// step goes on with a stream.
func (t *h2Talk) step(plan h2Plan, side int, s *h2Stream) {
	if side == acceptor {
		t.answered = max(t.answered, s.stream)
	}
	switch {
	case t.rng.IntN(25) == 0:
		s.errorCode, s.byOpener = uint32(t.rng.IntN(14)), side == opener
		if t.rng.IntN(10) == 0 {
			s.errorCode = t.rng.Uint32()
		}
		t.say(side, resetFrame(s.stream, s.errorCode))
		t.close(s, bpf.EndingStreamReset)
	case side == opener && s.asked:
	case side == opener && t.rng.IntN(5) == 0:
		s.asked = true
		t.headers(opener, s.stream, t.trailers(plan), t.random(true))
	case side == opener:
		s.asked = t.rng.IntN(3) == 0
		t.body(side, s, s.asked)
	case s.response == nil && t.rng.IntN(6) == 0:
		t.headers(acceptor, s.stream, t.interim(plan), t.random(false))
	case s.response == nil:
		s.response = t.response(plan, fmt.Sprint(200+t.rng.IntN(400)))
		only := t.rng.IntN(3) == 0
		if only {
			s.response = append(s.response, t.trailers(plan)...)
		}
		t.headers(acceptor, s.stream, s.response, t.random(only))
		if only {
			t.close(s, bpf.EndingResponse)
		}
	case t.rng.IntN(4) == 0:
		s.trailers = t.trailers(plan)
		t.headers(acceptor, s.stream, s.trailers, t.random(true))
		t.close(s, bpf.EndingResponse)
	default:
		end := t.rng.IntN(3) == 0
		t.body(side, s, end)
		if end {
			t.close(s, bpf.EndingResponse)
		}
	}
}

func (t *h2Talk) body(side int, s *h2Stream, end bool) {
	b := make([]byte, t.rng.IntN(1+t.rng.IntN(1000)))
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], t.rng.Uint64())
	}
	s.sent[side] += len(b)
	t.say(side, randomLayout(t.rng, 0, end).data(s.stream, b))
}
