package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// thresholdBits is the width of a threshold: T = 2^56 (1 - p).
const thresholdBits = 56

// Threshold gives T of a rate p, 0 to 1: requests with randomness of at least T are kept.
func Threshold(p float64) uint64 {
	return 1<<thresholdBits - uint64(p*(1<<thresholdBits))
}

// SetRate changes the base rate in the running kernel, at once.
func (k *Kernel) SetRate(p float64) error {
	if !(p >= 0 && p <= 1) {
		return fmt.Errorf("set the rate to %v: it must be from 0 to 1", p)
	}
	var r ambitBaseRates
	if err := k.objs.Rates.Lookup(uint32(0), &r); err != nil {
		return fmt.Errorf("read the rates: %w", err)
	}
	r.Base = Threshold(p)
	r.Generation++
	if err := k.objs.Rates.Put(uint32(0), r); err != nil {
		return fmt.Errorf("write the rates: %w", err)
	}
	return nil
}

// Rate tells the base rate's threshold in force, and how often it was changed.
func (k *Kernel) Rate() (threshold, generation uint64, err error) {
	var r ambitBaseRates
	if err := k.objs.Rates.Lookup(uint32(0), &r); err != nil {
		return 0, 0, fmt.Errorf("read the rates: %w", err)
	}
	return r.Base, r.Generation, nil
}

// thresholdNone is where nobody gives a threshold; full is the whole of a fraction. As in sampling_abi.h.
const (
	thresholdNone = ^uint64(0)
	full          = 1 << 16
)

// fillRates writes what decisions need from the start.
func (k *Kernel) fillRates(p float64) error {
	r := ambitBaseRates{Base: Threshold(p), Set: thresholdNone, Generation: 1}
	for i := range r.Safety {
		r.Safety[i] = full
	}
	if err := k.objs.Rates.Put(uint32(0), r); err != nil {
		return fmt.Errorf("write the rates: %w", err)
	}
	return k.fillCounters()
}

// fillCounters makes the counters that are always there: of "other" of all services, by kind and class of status.
func (k *Kernel) fillCounters() error {
	for side := range Sides {
		for class := range uint16(6) {
			s := ambitSeries{Route: OtherRoute(0, side), Kind: uint8(side), Outcome: outcomeClass + class, Other: 1}
			if class == 0 || class == 5 || class == 4 && side == SideOpener {
				s.Error = 1
			}
			if err := k.objs.Counters.Put(seriesKey(s.Route, s.Outcome), s); err != nil {
				return fmt.Errorf("make the counters of other services: %w", err)
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

func seriesKey(route uint64, outcome uint16) uint64 {
	return mix(route, uint64(outcome)) | 1
}

// acceptAll puts one rule into force that accepts everything and has no tail: the base rate decides, and the caller.
func (k *Kernel) acceptAll() error {
	spec, err := loadAmbit()
	if err != nil {
		return err
	}
	set, err := ebpf.NewMap(spec.Maps["rule_sets"].InnerMap)
	if err != nil {
		return err
	}
	defer set.Close()
	table := new(ambitRules)
	table.Generation, table.Count, table.Words, table.Seed = 1, 1, 1, 1
	table.Rows[0][0], table.Summary[0] = 1, 1
	action := ambitAction{Generation: 1, Class: 1, SlowNs: thresholdNone, TailThreshold: 1 << thresholdBits}
	if err := k.objs.Actions.Put(uint32(0), action); err != nil {
		return err
	}
	if err := set.Put(uint32(0), table); err != nil {
		return err
	}
	return k.objs.RuleSets.Put(uint32(0), set)
}
