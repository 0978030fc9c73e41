package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// Result is one scenario by one sampler.
type Result struct {
	Scenario string  `json:"scenario"`
	Sampler  string  `json:"sampler"`
	Budget   float64 `json:"budget"` // spans per second
	// Spent is the share of min(budget, offered load) that was kept in steady state.
	Spent float64 `json:"spent"`
	// Peak is the most spans in any one second, wherever it begins.
	Peak int `json:"peak"`
	// Settle is how many seconds the slowest change took until the spans of each of the next five seconds were within a fifth
	// of min(budget, offered); below 0 where they never were, absent in scenarios without one.
	Settle *float64 `json:"settle_s"`
	// FloorMet is the share of minutes of routes with an exchange that have a span.
	FloorMet float64 `json:"floor_met"`
	// Jain is Jain's index of fairness in steady state over each route's spans, divided by its max-min fair share.
	Jain float64 `json:"jain"`

	offered, kept []int // by second
}

// simulate runs a sampler for as long as the scenario is. now and sleep are those of the bubble.
func simulate(s scenario, name string, sm sampler, random *rand.Rand, sleep func()) Result {
	ticks := int(time.Second / tick)
	out := Result{Scenario: s.name, Sampler: name, Budget: budget}
	byTick := make([]int, 0, s.seconds*ticks)
	spans := make([]float64, s.routes)  // in steady state
	loads := make([]float64, s.routes)  // the same
	minute := make([][2]bool, s.routes) // an exchange, a span
	met, minutes := 0, 0
	steady := 0.
	var due []int
	for second := range s.seconds {
		offered, kept := 0, 0
		for t := range ticks {
			at := float64(second) + float64(t)/float64(ticks)
			due = due[:0]
			for route := range s.routes {
				for range poisson(random, s.load(at, route)/float64(ticks)) {
					due = append(due, route)
				}
			}
			random.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
			now, begun := time.Now(), kept
			for i, route := range due {
				offered++
				minute[route][0] = true
				if s.steady(second) {
					loads[route]++
				}
				if !sm.keep(now.Add(tick*time.Duration(i)/time.Duration(len(due))), route) {
					continue
				}
				kept++
				minute[route][1] = true
				if s.steady(second) {
					spans[route]++
				}
			}
			byTick = append(byTick, kept-begun)
			sleep()
		}
		sm.second(time.Now())
		out.offered, out.kept = append(out.offered, offered), append(out.kept, kept)
		if s.steady(second) {
			steady++
		}
		if second%60 == 59 {
			for route := range minute {
				if minute[route][0] {
					minutes++
					if minute[route][1] {
						met++
					}
				}
				minute[route] = [2]bool{}
			}
		}
	}
	out.Spent, out.Peak, out.Settle = spent(s, &out), peak(byTick, ticks), settle(s, &out)
	out.FloorMet = float64(met) / float64(minutes)
	out.Jain = jain(spans, loads, steady)
	return out
}

func spent(s scenario, r *Result) float64 {
	kept, could := 0., 0.
	for second := range s.seconds {
		if s.steady(second) {
			kept += float64(r.kept[second])
			could += min(budget, float64(r.offered[second]))
		}
	}
	return kept / could
}

// peak is the largest sum of as many ticks in a row as a second has.
func peak(byTick []int, ticks int) int {
	most, sum := 0, 0
	for i, n := range byTick {
		sum += n
		if i >= ticks {
			sum -= byTick[i-ticks]
		}
		most = max(most, sum)
	}
	return most
}

func settle(s scenario, r *Result) *float64 {
	const held, within = 5, 0.2
	slowest := 0.
	for i, change := range s.changes {
		end := s.seconds
		if i+1 < len(s.changes) {
			end = s.changes[i+1]
		}
		settled := -1
		for from := change; from+held <= end && settled < 0; from++ {
			good := true
			for second := from; second < from+held; second++ {
				want := min(budget, float64(r.offered[second]))
				good = good && math.Abs(float64(r.kept[second])-want) <= within*want
			}
			if good {
				settled = from - change
			}
		}
		if settled < 0 {
			slowest = -1
			break
		}
		slowest = max(slowest, float64(settled))
	}
	if len(s.changes) == 0 {
		return nil
	}
	return &slowest
}

// jain compares what routes got with their max-min fair shares, worked out from the load that there was.
func jain(spans, loads []float64, seconds float64) float64 {
	level, supply := 0., budget*seconds
	for lower, upper := 0., supply; upper-lower > 1e-9*supply; { // bisection shares no code with what is measured
		level = (lower + upper) / 2
		sum := 0.
		for _, l := range loads {
			sum += min(l, level)
		}
		if sum > supply {
			upper = level
		} else {
			lower = level
		}
	}
	n, sum, squares := 0., 0., 0.
	for i, l := range loads {
		if l == 0 {
			continue
		}
		x := spans[i] / min(l, level)
		n, sum, squares = n+1, sum+x, squares+x*x
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (n * squares)
}

// poisson draws a count with a mean, exactly for small ones.
func poisson(r *rand.Rand, mean float64) int {
	if mean > 30 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*r.NormFloat64())))
	}
	n, p, least := 0, r.Float64(), math.Exp(-mean)
	for p > least {
		n++
		p *= r.Float64()
	}
	return n
}
