package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	out   = flag.String("out", "", "a file for the results, as JSON")
	plots = flag.String("plots", "", "a directory for a plot of each scenario")
)

// plotOf is the name of a scenario's plot.
func plotOf(scenario string) string {
	return "sim-" + strings.NewReplacer(" ", "-", ",", "").Replace(scenario) + ".svg"
}

// run runs one scenario by one sampler in a bubble, where time is not that of clocks.
func run(t *testing.T, s scenario, sampler int) (result Result) {
	synctest.Test(t, func(t *testing.T) {
		seed := fnv.New64a()
		seed.Write([]byte(s.name))
		traffic := rand.New(rand.NewPCG(seed.Sum64(), 1)) // the same for each sampler
		sm, err := samplers[sampler].make(s, rand.New(rand.NewPCG(seed.Sum64(), 2)))
		if err != nil {
			t.Fatal(err)
		}
		result = simulate(s, samplers[sampler].name, sm, traffic, func() {
			time.Sleep(tick)
			synctest.Wait()
		})
		sm.stop()
	})
	return result
}

// What ambit's controller promises, in every scenario.
func TestScenarios(t *testing.T) {
	var all []Result
	for _, s := range scenarios() {
		begun := len(all)
		for i := range samplers {
			all = append(all, run(t, s, i))
		}
		if *plots != "" {
			if err := os.WriteFile(filepath.Join(*plots, plotOf(s.name)), []byte(plot(all[begun:])), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range all[begun:] {
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
	t.Log("\n" + table(all))
	written, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if *out == "" {
		return
	}
	if err := os.WriteFile(*out, append(written, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table is the results for people.
func table(all []Result) string {
	var b strings.Builder
	b.WriteString("| traffic | sampler | spent | peak | settled | floors | fairness |\n|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		settled := ""
		if r.Settle != nil {
			settled = fmt.Sprintf("%.0f s", *r.Settle)
			if *r.Settle < 0 {
				settled = "never"
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %.3f | %d | %s | %.3f | %.3f |\n", r.Scenario, r.Sampler, r.Spent, r.Peak, settled, r.FloorMet, r.Jain)
	}
	return b.String()
}

// The table of docs/sampling.md is what the scenarios come to.
func TestDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/sampling.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios()[:1] {
		var all []Result
		for i := range samplers {
			all = append(all, run(t, s, i))
		}
		_, rows, _ := strings.Cut(table(all), "---|\n")
		if !strings.Contains(string(docs), rows) {
			t.Errorf("docs/sampling.md has other numbers; run make sim:\n%s", rows)
		}
		name := plotOf(s.name)
		drawn, err := os.ReadFile("../../docs/images/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if string(drawn) != plot(all) || !strings.Contains(string(docs), "images/"+name) {
			t.Errorf("docs/images/%s is another plot, or docs/sampling.md does not show it; run make sim", name)
		}
	}
}
