package sampling

import "time"

// BandConfig is the latency band of services: above High their base rate falls, below Low it rises, between it is held.
type BandConfig struct {
	// On tells of which services; nil is of none.
	On        func(service string) bool
	High, Low time.Duration // of the mean latency of a service's SERVER sides
	// Least is the lowest that remains of a rate.
	Least float64
}

// DefaultBand is off; its marks are those of operators who turn it on and say no others.
func DefaultBand() BandConfig {
	return BandConfig{High: 100 * time.Millisecond, Low: 50 * time.Millisecond, Least: 0.1}
}

const (
	bandFall  = 0.8
	bandRise  = 0.05
	bandDwell = 5 * time.Second
	// bandCount is how many exchanges a mean needs: with fewer the band holds.
	bandCount = 10
)

// band moves the base rate of one service. It steps when a mean over at least bandDwell and bandCount exchanges is there;
// at Least and at 1 it stands, and leaves from there with the first step the other way (no wind-up).
type band struct {
	factor float64
	mean   time.Duration // the latest, 0: none yet
	count  uint64
	sum    time.Duration
	since  time.Time
}

func (b *band) add(count uint64, sum time.Duration) {
	b.count += count
	b.sum += sum
}

func (b *band) step(now time.Time, c *BandConfig) {
	if b.since.IsZero() {
		b.since, b.factor = now, 1
	}
	if now.Sub(b.since) < bandDwell || b.count < bandCount {
		return
	}
	b.mean = b.sum / time.Duration(b.count)
	b.count, b.sum, b.since = 0, 0, now
	switch {
	case b.mean > c.High:
		b.factor = max(c.Least, b.factor*bandFall)
	case b.mean < c.Low:
		b.factor = min(1, b.factor+bandRise)
	}
}
