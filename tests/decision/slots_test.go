package decision

import (
	"fmt"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

// answered has an exchange of one side decided that asked for a path, and answers its decision.
func (k *kernel) answered(s *situation, side int, path string, status int) *bpf.Decision {
	s.app = [2]bool{}
	s.app[side] = true
	s.request.Target, s.status = path, status
	k.decide(s, nil, nil)
	return &k.exchange.Decision[side]
}

// taken counts the slots of the table in use, of one kind.
func (k *kernel) taken(side int) (n uint32) {
	for i := range k.routes {
		for j := range k.routes[i].Slot {
			if r := &k.routes[i].Slot[j]; r.Key != 0 && int(r.Kind) == side {
				n++
			}
		}
	}
	return n
}

// sum is how many exchange sides a route counted, whatever they came to.
func (t tally) sum(route uint64) (n uint32) {
	for key, counts := range t {
		if key.route == route {
			n += counts[0]
		}
	}
	return n
}

// emptied begins with no routes and no counters.
func (k *kernel) emptied() *situation {
	clear(k.routes)
	clear(k.counts)
	k.countedSoFar()
	rules, caps := k.use()
	return plain(rules, caps)
}

// A route takes a slot only after an answer that says that there is such a thing.
func TestWhatMakesARoute(t *testing.T) {
	k := open(t)
	for _, c := range []struct {
		what   string
		status int
		with   func(*situation)
		want   uint32
	}{
		{what: "an answer", status: 200, want: 1},
		{what: "also an error", status: 500, want: 1},
		{what: "one that was not whole", status: 200, with: func(s *situation) { s.ending = l7.EndedByReset }, want: 1},
		{what: "not that there is nothing", status: 404},
		{what: "nor that gRPC does not know the method", status: 200, with: func(s *situation) { s.request.GRPC, s.code = true, l7.GRPCUnimplemented }},
		{what: "but any other code", status: 200, with: func(s *situation) { s.request.GRPC, s.code = true, l7.GRPCNotFound }, want: 1},
		{what: "nor that nobody answers", with: func(s *situation) { s.ending = l7.EndedByReset }},
		{what: "nor to what nobody could read", status: 200, with: func(s *situation) { s.unknown = true }},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := k.emptied()
			if c.with != nil {
				c.with(s)
			}
			d := k.answered(s, bpf.SideAcceptor, "/a/b", c.status)
			announced := uint32(d.Flags & bpf.DecisionAnnounce / bpf.DecisionAnnounce)
			if n := k.taken(bpf.SideAcceptor); n != c.want || announced != c.want || k.counts[3*bpf.Sides+bpf.SideAcceptor].Routes != c.want {
				t.Errorf("%d slots are taken, %d counted, %d told; want %d", n, k.counts[3*bpf.Sides+bpf.SideAcceptor].Routes, announced, c.want)
			}
			route := d.Route
			if c.want == 0 {
				route = bpf.OtherRoute(3, bpf.SideAcceptor)
			}
			if n := k.countedSoFar().sum(route); n != 1 {
				t.Errorf("it counted %d of it", n)
			}
		})
	}
}

// Once there is a route, whatever it answers counts for it.
func TestARouteThatIsKnownCountsAll(t *testing.T) {
	k := open(t)
	s := k.emptied()
	var route uint64
	for _, status := range []int{200, 404, 0, 503} {
		route = k.answered(s, bpf.SideAcceptor, "/a", status).Route
	}
	if n := k.countedSoFar().sum(route); n != 4 {
		t.Errorf("it counted %d, want 4", n)
	}
}

// A flood of paths that are not there takes no slot, and counts as "other".
func TestRandomPathsTakeNoSlot(t *testing.T) {
	const flood = 5000
	k, c := open(t), newChance(4)
	s := k.emptied()
	known := k.answered(s, bpf.SideAcceptor, "/known", 200).Route
	for i := range flood {
		k.answered(s, bpf.SideAcceptor, fmt.Sprint("/", c.letters(8, token[:52]), i), 404)
	}
	k.answered(s, bpf.SideAcceptor, "/known", 200)
	counted := k.countedSoFar()
	if n, others := counted.sum(known), counted.sum(bpf.OtherRoute(3, bpf.SideAcceptor)); k.taken(bpf.SideAcceptor) != 1 || n != 2 || others != flood {
		t.Errorf("%d slots are taken; the route that is known counted %d, and the others %d of %d", k.taken(bpf.SideAcceptor), n, others, flood)
	}
}

// A service has its quota of each kind, and all services together have theirs: what does not fit counts as "other" of its
// service, and is counted as refused.
func TestQuotaOfRoutes(t *testing.T) {
	const ofService, ofKind = 256, 2048
	k := open(t)
	s := k.emptied()
	fill := func(service, side, paths int) (taken, refused uint32) {
		s.service[side] = services[service]
		before := k.taken(side)
		for i := range paths {
			k.answered(s, side, fmt.Sprintf("/path/a%d", i), 200)
		}
		count := k.counts[service*bpf.Sides+side]
		if k.taken(side)-before != count.Routes {
			t.Errorf("service %d of kind %d has %d routes, and took %d slots", service, side, count.Routes, k.taken(side)-before)
		}
		if n := k.countedSoFar().sum(bpf.OtherRoute(uint16(service), side)); n != count.Refused {
			t.Errorf("service %d of kind %d: the others counted %d, of %d that were refused", service, side, n, count.Refused)
		}
		return count.Routes, count.Refused
	}
	for _, side := range []int{bpf.SideAcceptor, bpf.SideOpener} {
		if taken, refused := fill(1, side, ofService+44); taken != ofService || refused != 44 {
			t.Errorf("kind %d of a service took %d routes, and %d were refused", side, taken, refused)
		}
	}
	for service := 2; service <= 8; service++ {
		// Few find both of their buckets full.
		if taken, refused := fill(service, bpf.SideAcceptor, ofService); taken+refused != ofService || refused > ofService/50 {
			t.Errorf("service %d took %d routes, and %d were refused", service, taken, refused)
		}
	}
	// The rest of all is for those that no service is known of, which have no quota of their own.
	rest := ofKind - k.counts[bpf.SideAcceptor].Routes
	before := k.counts[bpf.SideAcceptor]
	s.service[bpf.SideAcceptor] = services[0]
	for i := range 300 {
		k.answered(s, bpf.SideAcceptor, fmt.Sprintf("/path/b%d", i), 200)
	}
	all := k.counts[bpf.SideAcceptor]
	if all.Routes != ofKind || all.Refused-before.Refused != 300-rest || k.taken(bpf.SideAcceptor) != ofKind {
		t.Errorf("%d routes of a kind, %d in the table, %d refused of 300 where %d fit", all.Routes, k.taken(bpf.SideAcceptor), all.Refused-before.Refused, rest)
	}
	k.countedSoFar()
	if taken, refused := fill(9, bpf.SideAcceptor, 10); taken != 0 || refused != 10 {
		t.Errorf("a full table took %d routes, and refused %d", taken, refused)
	}
	if taken, refused := fill(9, bpf.SideOpener, 10); taken != 10 || refused != 0 {
		t.Errorf("of the other kind it took %d routes, and refused %d", taken, refused)
	}
	clear(k.counts)
	clear(k.routes)
}

// A new route is told once a second until it has a name; one that closes counts no more.
func TestARouteIsTold(t *testing.T) {
	k := open(t)
	s := k.emptied()
	told := func(at time.Duration) bool {
		s.took = at
		return k.answered(s, bpf.SideAcceptor, "/a", 200).Flags&bpf.DecisionAnnounce != 0
	}
	for _, c := range []struct {
		at   time.Duration
		want bool
	}{{0, true}, {time.Second, false}, {time.Second + 1, true}, {2 * time.Second, false}} {
		if got := told(c.at); got != c.want {
			t.Errorf("after %s told %v, want %v", c.at, got, c.want)
		}
	}
	r := k.find(k.exchange.Decision[bpf.SideAcceptor].Route)
	r.State = uint8(bpf.RouteNamed)
	if told(time.Minute) {
		t.Error("one that has a name is told")
	}
	if r.LastNs != uint64(started+time.Minute) {
		t.Errorf("it was used last at %d", r.LastNs)
	}
	k.countedSoFar()
	r.State = uint8(bpf.RouteClosing)
	if told(2*time.Minute) || k.countedSoFar().sum(bpf.OtherRoute(3, bpf.SideAcceptor)) != 1 {
		t.Error("one that closes is told, or counts")
	}
}

// Of a route so many outcomes are told apart; of what comes behind, the class of the status.
func TestOutcomesOfARoute(t *testing.T) {
	const most = 16
	k := open(t)
	s := k.emptied()
	for i := range most {
		k.answered(s, bpf.SideAcceptor, "/a", 200+i)
	}
	for range 3 {
		k.answered(s, bpf.SideAcceptor, "/a", 300)
	}
	route := k.answered(s, bpf.SideAcceptor, "/a", 200).Route
	got := k.countedSoFar()
	want := tally{}
	for i := range most {
		want[counted{route, bpf.Outcome(200 + i), 3, bpf.SideAcceptor, false}] = [2]uint32{1, 0}
	}
	want[counted{route, 200, 3, bpf.SideAcceptor, false}] = [2]uint32{2, 0}
	want[counted{route, bpf.OutcomeClass + 3, 3, bpf.SideAcceptor, false}] = [2]uint32{3, 0}
	for key, n := range want {
		if got[key] != n {
			t.Errorf("%+v counted %v, want %v", key, got[key], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d series, want %d", len(got), len(want))
	}
}
