package daemon

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/admin"
	"ambit/l7"
	"ambit/sampling"
)

// show tells what the controller knew in its last step, and the rate of what has none of its own; nil where rates are not
// moved.
func (s *steering) show() (_ *admin.Control, base float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return nil, 0
	}
	c := s.controller.Summary()
	out := &admin.Control{
		Offered: c.Offered, Asked: c.Asked, Others: c.Others, Level: c.Level, Load: showLoad(c.Node), Steps: c.Totals.Steps,
		StepSeconds: s.last.Seconds(), ControlSeconds: s.took.Seconds(), FloorsGranted: c.Totals.FloorsGranted,
		FloorsDeferred: c.Totals.FloorsDeferred, Falls: c.Totals.Falls,
		Changes: make(map[string]uint64), AnomaliesFound: make(map[string]uint64),
	}
	for reason, n := range c.Totals.Changes {
		out.Changes[sampling.Reason(reason).String()] = n
	}
	for kind, n := range s.anomalyOf {
		out.AnomaliesFound[sampling.AnomalyKind(kind).String()] = n
	}
	return out, c.Base
}

func showLoad(l sampling.Load) admin.Load {
	return admin.Load{Factor: l.Factor, State: l.State.String(), Cause: l.Cause, Since: l.Since}
}

// list tells of the routes that are asked for, the busiest first.
func (s *steering) list(q admin.RatesQuery) []admin.RouteRate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on || q.Limit == 0 {
		return nil
	}
	type found struct {
		key     uint64
		name    sampling.RouteName
		offered float64
	}
	var all []found
	for i := range s.counters.Routes {
		key := s.counters.Routes[i].Key
		name, ok := s.name(key)
		if !ok || q.Service != "" && name.Service != q.Service || !names(q.Route, name) {
			continue
		}
		all = append(all, found{key, name, s.controller.Offered(key)})
	}
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(b.offered, a.offered), cmp.Compare(a.name.Service, b.name.Service),
			cmp.Compare(a.name.Template, b.name.Template), cmp.Compare(a.name.Method, b.name.Method), cmp.Compare(a.key, b.key))
	})
	now := time.Now()
	list := make([]admin.RouteRate, 0, min(len(all), q.Limit))
	for _, f := range all[:min(len(all), q.Limit)] {
		e, ok := s.controller.Explain(f.key)
		if !ok {
			continue
		}
		r := s.row(f.name, &e)
		if q.Route != "" {
			r.Words = s.words(f.key, &e, now)
		}
		list = append(list, r)
	}
	return list
}

// names tells whether a query, a template with or without its method, names a route.
func names(query string, route sampling.RouteName) bool {
	return query == "" || query == route.Template || query == strings.TrimSpace(route.Method+" "+route.Template)
}

func (s *steering) row(name sampling.RouteName, e *sampling.Explanation) admin.RouteRate {
	r := admin.RouteRate{
		Service: name.Service, Kind: l7.Kind(name.Kind).String(), Method: name.Method, Route: name.Template, Host: name.Peer,
		Offered: e.Offered, Rate: rateOrNil(e.Rate.Rate), Boost: rateOrNil(e.Rate.Boost), Reason: e.Rate.Reason.String(),
		Load: showLoad(e.Load), Band: e.Band, Kept: e.LastKept, History: []admin.RateChange{},
	}
	if r.Rate == nil && e.Rate.Reason != sampling.ByRule {
		base := s.controller.Summary().Base
		r.Rate = &base
	}
	if r.Rate != nil {
		r.Spans = r.Offered * *r.Rate
		if r.Boost != nil {
			r.Spans = r.Offered * max(*r.Rate, *r.Boost)
		}
	}
	for _, c := range e.Changes {
		r.History = append(r.History, admin.RateChange{
			At: c.At, From: rateOrNil(c.From), To: rateOrNil(c.To), Reason: c.Reason.String(), Offered: c.Offered,
		})
	}
	return r
}

func rateOrNil(rate float64) *float64 {
	if rate < 0 {
		return nil
	}
	return &rate
}

// words tell why a route has the rate that it has, and how it came to that.
func (s *steering) words(key uint64, e *sampling.Explanation, now time.Time) (words []string) {
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	c := s.controller.Summary()
	switch e.Rate.Reason {
	case sampling.ByRule:
		say("A rule gives it a rate or drops it: the controller leaves it alone. \"ambit top\" names the rule.")
	case sampling.ByRemote:
		say("A remote source wants %s of it.", showRate(e.Rate.Rate))
	case sampling.ByBudget, sampling.ByState:
		say("The node may send %s spans a second. Rules, callers and the tail take %s of them, and %s exchange sides a second share the rest.",
			brief(c.Budget), brief(c.Others), brief(c.Offered))
		if e.Rate.Rate >= 1 {
			say("It offers %s a second, which is no more than its share: all of it is kept.", brief(e.Offered))
		} else {
			say("It offers %s a second, and no route gets more than %s spans a second: %s of it is kept.", brief(e.Offered), brief(c.Level), showRate(e.Rate.Rate))
		}
		if e.Rate.Reason == sampling.ByState {
			say("Nothing was measured of it yet: the rate is that of before the restart.")
		}
	case sampling.ByBand:
		say("The mean latency of its service, %s, is or was above the high mark: the latency band leaves %s of its rate, which is %s now.",
			e.Mean.Round(time.Microsecond), showRate(e.Band), showRate(e.Rate.Rate))
	case sampling.ByPressure:
		say("Its workload is or was under pressure (%s): %s of its rate is left, which is %s now. The workload is %s since %s.",
			e.Load.Cause, showRate(e.Load.Factor), showRate(e.Rate.Rate), e.Load.State, clock(e.Load.Since))
	default:
		say("Nothing else speaks of it: the default rate holds, %s.", showRate(c.Base))
	}
	if c.Node.Factor < 1 {
		say("The node is loaded (%s): of every probability %s is left, less of background and more of critical traffic.", c.Node.Cause, showRate(c.Node.Factor))
	}
	if e.Rate.Boost >= 0 {
		if a, ok := s.found.of(key, now); ok {
			say("It behaves unlike itself (%s: %s, usual %s): it is sampled at %s until %s.", a.Kind, showValue(&a, a.Value), showValue(&a, a.Usual),
				showRate(e.Rate.Boost), clock(a.Until))
		}
	}
	if e.Rate.Floor {
		say("It had no span for a minute: its next exchange is kept, if nothing else keeps it.")
	}
	for _, change := range slices.Backward(e.Changes) {
		say("%s: from %s to %s (%s), as it offered %s a second.", clock(change.At), orDefault(change.From), orDefault(change.To), change.Reason, brief(change.Offered))
	}
	return words
}

func showValue(a *sampling.Anomaly, v float64) string {
	if a.Kind == sampling.ErrorRate {
		return showRate(v) + " failed"
	}
	return time.Duration(v * float64(time.Second)).Round(time.Microsecond).String()
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

func orDefault(rate float64) string {
	if rate < 0 {
		return "none of its own"
	}
	return showRate(rate)
}

// showRate is a share in percent, with three digits.
func showRate(rate float64) string { return brief(100*rate) + " %" }

func brief(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }

// events are the latest anomalies, newest first.
func (s *steering) events() []admin.Anomaly {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]admin.Anomaly, 0, len(s.found.events))
	for i := range s.found.events {
		e := &s.found.events[i]
		list = append(list, admin.Anomaly{
			At: e.At, Until: e.Until, Kind: e.Kind.String(), Service: e.name.Service, Method: e.name.Method, Route: e.name.Template,
			Value: e.Value, Usual: e.Usual,
		})
	}
	return list
}
