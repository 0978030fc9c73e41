package daemon

import (
	"time"

	"ambit/bpf"
)

const (
	// slowEvery is how often it is worked out what is slow of a route.
	slowEvery = 10 * time.Second
	// slowWindow to twice that is what the p99 of a route is over.
	slowWindow = 150 * time.Second
	// slowLeast is how many exchange sides of that time a p99 needs.
	slowLeast = 200
)

// slowRoutes tells the kernel what is slow of each route: what takes longer than a multiple of the route's own p99.
type slowRoutes struct {
	// set takes the limits of all routes, by their keys; one that is not among them has none.
	set func(map[uint64]time.Duration)

	// Before newer there is nothing to compare with: what a route has counted since the start is its latest.
	older, newer *bpf.Snapshot
	at           time.Time // of the latest limits, zero where none are in force
}

// tick is due with each snapshot. multiple is that of the setting, 0 is off.
func (s *slowRoutes) tick(now *bpf.Snapshot, multiple float64) {
	if multiple == 0 {
		if !s.at.IsZero() {
			s.set(nil)
		}
		*s = slowRoutes{set: s.set}
		return
	}
	if s.newer == nil {
		s.newer = now
	} else if now.At.Sub(s.newer.At) >= slowWindow {
		s.older, s.newer = s.newer, now
	}
	if now.At.Sub(s.at) < slowEvery {
		return
	}
	s.at = now.At
	limits := make(map[uint64]time.Duration)
	for key, sum := range routesSince(s.older, now) {
		if sum.Count() >= slowLeast {
			p99 := bpf.LatencyQuantile(0.99, sum.Below, &sum.Latency)
			limits[key] = time.Duration(multiple * p99 * float64(time.Second))
		}
	}
	s.set(limits)
}
