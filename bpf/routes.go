package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// RouteState is how far a route is.
type RouteState uint8

// A route begins as new, and gets a name when userspace learns it. Idle for too long it closes: the kernel counts
// what comes for it as "other", and a second later its place is free.
//
//	RouteNew --Name--> RouteNamed
//	    |    <-Renew--     |
//	    +--idle for long---+--> RouteClosing --a second--> (slot free)
const (
	RouteNew     = RouteState(ambitRouteStateROUTE_NEW)
	RouteNamed   = RouteState(ambitRouteStateROUTE_NAMED)
	RouteClosing = RouteState(ambitRouteStateROUTE_CLOSING)
)

// Of sampling_abi.h.
const (
	// RoutesMax bounds the table of routes, of both kinds.
	RoutesMax = 4096
	// routeClaimed is the key of a slot that the kernel is filling.
	routeClaimed = 2
)

const (
	// routeIdle is how long a route may be unused before it goes, routeIdleFull that where more than routesMany of
	// RoutesMax are taken.
	routeIdle     = 10 * time.Minute
	routeIdleFull = time.Minute
	routesMany    = RoutesMax * 3 / 4
	// routeClosing is how long the kernel has to see that a route closes, before its series are read for the last time.
	routeClosing = time.Second
)

// Route is a route as the kernel has it.
type Route struct {
	Key     uint64
	Service uint16 // index, in Snapshot.Services
	Kind    int    // SideOpener or SideAcceptor
	State   RouteState
}

// routeTable is the map of routes and that of their numbers, as memory that the kernel side works on too.
type routeTable struct {
	// mu serialises changes of state; the kernel side makes none.
	mu      sync.Mutex
	routes  []ambitRouteBucket
	counts  []ambitRouteCount
	mapped  [][]byte
	closing map[uint64]uint64 // key to when it began to close, CLOCK_MONOTONIC
}

func newRouteTable(routes, counts *ebpf.Map) (*routeTable, error) {
	t := &routeTable{closing: make(map[uint64]uint64)}
	buckets, err := t.mmap(routes)
	if err != nil {
		return nil, fmt.Errorf("map the routes: %w", err)
	}
	numbers, err := t.mmap(counts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the numbers of routes: %w", err), t.close())
	}
	t.routes = unsafe.Slice((*ambitRouteBucket)(unsafe.Pointer(unsafe.SliceData(buckets))), routes.MaxEntries())
	t.counts = unsafe.Slice((*ambitRouteCount)(unsafe.Pointer(unsafe.SliceData(numbers))), counts.MaxEntries())
	return t, nil
}

func (t *routeTable) mmap(m *ebpf.Map) ([]byte, error) {
	page := os.Getpagesize()
	size := int(m.MaxEntries()) * int(m.ValueSize())
	b, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		t.mapped = append(t.mapped, b)
	}
	return b, err
}

func (t *routeTable) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, b := range t.mapped {
		errs = append(errs, unix.Munmap(b))
	}
	t.mapped, t.routes, t.counts = nil, nil, nil
	return errors.Join(errs...)
}

// find is the route of a key, nil where there is none. The caller holds mu.
func (t *routeTable) find(key uint64) *ambitRoute {
	n := uint64(len(t.routes))
	if key == 0 || key == routeClaimed || n == 0 {
		return nil
	}
	for _, b := range []uint64{(key >> 1) % n, (key >> 32) % n} {
		for i := range t.routes[b].Slot {
			if r := &t.routes[b].Slot[i]; atomic.LoadUint64(&r.Key) == key {
				return r
			}
		}
	}
	return nil
}

// name notes that userspace knows the route's name, and tells whether there is such a route that does not close.
func (t *routeTable) name(key uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.find(key)
	if r == nil || RouteState(r.State) == RouteClosing {
		return false
	}
	r.State = uint8(RouteNamed)
	return true
}

// setSlow writes what is slow of each route; one that is not among the limits has none.
func (t *routeTable) setSlow(limits map[uint64]time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for b := range t.routes {
		for i := range t.routes[b].Slot {
			r := &t.routes[b].Slot[i]
			key := atomic.LoadUint64(&r.Key)
			if key == 0 || key == routeClaimed {
				continue
			}
			slow := ThresholdNone
			if limit, ok := limits[key]; ok {
				slow = uint64(limit)
			}
			atomic.StoreUint64(&r.SlowNs, slow)
		}
	}
}

// unsteer takes away what a controller said of any route.
func (t *routeTable) unsteer() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for b := range t.routes {
		for i := range t.routes[b].Slot {
			r := &t.routes[b].Slot[i]
			if key := atomic.LoadUint64(&r.Key); key == 0 || key == routeClaimed {
				continue
			}
			atomic.StoreUint64(&r.Threshold, ThresholdNone)
			atomic.StoreUint64(&r.Anomaly, ThresholdNone)
			atomic.StoreUint32(&r.Floor, 0)
		}
	}
}

// renew takes the names away: the kernel announces each route at its next exchange.
func (t *routeTable) renew() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for b := range t.routes {
		for i := range t.routes[b].Slot {
			if r := &t.routes[b].Slot[i]; RouteState(r.State) == RouteNamed {
				r.State = uint8(RouteNew)
			}
		}
	}
}

// age lists the routes, lets those close that were not used for too long, and returns which of those that close
// can be freed: the kernel has had the time to see it. now is of CLOCK_MONOTONIC.
func (t *routeTable) age(now uint64) (all []Route, free []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := 0
	each := func(do func(*ambitRoute, uint64)) {
		for b := range t.routes {
			for i := range t.routes[b].Slot {
				r := &t.routes[b].Slot[i]
				if key := atomic.LoadUint64(&r.Key); key != 0 && key != routeClaimed {
					do(r, key)
				}
			}
		}
	}
	each(func(*ambitRoute, uint64) { taken++ })
	idle := uint64(routeIdle)
	if taken > routesMany {
		idle = uint64(routeIdleFull)
	}
	each(func(r *ambitRoute, key uint64) {
		last := atomic.LoadUint64(&r.LastNs)
		if RouteState(r.State) != RouteClosing && now > last && now-last >= idle {
			r.State = uint8(RouteClosing)
		}
		if RouteState(r.State) == RouteClosing {
			if since, ok := t.closing[key]; !ok {
				t.closing[key] = now
			} else if now-since >= uint64(routeClosing) {
				free = append(free, key)
			}
		}
		all = append(all, Route{Key: key, Service: r.Service, Kind: int(r.Kind), State: RouteState(r.State)})
	})
	return all, free
}

// free gives the slot of a route that closes back to the kernel, which fills all of it anew, and takes the route out of
// their number after that, so that it is never less than there are.
func (t *routeTable) free(key uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.closing, key)
	r := t.find(key)
	if r == nil {
		return
	}
	service, kind := int(r.Service), int(r.Kind)
	atomic.StoreUint64(&r.Key, 0)
	t.decrement(kind)
	if service != 0 { // the routes of service 0 are among all of the kind, and nowhere else
		t.decrement(service*Sides + kind)
	}
}

func (t *routeTable) decrement(index int) {
	if index >= len(t.counts) {
		return
	}
	n := &t.counts[index].Routes
	for {
		old := atomic.LoadUint32(n)
		if old == 0 || atomic.CompareAndSwapUint32(n, old, old-1) {
			return
		}
	}
}

// addRefused brings up to date how many exchange sides were counted as "other" for want of room, by service and kind as
// the kernel has it. Its counters go round.
func (t *routeTable) addRefused(totals []uint64) (sum [Sides]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.counts {
		totals[i] = wrap(totals[i], atomic.LoadUint32(&t.counts[i].Refused))
		sum[i%Sides] += totals[i]
	}
	return sum
}
