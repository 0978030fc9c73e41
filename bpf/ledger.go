package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// ledger keeps what userspace knows of the counters, and the kernel's elements do not tell, for the next daemon: when each
// series began, and how often its counters of 32 bits have gone round. So totals go on over a handover. The zero ledger
// keeps nothing.
type ledger struct {
	begun, rounds *ebpf.Map
	// Of an earlier daemon, until its elements are met.
	inherited map[uint64]time.Time
	high      map[uint64]*ambitSeries
	err       error // the first of the reading that goes on
}

// lastReading is the key in begun that is no element's.
const lastReading = 0

// read takes what an earlier daemon left, and tells when it read the counters last.
func (l *ledger) read(now time.Time) (last time.Time, err error) {
	l.inherited, l.high = make(map[uint64]time.Time), make(map[uint64]*ambitSeries)
	last = now
	if l.begun == nil {
		return last, nil
	}
	var key, wall uint64
	it := l.begun.Iterate()
	for it.Next(&key, &wall) {
		if at := time.Unix(0, int64(wall)); key != lastReading {
			l.inherited[key] = at
		} else if at.Before(now) {
			last = at
		}
	}
	err = it.Err()
	var high ambitSeries
	it = l.rounds.Iterate()
	for it.Next(&key, &high) {
		one := high
		l.high[key] = &one
	}
	if err = errors.Join(err, it.Err()); err != nil {
		return last, fmt.Errorf("read when the counters of routes began: %w", err)
	}
	return last, nil
}

// begin tells when an element began that is met for the first time, and gives its totals their high halves.
func (l *ledger) begin(key uint64, at time.Time, s *Series) time.Time {
	if l.begun == nil {
		return at
	}
	if begun, ok := l.inherited[key]; ok {
		delete(l.inherited, key)
		if high := l.high[key]; high != nil {
			delete(l.high, key)
			s.raise(high)
		}
		return begun
	}
	l.fail(l.begun.Put(key, uint64(at.UnixNano())))
	return at
}

// round notes that counters of an element have gone round.
func (l *ledger) round(key uint64, s *Series) {
	if l.rounds != nil {
		l.fail(l.rounds.Put(key, s.high()))
	}
}

// forget is for elements that are deleted.
func (l *ledger) forget(key uint64) {
	if l.begun == nil {
		return
	}
	for _, m := range []*ebpf.Map{l.begun, l.rounds} {
		if err := m.Delete(key); !errors.Is(err, ebpf.ErrKeyNotExist) {
			l.fail(err)
		}
	}
}

func (l *ledger) fail(err error) {
	if l.err == nil && err != nil {
		l.err = fmt.Errorf("note the beginning of counters for the next daemon: %w", err)
	}
}

// write ends a reading. Its error is the first of it.
func (l *ledger) write(now time.Time) error {
	if l.begun == nil {
		return nil
	}
	l.fail(l.begun.Put(uint64(lastReading), uint64(now.UnixNano())))
	err := l.err
	l.err = nil
	return err
}

// high has the high halves of the totals in the places of their low ones.
func (s *Series) high() *ambitSeries {
	e := new(ambitSeries)
	s.halves(e, func(total *uint64, half *uint32) { *half = uint32(*total >> 32) })
	return e
}

// raise puts them back.
func (s *Series) raise(e *ambitSeries) {
	s.halves(e, func(total *uint64, half *uint32) { *total |= uint64(*half) << 32 })
}

// halves calls do for every total whose counter in the kernel has 32 bits.
func (s *Series) halves(e *ambitSeries, do func(total *uint64, half *uint32)) {
	do(&s.Kept, &e.Kept)
	do(&s.Below, &e.Below)
	for i := range s.Latency {
		do(&s.Latency[i], &e.Latency[i])
	}
	for b := range s.Bodies {
		body := &s.Bodies[b]
		do(&body.Unknown, &e.SizesUnknown[b])
		do(&body.Empty, &e.Empty[b])
		for i := range body.Buckets {
			do(&body.Buckets[i], &e.Sizes[b][i])
		}
	}
}
