package sampling

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

// isTail tells whether a span was kept for how it ended.
func isTail(s *stage.Span) bool {
	reason := s.Attributes["ambit.sampling.reason"]
	return reason == "slow" || reason == "error"
}

// busiest is the most spans that were decided on within any one second. The tail decides at an exchange's end, and all else
// at its beginning.
func busiest(spans []stage.Span, concerns func(*stage.Span) bool) int {
	var times []time.Time
	for i := range spans {
		if s := &spans[i]; concerns(s) {
			at := s.Start
			if isTail(s) {
				at = s.End
			}
			times = append(times, at)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	most, first := 0, 0
	for i, at := range times {
		for at.Sub(times[first]) >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// allowed is the most spans of a budget in any second: a bucket holds a fifth of one more. A decision is up to
// milliseconds behind its packet's time, of which another twentieth is for.
func allowed(budget int) int { return int(math.Ceil(float64(budget) * 1.25)) }

// within fails where a budget is exceeded in any second, or not used where it should be.
func within(t *testing.T, what string, budget int, spans []stage.Span, concerns func(*stage.Span) bool) int {
	t.Helper()
	most := busiest(spans, concerns)
	if most > allowed(budget) {
		t.Errorf("%s: %d spans in one second, the budget is %d", what, most, budget)
	}
	return most
}

func all(*stage.Span) bool { return true }

// When half of all requests fail and all are slow, at full load, the tail stays within its budget and the node within its
// own; the critical route keeps nearly all of its spans, and the background one less than others: hardly more than the tail's
// bucket held when it began.
func TestOutage(t *testing.T) {
	const budget, tailBudget, requests = 400, 200, 100_000
	g := newGround(t, fmt.Sprintf(`sampling:
  budget: %d
  control: off
  tail_budget: %d
  rules:
  - {name: pay, match: {path: {prefix: /pay}}, rate: 0.001, slow_threshold: 5ms, class: critical}
  - {name: jobs, match: {path: {prefix: /jobs}}, rate: 0.0002, slow_threshold: 5ms, class: background}
  - {name: shop, rate: 0.0002, slow_threshold: 5ms}
`, budget, tailBudget))
	routes := []string{"/pay/{number}", "/jobs/{number}", "/shop/{number}"} // which are targets too
	shares := []int{1, 200, 800}
	mix := func(queries ...string) (mix []request) {
		for _, query := range queries {
			for i, route := range routes {
				mix = append(mix, request{Share: shares[i], Target: route + query})
			}
		}
		return mix
	}
	sent := make(map[string]int)
	play := func(requests int, queries ...string) (map[string]int, []stage.Span) {
		now := make(map[string]int)
		for i, n := range do(t, g.ns, work{Target: g.home, Seed: 7, Requests: requests, Connections: 256, Mix: mix(queries...)}) {
			now["GET "+routes[i%len(routes)]] += n
			sent["GET "+routes[i%len(routes)]] += n
		}
		spans, counts := g.Settled(t)
		if counts.DroppedTotal() > 0 {
			t.Errorf("%v", counts)
		}
		return now, spans
	}
	play(requests/2, "") // as ever
	begun := time.Now()
	failing, spans := play(requests, "?200&8ms", "?500&8ms")
	took := time.Since(begun)
	tail := within(t, "the tail", tailBudget, spans, isTail)
	node := within(t, "the node", budget, spans, all)
	if tail < tailBudget*3/4 {
		t.Errorf("the tail's budget is hardly used: %d spans in its busiest second", tail)
	}
	kept := make(map[any]float64)
	for i := range spans {
		kept[spans[i].Attributes["ambit.sampling.rule"]]++
	}
	share := func(rule string) float64 { return kept[rule] / float64(2*failing["GET /"+rule+"/{number}"]) }
	if pay, shop, jobs := share("pay"), share("shop"), share("jobs"); pay < 0.9 || shop > 0.2 || jobs > shop/2 {
		t.Errorf("kept are %.3f of what is critical, %.4f of what is normal, %.5f of what is background", pay, shop, jobs)
	}
	for kind, got := range counted(g.Metrics(t)) {
		if !maps.Equal(got, sent) {
			t.Errorf("%s: %v are counted, %v were sent", kind, got, sent)
		}
	}
	t.Logf("%d requests in %.1f s: at most %d spans of the tail and %d of all in a second; kept %.3f critical, %.4f normal, %.5f background",
		requests, took.Seconds(), tail, node, share("pay"), share("shop"), share("jobs"))
}
