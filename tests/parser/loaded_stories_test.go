package parser

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"ambit/bpf"
)

// The kernel reads every block of the corpus as the host build does, which means right: whole, and cut at some places, and
// counts the same; at both ends of a cable, too.
func TestLoadedStories(t *testing.T) {
	d := start(t)
	for name, place := range map[string]func(testing.TB) *loaded{"lo": load, "cable": loadCable} {
		t.Run(name, func(t *testing.T) {
			l := place(t)
			exchanges := 0
			for _, s := range stories(t) {
				c := s.told(func(int) layout { return layout{} })
				want := referenceOf(c.segments(), bpf.EndingClosed)
				if err := s.reads(want); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				plays := [][]segment{c.segments()}
				for _, place := range []int{1, 2, 7, s.size / 2, s.size - 1} {
					plays = append(plays, c.segments(s.blockCuts(c, place)...))
				}
				for i, o := range l.play(t, plays...) {
					ofHost := d.run(t, played(plays[i]))[0]
					for side, one := range o.perSide(name == "cable") {
						err := want.compare(&one)
						if err == nil {
							err = one.like(&ofHost)
						}
						if err != nil {
							t.Fatalf("%s, play %d, %d: %v\n%s", s.name, i, side, err, h2Trace(plays[i]))
						}
						exchanges += len(one.records)
					}
				}
			}
			l.over(t)
			t.Logf("%d exchanges", exchanges)
		})
	}
}

// perSide are the outcomes of each end of a cable, which are alike: each is counted as one that has both.
func (o *outcome) perSide(cable bool) []outcome {
	if !cable {
		return []outcome{*o}
	}
	sides := make([]outcome, 2)
	for side := range sides {
		one := &sides[side]
		one.counters = make(map[string]uint64)
		for name, n := range o.counters {
			switch {
			case name == "segments_without_socket":
			case name == "seen" || name == "submitted":
				one.counters[name] = n
			case n%2 == 0:
				one.counters[name] = n / 2
			default:
				one.counters[name] = n // and differ
			}
		}
		for _, r := range o.records {
			if r.Kept == 1<<side {
				r.Kept = 3
				one.records = append(one.records, r)
			}
		}
	}
	return sides
}

// like holds what came from the kernel against what came from the host build.
func (o *outcome) like(host *outcome) error {
	if o.counters["flows"] != 1 || o.counters["flows_ended"] != 1 {
		return fmt.Errorf("it is not one connection: %v", o.counters)
	}
	if !maps.Equal(o.counters, host.counters) {
		return fmt.Errorf("counters are %v, of the host build %v", o.counters, host.counters)
	}
	if len(o.records) != len(host.records) {
		return fmt.Errorf("%d records, of the host build %d", len(o.records), len(host.records))
	}
	for i := range o.records {
		got, want := &o.records[i], &host.records[i]
		if got.Stream != want.Stream || got.Status != want.Status || got.Cut != want.Cut || got.Fields != want.Fields ||
			!slices.Equal(got.Text[:got.Used], want.Text[:want.Used]) {
			return fmt.Errorf("record %d is of stream %d, status %d, %q; of the host build of %d, %d, %q", i, got.Stream, got.Status,
				got.Text[:got.Used], want.Stream, want.Status, want.Text[:want.Used])
		}
	}
	return nil
}
