package decision

import (
	"os"
	"testing"
	"time"
	"unsafe"

	"ambit/bpf"
	"ambit/l7"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// services are the names of services, by the number that the kernel side knows them by.
var services = [...]string{"", "checkout", "checkout-v2", "cart", "c", "s5", "s6", "s7", "s8", "s9"}

// kernel is ambit's kernel side, and the programs that decide one exchange by it.
type kernel struct {
	*bpf.Kernel
	t         testing.TB
	programs  decisionPrograms
	exchange  *bpf.Record // that is decided
	exchanges []bpf.Record
	routes    []decisionRouteBucket
	counts    []decisionRouteCount // of routes, by service * bpf.Sides + kind
	budgets   []decisionBudget
	counters  *ebpf.Map
	rates     *ebpf.Map

	compiled *l7.Compiled // the rules in force
	inForce  decisionBaseRates
}

func open(t testing.TB) *kernel {
	t.Helper()
	k := &kernel{t: t}
	var err error
	if k.Kernel, err = bpf.Load(bpf.Config{Rate: 1, IdleLimit: time.Minute}); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { k.check(k.Close()) })
	spec, err := loadDecision()
	k.check(err)
	k.check(spec.Variables[decisionVarFlowSeed].Set(k.Seed()))
	maps := k.DecisionMaps()
	for name, m := range maps {
		spec.Maps[name].Flags = m.Flags()
	}
	// Else this object's own set, which has no rules, would come into force.
	spec.Maps[decisionMapRuleSets].Contents = nil
	var objs struct {
		decisionPrograms
		Exchanges *ebpf.Map `ebpf:"exchanges"`
	}
	if err := spec.LoadAndAssign(&objs, &ebpf.CollectionOptions{MapReplacements: maps}); err != nil {
		t.Fatalf("%+v", err)
	}
	k.programs = objs.decisionPrograms
	t.Cleanup(func() {
		k.check(objs.decisionPrograms.Close())
		k.check(objs.Exchanges.Close())
	})
	k.exchanges = mapped[bpf.Record](k, objs.Exchanges)
	k.exchange = &k.exchanges[0]
	k.routes = mapped[decisionRouteBucket](k, maps[decisionMapRoutes])
	k.counts = mapped[decisionRouteCount](k, maps[decisionMapRouteCounts])
	k.budgets = mapped[decisionBudget](k, maps[decisionMapBudgets])
	k.counters, k.rates = maps[decisionMapCounters], maps[decisionMapRates]
	return k
}

// check ends the test where something beside the decision went wrong.
func (k *kernel) check(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// mapped is the memory of a whole mmapable map, whose values are a multiple of 8 bytes.
func mapped[T any](k *kernel, m *ebpf.Map) []T {
	page := os.Getpagesize()
	size := (int(m.MaxEntries())*int(m.ValueSize()) + page - 1) / page * page
	memory, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	k.check(err)
	k.t.Cleanup(func() { k.check(unix.Munmap(memory)) })
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), m.MaxEntries())
}

// use puts rules in force, and answers all of them and the budgets of their caps.
func (k *kernel) use(rules ...l7.Rule) (all []l7.Rule, caps map[int]int) {
	k.t.Helper()
	c, err := l7.Compile(rules, k.Seed())
	k.check(err)
	caps = make(map[int]int)
	for i := range c.Rules {
		if c.Rules[i].Action.Cap > 0 {
			caps[i] = bpf.BudgetCaps + len(caps)
			c.SetCap(i, uint32(caps[i]))
		}
	}
	for i, name := range services {
		c.Table.ServiceRow[i], err = c.ServiceRow(name)
		k.check(err)
	}
	_, err = k.SetRules(c.Table, c.Actions)
	k.check(err)
	k.compiled = c
	return c.Rules, caps
}

// run runs a program once.
func (k *kernel) run(p *ebpf.Program) {
	k.t.Helper()
	answer, err := p.Run(&ebpf.RunOptions{})
	k.check(err)
	if answer != 0 {
		k.t.Fatalf("the program answers %d", answer)
	}
}

// now is the time as the programs have it.
func (k *kernel) now() uint64 {
	var now unix.Timespec
	k.check(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	return uint64(now.Nano())
}

// span is when something was done: between its two times.
type span struct{ from, to uint64 }

// decide has the kernel decide what the situation says, with the budgets as they are in v, and tells when.
func (k *kernel) decide(s *situation, v valve, layout *chance) (head, tail span) {
	k.t.Helper()
	rates := decisionBaseRates{Base: s.base, Set: s.set, Safety: s.safety, Force: bit(s.believed), Floor: bit(s.floors)}
	if rates != k.inForce {
		k.check(k.rates.Put(uint32(0), rates))
		k.inForce = rates
	}
	k.putRequest(s, layout)
	k.putRoutes(s)
	clear(k.budgets)
	for index, b := range v {
		k.budgets[index].DueNs, k.budgets[index].IntervalNs = b.due, b.interval
	}
	head.from = k.now()
	if !s.cut {
		k.run(k.programs.Head)
	}
	head.to = k.now()
	k.putResponse(s)
	tail.from = k.now()
	k.run(k.programs.Tail)
	tail.to = k.now()
	return head, tail
}

// putRoutes makes the routes of a request known that the situation says are.
func (k *kernel) putRoutes(s *situation) {
	request := *k.exchange
	learned := false
	for side, r := range s.route {
		if !r.known || !s.app[side] || !s.hasRoute(side) {
			continue
		}
		if !learned { // which keys they have
			for side := range bpf.Sides {
				k.putParty(s, side, s.app[side])
			}
			k.run(k.programs.Head)
			learned = true
		}
		key := k.exchange.Decision[side].Route
		k.routes[key>>1%uint64(len(k.routes))].Slot[side] = decisionRoute{
			Key: key, Threshold: r.threshold, Anomaly: r.anomaly, SlowNs: r.slow, Service: uint16(k.exchange.Ends.Party[side].Service),
			Kind: uint8(side), State: uint8(bpf.RouteNamed), Floor: bit(r.floor),
		}
	}
	*k.exchange = request
}

// bit is 1 for true.
func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// find is the route of a key, nil where there is none.
func (k *kernel) find(key uint64) *decisionRoute {
	for _, bucket := range []uint64{key >> 1, key >> 32} {
		slots := &k.routes[bucket%uint64(len(k.routes))].Slot
		for i := range slots {
			if slots[i].Key == key {
				return &slots[i]
			}
		}
	}
	return nil
}

// forget empties the table of routes of those that the exchange has.
func (k *kernel) forget() {
	for side := range bpf.Sides {
		if key := k.exchange.Decision[side].Route; key != 0 {
			if r := k.find(key); r != nil {
				*r = decisionRoute{}
			}
		}
	}
	clear(k.counts)
}
