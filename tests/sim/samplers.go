package sim

import (
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"ambit/sampling"

	"github.com/honeycombio/dynsampler-go"
)

// sampler decides about exchanges.
type sampler interface {
	// keep decides one exchange.
	keep(now time.Time, route int) bool
	// second is called at the end of each second.
	second(now time.Time)
	stop()
}

var samplers = []struct {
	name string
	make func(scenario, *rand.Rand) (sampler, error)
}{
	{"ambit", newAmbit},
	{"EMAThroughput", func(_ scenario, r *rand.Rand) (sampler, error) {
		return newHoneycomb(&dynsampler.EMAThroughput{GoalThroughputPerSec: budget}, r)
	}},
	{"EMAThroughput 1 s", func(_ scenario, r *rand.Rand) (sampler, error) {
		return newHoneycomb(&dynsampler.EMAThroughput{GoalThroughputPerSec: budget, AdjustmentInterval: time.Second}, r)
	}},
	{"WindowedThroughput", func(_ scenario, r *rand.Rand) (sampler, error) {
		return newHoneycomb(&dynsampler.WindowedThroughput{GoalThroughputPerSec: budget}, r)
	}},
	{"Jaeger adaptive", newJaeger},
}

// ambit is the controller and the kernel that it steers.
type ambit struct {
	kernel     *kernel
	controller *sampling.Controller
	counters   sampling.Counters
}

func newAmbit(s scenario, r *rand.Rand) (sampler, error) {
	config := sampling.DefaultConfig(1)
	config.Budget = budget
	if err := config.Validate(); err != nil {
		return nil, err
	}
	return &ambit{
		kernel: &kernel{
			slots: make([]*slot, s.routes), base: 1, node: newValve(budget), floor: newValve(budget / 3.), random: r,
		},
		controller: sampling.New(config),
	}, nil
}

func (a *ambit) keep(now time.Time, route int) bool {
	kept, _ := a.kernel.decide(now.UnixNano(), route)
	return kept
}

func (a *ambit) second(now time.Time) {
	k := a.kernel
	in := &a.counters
	in.Routes = in.Routes[:0]
	for i, s := range k.slots {
		if s != nil {
			in.Routes = append(in.Routes, sampling.Route{
				Key: uint64(i), Service: "s", Kind: sampling.Server, Class: sampling.Normal, Remote: -1, Count: s.count, Kept: s.kept,
			})
		}
	}
	in.Other, in.Kept, in.Refused = k.other, k.kept, k.refused
	rates := a.controller.Step(now, *in, sampling.Signals{})
	k.base = rates.Base
	for _, r := range rates.Routes {
		k.slots[r.Key].rate = r.Rate
		if r.Floor {
			k.slots[r.Key].floor = true
		}
	}
}

func (*ambit) stop() {}

// honeycomb is a sampler of dynsampler-go, by route.
type honeycomb struct {
	dynsampler.Sampler
	random *rand.Rand
}

func newHoneycomb(s dynsampler.Sampler, r *rand.Rand) (sampler, error) {
	return &honeycomb{s, r}, s.Start()
}

func (h *honeycomb) keep(_ time.Time, route int) bool {
	rate := h.GetSampleRate(strconv.Itoa(route))
	return rate <= 1 || h.random.IntN(rate) == 0
}

func (*honeycomb) second(time.Time) {}
func (h *honeycomb) stop()          { h.Stop() }

// jaeger is Jaeger's adaptive sampling: each minute the probability of each operation is multiplied by target over actual
// throughput of sampled traces, and rises by no more than half of itself. Its target is per operation: the budget's even
// share here. Values are the defaults of its processor.
type jaeger struct {
	probability []float64
	kept        []float64
	target      float64
	seconds     int
	random      *rand.Rand
}

const (
	jaegerInterval = 60 // seconds, calculation_interval
	jaegerLeast    = 1e-5
	jaegerRise     = 0.5 // of PercentageIncreaseCappedCalculator
	jaegerDelta    = 0.3 // delta_tolerance
)

func newJaeger(s scenario, r *rand.Rand) (sampler, error) {
	j := &jaeger{
		probability: make([]float64, s.routes), kept: make([]float64, s.routes), target: budget / float64(s.routes), random: r,
	}
	for i := range j.probability {
		j.probability[i] = min(1, j.target/s.load(0, i)) // where it is after a while under the first load
	}
	return j, nil
}

func (j *jaeger) keep(_ time.Time, route int) bool {
	if j.random.Float64() >= j.probability[route] {
		return false
	}
	j.kept[route]++
	return true
}

func (j *jaeger) second(time.Time) {
	j.seconds++
	if j.seconds%jaegerInterval != 0 {
		return
	}
	for i, kept := range j.kept {
		j.kept[i] = 0
		p, throughput := j.probability[i], kept/jaegerInterval
		switch {
		case math.Abs(throughput-j.target) <= jaegerDelta*j.target:
			continue
		case throughput == 0:
			p *= 2 // nothing was sampled: the target is far away
		case throughput < j.target:
			p *= 1 + min(jaegerRise, j.target/throughput-1)
		default:
			p *= j.target / throughput
		}
		j.probability[i] = min(1, max(jaegerLeast, p))
	}
}

func (*jaeger) stop() {}
