package parser

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ambit/bpf"
)

// FuzzHTTP2 feeds any bytes behind the opener's preface, and any of the acceptor. What the reference reads has to be
// read the same up to what it rejects, cut anywhere, and nothing comes behind that. The sides take turns by the seed, but
// never within a frame or a header block: who of two was first does not depend on how a frame is read.
func FuzzHTTP2(f *testing.F) {
	for _, s := range hostile {
		f.Add(s.request, s.response, uint64(0))
	}
	for seed := range uint64(8) {
		c := randomH2Talk(rand.New(rand.NewPCG(seed, 26)), h2Plan{streams: 2, steps: 12, tables: []uint32{0, 100, 4096}}).turns
		f.Add(c.stream(opener)[len(http2.ClientPreface):], c.stream(acceptor), seed)
	}
	var d *driver
	f.Cleanup(func() {
		if d != nil && !d.dead {
			if err := d.stop(); err != nil {
				f.Error(err)
			}
		}
	})
	f.Fuzz(func(t *testing.T, request, response []byte, seed uint64) {
		if len(request)+len(response) > 1<<16 {
			return
		}
		if d == nil || d.dead {
			var err error
			if d, err = launch(); err != nil {
				t.Fatal(err)
			}
		}
		d.fuzzH2(t, request, response, seed)
	})
}

// units are the frames of a stream, a header block as one; the rest is less than one, or none.
func units(b []byte) (whole [][]byte, rest []byte) {
	from, to := 0, 0
	for len(b)-to >= 9 && len(b)-to-9 >= frameLength(b[to:]) {
		head := b[to:]
		to += 9 + frameLength(head)
		switch http2.FrameType(head[3]) {
		case http2.FrameHeaders, http2.FramePushPromise, http2.FrameContinuation:
			if head[4]&byte(http2.FlagHeadersEndHeaders) == 0 {
				continue
			}
		}
		whole = append(whole, b[from:to])
		from = to
	}
	return whole, b[from:]
}

// turnsOf has both sides speak by turns, in a random order or the opener first.
func turnsOf(rng *rand.Rand, request, response []byte, ordered bool) conversation {
	c := conversation{ask(http2.ClientPreface)}
	var whole [2][][]byte
	var rest [2][]byte
	whole[opener], rest[opener] = units(request)
	whole[acceptor], rest[acceptor] = units(response)
	for len(whole[opener])+len(whole[acceptor]) > 0 {
		side := opener
		if len(whole[opener]) == 0 || !ordered && len(whole[acceptor]) > 0 && rng.IntN(2) == 0 {
			side = acceptor
		}
		c = append(c, turn{side: side, text: string(whole[side][0])})
		whole[side] = whole[side][1:]
	}
	for side := range rest {
		if len(rest[side]) > 0 {
			c = append(c, turn{side: side, text: string(rest[side])})
		}
	}
	return c
}

func (d *driver) fuzzH2(t *testing.T, request, response []byte, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 27))
	c := turnsOf(rng, request, response, seed%2 == 0)
	cuts := make([]int, rng.IntN(8))
	for i := range cuts {
		cuts[i] = 1 + rng.IntN(c.size()+1)
	}
	uncut, cut := packed(c).segments(), c.segments(cuts...)
	lost := slices.DeleteFunc(slices.Clone(cut), func(segment) bool { return rng.IntN(6) == 0 })
	joined := new(script)
	joined.join(seed&2 == 0)
	for _, g := range cut[rng.IntN(len(cut)):] {
		joined.segment(g)
	}
	joined.end(seed&4 == 0)
	full := new(script)
	full.limits(1, 1, true)
	full.Write(played(interleave(rng, cut)).Bytes())
	restored := new(script)
	restored.limits(64, 64, false)
	outcomes := d.run(t, played(uncut), played(cut), played(lost), joined, full, restored)
	for i := range outcomes {
		if err := outcomes[i].check(); err != nil {
			t.Fatalf("play %d: %v\n%s", i, err, h2Trace(cut))
		}
	}
	for i, segments := range [][]segment{uncut, cut} {
		want := referenceOf(segments, bpf.EndingClosed)
		if err := want.compare(&outcomes[i]); err != nil {
			t.Fatalf("play %d: %v\ncounters %v\n%s", i, err, outcomes[i].counters, h2Trace(segments))
		}
		if errors.Is(want.broken, hpack.ErrInvalidHuffman) {
			return
		}
	}
}
