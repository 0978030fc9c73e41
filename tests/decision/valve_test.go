package decision

import "time"

// burst is how long an empty budget takes to be full, in nanoseconds.
const burst = uint64(200 * time.Millisecond)

// valve are the budgets by their index; one that is not there has no limit.
type valve map[int]*bucket

// bucket is a budget of a fifth of a second's spans, full again at due; each takes interval, 0 is no limit.
type bucket struct {
	due, interval          uint64
	kept, refused, stopped uint64
}

func (v valve) of(index int) *bucket {
	if v[index] == nil {
		v[index] = new(bucket)
	}
	return v[index]
}

func (v valve) clone() valve {
	c := make(valve, len(v))
	for index, b := range v {
		c[index] = new(*b)
	}
	return c
}

// filling is how full it is, of whole.
func (b *bucket) filling(now uint64) uint32 {
	if b.interval == 0 || b.due <= now {
		return whole
	}
	return whole - uint32(min(b.due-now, burst)*whole/burst)
}

// spend takes a span out of it; an empty one has none.
func (b *bucket) spend(now uint64) bool {
	if b.interval > 0 {
		from := max(b.due, now)
		if from-now >= burst {
			b.stopped++
			return false
		}
		b.due = from + b.interval
	}
	b.kept++
	return true
}

// refuse counts what the raised threshold refused, and of that what an empty bucket did.
func (b *bucket) refuse(now uint64) {
	b.refused++
	if b.interval > 0 && b.due > now+burst {
		b.stopped++
	}
}

// share is what a class gets of a budget that is so full: background loses from a full one on and all at 0.65, normal
// from there to a quarter, critical from a quarter to nothing.
func share(class int, full uint32) uint32 {
	bounds := [...]uint32{0, whole / 4, whole * 65 / 100, whole}
	empty, all := bounds[class], bounds[class+1]
	return eased(uint32(uint64(min(max(full, empty), all)-empty) * whole / uint64(all-empty)))
}

// eased is the fourth power: so the balance is far from empty, whatever the flood.
func eased(full uint32) uint32 { return times(times(full, full), times(full, full)) }

// shrink is the threshold of a fraction of a probability, times the fraction of a fraction. Both round the probability
// down.
func shrink(threshold uint64, fraction uint32) uint64 {
	if fraction >= whole {
		return threshold
	}
	return never - (never-threshold)/whole*uint64(fraction)
}

func times(a, b uint32) uint32 { return uint32(uint64(a) * uint64(b) / whole) }
