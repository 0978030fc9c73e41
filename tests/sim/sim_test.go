package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// run runs one scenario by one sampler in a bubble, where time is not that of clocks.
func run(t *testing.T, s scenario, sampler int) (out Result) {
	synctest.Test(t, func(t *testing.T) {
		seed := fnv.New64a()
		seed.Write([]byte(s.name))
		traffic := rand.New(rand.NewPCG(seed.Sum64(), 1)) // the same for each sampler
		sm, err := samplers[sampler].make(s, rand.New(rand.NewPCG(seed.Sum64(), 2)))
		if err != nil {
			t.Fatal(err)
		}
		out = simulate(s, samplers[sampler].name, sm, traffic, func() {
			time.Sleep(tick)
			synctest.Wait()
		})
		sm.stop()
	})
	return out
}

// What ambit's controller promises, in every scenario.
func TestScenarios(t *testing.T) {
	var all []Result
	for _, s := range scenarios() {
		for i := range samplers {
			r := run(t, s, i)
			all = append(all, r)
			settle := -2.
			if r.Settle != nil {
				settle = *r.Settle
			}
			t.Logf("%-14s %-20s spent %.3f peak %5d settle %3.0f floor %.3f jain %.3f", r.Scenario, r.Sampler, r.Spent, r.Peak, settle, r.FloorMet, r.Jain)
			if r.Sampler != "ambit" {
				continue
			}
			if r.Spent < 0.95 {
				t.Errorf("%s: %.3f of the budget is spent, less than 0.95", r.Scenario, r.Spent)
			}
			if float64(r.Peak) > 1.2*budget {
				t.Errorf("%s: %d spans in a second, more than 1.2 times %d", r.Scenario, r.Peak, budget)
			}
			if r.Settle != nil && (*r.Settle < 0 || *r.Settle > 2) {
				t.Errorf("%s: settled after %v s, not within 2", r.Scenario, *r.Settle)
			}
		}
	}
	_ = all
}
