package sampling

import "time"

// Marks bound a signal: above High rates fall, below Low they rise, between they are held.
type Marks struct{ High, Low float64 }

// LoadConfig has the marks of each signal.
type LoadConfig struct {
	NodeCPU, NodeMemory Marks // shares of time, 0 to 1
	Self                Marks // share of one CPU
	Buffers             Marks // filling of the ring buffer and of the exporter's queue, 0 to 1
	CPU, Memory         Marks // of a workload, shares of time
	// Least is the lowest factor.
	Least float64
}

// DefaultLoad is what holds where nobody says otherwise.
func DefaultLoad() LoadConfig {
	return LoadConfig{
		NodeCPU: Marks{0.8, 0.5}, NodeMemory: Marks{0.2, 0.05}, Self: Marks{0.5, 0.25}, Buffers: Marks{0.5, 0.25},
		CPU: Marks{0.4, 0.2}, Memory: Marks{0.2, 0.05},
		Least: 0.01,
	}
}

// LoadState is the state of a factor.
type LoadState uint8

// A factor is 1 until a signal passes its high mark. It falls by half each fallEvery while one is above, holds
// while none is above and one is between the marks, and rises by a step a second when all have been low for riseAfter.
//
//	         above high                  all below low for riseAfter
//	Steady ─────────────> Falling <────┐ ┌──────────────> Rising ──> Steady, at 1
//	   ^                     │   above │ │                  │
//	   │                     v         │ │                  │ above high: Falling
//	   │                   Holding ────┴─┘ <── between ─────┘
//	   └── the limit on rising holds only after a fall
const (
	Steady LoadState = iota
	Falling
	Holding
	Rising
)

func (s LoadState) String() string { return [...]string{"steady", "falling", "holding", "rising"}[s] }

const (
	fallBy    = 0.5
	fallEvery = 2 * time.Second
	riseBy    = 0.1
	riseAfter = 5 * time.Second
)

// signal is one that is looked at with its marks.
type signal struct {
	name  string
	value float64
	Marks
}

// governor is one factor.
type governor struct {
	Load
	fell time.Time // when it fell last
	low  time.Time // since when all signals have been below their low marks; zero: they are not
}

func newGovernor() governor { return governor{Load: Load{Factor: 1}} }

// step takes one look at the signals, seconds after the one before. It tells whether the factor fell.
func (g *governor) step(now time.Time, seconds, least float64, signals ...signal) (fell bool) {
	above, between := "", false
	for _, s := range signals {
		if s.value > s.High {
			above = s.name
		} else if s.value >= s.Low {
			between = true
		}
	}
	if above != "" || between {
		g.low = time.Time{}
	} else if g.low.IsZero() {
		g.low = now
	}
	switch {
	case above != "":
		g.Cause = above
		if g.fell.IsZero() || now.Sub(g.fell) >= fallEvery {
			before := g.Factor
			g.Factor = max(g.Factor*fallBy, least)
			g.fell, fell = now, g.Factor < before
		}
		g.to(Falling, now)
	case g.Factor >= 1:
		g.to(Steady, now)
	case !g.low.IsZero() && now.Sub(g.low) >= riseAfter:
		g.Factor = min(1, g.Factor+riseBy*seconds)
		g.to(Rising, now)
	default:
		g.to(Holding, now)
	}
	return fell
}

func (g *governor) to(s LoadState, now time.Time) {
	if g.State != s || g.Since.IsZero() {
		g.State, g.Since = s, now
	}
}

// safety is what a factor leaves of each class: the background loses first, the critical last.
func safety(factor float64) [Classes]float64 {
	return [Classes]float64{Critical: min(1, 2*factor), Normal: factor, Background: factor * factor}
}
