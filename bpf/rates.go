package bpf

import "fmt"

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
