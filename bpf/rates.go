package bpf

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
)

// thresholdBits is the width of a threshold: T = 2^56 (1 - p).
const thresholdBits = 56

// Thresholds that are none.
const (
	// ThresholdNever keeps nothing.
	ThresholdNever = uint64(1) << thresholdBits
	// ThresholdNone says that whoever could give a threshold gives none.
	ThresholdNone = ^uint64(0)
)

// Full is all of a probability, where a fraction of it is a whole number.
const Full = 65536 // FULL

// Rates are the rates in force for what no rule decides, and above the rules.
type Rates struct {
	Base       uint64 // threshold of the default rate
	Override   uint64 // threshold in the place of the rules' rates and all below; ThresholdNone
	Generation uint64 // counts the changes
	// ForceHeader tells whether x-envoy-force-trace is believed.
	ForceHeader bool
}

// Threshold gives T of a rate p, 0 to 1: requests with randomness of at least T are kept.
func Threshold(p float64) uint64 {
	return 1<<thresholdBits - uint64(math.Round(p*(1<<thresholdBits)))
}

// shrink leaves a share of the probability of a threshold, of Full: l7/valve.h.
func shrink(threshold uint64, share uint32) uint64 {
	return ThresholdNever - (ThresholdNever-threshold)>>16*uint64(share)
}

// SetBase changes the default rate in the running kernel, at once. p is from 0 to 1.
func (k *Kernel) SetBase(p float64) error {
	if err := checkRate("default rate", p); err != nil {
		return err
	}
	return k.changeRates(func(r *ambitBaseRates) { r.Base = Threshold(p) })
}

// SetOverride puts a rate, 0 to 1, in the place of the rules' rates and all below, at once; nil takes it away.
func (k *Kernel) SetOverride(p *float64) error {
	threshold := ThresholdNone
	if p != nil {
		if err := checkRate("rate above the rules", *p); err != nil {
			return err
		}
		threshold = Threshold(*p)
	}
	return k.changeRates(func(r *ambitBaseRates) { r.Set = threshold })
}

// SetForceHeader says whether x-envoy-force-trace is believed, of the sources of Config.ForceContext.
func (k *Kernel) SetForceHeader(on bool) error {
	return k.changeRates(func(r *ambitBaseRates) {
		r.Force = 0
		if on {
			r.Force = 1
		}
	})
}

func checkRate(what string, p float64) error {
	if !(p >= 0 && p <= 1) {
		return fmt.Errorf("set the %s to %v: it must be from 0 to 1", what, p)
	}
	return nil
}

// changeRates changes some of the rates. Userspace alone writes them, and each is a word that a decision reads once.
func (k *Kernel) changeRates(change func(*ambitBaseRates)) error {
	k.ratesMu.Lock()
	defer k.ratesMu.Unlock()
	var r ambitBaseRates
	if err := k.objs.Rates.Lookup(uint32(0), &r); err != nil {
		return fmt.Errorf("read the rates: %w", err)
	}
	before := r
	if change(&r); r == before {
		return nil
	}
	r.Generation++
	if err := k.objs.Rates.Put(uint32(0), r); err != nil {
		return fmt.Errorf("write the rates: %w", err)
	}
	return nil
}

// openRates writes what the rates begin with: nothing above the rules, and all of every probability. What a controller
// gave stays over a handover, until the next one's moves it.
func (k *Kernel) openRates(base float64) error {
	if err := checkRate("default rate", base); err != nil {
		return err
	}
	return k.changeRates(func(r *ambitBaseRates) {
		if k.inherited {
			r.Set, r.Force = ThresholdNone, 0
			return
		}
		*r = ambitBaseRates{Base: Threshold(base), Set: ThresholdNone}
		for class := range r.Safety {
			r.Safety[class] = Full
		}
	})
}

// Rates tells the rates in force.
func (k *Kernel) Rates() (Rates, error) {
	var r ambitBaseRates
	if err := k.objs.Rates.Lookup(uint32(0), &r); err != nil {
		return Rates{}, fmt.Errorf("read the rates: %w", err)
	}
	return Rates{Base: r.Base, Override: r.Set, Generation: r.Generation, ForceHeader: r.Force != 0}, nil
}

// fillCounters makes the counters that are always there: of "other" of all services, by kind, class of status and whether
// it was an error.
func (k *Kernel) fillCounters() error {
	for side := range Sides {
		for class := range uint16(6) {
			for failed := range uint8(2) {
				s := ambitSeries{Route: OtherRoute(0, side), Kind: uint8(side), Outcome: outcomeClass + class, Error: failed, Other: 1}
				// An earlier daemon's count on.
				if err := k.objs.Counters.Update(seriesKey(&s), s, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
					return fmt.Errorf("make the counters of other services: %w", err)
				}
			}
		}
	}
	return nil
}

const outcomeClass = 5000

func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// OtherRoute is the key of the route that counts what no route of the service counts: other_route in l7/routes.h.
func OtherRoute(service uint16, side int) uint64 {
	return mix(mix(0x6f74686572, uint64(service)), uint64(side)) | 1
}

// seriesKey is series_key in l7/routes.h.
func seriesKey(s *ambitSeries) uint64 {
	return mix(s.Route, uint64(s.Outcome)|uint64(s.Error)<<16) | 1
}
