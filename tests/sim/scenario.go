package sim

import (
	"math"
	"time"
)

// budget is what every sampler is given, in spans per second.
const budget = 100

// scenario is traffic: the load of each route at each second.
type scenario struct {
	name    string
	routes  int
	seconds int
	// load gives the exchanges per second of a route.
	load func(second float64, route int) float64
	// changes are the seconds at which load steps: how long samplers take to settle is measured from there.
	changes []int
	// steady tells whether a second is one of steady state.
	steady func(second int) bool
}

// zipf are shares of n routes, the largest first; they sum up to 1.
func zipf(n int) []float64 {
	shares, sum := make([]float64, n), 0.
	for i := range shares {
		shares[i] = 1 / math.Pow(float64(i+1), 1.1)
		sum += shares[i]
	}
	for i := range shares {
		shares[i] /= sum
	}
	return shares
}

// away tells whether a second is at least so many behind the start and behind each change.
func away(from int, changes ...int) func(int) bool {
	return func(second int) bool {
		if second < from {
			return false
		}
		for _, c := range changes {
			if second >= c && second < c+from {
				return false
			}
		}
		return true
	}
}

const (
	low, high = 1000., 10000. // exchanges per second
	warm      = 60            // seconds at the start, and behind a change, that are no steady state
)

func scenarios() []scenario {
	few, many := zipf(20), zipf(1000)
	ramp := func(second float64) float64 {
		switch {
		case second < 60:
			return low
		case second < 180:
			return low + (high-low)*(second-60)/120
		case second < 240:
			return high
		case second < 360:
			return high - (high-low)*(second-240)/120
		}
		return low
	}
	return []scenario{
		{
			name: "step", routes: 20, seconds: 300,
			load: func(second float64, route int) float64 {
				if second >= 60 && second < 180 {
					return high * few[route]
				}
				return low * few[route]
			},
			changes: []int{60, 180}, steady: away(warm, 60, 180),
		},
		{
			name: "ramp", routes: 20, seconds: 420,
			load:   func(second float64, route int) float64 { return ramp(second) * few[route] },
			steady: away(warm),
		},
		{
			name: "hot route", routes: 21, seconds: 240,
			load: func(second float64, route int) float64 {
				if route < 20 {
					return low * few[route]
				}
				if second >= 60 {
					return 5000
				}
				return 0
			},
			changes: []int{60}, steady: away(warm, 60),
		},
		{
			name: "1,000 routes", routes: 1000, seconds: 240,
			load:   func(_ float64, route int) float64 { return 5000 * many[route] },
			steady: away(warm),
		},
		{
			// A day in ten minutes, from 50 exchanges per second to 4,000, which is below the budget and far above it.
			name: "diurnal", routes: 20, seconds: 600,
			load: func(second float64, route int) float64 {
				return (50 + 3950*math.Pow(math.Sin(math.Pi*second/600), 2)) * few[route]
			},
			steady: away(warm),
		},
		{
			name: "below budget", routes: 20, seconds: 180,
			load:   func(_ float64, route int) float64 { return 60 * few[route] },
			steady: away(warm),
		},
	}
}

// tick is the step of a simulation.
const tick = 10 * time.Millisecond
