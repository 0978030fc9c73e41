package daemon

import (
	"sync"

	"ambit/bpf"
)

// redEnded keeps what series had counted that ended, for the rows that go on: those that other series are in too, such as
// one of a service with several pods. Without it a row would go down, which a counter does at a restart alone, and all
// that is left of it would count again. A row without any series ends, and begins anew if it comes again.
type redEnded struct {
	mu     sync.Mutex
	shown  map[bpf.SeriesKey]redShown // by the last scrape
	counts map[redLabels]redRow
}

type redShown struct {
	*bpf.Series
	labels redLabels
}

func newRedEnded() *redEnded {
	return &redEnded{counts: make(map[redLabels]redRow)}
}

// keep adds to the rows of a snapshot what they had of series that it has no more. labels are those of its series. The
// caller holds mu.
func (e *redEnded) keep(snap *bpf.Snapshot, rows map[redLabels]redRow, labels map[bpf.SeriesKey]redLabels) {
	shown := make(map[bpf.SeriesKey]redShown, len(labels))
	for _, s := range snap.Series {
		if l, ok := labels[s.SeriesKey]; ok {
			shown[s.SeriesKey] = redShown{s, l}
		}
	}
	for key, before := range e.shown {
		if now, ok := shown[key]; !ok || !now.Begun.Equal(before.Begun) {
			e.counts[before.labels] = e.counts[before.labels].plus(before.Series)
		}
	}
	e.shown = shown
	for l, ended := range e.counts {
		row, ok := rows[l]
		if !ok {
			delete(e.counts, l)
			continue
		}
		row.Series, row.errors = row.Plus(ended.Series), row.errors+ended.errors
		rows[l] = row
	}
}
