// Package anomaly tries the detector of package sampling on made-up routes, beside plainer ones: docs/sampling.md.
package anomaly

import (
	"math"
	"math/rand/v2"
	"time"

	"ambit/bpf"
	"ambit/sampling"
)

// What happens to a route. Shifts, errors and ramps go away again; a deploy stays.
const (
	shift15 = "latency x1.5"
	shift2  = "latency x2"
	shift3  = "latency x3"
	errors2 = "errors from 2 %"
	ramp    = "ramp"
	deploy  = "deploy"
	spike   = "lone spike" // of one window: no event
)

// event is one thing that happens to a route.
type event struct {
	kind       string
	from, to   time.Duration // behind to, nothing of it is left; of a deploy it is learned
	fullBy     time.Duration // when a ramp is at its height
	factor     float64       // of the latency
	errors     float64       // ratio that is added
	found      int           // detections in it that were in time
	late, more int           // detections behind that, and behind the first
}

// route is one made-up route.
type route struct {
	median, sigma float64 // log2 of seconds, and its deviation
	tail          float64 // share of requests that take eight times as long
	rate          float64 // exchange sides a second, at noon
	phase         float64
	errors        float64
	events        []event
	deployed      float64 // log2 of what deploys left behind
}

const (
	routes = 50
	day    = 24 * time.Hour
	// slot is the time in which at most one thing happens to a route.
	slot = 2 * time.Hour
)

// newRoutes makes the routes of a seed.
func newRoutes(r *rand.Rand) []*route {
	list := make([]*route, routes)
	for i := range list {
		one := &route{
			median: math.Log2(0.004 * math.Pow(100, r.Float64())), sigma: 0.4 + 0.8*r.Float64(), tail: 0.03 * r.Float64(),
			rate: 8 + 24*r.Float64()*r.Float64(), phase: 2 * math.Pi * r.Float64(), errors: 0.001 * r.Float64(),
		}
		for at := slot / 2; at+slot <= day; at += slot {
			if r.Float64() < 0.5 {
				one.events = append(one.events, newEvent(r, at+time.Duration(r.Float64()*float64(slot/4))))
			}
		}
		list[i] = one
	}
	return list
}

func newEvent(r *rand.Rand, from time.Duration) event {
	lasts := 10*time.Minute + time.Duration(r.Float64()*float64(20*time.Minute))
	e := event{from: from, to: from + lasts, factor: 1}
	switch r.IntN(7) {
	case 0:
		e.kind, e.factor = shift15, 1.5
	case 1:
		e.kind, e.factor = shift2, 2
	case 2:
		e.kind, e.factor = shift3, 3
	case 3:
		e.kind, e.errors = errors2, 0.02*math.Pow(10, r.Float64())
	case 4:
		e.kind, e.factor = ramp, 2+r.Float64()
		e.fullBy = from + 15*time.Minute + time.Duration(r.Float64()*float64(15*time.Minute))
		e.to = e.fullBy + 10*time.Minute
	case 5:
		e.kind, e.factor = deploy, 2
	case 6:
		e.kind, e.factor, e.errors = spike, 4, 0.1
		e.to = from // one window: see window
	}
	return e
}

// window counts what a route does from at on.
func (one *route) window(r *rand.Rand, at, length time.Duration, key uint64) sampling.Window {
	factor, errors := one.deployed, one.errors
	for i := range one.events {
		e := &one.events[i]
		switch {
		case e.kind == spike && at <= e.from && e.from < at+length, e.kind != spike && e.from <= at && at < e.to:
			height := 1.
			if e.kind == ramp {
				height = min(1, float64(at-e.from)/float64(e.fullBy-e.from))
			}
			factor += height * math.Log2(e.factor)
			errors += e.errors
		case e.kind == deploy && at >= e.to:
			factor += 1
		}
	}
	load := 0.7 + 0.3*math.Sin(2*math.Pi*float64(at)/float64(day)+one.phase)
	n := poisson(r, max(5, one.rate*load)*length.Seconds())
	// A loaded service is a little slower.
	median := one.median + factor + 0.15*load
	var latency [bpf.LatencyBuckets]uint64
	w := sampling.Window{Key: key, Count: n}
	for range n {
		v := median + one.sigma*r.NormFloat64()
		if one.tail > 0 && r.Float64() < one.tail {
			v += 3
		}
		at := int(math.Floor(v*(1<<bpf.LatencyScale))) - bpf.LatencyOffset
		latency[min(max(at, 0), bpf.LatencyBuckets-1)]++
		if r.Float64() < errors {
			w.Errors++
		}
	}
	w.P50, w.P90 = bpf.LatencyLog2(0.5, 0, &latency), bpf.LatencyLog2(0.9, 0, &latency)
	return w
}

func poisson(r *rand.Rand, mean float64) uint64 {
	return uint64(max(0, math.Round(mean+math.Sqrt(mean)*r.NormFloat64())))
}
