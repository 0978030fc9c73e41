package decision

import (
	"net/netip"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

// This is the decision in plain words: what the kernel is held to. Which rule holds, l7.Match says.
//
// R is the randomness of the trace, 56 bits; a threshold T = 2^56 (1 - p) keeps what has R >= T.

const (
	never = bpf.ThresholdNever
	none  = bpf.ThresholdNone
	whole = 65536 // of a fraction

	notYet = -1 // the class of a status that is to come
)

// situation is all that a decision hangs on.
type situation struct {
	// In force.
	rules    []l7.Rule   // the last one accepts everything
	caps     map[int]int // budget of a rule, by its place
	base     uint64
	set      uint64 // of "rates set", or none
	safety   [3]uint32
	floors   bool // a new route is granted a floor
	believed bool // x-envoy-force-trace is, of some sources

	// The request: Kind, Service and Client of its sides are apart.
	request l7.Request
	service [bpf.Sides]string
	client  [bpf.Sides]netip.Addr // the opener's address, as each side sees it
	remote  netip.AddrPort        // where the opener went
	app     [bpf.Sides]bool       // the side is an application's
	late    [bpf.Sides]bool       // which was found behind the head
	http2   bool
	unknown bool // a part of its head is
	cut     bool // its head never was whole
	r       uint64
	parent  parent
	forced  bool // by x-envoy-force-trace, of a source that may
	route   [bpf.Sides]route

	// The response.
	status          int
	web             bool // gRPC-Web, whose status may be in the body
	code            l7.GRPCCode
	ending          l7.Ending
	errorCode       uint32 // of a stream's reset
	responseUnknown bool
	took            time.Duration
}

// parent is the caller's decision.
type parent struct {
	decided, sampled bool
	threshold        uint64 // none: it sent no th
}

// route is what is known of the route of one side.
type route struct {
	known              bool
	threshold, anomaly uint64 // none
	slow               uint64 // nanoseconds
	floor              bool   // it is granted a span
}

// decision is what becomes of one side.
type decision struct {
	reason    l7.Reason // 0: it is not kept
	known     bool      // threshold tells how probable that was
	threshold uint64
	rule      int
	class     int
	dropped   bool
}

// decide gives what becomes of both sides, with the head decided at one time and the tail at another.
func (s *situation) decide(v valve, head, tail uint64) (sides [bpf.Sides]decision) {
	for side := range sides {
		if s.app[side] && !s.late[side] {
			sides[side] = s.head(v, side, s.rule(side, notYet), head)
		}
	}
	for side := range sides {
		if !s.app[side] {
			continue
		}
		before, rule := s.rule(side, notYet), s.rule(side, s.statusClass())
		if s.late[side] {
			sides[side] = s.head(v, side, before, tail)
		}
		if rule != before { // one that looks at the status
			sides[side] = s.head(v, side, rule, tail)
		}
		s.tail(v, side, rule, &sides[side], tail)
		s.floor(v, side, &sides[side], tail)
	}
	return sides
}

// rule is the one that holds for a side once the class of the status is known.
func (s *situation) rule(side, class int) int {
	if s.cut {
		return len(s.rules) - 1
	}
	service := s.service[side]
	if s.nobody() {
		service = ""
	} else if s.late[side] {
		side = 1 - side
		service = s.service[side]
	}
	r := s.request
	r.Kind, r.Service, r.Client, r.Class = l7.Kind(side), service, s.client[side], class
	return l7.Match(s.rules, &r)
}

// nobody tells whether at the head no side was known to be an application's: then the rules are asked for both, and nobody
// knows of which service.
func (s *situation) nobody() bool {
	return (!s.app[0] || s.late[0]) && (!s.app[1] || s.late[1])
}

// statusClass is its first digit; what is no status has none.
func (s *situation) statusClass() int {
	if s.status >= 600 {
		return 0
	}
	return s.status / 100
}

// head decides by a rule: forced, rule drop, parent, "rates set", the rule's rate, the route's, the default one. What is
// left by safety and budgets is applied last.
func (s *situation) head(v valve, side, rule int, now uint64) decision {
	a := &s.rules[rule].Action
	d := decision{rule: rule, class: classOf(a)}
	if (a.Force || s.forced && s.believed) && v.of(bpf.BudgetForced).spend(now) && v.of(bpf.BudgetNode).spend(now) {
		d.reason = l7.ReasonForced
		return d
	}
	if a.Drop {
		d.dropped = true
		return d
	}
	reason, threshold, known := s.wish(side, a)
	if s.r < threshold {
		return d
	}
	node, limit := v.of(bpf.BudgetNode), v.of(bpf.BudgetNode)
	left := times(s.safety[d.class], share(d.class, node.filling(now)))
	if budget, ok := s.caps[rule]; ok {
		own := v.of(budget)
		left = times(left, eased(own.filling(now)))
		if own.filling(now) < whole {
			limit = own
		}
	}
	if threshold = shrink(threshold, left); s.r < threshold {
		limit.refuse(now)
		return d
	}
	if !node.spend(now) {
		return d
	}
	if budget, ok := s.caps[rule]; ok && !v.of(budget).spend(now) {
		return d
	}
	d.reason, d.threshold, d.known = reason, threshold, known
	return d
}

// wish is the threshold that is asked for, and whether it tells how probable that is.
func (s *situation) wish(side int, a *l7.RuleAction) (reason l7.Reason, threshold uint64, known bool) {
	rate := a.Rate
	if a.Always {
		rate = new(float64(1))
	}
	reason, known = l7.ReasonHead, true
	switch ignored := a.Always || a.Parent == "ignore"; {
	case s.parent.decided && !ignored && !s.parent.sampled:
		threshold = never
	case s.parent.decided && !ignored:
		reason, threshold = l7.ReasonParent, s.parent.threshold
		if known = threshold != none && s.r >= threshold; !known {
			threshold = 0
		}
		if a.Parent == "scale" {
			threshold = shrink(threshold, uint32((never-bpf.Threshold(*rate))>>40))
		}
	case s.set != none:
		threshold = s.set
	case rate != nil:
		threshold = bpf.Threshold(*rate)
	case s.routeOf(side).threshold != none:
		threshold = s.routeOf(side).threshold
	default:
		threshold = s.base
	}
	if anomaly := s.routeOf(side).anomaly; anomaly < threshold {
		if s.r < threshold {
			reason = l7.ReasonAnomaly
		}
		threshold = anomaly
	}
	return reason, threshold, known
}

// hasRoute tells whether enough was read of a side's route: not where an opener went whom nobody knew.
func (s *situation) hasRoute(side int) bool {
	return !s.cut && (side == bpf.SideAcceptor || !s.late[side] || s.nobody())
}

// routeOf is what holds for a side: where it has none it is told nothing.
func (s *situation) routeOf(side int) route {
	if s.route[side].known && s.hasRoute(side) {
		return s.route[side]
	}
	return route{threshold: none, anomaly: none, slow: none}
}

// tail keeps what is slow or failed, and else was not kept, within a budget of its own; what was kept has the lower
// threshold of both. Drop wins over it.
func (s *situation) tail(v valve, side, rule int, d *decision, now uint64) {
	a := &s.rules[rule].Action
	threshold := uint64(0)
	if a.TailRate != nil {
		threshold = bpf.Threshold(*a.TailRate)
	}
	failed := s.failed(side, a)
	slow := s.took > slowOf(a) || uint64(s.took) > s.routeOf(side).slow
	if d.dropped || a.Drop || threshold == never || !failed && !slow {
		return
	}
	kept := d.reason != 0
	if kept && !d.known || !kept && s.r < threshold {
		return
	}
	node, own := v.of(bpf.BudgetNode), v.of(bpf.BudgetTail)
	const critical = 0 // so much of the node's budget is the tail's, whatever its class
	threshold = shrink(threshold, times(times(s.safety[d.class], share(critical, node.filling(now))), share(d.class, own.filling(now))))
	if kept {
		d.threshold = min(d.threshold, threshold)
		return
	}
	if s.r < threshold {
		own.refuse(now)
		return
	}
	if !own.spend(now) {
		return
	}
	node.spend(now)
	d.rule, d.threshold, d.known, d.reason = rule, threshold, true, l7.ReasonSlow
	if failed {
		d.reason = l7.ReasonError
	}
}

// floor keeps what nothing else does where its route, known or new, is granted a span.
func (s *situation) floor(v valve, side int, d *decision, now uint64) {
	granted := s.routeOf(side).floor || s.isNewRoute(side) && s.floors
	if d.reason != 0 || d.dropped || !granted || !v.of(bpf.BudgetFloor).spend(now) || !v.of(bpf.BudgetNode).spend(now) {
		return
	}
	d.reason, d.known = l7.ReasonFloor, false
}

func classOf(a *l7.RuleAction) int {
	switch a.Class {
	case "critical":
		return 0
	case "background":
		return 2
	}
	return 1
}
