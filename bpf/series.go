package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Outcome is what an exchange side came to: OUTCOME_ in sampling_abi.h. Below 1000 it is the status of HTTP.
type Outcome uint16

// Bases of outcomes that are no status of HTTP: what is added is an ending, a code of gRPC (17
// for all that it does not define), or a status of HTTP.
const (
	OutcomeEnding     Outcome = 1000
	OutcomeGRPC       Outcome = 2000
	OutcomeGRPCEnding Outcome = 3000
	OutcomeGRPCHTTP   Outcome = 4000
	// OutcomeClass, and the first digit of the status of HTTP, is what a route has too many outcomes to tell apart.
	OutcomeClass Outcome = outcomeClass
)

// Bodies, the index of arrays of two in a Series.
const (
	RequestBody  = 0
	ResponseBody = 1
)

// Sizes is the histogram of one kind of body. Bodies of which bytes were never seen are in Unknown alone.
type Sizes struct {
	Unknown uint64
	Empty   uint64 // 0 or 1 byte
	Bytes   uint64 // sum of those that are known
	Buckets [SizeBuckets]uint64
}

// SeriesKey tells one Series of a Snapshot from another.
type SeriesKey struct {
	Route   uint64 // key; 0 is "other", of which there is one for each service and kind
	Service uint16 // index, in Snapshot.Services
	Kind    uint8  // SideOpener or SideAcceptor
	Outcome Outcome
	Error   bool // an error by the semantic conventions
}

// Series counts the exchange sides of one route and outcome since the kernel side was loaded. It never changes once it
// is made, and its counters never go down from one snapshot to the next. Nor do they jump: the series of a route that was
// idle for long are there for goneFor more, so that everybody has seen what they came to, and then they end. If the route
// comes again in that time they go on; later they begin anew.
type Series struct {
	SeriesKey
	// Begun is when nothing was counted yet. A series that ended and began anew has another one.
	Begun   time.Time
	Kept    uint64        // of Count, those that became spans
	Sum     time.Duration // of the latencies
	Below   uint64        // the zero bucket of latency
	Latency [LatencyBuckets]uint64
	Bodies  [2]Sizes

	count uint64 // what Count answers, 0: not worked out
}

// Count is the number of exchange sides.
func (s *Series) Count() uint64 {
	if s.count != 0 {
		return s.count
	}
	return latencyCount(s.Below, &s.Latency)
}

// Snapshot is all series at one moment.
type Snapshot struct {
	At       time.Time
	Series   []*Series
	Routes   []Route
	Services map[uint16]Service
	// Refused counts, by kind, exchange sides that are in "other" because a quota or the table was full.
	Refused [Sides]uint64
	// Gone counts, by kind, exchange sides of series that are not there any more.
	Gone [Sides]uint64
}

// SeriesReader adds up what the kernel counts. The kernel's counters of 32 bits go round, so Read has to be called
// more often than they can: each second. It is safe for concurrent use.
//
// A kernel counter is equal to the total that was made of it, modulo 2^32, so that no former value need be kept.
type SeriesReader struct {
	counters, services *ebpf.Map
	table              *routeTable
	snapshot           atomic.Pointer[Snapshot]

	mu      sync.Mutex
	keys    []uint64
	values  []ambitSeries
	live    map[uint64]*Series // by the element's key, as far as the element counted
	earlier map[uint64]*Series // by the element's key, what the same series had counted before its route went
	gone    map[SeriesKey]*goneSeries
	ended   [Sides]uint64         // exchange sides of those that were gone for goneFor
	other   map[SeriesKey]*Series // "other", of several elements where there is no room
	orphan  map[uint64]bool       // elements whose route was not there at the last reading
	refused []uint64              // by index of the table's counts

	ledger ledger
}

// goneSeries is a series whose route went.
type goneSeries struct {
	*Series
	since uint64 // CLOCK_MONOTONIC
}

const (
	// goneFor is how long a series is there behind its route, for those who look at it every few minutes.
	goneFor = 10 * time.Minute
	// goneMax bounds them: those that went first end then.
	goneMax = RoutesMax
)

// batchSeries is how many elements one system call reads: half a MiB.
const batchSeries = 512

// Series opens the counters of routes.
func (k *Kernel) Series() (*SeriesReader, error) {
	table, err := newRouteTable(k.objs.Routes, k.objs.RouteCounts)
	if err != nil {
		return nil, err
	}
	r := &SeriesReader{
		counters: k.objs.Counters, services: k.objs.Services, table: table,
		keys: make([]uint64, batchSeries), values: make([]ambitSeries, batchSeries),
		refused: make([]uint64, len(table.counts)),
		live:    make(map[uint64]*Series), other: make(map[SeriesKey]*Series), orphan: make(map[uint64]bool),
		earlier: make(map[uint64]*Series), gone: make(map[SeriesKey]*goneSeries),
	}
	at := time.Now()
	if k.store != nil {
		r.ledger = ledger{begun: k.objs.SeriesBegun, rounds: k.objs.SeriesRounds}
	}
	if k.inherited {
		if at, err = r.ledger.read(at); err != nil {
			return nil, errors.Join(err, table.close())
		}
	}
	r.snapshot.Store(&Snapshot{At: at, Services: map[uint16]Service{0: {}}})
	return r, nil
}

// Close lets go of the memory that is shared with the kernel side. No other method may follow.
func (r *SeriesReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.close()
}

// Snapshot is what Read found last.
func (r *SeriesReader) Snapshot() *Snapshot { return r.snapshot.Load() }

// Name tells the kernel that the name of a route is known, so that it is not announced again. It is false where there
// is no such route, or where it is about to go.
func (r *SeriesReader) Name(key uint64) bool { return r.table.name(key) }

// SetSlow tells the kernel, of each route, what the tail takes for slow: what took longer than its limit. A route that is
// not among limits has none, and the threshold of the rule alone holds.
func (r *SeriesReader) SetSlow(limits map[uint64]time.Duration) { r.table.setSlow(limits) }

// Renew has the kernel announce every route anew, as the rules that its announcement named have changed.
func (r *SeriesReader) Renew() { r.table.renew() }

// Read reads all counters and makes a new snapshot. Routes that were idle for long go, which frees their places.
func (r *SeriesReader) Read() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	return r.read(uint64(now.Nano()))
}

// read is Read at a time of CLOCK_MONOTONIC, in nanoseconds.
func (r *SeriesReader) read(now uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Series before routes: one that has no route then has lost it.
	found := make(map[uint64]uint64) // element to route
	err := each(r.counters, r.keys, r.values, func(key uint64, s *ambitSeries) {
		// The route is what the kernel writes last of a new element.
		if s.Route == 0 {
			return
		}
		r.take(key, s)
		if s.Other == 0 {
			found[key] = s.Route
		}
	})
	if err = errors.Join(err, r.ledger.write(time.Now())); err != nil {
		return err
	}
	routes, free := r.table.age(now)
	if err := r.retire(found, routes, free, now); err != nil {
		return err
	}
	r.expire(now)
	names, err := services(r.services)
	if err != nil {
		return err
	}
	snap := &Snapshot{
		At: time.Now(), Routes: routes, Services: names, Refused: r.table.addRefused(r.refused), Gone: r.ended,
		Series: make([]*Series, 0, len(r.live)+len(r.gone)+len(r.other)),
	}
	for element, s := range r.live {
		if s.Route != 0 {
			snap.Series = append(snap.Series, r.whole(element, s))
		}
	}
	for _, s := range r.gone {
		snap.Series = append(snap.Series, s.Series)
	}
	for _, s := range r.other {
		snap.Series = append(snap.Series, s)
	}
	r.snapshot.Store(snap)
	return nil
}

// retire deletes the series of routes that go, and of those that have gone: a program that was under way when its
// route went may have made one anew.
func (r *SeriesReader) retire(found map[uint64]uint64, routes []Route, free []uint64, now uint64) error {
	known := make(map[uint64]bool, len(routes))
	for _, route := range routes {
		known[route.Key] = true
	}
	going := make(map[uint64]bool, len(free))
	for _, key := range free {
		going[key] = true
	}
	orphans := make(map[uint64]bool)
	var last ambitSeries
	for element, route := range found {
		switch {
		case going[route], !known[route] && r.orphan[element]:
		case !known[route]:
			orphans[element] = true
			continue
		default:
			continue
		}
		if err := r.counters.LookupAndDelete(element, &last); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete the counters of an idle route: %w", err)
		} else if err == nil {
			r.take(element, &last)
		}
		if s := r.live[element]; s != nil {
			r.gone[s.SeriesKey] = &goneSeries{r.whole(element, s), now}
			delete(r.live, element)
			delete(r.earlier, element)
			r.ledger.forget(element)
		}
	}
	r.orphan = orphans
	for _, key := range free {
		r.table.free(key)
	}
	return nil
}

// whole is what an element has counted, with what its series had before.
func (r *SeriesReader) whole(element uint64, s *Series) *Series {
	if before := r.earlier[element]; before != nil {
		s = s.Plus(before)
		s.Begun = before.Begun
	}
	return s
}

// expire ends series that are gone for long, and those that went first of too many.
func (r *SeriesReader) expire(now uint64) {
	end := func(key SeriesKey) {
		r.ended[key.Kind] += r.gone[key].Count()
		delete(r.gone, key)
	}
	for key, s := range r.gone {
		if now-s.since >= uint64(goneFor) {
			end(key)
		}
	}
	if len(r.gone) <= goneMax {
		return
	}
	byAge := slices.SortedFunc(maps.Keys(r.gone), func(a, b SeriesKey) int { return cmp.Compare(r.gone[a].since, r.gone[b].since) })
	for _, key := range byAge[:len(r.gone)-goneMax] {
		end(key)
	}
}

// none has counted nothing.
var none Series

// take brings the total of an element up to date.
func (r *SeriesReader) take(key uint64, e *ambitSeries) {
	old := r.live[key]
	if old != nil && old.same(e) || old == nil && none.same(e) {
		return
	}
	s := new(Series)
	if old != nil {
		*s = *old
	} else {
		s.Begun = r.ledger.begin(key, r.snapshot.Load().At, s)
		s.SeriesKey = SeriesKey{
			Route: e.Route, Service: e.Service, Kind: e.Kind, Outcome: Outcome(e.Outcome), Error: e.Error != 0,
		}
		if e.Other != 0 {
			s.Route = 0
		} else if gone := r.gone[s.SeriesKey]; gone != nil {
			r.earlier[key] = gone.Series
			delete(r.gone, s.SeriesKey)
		}
	}
	if s.advance(e) {
		r.ledger.round(key, s)
	}
	r.live[key] = s
	if e.Other != 0 {
		r.addOther(s, old)
	}
}

// addOther adds what s has and old, which may be nil, had not yet, to "other".
func (r *SeriesReader) addOther(s, old *Series) {
	key := s.SeriesKey
	key.Route = 0
	if _, ok := r.other[key]; !ok && len(r.other) >= otherMax {
		key = key.Coarse()
	}
	sum := &Series{SeriesKey: key, Begun: s.Begun}
	if before := r.other[key]; before != nil {
		*sum = *before
	}
	sum.add(s, 1)
	if old != nil {
		sum.add(old, ^uint64(0))
	}
	r.other[key] = sum
}

// otherMax bounds the series of "other" that are kept apart; beyond it they are those of no service.
const otherMax = 2 * RoutesMax

// Coarse is one of few keys, where a Snapshot has what there is no room for otherwise: without the service, and of a
// status its class alone.
func (k SeriesKey) Coarse() SeriesKey {
	k.Service = 0
	switch o := k.Outcome; {
	case o >= OutcomeClass:
	case o >= OutcomeGRPCHTTP:
		k.Outcome = OutcomeGRPCHTTP + (o-OutcomeGRPCHTTP)/100*100
	case o < OutcomeEnding:
		k.Outcome = OutcomeClass + o/100
	}
	return k
}

// each calls do for every element. It reads many at a time where the kernel can.
func each(m *ebpf.Map, keys []uint64, values []ambitSeries, do func(uint64, *ambitSeries)) error {
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			return eachSingly(m, do)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read the counters of routes: %w", err)
		}
		for i := range n {
			do(keys[i], &values[i])
		}
		if err != nil {
			return nil
		}
	}
}

// eachSingly may pass over elements while others are deleted: they are found the next time.
func eachSingly(m *ebpf.Map, do func(uint64, *ambitSeries)) error {
	var key uint64
	var value ambitSeries
	it := m.Iterate()
	for it.Next(&key, &value) {
		do(key, &value)
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("read the counters of routes: %w", err)
	}
	return nil
}
