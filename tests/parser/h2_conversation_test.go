package parser

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/net/http2/hpack"

	"ambit/bpf"
)

// plain is what the reference tells of an exchange and a talk knows too.
func (e *h2Exchange) plain() h2Exchange {
	p := *e
	p.ended = 0
	for _, fields := range []*[]hpack.HeaderField{&p.request, &p.response, &p.trailers} {
		*fields = slices.Clone(*fields)
		for i := range *fields {
			(*fields)[i].Sensitive = false
		}
	}
	return p
}

// know holds the reference against what the talk said.
func (t *h2Talk) know(r *h2Reference) error {
	if r.broken != nil {
		return r.broken
	}
	want := slices.Clone(t.done)
	for _, s := range t.open {
		s.ending = bpf.EndingClosed
		want = append(want, &s.h2Exchange)
	}
	if len(want) != len(r.done) {
		return fmt.Errorf("%d exchanges, want %d", len(r.done), len(want))
	}
	for i, e := range want {
		if got, said := r.done[i].plain(), e.plain(); !reflect.DeepEqual(got, said) {
			return fmt.Errorf("exchange %d is\n%+v\nwant\n%+v", i, got, said)
		}
	}
	return nil
}

// late moves parts of what the acceptor says behind what the opener says next, as two directions of a wire do.
func (t *h2Talk) late() conversation {
	var out conversation
	var held string
	for _, turn := range t.turns {
		if turn.side == acceptor {
			turn.text, held = held+turn.text, ""
			if t.rng.IntN(3) == 0 {
				at := t.rng.IntN(len(turn.text) + 1)
				turn.text, held = turn.text[:at], turn.text[at:]
			}
		}
		if turn.text != "" {
			out = append(out, turn)
		}
	}
	if held != "" {
		out = append(out, reply(held))
	}
	return out
}

// packed puts turns of one side that follow each other in one segment.
func packed(c conversation) conversation {
	var out conversation
	for _, t := range c {
		if n := len(out); n > 0 && out[n-1].side == t.side {
			out[n-1].text += t.text
			continue
		}
		out = append(out, t)
	}
	return out
}

// randomCuts are some places in a conversation, or every one.
func randomCuts(rng *rand.Rand, c conversation) []int {
	var cuts []int
	mean := 1 + rng.IntN(1+rng.IntN(1500))
	for at := 0; at < c.size(); at += 1 + rng.IntN(mean) {
		cuts = append(cuts, at)
	}
	return cuts
}

// h2Plans are the kinds of conversation that are tried, in turn.
var h2Plans = []h2Plan{
	{streams: 8, steps: 150},
	{streams: 3, steps: 40, tables: []uint32{0, 64, 300, 1024, 4096}},
	{streams: 40, steps: 300, long: true},
	{streams: 200, steps: 700, tables: []uint32{4096, 2000}},
	{streams: 1, steps: 30, long: true, tables: []uint32{0, 100, 4096}},
}

// The reference reads what the talks say as they meant it, however it is cut.
func TestH2Reference(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 20))
		talk := randomH2Talk(rng, h2Plans[seed%uint64(len(h2Plans))])
		c := packed(talk.turns)
		for _, cuts := range [][]int{nil, randomCuts(rng, c)} {
			if err := talk.know(referenceOf(c.segments(cuts...), bpf.EndingClosed)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

// Whatever is legal is read as the reference reads it: every field of every exchange.
func TestH2Conversations(t *testing.T) {
	d := start(t)
	exchanges := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 21))
		talk := randomH2Talk(rng, h2Plans[seed%uint64(len(h2Plans))])
		for _, c := range []conversation{talk.turns, packed(talk.turns), packed(talk.late())} {
			cuts := randomCuts(rng, c)
			if rng.IntN(2) == 0 {
				cuts = nil
			}
			o, err := d.playH2(t, c.segments(cuts...))
			if err != nil {
				d.explain(t, fmt.Sprintf("seed %d", seed), c, cuts)
			}
			exchanges += len(o.records)
		}
	}
	t.Logf("%d exchanges", exchanges)
}

// Segments that come again, once more in other cuts, or late, change nothing.
func TestH2Repetitions(t *testing.T) {
	d := start(t)
	for _, n := range networks {
		if n.swap != 0 || n.lose != 0 {
			continue
		}
		t.Run(n.about, func(t *testing.T) {
			for seed := range uint64(200) {
				rng := rand.New(rand.NewPCG(seed, 22))
				c := packed(randomH2Talk(rng, h2Plans[seed%uint64(len(h2Plans))]).turns)
				segments := n.carry(rng, c)
				o := d.run(t, played(segments))[0]
				want := referenceOf(c.segments(), bpf.EndingClosed)
				err := want.compare(&o)
				if err == nil && o.counters["desync"] != 0 {
					err = fmt.Errorf("a repetition cost the place")
				}
				if err != nil {
					t.Fatalf("seed %d: %v\ncounters %v\n%s", seed, err, o.counters, h2Trace(segments))
				}
			}
		})
	}
}
