package parser

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"ambit/bpf"
)

// What is lost or comes out of order makes a record absent, or parts of it, but nothing in it wrong.
func TestH2Gaps(t *testing.T) {
	d := start(t)
	for _, n := range networks {
		if n.swap == 0 && n.lose == 0 {
			continue
		}
		t.Run(n.about, func(t *testing.T) {
			reported, sent, broken := 0, 0, uint64(0)
			for seed := range uint64(150) {
				rng := rand.New(rand.NewPCG(seed, 23))
				c := packed(randomH2Talk(rng, h2Plans[seed%uint64(len(h2Plans))]).turns)
				want := referenceOf(c.segments(), bpf.EndingClosed)
				segments := n.carry(rng, c)
				play := func(segments []segment) *script {
					s := played(segments)
					if n.closing {
						s.end(false)
					}
					return s
				}
				o := d.run(t, play(segments))[0]
				if err := want.compareSeen(&o); err != nil {
					d.explainGaps(t, fmt.Sprintf("seed %d", seed), want, segments, play)
				}
				reported += len(o.records)
				sent += len(want.done)
				broken += o.counters["http2_broken"]
			}
			t.Logf("%d of %d exchanges reported, %d of 150 connections given up", reported, sent, broken)
			// What looks like frames may be none; but seldom.
			if reported == 0 || broken > 5 {
				t.Error("the parser gives up too easily")
			}
		})
	}
}

// A connection that was open before is taken up where a segment is a chain of frames. What its blocks refer to from
// before is unknown.
func TestH2Joined(t *testing.T) {
	d := start(t)
	reported, unknown, sent := 0, 0, 0
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 24))
		talk := randomH2Talk(rng, h2Plans[seed%uint64(len(h2Plans))])
		c := talk.turns
		if rng.IntN(2) == 0 {
			c = packed(c)
		}
		var cuts []int
		if rng.IntN(2) == 0 {
			cuts = randomCuts(rng, c)
		}
		segments := c.segments(cuts...)
		want := referenceOf(segments, bpf.EndingClosed)
		from := rng.IntN(len(segments))
		known := rng.IntN(2) == 0
		play := func(segments []segment) *script {
			s := new(script)
			s.join(known)
			for _, g := range segments {
				s.segment(g)
			}
			s.end(false)
			return s
		}
		o := d.run(t, play(segments[from:]))[0]
		if err := want.compareSeen(&o); err != nil {
			d.explainGaps(t, fmt.Sprintf("seed %d from segment %d", seed, from), want, segments[from:], play)
		}
		for i := range o.records {
			if o.records[i].Flags&bpf.FlagJoined == 0 {
				t.Fatalf("seed %d: a record of an open connection does not say so", seed)
			}
			if o.records[i].Flags&(bpf.FlagRequestUnknown|bpf.FlagResponseUnknown) != 0 {
				unknown++
			}
		}
		reported += len(o.records)
		sent += len(want.done)
	}
	about := fmt.Sprintf("%d of %d exchanges reported, %d of them with something unknown", reported, sent, unknown)
	t.Log(about)
	if reported < sent/10 || unknown == 0 {
		t.Error(about)
	}
}
