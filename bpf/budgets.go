package bpf

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Budgets by their index: BUDGET_NODE and its like in sampling_abi.h.
const (
	BudgetNode   = 0
	BudgetTail   = 1
	BudgetForced = 2
	BudgetFloor  = 3
	BudgetCaps   = 4 // from here on rules' own
	BudgetsMax   = 256
)

// Budget is one budget, and what it came to since the kernel side was loaded.
type Budget struct {
	SpansPerSecond float64 // 0: no limit
	Kept           uint64  // spans
	Refused        uint64  // spans that the raised threshold refused
	Stopped        uint64  // of those, at an empty bucket
}

// budgetTable is the kernel's own memory: a budget's limit is changed beside what the kernel counts in it.
type budgetTable struct {
	mu     sync.Mutex
	memory []byte
	slots  []ambitBudget
}

func (b *budgetTable) open(m *ebpf.Map) error {
	memory, err := mapMemory(m)
	if err != nil {
		return fmt.Errorf("map the budgets: %w", err)
	}
	b.memory = memory
	b.slots = unsafe.Slice((*ambitBudget)(unsafe.Pointer(&memory[0])), int(m.MaxEntries()))
	return nil
}

func (b *budgetTable) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.memory == nil {
		return nil
	}
	memory := b.memory
	b.memory, b.slots = nil, nil
	return unix.Munmap(memory)
}

// SetBudget limits a budget to so many spans per second, at once; 0 takes the limit away. What was counted stays.
func (k *Kernel) SetBudget(index int, spansPerSecond float64) error {
	b := &k.budgets
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.memory == nil {
		return errors.New("set a budget: the kernel side is closed")
	}
	if index < 0 || index >= len(b.slots) {
		return fmt.Errorf("set budget %d: there are %d", index, len(b.slots))
	}
	if !(spansPerSecond >= 0 && spansPerSecond <= 1e9) {
		return fmt.Errorf("set budget %d to %v spans per second: it must be from 0 to 1e9", index, spansPerSecond)
	}
	atomic.StoreUint64(&b.slots[index].IntervalNs, interval(spansPerSecond))
	return nil
}

// interval is the time that one span takes, in nanoseconds: 0 is no limit, and the longest is about 30 years.
func interval(spansPerSecond float64) uint64 {
	if spansPerSecond == 0 {
		return 0
	}
	return uint64(min(1e9/spansPerSecond, 1e18))
}

// Budgets reads all budgets, by their index.
func (k *Kernel) Budgets() ([]Budget, error) {
	b := &k.budgets
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.memory == nil {
		return nil, errors.New("read the budgets: the kernel side is closed")
	}
	out := make([]Budget, len(b.slots))
	for i := range b.slots {
		s := &b.slots[i]
		out[i] = Budget{
			Kept: atomic.LoadUint64(&s.Kept), Refused: atomic.LoadUint64(&s.Refused), Stopped: atomic.LoadUint64(&s.Stopped),
		}
		if ns := atomic.LoadUint64(&s.IntervalNs); ns > 0 {
			out[i].SpansPerSecond = 1e9 / float64(ns)
		}
	}
	return out, nil
}
