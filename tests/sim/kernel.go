package sim

import "math/rand/v2"

// valve is the budget's bucket as l7/valve.h has it, of traffic of class normal.
type valve struct {
	due, interval int64 // nanoseconds
	burst         int64
}

func newValve(spansPerSecond float64) *valve {
	return &valve{interval: int64(1e9 / spansPerSecond), burst: 2e8}
}

// filling is how full the bucket is, from 0 to 1.
func (v *valve) filling(now int64) float64 {
	if v.due <= now {
		return 1
	}
	return max(0, 1-float64(v.due-now)/float64(v.burst))
}

// share is what remains of a probability.
func (v *valve) share(now int64) float64 {
	const empty, whole = 0.25, 0.65
	eased := min(1, max(0, (v.filling(now)-empty)/(whole-empty)))
	return eased * eased * eased * eased
}

func (v *valve) spend(now int64) bool {
	due := max(v.due, now) + v.interval
	if due > now+v.burst {
		return false
	}
	v.due = due
	return true
}

// slot is a route as the kernel has it.
type slot struct {
	count, kept uint64
	rate        float64 // below 0: none of its own
	floor       bool
}

// kernel decides and counts as the programs do.
type kernel struct {
	slots         []*slot // by route; nil: no exchange yet
	base          float64
	node          *valve
	floor         *valve
	other         uint64
	kept, refused uint64
	random        *rand.Rand
}

// decide is one exchange of a route. It answers whether a span is kept, and the probability that it had; 0: none is known.
func (k *kernel) decide(now int64, route int) (kept bool, p float64) {
	s := k.slots[route]
	if s == nil {
		// The first exchange of a route finds none; it has a slot and a floor when it has been answered.
		s = &slot{rate: -1, floor: true}
		k.slots[route] = s
		k.other++
	} else {
		s.count++
	}
	p = s.rate
	if p < 0 {
		p = k.base
	}
	r := k.random.Float64()
	if r < p {
		p *= k.node.share(now)
		if r >= p {
			k.refused++
		} else if k.node.spend(now) {
			k.kept++
			s.kept++
			return true, p
		}
	}
	if s.floor && k.node.filling(now) > 0 && k.floor.spend(now) && k.node.spend(now) {
		s.floor = false
		k.kept++
		s.kept++
		return true, 0
	}
	return false, 0
}
