package bpf

import (
	"math/rand/v2"
	"testing"
	"time"
)

// table is a kernel whose maps the test fills in the place of the programs, and a reader of them.
type table struct {
	testing.TB
	k   *Kernel
	r   *SeriesReader
	now uint64 // CLOCK_MONOTONIC, nanoseconds
}

func newTable(t testing.TB) *table {
	t.Helper()
	k := load(t, Config{})
	r, err := k.Series()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return &table{TB: t, k: k, r: r, now: uint64(time.Hour)}
}

// route puts a route into the bucket that the kernel would, as used just now.
func (t *table) route(key uint64, service uint16, kind uint8) *ambitRoute {
	t.Helper()
	for _, b := range []uint64{(key >> 1) % uint64(len(t.r.table.routes)), (key >> 32) % uint64(len(t.r.table.routes))} {
		for i := range t.r.table.routes[b].Slot {
			r := &t.r.table.routes[b].Slot[i]
			if r.Key != 0 {
				continue
			}
			*r = ambitRoute{Key: key, Service: service, Kind: kind, LastNs: t.now}
			t.r.table.counts[kind].Routes++
			if service != 0 {
				t.r.table.counts[int(service)*Sides+int(kind)].Routes++
			}
			return r
		}
	}
	t.Fatalf("no slot for route %x", key)
	return nil
}

func (t *table) put(element uint64, s ambitSeries) {
	t.Helper()
	if err := t.k.objs.Counters.Put(element, s); err != nil {
		t.Fatal(err)
	}
}

// read reads, some time after the last one.
func (t *table) read(after time.Duration) map[SeriesKey]*Series {
	t.Helper()
	t.now += uint64(after)
	if err := t.r.read(t.now); err != nil {
		t.Fatal(err)
	}
	out := make(map[SeriesKey]*Series)
	for _, s := range t.r.Snapshot().Series {
		if out[s.SeriesKey] != nil {
			t.Errorf("%+v is there twice", s.SeriesKey)
		}
		out[s.SeriesKey] = s
	}
	return out
}

func TestSeriesAddUpWhileTheKernelsCountersGoRound(t *testing.T) {
	tab := newTable(t)
	tab.route(7, 3, 1)
	e := ambitSeries{Route: 7, Service: 3, Kind: 1, Outcome: 200}
	key := SeriesKey{Route: 7, Service: 3, Kind: 1, Outcome: 200}
	var kept, below, middle, empty, size uint64
	steps := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		for _, c := range []struct {
			counter *uint32
			total   *uint64
		}{{&e.Kept, &kept}, {&e.Below, &below}, {&e.Latency[100], &middle}, {&e.Empty[0], &empty}, {&e.Sizes[1][15], &size}} {
			n := steps.Uint32()
			*c.counter += n
			*c.total += uint64(n)
		}
		e.SumNs += 12
		e.ResponseBytes += 1 << 40
		tab.put(1, e)
		s := tab.read(time.Second)[key]
		if s == nil {
			t.Fatal("the series is not there")
		}
		if s.Kept != kept || s.Below != below || s.Latency[100] != middle || s.Bodies[RequestBody].Empty != empty ||
			s.Bodies[ResponseBody].Buckets[15] != size || s.Count() != below+middle ||
			uint64(s.Sum) != e.SumNs || s.Bodies[ResponseBody].Bytes != e.ResponseBytes {
			t.Fatalf("totals of %+v, want %d %d %d %d %d", s, kept, below, middle, empty, size)
		}
	}
	if kept < 1<<34 {
		t.Errorf("only %d: nothing has gone round", kept)
	}
}

func TestASnapshotNeverChanges(t *testing.T) {
	tab := newTable(t)
	tab.route(7, 3, 1)
	key := SeriesKey{Route: 7, Service: 3, Kind: 1, Outcome: 200}
	e := ambitSeries{Route: 7, Service: 3, Kind: 1, Outcome: 200, Below: 5}
	tab.put(1, e)
	first := tab.read(time.Second)[key]
	if again := tab.read(time.Second)[key]; again != first {
		t.Error("a series that counted nothing was made anew")
	}
	e.Below, e.Kept = 9, 2
	tab.put(1, e)
	second := tab.read(time.Second)[key]
	if first.Below != 5 || first.Kept != 0 || second.Below != 9 {
		t.Errorf("first %d, second %d", first.Below, second.Below)
	}
	if d := second.Minus(first); d.Below != 4 || d.Kept != 2 || d.Count() != 4 {
		t.Errorf("the difference is %+v", d)
	}
}

func TestReadingTakesEveryElementOfAFullMap(t *testing.T) {
	tab := newTable(t)
	const always = 24 // of "other"
	const elements = 2*RoutesMax - always
	keys, values := make([]uint64, elements), make([]ambitSeries, elements)
	for i := range keys {
		keys[i] = uint64(i)*0x9e3779b97f4a7c15 + 1
		values[i] = ambitSeries{Route: uint64(i/2 + 1), Kind: 1, Service: 1, Outcome: uint16(200 + i%2*300), Below: uint32(i + 1)}
	}
	for i := range RoutesMax {
		tab.route(uint64(i+1)|uint64(i*7+3)<<32, 1, 1)
		for j := 2 * i; j < min(2*i+2, elements); j++ {
			values[j].Route = uint64(i+1) | uint64(i*7+3)<<32
		}
	}
	if _, err := tab.k.objs.Counters.BatchUpdate(keys, values, nil); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	got := tab.read(time.Second)
	t.Logf("read %d series in %v", len(got), time.Since(begun))
	var sum uint64
	for _, s := range got {
		sum += s.Count()
	}
	if len(got) != elements || sum != elements*(elements+1)/2 {
		t.Errorf("%d series that count %d", len(got), sum)
	}
	singly := 0
	sum = 0
	if err := eachSingly(tab.k.objs.Counters, func(_ uint64, s *ambitSeries) {
		singly++
		sum += uint64(s.Below)
	}); err != nil || singly != elements+always || sum != elements*(elements+1)/2 {
		t.Errorf("one at a time finds %d that count %d: %v", singly, sum, err)
	}
}

func TestIdleRoutesGoAndTheirCountersStayForAWhile(t *testing.T) {
	tab := newTable(t)
	idle := tab.route(7, 3, 1)
	tab.route(8, 3, 1).LastNs += uint64(time.Hour)
	tab.put(1, ambitSeries{Route: 7, Service: 3, Kind: 1, Outcome: 200, Below: 5, SumNs: 50})
	tab.put(2, ambitSeries{Route: 8, Service: 3, Kind: 1, Outcome: 200, Below: 6})
	tab.put(3, ambitSeries{Route: 99, Other: 1, Service: 3, Kind: 1, Outcome: 200, Below: 7, SumNs: 70})
	route, other := SeriesKey{Route: 7, Service: 3, Kind: 1, Outcome: 200}, SeriesKey{Service: 3, Kind: 1, Outcome: 200}
	count := func(got map[SeriesKey]*Series) (n uint64) {
		for _, s := range got {
			n += s.Count()
		}
		return n
	}

	got := tab.read(routeIdle - time.Nanosecond)
	if RouteState(idle.State) != RouteNew || got[route].Count() != 5 || got[other].Count() != 7 || count(got) != 18 {
		t.Errorf("before it is due: state %d, %v", idle.State, got)
	}
	got = tab.read(time.Nanosecond)
	if RouteState(idle.State) != RouteClosing || got[route].Count() != 5 {
		t.Errorf("when it is due: state %d, %v", idle.State, got)
	}
	if tab.r.Name(7) {
		t.Error("a route that closes was named")
	}
	// The kernel still counts for it, until it sees that it closes.
	tab.put(1, ambitSeries{Route: 7, Service: 3, Kind: 1, Outcome: 200, Below: 6, SumNs: 60})
	got = tab.read(routeClosing - time.Nanosecond)
	if idle.Key != 7 || got[route].Count() != 6 {
		t.Errorf("before a second has passed: key %d, %v", idle.Key, got)
	}
	tab.put(1, ambitSeries{Route: 7, Service: 3, Kind: 1, Outcome: 200, Below: 8, SumNs: 80})
	got = tab.read(time.Nanosecond)
	if idle.Key != 0 {
		t.Errorf("the slot is not free: %+v", idle)
	}
	if got[route].Count() != 8 || got[route].Sum != 80 || got[other].Count() != 7 || count(got) != 21 {
		t.Errorf("after it went: %v", got)
	}
	counts := tab.r.table.counts
	if n := counts[1].Routes; n != 1 {
		t.Errorf("%d routes are left, not one", n)
	}
	if n := counts[3*Sides+1].Routes; n != 1 {
		t.Errorf("%d routes of the service are left, not one", n)
	}
	var value ambitSeries
	if tab.k.objs.Counters.Lookup(uint64(1), &value) == nil {
		t.Error("the element was not deleted")
	}
	// The same route may come again, and goes on.
	begun := got[route].Begun
	again := tab.route(7, 3, 1)
	tab.put(1, ambitSeries{Route: 7, Service: 3, Kind: 1, Outcome: 200, Below: 1, SumNs: 4})
	if got = tab.read(time.Second); got[route].Count() != 9 || got[route].Sum != 84 || !got[route].Begun.Equal(begun) || len(tab.r.gone) != 0 {
		t.Errorf("when it came again: %v", got)
	}
	// And may go again.
	again.LastNs -= uint64(routeIdle)
	tab.read(time.Second)
	if got = tab.read(routeClosing); got[route].Count() != 9 || len(tab.r.earlier) != 0 {
		t.Errorf("when it went again: %v", got)
	}
	if got = tab.read(goneFor - time.Nanosecond); got[route].Count() != 9 || tab.r.Snapshot().Gone != [Sides]uint64{} {
		t.Errorf("a while later: %v", got)
	}
	if got = tab.read(time.Nanosecond); got[route] != nil || got[other].Count() != 7 || tab.r.Snapshot().Gone != [Sides]uint64{0, 9} {
		t.Errorf("at the end: %v, gone %v", got, tab.r.Snapshot().Gone)
	}
	// After that it begins anew.
	tab.route(7, 3, 1)
	tab.put(1, ambitSeries{Route: 7, Service: 3, Kind: 1, Outcome: 200, Below: 2})
	if got = tab.read(time.Second); got[route].Count() != 2 || !got[route].Begun.After(begun) {
		t.Errorf("when it began anew: %v", got)
	}
}

func TestSeriesThatLostTheirRouteEnd(t *testing.T) {
	tab := newTable(t)
	tab.put(1, ambitSeries{Route: 7, Service: 3, Kind: 0, Outcome: 503, Error: 1, Below: 5})
	key := SeriesKey{Route: 7, Service: 3, Outcome: 503, Error: true}
	if got := tab.read(time.Second); got[key].Count() != 5 {
		t.Errorf("at first sight: %v", got)
	}
	if got := tab.read(time.Second); len(got) != 1 || got[key].Count() != 5 || len(tab.r.live) != 0 {
		t.Errorf("at the second: %v", got)
	}
	if got := tab.read(goneFor); len(got) != 0 {
		t.Errorf("at the end: %v", got)
	}
}

func TestSeriesThatAreGoneAreBounded(t *testing.T) {
	r := &SeriesReader{gone: make(map[SeriesKey]*goneSeries)}
	for i := range uint64(goneMax + 3) {
		key := SeriesKey{Route: i + 1, Kind: 1}
		r.gone[key] = &goneSeries{&Series{SeriesKey: key, Below: 2}, i}
	}
	r.expire(goneMax + 3)
	if len(r.gone) != goneMax || r.ended != [Sides]uint64{0, 6} || r.gone[SeriesKey{Route: 3, Kind: 1}] != nil || r.gone[SeriesKey{Route: 4, Kind: 1}] == nil {
		t.Errorf("%d are left, and %v ended", len(r.gone), r.ended)
	}
}

func TestAFullTableAgesFaster(t *testing.T) {
	for _, c := range []struct {
		what   string
		routes int
		idle   time.Duration
		closes bool
	}{
		{"at three quarters a minute is no reason yet", routesMany, routeIdleFull, false},
		{"above them a minute is enough", routesMany + 1, routeIdleFull, true},
		{"but not less", routesMany + 1, routeIdleFull - time.Nanosecond, false},
	} {
		tab := newTable(t)
		for i := range c.routes {
			tab.route(uint64(i+1)|uint64(i+1)<<32, 1, 1)
		}
		tab.read(c.idle)
		for _, r := range tab.r.Snapshot().Routes {
			if (r.State == RouteClosing) != c.closes {
				t.Errorf("%s: route %x is in state %d", c.what, r.Key, r.State)
				break
			}
		}
	}
}

func TestWhatTheKernelIsWritingIsLeftAlone(t *testing.T) {
	tab := newTable(t)
	claimed := tab.route(routeClaimed, 3, 1)
	claimed.LastNs = 1
	tab.put(1, ambitSeries{Below: 5}) // its route comes last
	if got := tab.read(routeIdle); len(got) != 0 || len(tab.r.Snapshot().Routes) != 0 || RouteState(claimed.State) != RouteNew {
		t.Errorf("%v, routes %v", got, tab.r.Snapshot().Routes)
	}
	tab.put(1, ambitSeries{Below: 5, Route: OtherRoute(3, 1), Service: 3, Kind: 1, Outcome: 200, Other: 1})
	if got := tab.read(time.Second); got[SeriesKey{Service: 3, Kind: 1, Outcome: 200}].Count() != 5 {
		t.Errorf("%v", got)
	}
}

func TestNamingARoute(t *testing.T) {
	tab := newTable(t)
	r := tab.route(7|9<<32, 3, 1)
	if !tab.r.Name(7|9<<32) || RouteState(r.State) != RouteNamed {
		t.Errorf("state %d", r.State)
	}
	if tab.r.Name(8) || tab.r.Name(0) {
		t.Error("a route that is not there was named")
	}
}

func TestARouteIsAnnouncedAnew(t *testing.T) {
	tab := newTable(t)
	named, closing := tab.route(7|9<<32, 3, 1), tab.route(8|9<<32, 3, 1)
	tab.r.Name(7 | 9<<32)
	closing.State = uint8(RouteClosing)
	tab.r.Renew()
	if RouteState(named.State) != RouteNew || RouteState(closing.State) != RouteClosing {
		t.Errorf("states %d and %d, want new, and closing as before", named.State, closing.State)
	}
}

func TestWhatIsSlowOfARoute(t *testing.T) {
	tab := newTable(t)
	one, other := tab.route(7|9<<32, 3, 1), tab.route(8|9<<32, 3, 1)
	tab.r.SetSlow(map[uint64]time.Duration{7 | 9<<32: time.Millisecond})
	if one.SlowNs != 1e6 || other.SlowNs != ThresholdNone {
		t.Errorf("slow is above %d and %d ns, want 1e6 and none", one.SlowNs, other.SlowNs)
	}
	tab.r.SetSlow(map[uint64]time.Duration{8 | 9<<32: time.Second})
	if one.SlowNs != ThresholdNone || other.SlowNs != 1e9 {
		t.Errorf("slow is above %d and %d ns, want none and 1e9", one.SlowNs, other.SlowNs)
	}
}

func TestWhatHadNoRoomIsCounted(t *testing.T) {
	tab := newTable(t)
	tab.r.table.counts[3*Sides+1].Refused = 1<<32 - 1
	tab.read(time.Second)
	tab.r.table.counts[3*Sides+1].Refused += 3 // goes round
	tab.r.table.counts[4*Sides+1].Refused = 5
	tab.read(time.Second)
	if got := tab.r.Snapshot().Refused; got != [Sides]uint64{0, 1<<32 + 7} {
		t.Errorf("%v", got)
	}
}

func TestServicesAreNamed(t *testing.T) {
	tab := newTable(t)
	key := ambitServiceKey{Netns: 1, Cgroup: 2, Comm: [16]int8{'w', 'e', 'b'}}
	if err := tab.k.objs.Services.Put(key, uint32(5)); err != nil {
		t.Fatal(err)
	}
	tab.read(time.Second)
	if got := tab.r.Snapshot().Services; len(got) != 2 || got[5] != (Service{NetNS: 1, Cgroup: 2, Comm: "web"}) {
		t.Errorf("%v", got)
	}
}

func TestOtherIsBounded(t *testing.T) {
	r := &SeriesReader{other: make(map[SeriesKey]*Series)}
	var services, outcomes uint64
	for service := range uint16(400) {
		for outcome := range Outcome(60) {
			s := &Series{SeriesKey: SeriesKey{Route: 1, Service: service, Outcome: 100 + 10*outcome}, Below: 1}
			r.addOther(s, nil)
			services++
		}
	}
	for _, outcome := range []Outcome{0, 999, 1000, 1005, 2000, 2016, 2017, 3000, 3005, 4000, 4503, 5000, 5005} {
		r.addOther(&Series{SeriesKey: SeriesKey{Service: 500, Outcome: outcome}, Below: 1}, nil)
		outcomes++
	}
	var sum uint64
	for key, s := range r.other {
		if sum += s.Below; key.Route != 0 {
			t.Errorf("%+v is no key of other", key)
		}
	}
	if sum != services+outcomes || len(r.other) > otherMax+100 {
		t.Errorf("%d of %d in %d series", sum, services+outcomes, len(r.other))
	}
	for outcome, want := range map[Outcome]Outcome{
		204: 5002, 1003: 1003, 2005: 2005, 3004: 3004, 4503: 4500, 5004: 5004,
	} {
		if got := (SeriesKey{Outcome: outcome}).Coarse().Outcome; got != want {
			t.Errorf("outcome %d becomes %d, not %d", outcome, got, want)
		}
	}
}
