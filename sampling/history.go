package sampling

import (
	"math"
	"time"
)

// Change is one change of a route's rate.
type Change struct {
	At       time.Time
	From, To float64 // below 0: the default held
	Reason   Reason
	Offered  float64 // exchange sides per second, then
	Level    float64 // spans per second that a route got at the most, before
	// Load and Band are the factors of the route's service.
	Load, Band float64
}

const (
	// historyLength is how many changes of a route are remembered.
	historyLength = 8
	// worthNoting is by how much a rate has to change, as a share of what it was, to be a change of its own.
	worthNoting = 0.25
)

// history is the latest changes of a route, in a ring.
type history struct {
	changes []Change // up to historyLength
	next    int
}

// note adds the change that out makes of r, if it is worth it, and tells so.
func (h *history) note(now time.Time, r *route, out Rate, level float64) bool {
	from := r.rate
	if n := len(h.changes); n > 0 {
		last := h.changes[(h.next+n-1)%n]
		if last.Reason == out.Reason && math.Abs(out.Rate-last.To) <= worthNoting*math.Abs(last.To) {
			return false
		}
		from = last.To
	}
	c := Change{
		At: now, From: from, To: out.Rate, Reason: out.Reason, Offered: r.offered, Level: level,
		Load: r.service.load.Factor, Band: r.service.band.factor,
	}
	if len(h.changes) < historyLength {
		h.changes = append(h.changes, c)
	} else {
		h.changes[h.next] = c
		h.next = (h.next + 1) % historyLength
	}
	return true
}

// list has the changes in the order of time.
func (h *history) list() []Change {
	out := make([]Change, 0, len(h.changes))
	for i := range h.changes {
		out = append(out, h.changes[(h.next+i)%len(h.changes)])
	}
	return out
}

// Explanation is what the controller knows of one route.
type Explanation struct {
	Rate       Rate
	Offered    float64 // exchange sides per second, smoothed
	LastKept   time.Time
	Load       Load // of its service
	Band       float64
	Mean       time.Duration // of its service's SERVER sides, 0: not looked at
	Changes    []Change      // oldest first
	Restarting bool          // nothing was measured of it yet
}

// Explain tells of one route; false where the last step had none with this key.
func (c *Controller) Explain(key uint64) (Explanation, bool) {
	r := c.routes[key]
	if r == nil {
		return Explanation{}, false
	}
	return Explanation{
		Rate: c.rates.Routes[r.index], Offered: r.offered, LastKept: r.lastKept, Load: r.service.load.Load,
		Band: r.service.band.factor, Mean: r.service.band.mean, Changes: r.history.list(), Restarting: !r.measured,
	}, true
}

// Offered is the load of a route in exchange sides per second, as the last step measured it.
func (c *Controller) Offered(key uint64) float64 {
	if r := c.routes[key]; r != nil {
		return r.offered
	}
	return 0
}
