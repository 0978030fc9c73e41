package daemon

import (
	"maps"
	"slices"
	"testing"
	"time"

	"ambit/bpf"
)

// slowStage is a route and its limits, at a time of its own.
type slowStage struct {
	slowRoutes
	at      time.Time
	limits  map[uint64]time.Duration
	changes int
}

func newSlowStage() *slowStage {
	s := &slowStage{at: time.Unix(1e9, 0)}
	s.set = func(limits map[uint64]time.Duration) { s.limits, s.changes = limits, s.changes+1 }
	return s
}

// tick is some time later, when so much has been counted.
func (s *slowStage) tick(after time.Duration, multiple float64, series ...*bpf.Series) {
	s.at = s.at.Add(after)
	s.slowRoutes.tick(&bpf.Snapshot{At: s.at, Series: series}, multiple)
}

func serverSeries(route uint64, outcome bpf.Outcome, n uint64, took time.Duration) *bpf.Series {
	return counted(bpf.SeriesKey{Route: route, Service: 1, Kind: 1, Outcome: outcome}, n, took)
}

// isAbout is as near as buckets are.
func isAbout(got, want time.Duration) bool {
	return got > want*95/100 && got < want*105/100
}

func TestWhatIsSlowOfARoute(t *testing.T) {
	s := newSlowStage()
	few := serverSeries(2, 200, slowLeast-1, time.Second)
	s.tick(0, 3, serverSeries(1, 200, 10000, 10*time.Millisecond), serverSeries(1, 500, 50, time.Minute), few,
		serverSeries(0, 404, 10000, time.Hour))
	if got := slices.Sorted(maps.Keys(s.limits)); !slices.Equal(got, []uint64{1}) {
		t.Fatalf("limits of %v, want one of the route that counted enough", got)
	}
	if !isAbout(s.limits[1], 30*time.Millisecond) {
		t.Errorf("slow is above %v, want 3 times 10ms: a p99 is over all outcomes, and 50 of 10,000 are beyond it", s.limits[1])
	}
	// Not anew with each snapshot.
	s.tick(time.Second, 3, serverSeries(1, 200, 1e6, time.Second))
	if s.changes != 1 {
		t.Errorf("%d changes within %v", s.changes, slowEvery)
	}
	s.tick(slowEvery, 3, serverSeries(1, 200, 1e6, time.Second))
	if s.changes != 2 || !isAbout(s.limits[1], 3*time.Second) {
		t.Errorf("%d changes, slow is above %v", s.changes, s.limits[1])
	}
}

func TestTheP99IsThatOfTheLastMinutes(t *testing.T) {
	s := newSlowStage()
	old := serverSeries(1, 200, 10000, time.Millisecond)
	more := old.Plus(serverSeries(1, 200, 300, time.Second))
	s.tick(0, 2, old)
	if !isAbout(s.limits[1], 2*time.Millisecond) {
		t.Fatalf("slow is above %v at first", s.limits[1])
	}
	s.tick(slowWindow, 2, more)
	if !isAbout(s.limits[1], 2*time.Second) {
		t.Errorf("slow is above %v, want what the last 300 took", s.limits[1])
	}
	s.tick(slowWindow, 2, more)
	s.tick(slowWindow, 2, more)
	if len(s.limits) != 0 {
		t.Errorf("limits %v of a route that had no traffic", s.limits)
	}
	// One that went and came again has counted anew.
	again := serverSeries(1, 200, 400, 4*time.Second)
	again.Begun = s.at
	s.tick(slowWindow, 2, again)
	if !isAbout(s.limits[1], 8*time.Second) {
		t.Errorf("slow is above %v of the route that came again", s.limits[1])
	}
}

func TestOffTakesTheLimitsAway(t *testing.T) {
	s := newSlowStage()
	busy := serverSeries(1, 200, 10000, time.Millisecond)
	s.tick(0, 0, busy)
	if s.changes != 0 {
		t.Error("limits were set, and nobody asked")
	}
	s.tick(time.Second, 2, busy)
	s.tick(time.Second, 0, busy)
	if s.changes != 2 || len(s.limits) != 0 {
		t.Errorf("%d changes, limits %v", s.changes, s.limits)
	}
	s.tick(time.Second, 0, busy)
	if s.changes != 2 {
		t.Error("they are taken away again and again")
	}
	s.tick(time.Second, 2, busy)
	if s.changes != 3 || len(s.limits) != 1 {
		t.Errorf("on again: %d changes, limits %v", s.changes, s.limits)
	}
}
