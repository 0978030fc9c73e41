package bpf

import (
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
)

// inForce reads the set that the programs would use.
func inForce(t *testing.T, k *Kernel) *Rules {
	t.Helper()
	var id ebpf.MapID
	if err := k.objs.RuleSets.Lookup(uint32(0), &id); err != nil {
		t.Fatal(err)
	}
	set, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	table := new(Rules)
	if err := set.Lookup(uint32(0), table); err != nil {
		t.Fatal(err)
	}
	return table
}

func TestRulesComeIntoForceAsOne(t *testing.T) {
	k := load(t, Config{Rate: 1})
	if g := inForce(t, k).Generation; g != 0 {
		t.Errorf("before any rules, generation %d", g)
	}
	ring := k.objs.Actions.MaxEntries()
	place := uint32(0)
	for generation := uint32(1); generation <= 20; generation++ {
		actions := make([]Action, RulesMax-int(generation)) // so that the ring comes round in the midst of a set
		for i := range actions {
			actions[i] = Action{Rule: uint16(i), Threshold: uint64(generation)<<32 | uint64(i)}
		}
		table := &Rules{Count: uint32(len(actions)), Seed: uint64(generation)}
		table.Rows[len(table.Rows)-1][15] = 1 << 63
		got, err := k.SetRules(table, actions)
		if err != nil || got != generation || k.RulesGeneration() != generation {
			t.Fatalf("generation %d, want %d: %v", got, generation, err)
		}
		now := inForce(t, k)
		if *now != *table || now.Generation != generation || now.Actions != place {
			t.Fatalf("generation %d of place %d is in force, want %d of %d", now.Generation, now.Actions, generation, place)
		}
		for i, want := range actions {
			var a Action
			if err := k.objs.Actions.Lookup((now.Actions+uint32(i))%ring, &a); err != nil {
				t.Fatal(err)
			}
			if a != want || a.Generation != generation {
				t.Fatalf("generation %d: action %d is %+v", generation, i, a)
			}
		}
		place = (place + uint32(len(actions))) % ring
	}
}

func TestTheSetInForceIsInTheMemoryOfMaps(t *testing.T) {
	k := load(t, Config{Rate: 1})
	if _, err := k.SetRules(&Rules{Count: 1}, make([]Action, 1)); err != nil {
		t.Fatal(err)
	}
	maps, err := k.Maps()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(maps, func(m MapInfo) bool { return m.Name == "rule_sets" })
	if least := uint64(unsafe.Sizeof(Rules{})); at < 0 || maps[at].Bytes < least {
		t.Errorf("%+v, want at least %d bytes", maps, least)
	}
}

func TestServicesGetTheirRulesWithoutANewGeneration(t *testing.T) {
	k := load(t, Config{Rate: 1})
	table := &Rules{Count: 1}
	if err := k.SetServiceRows(table); err == nil {
		t.Error("services got rules that are not in force")
	}
	if _, err := k.SetRules(table, make([]Action, 1)); err != nil {
		t.Fatal(err)
	}
	table.ServiceRow[7] = 3
	if err := k.SetServiceRows(table); err != nil {
		t.Fatal(err)
	}
	if now := inForce(t, k); now.Generation != 1 || now.ServiceRow[7] != 3 {
		t.Errorf("generation %d, row %d", now.Generation, now.ServiceRow[7])
	}
	stale := *table
	if _, err := k.SetRules(table, make([]Action, 1)); err != nil {
		t.Fatal(err)
	}
	if err := k.SetServiceRows(&stale); err == nil || !strings.Contains(err.Error(), "of generation 1, and 2 is in force") {
		t.Errorf("an older set came back: %v", err)
	}
}

func TestRulesThatAreNone(t *testing.T) {
	k := load(t, Config{Rate: 1})
	for what, c := range map[string]struct {
		count   uint32
		actions int
	}{
		"no rule":              {0, 0},
		"a rule too many":      {uint32(RulesMax) + 1, RulesMax + 1},
		"a rule and no action": {1, 0},
		"actions without rule": {1, 2},
	} {
		if _, err := k.SetRules(&Rules{Count: c.count}, make([]Action, c.actions)); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if g := k.RulesGeneration(); g != 0 {
		t.Errorf("generation %d", g)
	}
}

func TestRatesChangeInTheRunningKernel(t *testing.T) {
	k := load(t, Config{Rate: 0.5})
	rates, err := k.Rates()
	if err != nil || rates != (Rates{Base: 1 << 55, Override: ThresholdNone, Generation: 1}) {
		t.Errorf("at the start %+v, %v", rates, err)
	}
	var raw ambitBaseRates
	if err := k.objs.Rates.Lookup(uint32(0), &raw); err != nil || raw.Safety != [3]uint32{Full, Full, Full} {
		t.Errorf("at the start %v of each class remain, %v", raw.Safety, err)
	}
	quarter := 0.25
	for _, step := range []struct {
		what string
		do   func() error
		want Rates
	}{
		{"the default rate", func() error { return k.SetBase(1) }, Rates{0, ThresholdNone, 2, false}},
		{"a rate above the rules", func() error { return k.SetOverride(&quarter) }, Rates{0, 3 << 54, 3, false}},
		{"the header", func() error { return k.SetForceHeader(true) }, Rates{0, 3 << 54, 4, true}},
		{"no rate above the rules", func() error { return k.SetOverride(nil) }, Rates{0, ThresholdNone, 5, true}},
		{"no header", func() error { return k.SetForceHeader(false) }, Rates{0, ThresholdNone, 6, false}},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got, err := k.Rates(); err != nil || got != step.want {
			t.Errorf("%s: %+v, want %+v, %v", step.what, got, step.want, err)
		}
	}
	for _, bad := range []float64{-0.1, 1.1} {
		if k.SetBase(bad) == nil || k.SetOverride(&bad) == nil {
			t.Errorf("rate %v was taken", bad)
		}
	}
}

func TestBudgetsKeepWhatTheyCounted(t *testing.T) {
	k := load(t, Config{Rate: 1})
	counted := ambitBudget{DueNs: 5, Kept: 6, Refused: 7, Stopped: 8}
	if err := k.objs.Budgets.Put(uint32(BudgetTail), counted); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ set, want float64 }{{100, 100}, {0, 0}, {0.001, 0.001}, {1e9, 1e9}} {
		if err := k.SetBudget(BudgetTail, c.set); err != nil {
			t.Fatal(err)
		}
		all, err := k.Budgets()
		if err != nil || len(all) != BudgetsMax {
			t.Fatalf("%d budgets, %v", len(all), err)
		}
		if got := all[BudgetTail]; got != (Budget{SpansPerSecond: c.want, Kept: 6, Refused: 7, Stopped: 8}) {
			t.Errorf("set to %v: %+v", c.set, got)
		}
		if all[BudgetNode] != (Budget{}) {
			t.Errorf("the node's budget is %+v", all[BudgetNode])
		}
	}
	var raw ambitBudget
	if err := k.objs.Budgets.Lookup(uint32(BudgetTail), &raw); err != nil || raw.DueNs != 5 || raw.IntervalNs != 1 {
		t.Errorf("%+v, %v", raw, err)
	}
	for _, bad := range []float64{-1, 2e9} {
		if k.SetBudget(BudgetTail, bad) == nil {
			t.Errorf("a budget of %v was taken", bad)
		}
	}
	if k.SetBudget(BudgetsMax, 1) == nil || k.SetBudget(-1, 1) == nil {
		t.Error("a budget that is not there was set")
	}
}
