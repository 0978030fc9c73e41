package daemon

import (
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ambit/bpf"
	"ambit/l7"
	"ambit/remote"
	"ambit/sampling"
)

// steerKernel is what moving rates needs of the kernel side.
type steerKernel interface {
	Steer(bpf.Steering) error
	SetBudget(index int, spansPerSecond float64) error
	Budgets() ([]bpf.Budget, error)
}

// steering gives the controller what the kernel counted and how loaded the node is, and the kernel the rates that come of
// it. It is off where the configuration says so, and then the kernel has the default rate alone.
//
//	tick ──> counters ──> sampling.Controller ──> Kernel.Steer, SeriesReader.Steer
//	           signals ──────^  ^  ^────── sampling.Detector
//	                     remote.Poller
//
// Who follows the rates asks follow: remote.Server does, for SDKs.
type steering struct {
	kernel steerKernel
	// routes puts the rates of routes in force.
	routes func([]bpf.RouteRate)
	names  *Routes
	log    *slog.Logger
	// poller has the rates of a remote source; nil where there is none.
	poller *remote.Poller

	mu         sync.Mutex
	on         bool
	config     sampling.Config
	load       bool // signals of load are heeded
	anomalies  bool
	version    uint64 // of the configuration that config was made of
	controller *sampling.Controller
	found      anomalies
	anomalyOf  [sampling.AnomalyKinds]uint64          // events since the start
	odd        atomic.Pointer[map[uint64]*l7.Anomaly] // of the routes that are boosted, for their spans
	path       string                                 // of the state, "" is none
	saved      time.Time
	services   map[uint16]string // of the latest snapshot
	verdicts   map[string]verdict
	safety     [sampling.Classes]float64 // of the latest step
	counters   sampling.Counters
	index      map[uint64]int // of counters.Routes, by key
	rates      []bpf.RouteRate
	state      *savedState // what was read at the start, for as long as it can tell something
	took       time.Duration
	last       time.Duration
	pressed    bool // it was logged that rates are lowered
}

// verdict is what the rule of a route leaves to the controller.
type verdict struct {
	fixed bool    // nothing: it has a rate, or drops
	rate  float64 // then
	class sampling.Class
}

func newSteering(kernel steerKernel, routes func([]bpf.RouteRate), names *Routes, path string, log *slog.Logger) *steering {
	return &steering{
		path: path, state: readState(path, time.Now(), log), saved: time.Now(),
		kernel: kernel, routes: routes, names: names, log: log, index: make(map[uint64]int),
	}
}

// steered is the configuration as the rules have it.
type steered struct {
	version  uint64
	rate     float64
	sampling *SamplingConfig
	verdicts map[string]verdict // by the rule's name
}

// configure takes over what was reloaded. The caller holds mu.
func (s *steering) configure(in *steered) error {
	if in.version == s.version {
		return nil
	}
	control := &in.sampling.Control
	on := control.on(in.sampling.Budget)
	s.config = in.sampling.controller(in.rate)
	s.load, s.anomalies = control.Load == "on", control.Anomalies == "on"
	switch {
	case on && s.controller == nil:
		s.controller = sampling.New(s.config)
		if s.state != nil {
			s.controller.Restore(s.state.state)
		}
		s.found = anomalies{detector: sampling.NewDetector(sampling.DefaultDetector())}
	case on:
		s.controller.Configure(s.config)
	case s.on:
		if err := s.release(in.rate); err != nil {
			return err
		}
	}
	s.on, s.version = on, in.version
	return nil
}

// release leaves the kernel with the default rate alone.
func (s *steering) release(rate float64) error {
	for i := range s.rates {
		s.rates[i].Threshold, s.rates[i].Anomaly, s.rates[i].Floor = bpf.ThresholdNone, bpf.ThresholdNone, false
	}
	s.routes(s.rates)
	s.controller, s.found, s.rates, s.pressed = nil, anomalies{}, nil, false
	s.odd.Store(nil)
	if err := s.kernel.SetBudget(bpf.BudgetFloor, 0); err != nil {
		return err
	}
	return s.kernel.Steer(bpf.Unsteered(rate))
}

// tick is due with each snapshot, and sooner where a signal of load is urgent.
func (s *steering) tick(now time.Time, snap *bpf.Snapshot, in *steered, serviceName func(bpf.Service) string, signals func(map[uint16]string, *bpf.Snapshot) sampling.Signals) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.configure(in); err != nil || !s.on {
		return err
	}
	begun := time.Now()
	s.services = make(map[uint16]string, len(snap.Services))
	for index, service := range snap.Services {
		s.services[index] = serviceName(service)
	}
	budgets, err := s.kernel.Budgets()
	if err != nil {
		return err
	}
	s.verdicts = in.verdicts
	s.count(snap)
	node := &budgets[bpf.BudgetNode]
	s.counters.Kept, s.counters.Refused = node.Kept, node.Refused
	var sig sampling.Signals
	if s.load {
		sig = signals(s.services, snap)
	}
	if s.anomalies {
		sig.Boosted = s.detect(now, snap)
	} else {
		s.odd.Store(nil)
	}
	rates := s.controller.Step(now, s.counters, sig)
	s.begin(now)
	if err := s.apply(rates); err != nil {
		return err
	}
	s.tell()
	s.last = time.Since(begun)
	s.took += s.last
	return nil
}

// count makes the controller's counters of a snapshot.
func (s *steering) count(snap *bpf.Snapshot) {
	c := &s.counters
	c.Other = 0
	c.Routes = c.Routes[:0]
	clear(s.index)
	for _, r := range snap.Routes {
		s.index[r.Key] = len(c.Routes)
		v, ok := s.verdicts[s.names.Decided(r.Key).Rule]
		if !ok {
			v.class = sampling.Normal
		}
		c.Routes = append(c.Routes, sampling.Route{
			Key: r.Key, Service: s.services[r.Service], Kind: kindOfSide(r.Kind), Class: v.class, Fixed: v.fixed, Remote: -1,
		})
	}
	for _, one := range snap.Series {
		if one.Route == 0 {
			c.Other += one.Count()
			continue
		}
		at, ok := s.index[one.Route]
		if !ok {
			continue // its route has gone
		}
		r := &c.Routes[at]
		r.Count += one.Count()
		r.Kept += one.Kept
		r.Sum += one.Sum
	}
	if s.poller != nil {
		s.remote()
	}
}

// remote gives routes the rates that the remote source wants of them.
func (s *steering) remote() {
	offered := make(map[string]float64) // of SERVER sides, by service
	services := make([]string, 0, len(s.services))
	for i := range s.counters.Routes {
		r := &s.counters.Routes[i]
		if _, seen := offered[r.Service]; !seen && r.Service != "" {
			services = append(services, r.Service)
			offered[r.Service] = 0
		}
		if r.Kind == sampling.Server {
			offered[r.Service] += s.controller.Offered(r.Key)
		}
	}
	s.poller.Want(services)
	strategies := make(map[string]remote.Strategy, len(services))
	for _, service := range services {
		if strategy, ok := s.poller.Of(service); ok {
			strategies[service] = strategy
		}
	}
	for i := range s.counters.Routes {
		r := &s.counters.Routes[i]
		strategy, ok := strategies[r.Service]
		if !ok {
			continue
		}
		var names []string
		if route, ok := s.names.Of(r.Key); ok {
			names = operations(route)
		}
		r.Remote = strategy.Rate(s.controller.Offered(r.Key), offered[r.Service], names...)
	}
}

// operations are the names that a span of a route may have where an SDK makes it, the likeliest first.
func operations(route *l7.Route) []string {
	if name := strings.TrimPrefix(route.Template, "/"); route.GRPC {
		return []string{name, "/" + name}
	}
	return []string{route.Method + " " + route.Template, route.Template, "HTTP " + route.Method + " " + route.Template}
}

// follow gives the rates of a service's SERVER routes by the names of operations, and the share of all that is kept for
// those that are not among them; false where there is none. A rule's rate counts like any other.
func (s *steering) follow(service string) (remote.Strategy, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return remote.Strategy{}, false
	}
	out := remote.Strategy{Operations: make(map[string]float64)}
	var offered, kept float64
	known := false
	for i := range s.counters.Routes {
		r := &s.counters.Routes[i]
		if r.Service != service {
			continue
		}
		known = true
		e, ok := s.controller.Explain(r.Key)
		if !ok || r.Kind != sampling.Server {
			continue
		}
		rate := max(e.Rate.Rate, e.Rate.Boost)
		switch {
		case r.Fixed:
			rate = s.verdicts[s.names.Decided(r.Key).Rule].rate
		case rate < 0:
			rate = s.controller.Summary().Base
		}
		rate *= s.safety[r.Class]
		offered, kept = offered+e.Offered, kept+e.Offered*rate
		if route, ok := s.names.Of(r.Key); ok {
			out.Operations[operations(route)[0]] = rate
		}
	}
	out.Default = s.controller.Summary().Base
	if offered > 0 {
		out.Default = kept / offered
	}
	return out, known
}

func kindOfSide(side int) sampling.Kind {
	if side == bpf.SideOpener {
		return sampling.Client
	}
	return sampling.Server
}

// begin gives new routes the rates that they had before a restart, as far as their names are known.
func (s *steering) begin(now time.Time) {
	if s.state == nil {
		return
	}
	if now.After(s.state.until) {
		s.state = nil
		return
	}
	for i := range s.counters.Routes {
		key := s.counters.Routes[i].Key
		if name, ok := s.name(key); ok {
			if rate, ok := s.state.rates[name]; ok {
				s.controller.Begin(key, rate)
			}
		}
	}
}

// name is what a route is called beyond the life of the daemon. The caller holds mu.
func (s *steering) name(key uint64) (sampling.RouteName, bool) {
	route, ok := s.names.Of(key)
	at, there := s.index[key]
	if !ok || !there {
		return sampling.RouteName{}, false
	}
	r := &s.counters.Routes[at]
	return sampling.RouteName{Service: r.Service, Kind: r.Kind, Method: route.Method, Template: route.Template, Peer: hostPort(route)}, true
}

// apply puts the rates of a step in force.
func (s *steering) apply(rates *sampling.Rates) error {
	s.safety = rates.Safety
	s.rates = s.rates[:0]
	for i := range rates.Routes {
		r := &rates.Routes[i]
		s.rates = append(s.rates, bpf.RouteRate{
			Key: r.Key, Threshold: thresholdOrNone(r.Rate), Anomaly: thresholdOrNone(r.Boost), Floor: r.Floor,
		})
	}
	if err := s.kernel.SetBudget(bpf.BudgetFloor, rates.FloorBudget); err != nil {
		return err
	}
	err := s.kernel.Steer(bpf.Steering{Default: rates.Base, Safety: rates.Safety, Floor: rates.FloorBudget > 0})
	if err != nil {
		return err
	}
	s.routes(s.rates)
	return nil
}

func thresholdOrNone(rate float64) uint64 {
	if rate < 0 {
		return bpf.ThresholdNone
	}
	return bpf.Threshold(rate)
}

// tell logs what operators look for.
func (s *steering) tell() {
	node := s.controller.Summary().Node
	if lowered := node.Factor < 1; lowered != s.pressed {
		s.pressed = lowered
		if lowered {
			s.log.Warn("the node is loaded: rates are lowered", "cause", node.Cause, "remaining", node.Factor)
		} else {
			s.log.Info("rates are no more lowered by load", "cause", node.Cause)
		}
	}
}

// detect looks for routes that behave unlike themselves, and answers those that are to be sampled more.
func (s *steering) detect(now time.Time, snap *bpf.Snapshot) map[uint64]bool {
	for _, event := range s.found.observe(now, snap, s.name) {
		s.anomalyOf[event.Kind]++
		s.log.Warn("a route behaves unlike itself: it is sampled more for a while", "kind", event.Kind, "service", event.name.Service,
			"method", event.name.Method, "route", event.name.Template, "value", event.Value, "usual", event.Usual, "until", event.Until)
	}
	boosted := s.found.detector.Boosted(now)
	if len(boosted) == 0 {
		s.odd.Store(nil)
		return nil
	}
	odd := make(map[uint64]*l7.Anomaly, len(boosted))
	for key := range boosted {
		if a, ok := s.found.of(key, now); ok {
			odd[key] = &l7.Anomaly{At: a.At.UnixNano(), Kind: a.Kind.String(), Value: a.Value, Usual: a.Usual}
		}
	}
	s.odd.Store(&odd)
	return boosted
}

// save writes the state where it is time, or at the end.
func (s *steering) save(now time.Time, end bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" || !s.on || !end && now.Sub(s.saved) < stateEvery {
		return nil
	}
	s.saved = now
	return writeState(s.path, s.controller.Save(s.name))
}
