package sampling

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

// slowest is a bound of the counters' buckets, so that they count exactly what rules take for slow.
const slowest = 31_250 * time.Microsecond

// estimate is what spans say of how many there were, the sum of what each stands for, beside how many there were.
type estimate struct {
	what          string
	exact         float64
	spans         int
	sum, variance float64
}

// add takes a span that was kept with probability p.
func (e *estimate) add(p float64) {
	e.spans++
	e.sum += 1 / p
	e.variance += (1 - p) / (p * p)
}

// deviation is by how many standard errors it is off.
func (e *estimate) deviation() float64 {
	if e.sum == e.exact {
		return 0
	}
	return (e.sum - e.exact) / math.Sqrt(e.variance)
}

func (e *estimate) String() string {
	return fmt.Sprintf("%s: %d for %.0f of %.0f, %+.2f", e.what, e.spans, e.sum, e.exact, e.deviation())
}

// served are the counters of the server's sides of a route, "" is all of them, and of how many were slow.
func served(metrics map[string]float64, route string) (all, slow float64) {
	const bucket = "ambit_request_duration_seconds_bucket"
	for series, n := range metrics {
		if !strings.Contains(series, `kind="SERVER"`) || route != "" && !strings.Contains(series, `route="`+route+`"`) {
			continue
		}
		switch {
		case strings.HasPrefix(series, "ambit_request_duration_seconds_count"):
			all, slow = all+n, slow+n
		case strings.HasPrefix(series, bucket) && strings.Contains(series, fmt.Sprintf(`le="%v"`, slowest.Seconds())):
			slow -= n
		}
	}
	return all, slow
}

// What is kept of real traffic counts back to all of it: of the server's sides in total, of each route, and of what was
// slow, by head and tail together, with and without budgets below what is asked for. What a header forced was kept under no
// probability, and is left out on both sides. The limit of four standard errors is passed once in 16,000 times by chance,
// and there are 40 comparisons; without budgets the trace IDs decide, which are the same each time.
func TestEstimates(t *testing.T) {
	const rules = `sampling:
  budget: %d
  control: off
  tail_budget: %d
  forced: {header: x-envoy-force-trace, budget: 10}
  rules:
  - {name: clients, match: {kind: client}, drop: true}
  - {name: all, rate: %v, slow_threshold: %v, tail_rate: 0.3}
`
	g := newGround(t, fmt.Sprintf(rules, 0, 0, 1.0, slowest), "--forced-from", "127.0.0.0/8")
	const items, orders = "/items/{number}", "/orders/{hex}/lines"
	mix := []request{
		{Share: 57, Target: "/items/{number}"}, {Share: 40, Target: "/orders/{hex}{hex}/lines"},
		{Share: 1, Target: "/items/{number}?200&40ms"}, {Share: 1, Target: "/orders/{hex}{hex}/lines?503&40ms"},
		{Share: 1, Target: "/items/{number}", Headers: "x-envoy-force-trace: true\r\n"},
	}
	for i := range mix {
		mix[i].Headers += "x-request-id: {hex}\r\n"
	}
	for _, c := range []struct {
		rate               float64
		requests           int
		budget, tailBudget int
	}{
		{0.001, 300_000, 120, 100}, {0.01, 200_000, 250, 100}, {0.1, 100_000, 500, 100}, {0.5, 100_000, 1000, 100}, {1, 100_000, 1000, 100},
	} {
		check := func(t *testing.T, budget, tailBudget int) {
			g.configure(t, fmt.Sprintf(rules, budget, tailBudget, c.rate, slowest))
			before := g.Metrics(t)
			do(t, g.ns, work{Target: g.home, Seed: 1, Requests: c.requests, Connections: 64, Mix: mix})
			spans, _ := g.Settled(t)
			after := g.Metrics(t)
			exact := func(route string) (all, slow float64) {
				all, slow = served(after, route)
				was, wasSlow := served(before, route)
				return all - was, slow - wasSlow
			}
			all, slow := exact("")
			if all != float64(c.requests) {
				t.Errorf("%v requests are counted, %d were sent", all, c.requests)
			}
			ofItems, _ := exact(items)
			ofOrders, _ := exact(orders)
			rows := []*estimate{{what: "all", exact: all}, {what: items, exact: ofItems}, {what: orders, exact: ofOrders}, {what: "slow", exact: slow}}
			forced, raised := 0, 0
			for i := range spans {
				s := &spans[i]
				p, known := stage.Probability(t, s)
				if (s.Attributes["ambit.sampling.reason"] == "forced") == known || s.Client() && known {
					t.Errorf("the tracestate is %q of a span with %v", s.TraceState, s.Attributes)
				}
				if !known {
					forced++
				}
				if s.Client() {
					continue
				}
				concerns := []bool{true, s.Attributes["ambit.route"] == items, s.Attributes["ambit.route"] == orders, s.End.Sub(s.Start) > slowest}
				if known && p < c.rate*0.999 {
					raised++
				}
				for row, r := range rows {
					switch {
					case concerns[row] && known:
						r.add(p)
					case concerns[row]:
						r.exact--
					}
				}
			}
			if forced == 0 || budget > 0 && raised == 0 {
				t.Errorf("%d spans were forced, of %d the threshold was raised: the traffic does not show what it should", forced, raised)
			}
			for _, r := range rows {
				if !(math.Abs(r.deviation()) <= 4) {
					t.Errorf("more than 4 standard errors off: %v", r)
				}
			}
			t.Logf("by so many spans, how many standard errors off: %v; %d forced", rows, forced)
		}
		t.Run(fmt.Sprint(c.rate), func(t *testing.T) { check(t, 0, 0) })
		t.Run(fmt.Sprintf("%v, budget %d", c.rate, c.budget), func(t *testing.T) { check(t, c.budget, c.tailBudget) })
	}
}
