package bpf

import (
	"math"
	"sync/atomic"
)

// RouteRate is what a controller says of one route.
type RouteRate struct {
	Key       uint64
	Threshold uint64 // in the place of the default; ThresholdNone leaves the default
	Anomaly   uint64 // holds where it is lower than what else holds; ThresholdNone
	Floor     bool   // one span is granted, which the next exchange takes that nothing else keeps
}

// Steering is what a controller says of all routes.
type Steering struct {
	Default float64                 // rate of what has none of its own, 0 to 1
	Safety  [TrafficClasses]float64 // what remains of every probability, by class, 0 to 1
	Floor   bool                    // new routes are granted a span at once
}

// Unsteered is what holds without a controller.
func Unsteered(rate float64) Steering {
	return Steering{Default: rate, Safety: [TrafficClasses]float64{1, 1, 1}}
}

// Steer puts it in force, at once; where it is in force already nothing is written.
func (k *Kernel) Steer(s Steering) error {
	if err := checkRate("default rate", s.Default); err != nil {
		return err
	}
	return k.changeRates(func(r *ambitBaseRates) {
		r.Base = Threshold(s.Default)
		for class, share := range s.Safety {
			r.Safety[class] = uint32(math.Round(min(max(share, 0), 1) * Full))
		}
		r.Floor = 0
		if s.Floor {
			r.Floor = 1
		}
	})
}

// Steer tells the kernel what holds of routes. Those that are not among rates keep what they have; of those that are gone
// nothing is to be told.
func (r *SeriesReader) Steer(rates []RouteRate) { r.table.steer(rates) }

// Unsteer takes away what the controller of an earlier daemon told of routes.
func (r *SeriesReader) Unsteer() { r.table.unsteer() }

func (t *routeTable) steer(rates []RouteRate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range rates {
		rate := &rates[i]
		r := t.find(rate.Key)
		if r == nil {
			continue
		}
		// Lines that other CPUs read are written only where there is something new.
		set := func(to *uint64, v uint64) {
			if atomic.LoadUint64(to) != v {
				atomic.StoreUint64(to, v)
			}
		}
		set(&r.Threshold, rate.Threshold)
		set(&r.Anomaly, rate.Anomaly)
		var floor uint32
		if rate.Floor {
			floor = 1
		}
		if atomic.LoadUint32(&r.Floor) != floor {
			atomic.StoreUint32(&r.Floor, floor)
		}
	}
}
