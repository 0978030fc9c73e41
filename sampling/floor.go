package sampling

import (
	"slices"
	"time"
)

const (
	// floorEvery is how long a route waits for a span before it is granted one.
	floorEvery = time.Minute
	// floorShare is how much of the budget floors take at the most.
	floorShare = 1. / 3
)

// waiting is a route that was not kept for floorEvery.
type waiting struct {
	index  int // in the step's routes
	since  time.Time
	active bool // it had exchanges in the last second: a grant will be taken at once
}

// grant chooses who is granted a span: of the routes with traffic those that have waited longest, as many as the budget
// allows in the time of a step; and all others, which take theirs when an exchange comes (the kernel's own budget of floors
// bounds how many do so at once). It returns how many had to wait.
func grant(rates []Rate, list []waiting, allowance float64) (left float64, granted, deferred int) {
	slices.SortFunc(list, func(a, b waiting) int { return a.since.Compare(b.since) })
	for _, w := range list {
		if w.active {
			if allowance < 1 {
				deferred++
				continue
			}
			allowance--
			granted++
		}
		rates[w.index].Floor = true
	}
	return allowance, granted, deferred
}
