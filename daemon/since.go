package daemon

import (
	"iter"

	"ambit/bpf"
)

// since gives each series of a snapshot with what it has counted since an earlier one, which may be nil.
func since(base, now *bpf.Snapshot) iter.Seq2[*bpf.Series, *bpf.Series] {
	before := make(map[bpf.SeriesKey]*bpf.Series)
	if base != nil {
		for _, s := range base.Series {
			before[s.SeriesKey] = s
		}
	}
	return func(yield func(s, counted *bpf.Series) bool) {
		for _, s := range now.Series {
			earlier := before[s.SeriesKey]
			// One that ended and began anew has counted nothing before.
			if earlier != nil && !earlier.Begun.Equal(s.Begun) {
				earlier = nil
			}
			if !yield(s, s.Minus(earlier)) {
				return
			}
		}
	}
}

// routesSince add up, by routes, what was counted since base, which may be nil.
func routesSince(base, now *bpf.Snapshot) map[uint64]redRow {
	sums := make(map[uint64]redRow)
	for s, counted := range since(base, now) {
		if s.Route != 0 {
			sums[s.Route] = sums[s.Route].plus(counted)
		}
	}
	return sums
}
