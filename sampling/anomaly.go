package sampling

import (
	"math"
	"time"
)

// Window is what a detector is told of one route over one span of time.
type Window struct {
	Key           uint64
	Count, Errors uint64
	// P50 and P90 are quantiles of latency, as the base-2 logarithm of seconds.
	P50, P90 float64
}

// AnomalyKind says what of a route is unlike itself.
type AnomalyKind uint8

// Kinds of anomalies.
const (
	LatencyShift AnomalyKind = iota // its latency stepped up
	LatencyRamp                     // its latency crept up
	ErrorRate                       // more of it fails
	AnomalyKinds
)

func (k AnomalyKind) String() string {
	return [AnomalyKinds]string{"latency_shift", "latency_ramp", "error_rate"}[k]
}

// Anomaly is one event: a route that behaves unlike itself, told once.
type Anomaly struct {
	Key  uint64
	Kind AnomalyKind
	At   time.Time
	// Value is what was found, Usual what the route had before: of latency seconds, of errors the ratio, 0 to 1.
	Value, Usual float64
	// Until is when the boost ends.
	Until time.Time
}

// DetectorConfig has what was tuned on the seeds of tests/anomaly, and reported on others.
type DetectorConfig struct {
	// Window is how long a window is.
	Window time.Duration
	// Least is how many exchange sides a window needs to be judged.
	Least uint64
	// Learn is how many windows a route is watched before it is judged.
	Learn int
	// Score is by how many deviations a quantile must be above its usual in one window, ScoreTwice by how many the mean of
	// two in a row.
	Score, ScoreTwice float64
	// Shift is the smallest shift that counts, as a factor.
	Shift float64
	// Ramp is the sum of deviations, each less Drift, at which a creeping latency counts.
	Ramp, Drift float64
	// Trust is the number of deviations of Wilson's lower bound of two windows' error ratio, which must be above
	// ErrorFactor times the usual ratio and ErrorLeast more.
	Trust, ErrorFactor, ErrorLeast float64
	// Boost is how long a route is sampled more, Quiet how long it is left alone after that, and QuietRamp the same where its
	// latency creeps; what is found meanwhile is part of the same event, and prolongs that.
	Boost, Quiet, QuietRamp time.Duration
}

// DefaultDetector is what holds.
func DefaultDetector() DetectorConfig {
	return DetectorConfig{
		Window: 30 * time.Second, Least: 40, Learn: 8,
		Score: 3, ScoreTwice: 4.5, Shift: 1.3, Ramp: 12, Drift: 1,
		Trust: 3, ErrorFactor: 2, ErrorLeast: 0.003,
		Boost: time.Minute, Quiet: 4 * time.Minute, QuietRamp: 15 * time.Minute,
	}
}

// Detector finds routes that behave unlike themselves. It is not safe for concurrent use, has no clock and does no I/O. It
// keeps about 200 bytes for each route of the latest windows.
//
// Each route goes through these states; a lone window that is off is none of the others' business:
//
//	learning ──Learn windows──> usual <──────────────────────────────┐
//	    ^                         │ off                              │
//	    │ (what is usual now      v            within                │
//	    │  is learned anew)    suspected ────────────────────────────┤
//	    │                         │ off again: an event              │
//	    └──────── quiet <── boosted (Boost)                          │
//	                └──── what was learned before fits again ────────┘
type Detector struct {
	config DetectorConfig
	routes map[uint64]*baseline
	round  uint64
	found  [AnomalyKinds]uint64
}

// NewDetector makes a detector that knows nothing.
func NewDetector(c DetectorConfig) *Detector {
	return &Detector{config: c, routes: make(map[uint64]*baseline)}
}

// Window is how long the windows are to be.
func (d *Detector) Window() time.Duration { return d.config.Window }

// Found counts the events of each kind.
func (d *Detector) Found() [AnomalyKinds]uint64 { return d.found }

// baseline is what is usual of one route.
type baseline struct {
	round   uint64
	windows int
	p50     level
	p90     level
	// errors and count are sums of windows that fade.
	errors, count float64
	last          Window // the one before, for what has to be confirmed
	suspected     bool   // of latency, by last
	score         float64
	slow          float64   // a p50 that follows more slowly, for ramps
	ramp          float64   // sum of deviations from it
	boosted       time.Time // until when
	quiet         time.Time // until when
	creeps        bool      // the last event is a ramp
}

// level is a moving level with its usual deviation, both of base-2 logarithms.
type level struct{ mean, deviation float64 }

const (
	// fade is the weight of the latest window in a level.
	fade = 0.08
	// fadeDeviation is that in the deviation, fadeErrors that in the sums of errors.
	fadeDeviation = 0.05
	fadeErrors    = 0.02
	// fadeSlow is that in the level that ramps are compared with.
	fadeSlow = 0.015
	// relearn is how many windows a level that was taken over counts for.
	relearn = 4
	// leastDeviation is the smallest that a level is taken to have: what a histogram of that resolution can tell.
	leastDeviation = 0.06
	// priorErrors of priorCount are what every route is taken to have had.
	priorErrors, priorCount = 0.5, 1000
	// madToDeviation makes a mean absolute deviation of normal noise a standard deviation.
	madToDeviation = 1.2533
)

// score is how far above its level a value is, in deviations; spread is the noise of the value itself.
func (l *level) score(v, spread float64) float64 {
	return (v - l.mean) / max(l.deviation*madToDeviation, spread, leastDeviation)
}

// learn takes a value into the level; what is far off moves it no further than what is just off, so that a spike is no
// new level.
func (l *level) learn(v float64, n int) {
	if n == 0 {
		l.mean, l.deviation = v, leastDeviation
		return
	}
	weight := max(fade, 1/float64(n+1))
	off := v - l.mean
	limit := 3 * max(l.deviation*madToDeviation, leastDeviation)
	off = min(max(off, -limit), limit)
	l.mean += weight * off
	l.deviation += max(fadeDeviation, 1/float64(n+2)) * (math.Abs(off) - l.deviation)
}

// Observe takes in the windows that have ended, and tells what became of them.
func (d *Detector) Observe(now time.Time, windows []Window) (events []Anomaly) {
	d.round++
	for i := range windows {
		w := &windows[i]
		b := d.routes[w.Key]
		if b == nil {
			b = &baseline{}
			d.routes[w.Key] = b
		}
		b.round = d.round
		if w.Count < d.config.Least {
			b.suspected = false
			b.last = Window{}
			continue
		}
		if event, ok := d.judge(now, b, w); ok {
			d.found[event.Kind]++
			events = append(events, event)
		}
		b.last = *w
	}
	for key, b := range d.routes {
		if d.round-b.round > forgetRounds {
			delete(d.routes, key)
		}
	}
	return events
}

// forgetRounds is after how many rounds without it a route is forgotten.
const forgetRounds = 20

// judge compares a window with what is usual, and learns from it.
func (d *Detector) judge(now time.Time, b *baseline, w *Window) (event Anomaly, found bool) {
	c := &d.config
	if b.windows < c.Learn {
		b.learn(w)
		return event, false
	}
	// Noise of quantiles of so many samples, of about log-normal latencies.
	sigma := max((w.P90-w.P50)/1.2816, 0.1)
	root := math.Sqrt(float64(w.Count))
	noise50, noise90 := 1.2533*sigma/root, 1.7094*sigma/root
	score := max(b.p50.score(w.P50, noise50), b.p90.score(w.P90, noise90))
	shift := max(w.P50-b.p50.mean, w.P90-b.p90.mean)
	off := score > c.Score && shift > math.Log2(c.Shift)
	crept := w.P50 - b.slow
	b.ramp = max(0, b.ramp+min(crept/max(b.p50.deviation*madToDeviation, noise50, leastDeviation), c.Score)-c.Drift)

	kind := AnomalyKinds
	switch {
	case off && b.suspected && (score+b.score)/2 > c.ScoreTwice:
		kind = LatencyShift
	case b.ramp > c.Ramp && crept > math.Log2(c.Shift):
		kind = LatencyRamp
	case d.fails(b, w):
		kind = ErrorRate
	}
	b.suspected, b.score = off, score
	if kind == AnomalyKinds {
		b.settle(w, score)
		return event, false
	}
	event = Anomaly{Key: w.Key, Kind: kind, At: now, Until: now.Add(c.Boost)}
	if kind == ErrorRate {
		event.Value, event.Usual = float64(w.Errors)/float64(w.Count), b.usualErrors()
	} else if kind == LatencyRamp {
		event.Value, event.Usual = math.Exp2(w.P50), math.Exp2(b.slow)
	} else if w.P50-b.p50.mean >= w.P90-b.p90.mean {
		event.Value, event.Usual = math.Exp2(w.P50), math.Exp2(b.p50.mean)
	} else {
		event.Value, event.Usual = math.Exp2(w.P90), math.Exp2(b.p90.mean)
	}
	quiet, part := event.Until.Add(c.Quiet), now.Before(b.quiet)
	if kind == LatencyRamp || part && b.creeps {
		quiet = event.Until.Add(c.QuietRamp)
	}
	b.adopt(w, kind)
	b.quiet = quiet
	if part {
		return event, false // of the last one, which is not over
	}
	b.boosted, b.creeps = event.Until, kind == LatencyRamp
	return event, true
}

// fails tells whether two windows in a row fail more often than usual, each of them so.
func (d *Detector) fails(b *baseline, w *Window) bool {
	c := &d.config
	if b.last.Count == 0 {
		return false
	}
	limit := c.ErrorFactor*b.usualErrors() + c.ErrorLeast
	over := func(w *Window) bool { return float64(w.Errors) > limit*float64(w.Count) }
	return over(&b.last) && over(w) && wilson(b.last.Errors+w.Errors, b.last.Count+w.Count, c.Trust) > limit
}

func (b *baseline) usualErrors() float64 { return (b.errors + priorErrors) / (b.count + priorCount) }

// wilson is the lower bound of a ratio, z deviations below.
func wilson(hits, of uint64, z float64) float64 {
	n := float64(of)
	p := float64(hits) / n
	return (p + z*z/(2*n) - z*math.Sqrt(p*(1-p)/n+z*z/(4*n*n))) / (1 + z*z/n)
}

func (b *baseline) learn(w *Window) {
	b.p50.learn(w.P50, b.windows)
	b.p90.learn(w.P90, b.windows)
	b.slow += max(fadeSlow, 1/float64(b.windows+1)) * (w.P50 - b.slow)
	b.learnErrors(w)
	b.windows++
}

func (b *baseline) learnErrors(w *Window) {
	b.errors += float64(w.Errors) - fadeErrors*b.errors
	b.count += float64(w.Count) - fadeErrors*b.count
}

// settle learns from a window that is no event. One that is suspected is not learned from until the next has judged it;
// latency that has fallen is usual at once, so that what comes back up is seen.
func (b *baseline) settle(w *Window, score float64) {
	if b.suspected {
		return
	}
	low := max(b.p50.score(w.P50, leastDeviation), b.p90.score(w.P90, leastDeviation))
	if low < -4 {
		b.ramp = 0
		b.p50.learn(w.P50, 0)
		b.p90.learn(w.P90, 0)
		b.slow = w.P50
		b.windows = relearn
		return
	}
	b.learn(w)
}

// adopt takes what was found for usual from now on, so that a lasting change is one event.
func (b *baseline) adopt(w *Window, kind AnomalyKind) {
	b.ramp, b.suspected = 0, false
	if kind == ErrorRate {
		b.errors, b.count = float64(b.last.Errors+w.Errors)*5, float64(b.last.Count+w.Count)*5
		return
	}
	b.p50.mean, b.p90.mean, b.slow = w.P50, w.P90, w.P50
	b.windows = relearn
}

// Boosted are the routes that are to be sampled more now.
func (d *Detector) Boosted(now time.Time) map[uint64]bool {
	var out map[uint64]bool
	for key, b := range d.routes {
		if now.Before(b.boosted) {
			if out == nil {
				out = make(map[uint64]bool)
			}
			out[key] = true
		}
	}
	return out
}
