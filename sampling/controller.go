package sampling

import (
	"slices"
	"time"
)

const (
	// askFirst is how much more than the budget rates ask for, at first. The valve takes it off again; without it, what the
	// valve takes when spans happen to come close together would be left unspent. How close they come is the traffic's, so
	// that it is adjusted, slowly, towards spending askTarget, between askLeast and askMost.
	askFirst  = 1.18
	askTarget = 0.99
	askGain   = 0.1
	askLeast  = 1.1
	askMost   = 1.6
	// boostShare is how much of the budget boosts of anomalies add at the most.
	boostShare = 0.25
	// boostBy is how much more a boosted route is sampled without a budget.
	boostBy = 10
	// steerLeast and steerMost bound what routes share, of the budget: whatever rules and callers keep.
	steerLeast, steerMost = 0.25, 8
)

// Controller moves the rates of routes. It is not safe for concurrent use.
//
// The rate of a route goes through these states:
//
//	     first seen                 a second was measured
//	(none) ──> state or default ──────────────> share of the budget <──────> lowered by band or pressure
//	                 │                             (or the default)
//	                 └── a rule's or a remote source's: not moved, but counted
type Controller struct {
	config   Config
	routes   map[uint64]*route
	services map[string]*service
	node     governor
	last     time.Time
	before   Counters // totals of the last step; Routes is not kept
	ask      float64  // how much more than the budget is asked for
	scarce   bool     // the last step's shares were less than all
	others   float64  // spans per second that are kept beside what routes share, smoothed
	other    float64  // load of what is of no route
	grants   float64  // floors that may be granted
	base     float64
	seen     bool // something was measured
	restored bool // base is of before a restart
	summary  Summary
	rates    Rates

	list      []*route
	demands   []float64
	scratch   []float64
	waiting   []waiting
	memberOf  map[string][]int
	inClasses [Classes][]int
}

// route is what is remembered of one route.
type route struct {
	key      uint64
	step     uint64 // the last one that had it
	index    int    // in the step's routes
	service  *service
	count    uint64
	kept     uint64
	sum      time.Duration
	offered  float64 // exchange sides per second, smoothed
	current  float64 // the same of the last second alone
	measured bool
	lastKept time.Time
	rate     float64
	reason   Reason
	history  history
}

// service is what is remembered of a service.
type service struct {
	step uint64
	load governor
	band band
}

// New makes a controller; c must be valid.
func New(c Config) *Controller {
	return &Controller{
		config: c, routes: make(map[uint64]*route), services: make(map[string]*service), node: newGovernor(),
		base: c.Default, ask: askFirst, memberOf: make(map[string][]int),
	}
}

// Configure puts another configuration in force, which holds from the next step on.
func (c *Controller) Configure(config Config) { c.config = config }

// Summary is what the last step knew.
func (c *Controller) Summary() Summary { return c.summary }

// Step works out the rates of the next second. The answer is valid until the next step. Steps are about a second apart; one
// without time behind the last one changes nothing.
func (c *Controller) Step(now time.Time, in Counters, sig Signals) *Rates {
	seconds := now.Sub(c.last).Seconds()
	first := c.last.IsZero()
	if !first && seconds <= 0 {
		return &c.rates
	}
	if first {
		seconds = 1
	}
	c.last = now
	c.summary.Totals.Steps++
	c.measure(now, seconds, first, in)
	c.weigh(now, seconds, sig)
	c.share(now, in)
	c.boost(sig)
	c.floors(now, seconds)
	c.forget()
	return &c.rates
}

// measure takes in what was counted since the last step.
func (c *Controller) measure(now time.Time, seconds float64, first bool, in Counters) {
	step := c.summary.Totals.Steps
	expected := 0. // spans per second that the rates asked for, of what the controller moves
	c.list = c.list[:0]
	for i := range in.Routes {
		given := &in.Routes[i]
		r := c.routes[given.Key]
		if r == nil {
			r = &route{key: given.Key, lastKept: now.Add(-floorEvery), rate: -1}
			if first { // what there was before is not of the last second
				r.count, r.kept, r.sum = given.Count, given.Kept, given.Sum
			}
			c.routes[given.Key] = r
		}
		if given.Count < r.count || given.Kept < r.kept {
			r.count, r.kept, r.sum = 0, 0, 0
		}
		counted := given.Count - r.count
		r.current = float64(counted) / seconds
		switch {
		case r.measured:
			r.offered = estimate(r.offered, r.current, seconds)
		case counted > 0:
			r.offered, r.measured, c.seen = r.current, true, true
		}
		if !given.Fixed && given.Remote < 0 {
			if rate := r.rate; rate >= 0 {
				expected += r.current * rate
			} else {
				expected += r.current * c.base
			}
		}
		if given.Kept > r.kept {
			r.lastKept = now
		}
		r.service = c.serviceOf(given.Service, step)
		if given.Kind == Server {
			r.service.band.add(counted, given.Sum-r.sum)
		}
		r.count, r.kept, r.sum = given.Count, given.Kept, given.Sum
		r.step, r.index = step, i
		c.list = append(c.list, r)
	}
	if first {
		c.before = Counters{Other: in.Other, Kept: in.Kept, Refused: in.Refused}
	}
	other := float64(in.Other-min(c.before.Other, in.Other)) / seconds
	c.other = estimate(c.other, other, seconds)
	expected += other * c.base
	// What asked for a span and is not explained by the shares: rules, callers, tails, floors.
	asking := float64(in.Kept-min(c.before.Kept, in.Kept)+in.Refused-min(c.before.Refused, in.Refused)) / seconds
	if !first {
		c.others += follow * (asking - expected - c.others)
	}
	// Where all is asked for, or the load has jumped, there is nothing to learn of the valve.
	if spent := float64(in.Kept-min(c.before.Kept, in.Kept)) / seconds; c.scarce && c.config.Budget > 0 {
		c.ask = min(max(c.ask+askGain*(askTarget-spent/c.config.Budget), askLeast), askMost)
	}
	c.before = Counters{Other: in.Other, Kept: in.Kept, Refused: in.Refused}
}

func (c *Controller) serviceOf(name string, step uint64) *service {
	s := c.services[name]
	if s == nil {
		s = &service{load: newGovernor(), band: band{factor: 1}}
		c.services[name] = s
	}
	s.step = step
	return s
}

// weigh brings the factors of node and services up to date.
func (c *Controller) weigh(now time.Time, seconds float64, sig Signals) {
	l := &c.config.Load
	if c.node.step(now, seconds, l.Least,
		signal{"CPU pressure of the node", sig.Node.CPU, l.NodeCPU}, signal{"memory pressure of the node", sig.Node.Memory, l.NodeMemory},
		signal{"own CPU", sig.Self, l.Self}, signal{"ring buffer", sig.Ring, l.Buffers}, signal{"export queue", sig.Queue, l.Buffers}) {
		c.summary.Totals.Falls++
	}
	c.rates.Safety = safety(c.node.Factor)
	for name, s := range c.services {
		p := sig.Services[name]
		if s.load.step(now, seconds, l.Least, signal{"CPU pressure", p.CPU, l.CPU}, signal{"memory pressure", p.Memory, l.Memory}) {
			c.summary.Totals.Falls++
		}
		if b := &c.config.Band; b.On != nil && b.On(name) {
			s.band.step(now, b)
		} else {
			s.band = band{factor: 1}
		}
	}
}

// share gives each route its rate.
func (c *Controller) share(now time.Time, in Counters) {
	c.rates.Routes = c.rates.Routes[:0]
	if c.config.Budget == 0 {
		c.base = c.config.Default
		bounded := len(c.config.Services) > 0 || c.config.Classes != [Classes]float64{}
		if bounded {
			c.demand(in)
		}
		for i, r := range c.list {
			rate := c.base
			// Of what the default keeps, a service or a class may have a budget for less.
			if whole := r.offered * r.service.factor(); bounded && whole > 0 {
				rate = min(rate, c.demands[i]/whole)
			}
			c.decide(now, r, &in.Routes[r.index], rate)
		}
		c.summary.Level = 0
		c.summarise()
		return
	}
	c.demand(in)
	supply := min(max(c.ask*c.config.Budget-c.others, steerLeast*c.config.Budget), steerMost*c.config.Budget)
	var level float64
	level, c.scratch = fill(c.demands, supply, c.scratch)
	c.summary.Level = level
	c.scarce = level < slices.Max(c.demands)
	switch {
	case c.other > 0:
		c.base = min(1, level/c.other)
	case c.seen || !c.restored:
		c.base = 1 // new routes are seen, and share then
	}
	for i, r := range c.list {
		rate := 1.
		if r.offered > 0 {
			rate = min(1, min(level, c.demands[i])/r.offered)
		}
		if !r.measured {
			rate = c.start(r)
		}
		c.decide(now, r, &in.Routes[r.index], rate)
	}
	c.summarise()
}

// start is the rate of a route that nothing was counted of yet.
func (c *Controller) start(r *route) float64 {
	if r.rate >= 0 {
		return r.rate
	}
	return c.base
}

// demand lists what each route would take: all that it offers, less what band and pressure take off, and no more than a
// budget of its service or class leaves it. What is of no route comes last.
func (c *Controller) demand(in Counters) {
	c.demands = c.demands[:0]
	for _, r := range c.list {
		d := r.offered * r.service.factor()
		if g := &in.Routes[r.index]; g.Fixed || g.Remote >= 0 {
			d = 0 // not ours: what it takes is among the others
		}
		c.demands = append(c.demands, d)
	}
	c.demands = append(c.demands, c.other)
	if len(c.config.Services) > 0 {
		for name := range c.memberOf {
			c.memberOf[name] = c.memberOf[name][:0]
		}
		for i, r := range c.list {
			if name := in.Routes[r.index].Service; c.config.Services[name] > 0 {
				c.memberOf[name] = append(c.memberOf[name], i)
			}
		}
		for name, members := range c.memberOf {
			c.bound(members, c.config.Services[name])
		}
	}
	for class := range c.inClasses {
		if limit := c.config.Classes[class]; limit > 0 {
			c.inClasses[class] = c.inClasses[class][:0]
			for i, r := range c.list {
				if in.Routes[r.index].Class == Class(class) {
					c.inClasses[class] = append(c.inClasses[class], i)
				}
			}
			c.bound(c.inClasses[class], limit)
		}
	}
}

// bound shares a budget among some of the demands.
func (c *Controller) bound(members []int, limit float64) {
	own := make([]float64, len(members))
	for i, m := range members {
		own[i] = c.demands[m]
	}
	var level float64
	level, c.scratch = fill(own, limit, c.scratch)
	for _, m := range members {
		c.demands[m] = min(c.demands[m], level)
	}
}

func (s *service) factor() float64 { return s.load.Factor * s.band.factor }

// decide settles the rate of a route. wanted is its share, or the default, before what others say of it.
func (c *Controller) decide(now time.Time, r *route, given *Route, wanted float64) {
	out := Rate{Key: r.key, Rate: wanted, Boost: -1, Reason: ByDefault}
	budget := c.config.Budget > 0
	switch {
	case given.Fixed:
		out.Rate, out.Reason = -1, ByRule
	case given.Remote >= 0:
		out.Rate, out.Reason = given.Remote*r.service.load.Factor, ByRemote
	case budget:
		out.Reason = ByBudget
		if !r.measured && r.reason == ByState {
			out.Reason = ByState
		}
		fallthrough
	default:
		if !budget || !r.measured {
			out.Rate *= r.service.factor()
		}
		if r.service.load.Factor < 1 {
			out.Reason = ByPressure
		} else if r.service.band.factor < 1 {
			out.Reason = ByBand
		} else if !budget && wanted < c.base {
			out.Reason = ByBudget // of its service or class
		} else if !budget {
			out.Rate = -1 // the kernel's own default
		}
	}
	if out.Rate != r.rate || out.Reason != r.reason {
		if r.history.note(now, r, out, c.summary.Level) {
			c.summary.Totals.Changes[out.Reason]++
		}
	}
	r.rate, r.reason = out.Rate, out.Reason
	c.rates.Routes = append(c.rates.Routes, out)
}

func (c *Controller) summarise() {
	c.rates.Base = c.base
	s := &c.summary
	s.Budget, s.Base, s.Others, s.Node = c.config.Budget, c.base, c.others, c.node.Load
	s.Offered, s.Asked = c.other, c.other*c.base
	for _, r := range c.list {
		if r.reason == ByRule || r.reason == ByRemote {
			continue
		}
		s.Offered += r.offered
		rate := r.rate
		if rate < 0 {
			rate = c.base
		}
		s.Asked += r.offered * rate
	}
}

// boost raises the rates of routes that behave unlike themselves.
func (c *Controller) boost(sig Signals) {
	if len(sig.Boosted) == 0 {
		return
	}
	each := boostShare * c.config.Budget / float64(len(sig.Boosted))
	for i := range c.rates.Routes {
		out := &c.rates.Routes[i]
		if !sig.Boosted[out.Key] {
			continue
		}
		rate := out.Rate
		if rate < 0 {
			rate = c.base
		}
		if r := c.list[i]; c.config.Budget > 0 && r.offered > 0 {
			out.Boost = min(1, rate+each/r.offered)
		} else {
			out.Boost = min(1, boostBy*rate)
		}
	}
}

// floors grants spans to routes that had none for long.
func (c *Controller) floors(now time.Time, seconds float64) {
	c.rates.FloorBudget = floorShare * c.config.Budget
	if c.config.Budget == 0 {
		return
	}
	c.waiting = c.waiting[:0]
	for i, r := range c.list {
		if now.Sub(r.lastKept) >= floorEvery {
			c.waiting = append(c.waiting, waiting{index: i, since: r.lastKept, active: r.current > 0})
		}
	}
	var granted, deferred int
	c.grants = min(c.grants+c.rates.FloorBudget*seconds, max(1, c.rates.FloorBudget))
	c.grants, granted, deferred = grant(c.rates.Routes, c.waiting, c.grants)
	c.summary.Totals.FloorsGranted += uint64(granted)
	c.summary.Totals.FloorsDeferred += uint64(deferred)
}

// forget lets go of what the step had not.
func (c *Controller) forget() {
	step := c.summary.Totals.Steps
	if len(c.routes) > len(c.list) {
		for key, r := range c.routes {
			if r.step != step {
				delete(c.routes, key)
			}
		}
	}
	for name, s := range c.services {
		if s.step != step {
			delete(c.services, name)
			delete(c.memberOf, name)
		}
	}
}
