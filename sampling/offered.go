package sampling

import "math"

const (
	// follow is the weight of the latest second in a load that stays what it is.
	follow = 0.35
	// jump is how many standard deviations of a count away it is taken for another load.
	jump = 3.5
)

// estimate follows a load, in exchange sides per second: it smooths what is noise, and takes over at once what is more.
func estimate(before, now, seconds float64) float64 {
	// What was counted in so many seconds has the deviation of a Poisson count, of either load.
	deviation := math.Sqrt(max(before, now)*seconds+1) / seconds
	if math.Abs(now-before) > jump*deviation {
		return now
	}
	return before + follow*(now-before)
}
