package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/l7"
)

// kernelStage is a kernel side that keeps what it is told.
type kernelStage struct {
	generation uint32
	table      bpf.Rules
	actions    []bpf.Action
	rows       int // times that the rows of services were put in force
	budgets    [bpf.BudgetsMax]bpf.Budget
	base       float64
	force      bool
	services   map[uint16]bpf.Service
	inherited  uint32 // generation of an earlier daemon's rules
	noted      [sha256.Size]byte
	first      *[sha256.Size]byte      // that was noted at the start
	during     func(generation uint32) // SetRules, when the kernel decides by the new set already
	err        error
}

func (k *kernelStage) Seed() uint64 { return 5 }

func (k *kernelStage) InheritedRules() (uint32, [sha256.Size]byte) {
	if k.first == nil {
		first := k.noted
		k.first = &first
	}
	return k.inherited, *k.first
}

func (k *kernelStage) NoteRules(digest [sha256.Size]byte) { k.noted = digest }

func (k *kernelStage) SetRules(table *bpf.Rules, actions []bpf.Action) (uint32, error) {
	if k.err != nil {
		return 0, k.err
	}
	k.generation++
	table.Generation = k.generation
	k.table, k.actions = *table, slices.Clone(actions)
	if k.during != nil {
		k.during(k.generation)
	}
	return k.generation, nil
}

func (k *kernelStage) SetServiceRows(table *bpf.Rules) error {
	if table.Generation != k.generation {
		return fmt.Errorf("rows of generation %d, and %d is in force", table.Generation, k.generation)
	}
	k.table = *table
	k.rows++
	return k.err
}

func (k *kernelStage) SetBudget(index int, spansPerSecond float64) error {
	k.budgets[index].SpansPerSecond = spansPerSecond
	return nil
}

func (k *kernelStage) Budgets() ([]bpf.Budget, error) { return slices.Clone(k.budgets[:]), nil }

func (k *kernelStage) SetBase(rate float64) error {
	k.base = rate
	return nil
}

func (k *kernelStage) SetForceHeader(on bool) error {
	k.force = on
	return nil
}

func (k *kernelStage) Services() (map[uint16]bpf.Service, error) { return k.services, nil }

// newStage has rules of a file in force.
func newStage(t *testing.T, file string) (*kernelStage, *rules) {
	t.Helper()
	k := &kernelStage{base: 1}
	r := newRules(k, func(s bpf.Service) string { return s.Comm }, 1)
	loadRules(t, r, file)
	return k, r
}

func loadRules(t *testing.T, r *rules, file string) {
	t.Helper()
	cfg, origins, err := Load(Sources{File: writeFile(t, file)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.load(&cfg, origins); err != nil {
		t.Fatal(err)
	}
}

// capOf is the budget of a rule in force, by its name.
func (k *kernelStage) capOf(t *testing.T, r *rules, name string) uint32 {
	t.Helper()
	for _, a := range k.actions {
		if r.current.Rules[a.Rule].Name == name {
			return a.Cap
		}
	}
	t.Fatalf("no rule %q is in force", name)
	return 0
}

func ruleNamesOf(t *testing.T, r *rules) (names []string) {
	t.Helper()
	set, err := r.set()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range set.Rules {
		names = append(names, one.Name)
	}
	return names
}

func TestConfigurationInForce(t *testing.T) {
	renewed := 0
	k, r := newStage(t, "sampling: {defaults: off}\n")
	r.renew = func() { renewed++ }
	loadRules(t, r, `sample_rate: 0.25
sampling:
  budget: 40
  control: off
  forced: {header: x-envoy-force-trace, from: [10.0.0.0/8], budget: 3}
  slow_p99: 4
  defaults: [favicon]
  rules: [{name: one, rate: 0.5}]
`)
	if k.generation != 2 || renewed != 1 || k.base != 0.25 || !k.force || k.budgets[bpf.BudgetNode].SpansPerSecond != 40 ||
		k.budgets[bpf.BudgetTail].SpansPerSecond != 10 || k.budgets[bpf.BudgetForced].SpansPerSecond != 3 || r.slowP99() != 4 {
		t.Errorf("generation %d, renewed %d, base %v, force %v, budgets %v", k.generation, renewed, k.base, k.force, k.budgets[:3])
	}
	set, err := r.set()
	if err != nil || set.Count != 3 || len(set.Rules) != 3 || set.Rules[0].Name != "one" || !strings.HasSuffix(set.Rules[0].Origin, "ambit.yaml:8") ||
		set.Rules[1].Origin != "shipped" || set.Rules[2].Name != l7.DefaultRule || set.Rules[2].Origin != "behind all" {
		t.Errorf("%+v %v", set, err)
	}
	// What the kernel does not take changes nothing that is shown.
	k.err = errors.New("the kernel said no")
	cfg, origins, err := Load(Sources{File: writeFile(t, "sampling: {slow_p99: 9}\n")})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.load(&cfg, origins); err == nil || r.slowP99() != 4 || len(ruleNamesOf(t, r)) != 3 || renewed != 1 {
		t.Errorf("%v: %v, %v", err, r.slowP99(), ruleNamesOf(t, r))
	}
}

func TestCapsOutliveReloads(t *testing.T) {
	k, r := newStage(t, "sampling: {rules: [{name: a, cap: 5}, {name: b, cap: 6}]}\n")
	a, b := k.capOf(t, r, "a"), k.capOf(t, r, "b")
	if a < bpf.BudgetCaps || b < bpf.BudgetCaps || a == b || k.budgets[a].SpansPerSecond != 5 || k.budgets[b].SpansPerSecond != 6 {
		t.Fatalf("budgets %d and %d: %v", a, b, k.budgets[:6])
	}
	k.budgets[a].Kept, k.budgets[b].Kept = 100, 200
	loadRules(t, r, "sampling: {rules: [{name: c, cap: 7}, {name: b, cap: 6}, {name: a, cap: 8}]}\n")
	if k.capOf(t, r, "a") != a || k.capOf(t, r, "b") != b || k.budgets[a].SpansPerSecond != 8 {
		t.Error("a rule that stays has another budget")
	}
	c := k.capOf(t, r, "c")
	if c == a || c == b {
		t.Error("a new rule has the budget of another")
	}
	loadRules(t, r, "sampling: {rules: [{name: d, cap: 9}]}\n")
	if d := k.capOf(t, r, "d"); d == a || d == b || d == c {
		t.Error("a new rule has a budget that the set before still spends")
	}
	// Now the budgets of those that went are free, and what they had counted is not told of the next.
	loadRules(t, r, "sampling: {rules: [{name: e, cap: 1}]}\n")
	if e := k.capOf(t, r, "e"); e != a {
		t.Errorf("budget %d, want the first that is free, %d", e, a)
	}
	k.budgets[a].Kept += 3
	budgets, err := r.budgets()
	if last := budgets[len(budgets)-1]; err != nil || last.Name != "rule e" || last.Kept != 3 || last.Limit != 1 {
		t.Errorf("%+v %v", budgets, err)
	}
}

func TestNewServicesGetTheirRows(t *testing.T) {
	k, r := newStage(t, "sampling: {rules: [{name: carts, match: {service: cart*}, rate: 0}]}\n")
	tick := func(now time.Time) {
		t.Helper()
		if err := r.tick(now); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(1e9, 0)
	tick(now)
	if k.rows != 0 || k.generation != 1 {
		t.Error("something was put in force without a service")
	}
	k.services = map[uint16]bpf.Service{0: {}, 3: {Cgroup: 1, Comm: "cart-1"}, 4: {Cgroup: 2, Comm: "shop"}}
	tick(now)
	unknown := k.table.ServiceRow[0]
	if k.rows != 1 || k.table.ServiceRow[3] == unknown || k.table.ServiceRow[4] != unknown {
		t.Errorf("rows %v, put in force %d times", k.table.ServiceRow[:5], k.rows)
	}
	tick(now)
	if k.rows != 1 {
		t.Error("rows are put in force though no service came")
	}
	k.services[5] = bpf.Service{Cgroup: 9, Comm: "cart-2"}
	tick(now)
	if k.rows != 2 || k.table.ServiceRow[5] != k.table.ServiceRow[3] || k.table.ServiceRow[3] == unknown {
		t.Errorf("rows %v, put in force %d times", k.table.ServiceRow[:6], k.rows)
	}
	loadRules(t, r, "sampling: {rules: [{name: shops, match: {service: shop}, rate: 0}]}\n")
	if k.table.ServiceRow[4] == k.table.ServiceRow[0] || k.table.ServiceRow[3] != k.table.ServiceRow[0] {
		t.Error("a set that comes later does not know the services")
	}
}

func TestForcingsExpire(t *testing.T) {
	k, r := newStage(t, "sampling: {defaults: off}\n")
	now := time.Unix(1e9, 0)
	f, err := r.force(&admin.ForceRequest{Service: "shop", Path: "/api/*", Methods: []string{"get"}, Seconds: 30}, now)
	if err != nil || f.Over || !f.Expires.Equal(now.Add(30*time.Second)) {
		t.Fatalf("%+v %v", f, err)
	}
	if names := ruleNamesOf(t, r); !slices.Equal(names, []string{f.Rule, l7.DefaultRule}) || k.actions[0].Flags&bpf.ActionForce == 0 {
		t.Errorf("in force: %v", names)
	}
	k.budgets[bpf.BudgetForced].Kept = 7
	if err := r.tick(now.Add(30*time.Second - 1)); err != nil || k.generation != 2 {
		t.Errorf("before its time: generation %d, %v", k.generation, err)
	}
	// One that cannot be taken out for now is taken out by the next tick.
	k.err = errors.New("the kernel said no")
	if err := r.tick(now.Add(30 * time.Second)); err == nil {
		t.Error("that it could not be ended is no error")
	}
	k.err = nil
	if err := r.tick(now.Add(31 * time.Second)); err != nil || k.generation != 3 || len(ruleNamesOf(t, r)) != 1 {
		t.Errorf("after it: generation %d, %v in force, %v", k.generation, ruleNamesOf(t, r), err)
	}
	k.budgets[bpf.BudgetForced].Kept = 70 // another one's
	if over, err := r.forcingOf(f.ID); err != nil || !over.Over || over.Kept != 7 {
		t.Errorf("%+v %v", over, err)
	}
	// A reload takes none away that holds.
	second, err := r.force(&admin.ForceRequest{Path: "/a", Seconds: 3600}, now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	loadRules(t, r, "sampling: {defaults: [favicon]}\n")
	if names := ruleNamesOf(t, r); names[0] != second.Rule || len(names) != 3 {
		t.Errorf("after a reload: %v", names)
	}
	if _, err := r.unforce(second.ID, now.Add(2*time.Minute)); err != nil || len(ruleNamesOf(t, r)) != 2 {
		t.Errorf("ended: %v, %v", ruleNamesOf(t, r), err)
	}
	if err := r.tick(now.Add(2 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.forcingOf(f.ID); err == nil {
		t.Error("one that was over long ago is remembered")
	}
}

func TestForcingsAreBounded(t *testing.T) {
	_, r := newStage(t, "")
	now := time.Unix(1e9, 0)
	var refused *admin.Error
	if _, err := r.force(&admin.ForceRequest{Path: "no path", Seconds: 1}, now); !errors.As(err, &refused) || refused.Status != 400 {
		t.Errorf("a path without a slash: %v", err)
	}
	for range maxForcings {
		if _, err := r.force(&admin.ForceRequest{Path: "/a", Seconds: 1}, now); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.force(&admin.ForceRequest{Path: "/a", Seconds: 1}, now)
	if !errors.As(err, &refused) || refused.Status != 409 {
		t.Errorf("one too many: %v", err)
	}
}

func TestNamesOfRules(t *testing.T) {
	k, r := newStage(t, `sampling: {defaults: off, rules: [{name: users, match: {path: {template: ["/users/{id}", "/u/{id}"]}}, rate: 1}]}`)
	if r.rule(1, 0) != "users" || r.rule(1, 1) != l7.DefaultRule || r.rule(1, 2) != "" || r.rule(0, 0) != "" || r.rule(9, 0) != "" {
		t.Errorf("rules %q %q %q", r.rule(1, 0), r.rule(1, 1), r.rule(1, 2))
	}
	if r.template(1, 0) != "/users/{id}" || r.template(1, 1) != "/u/{id}" || r.template(1, 2) != "" || r.template(1, bpf.NoRule) != "" {
		t.Errorf("templates %q %q %q", r.template(1, 0), r.template(1, 1), r.template(1, 2))
	}
	for range keptSets {
		loadRules(t, r, "sampling: {defaults: off}\n")
	}
	if r.rule(2, 0) != l7.DefaultRule || r.rule(1, 0) != "" {
		t.Errorf("%d sets later: %q and %q", keptSets, r.rule(2, 0), r.rule(1, 0))
	}
	// Whoever comes by a generation before SetRules has returned gets its names all the same.
	early := make(chan string, 1)
	k.during = func(generation uint32) {
		go func() { early <- r.rule(generation, 0) }()
	}
	loadRules(t, r, "sampling: {defaults: off, rules: [{name: new, rate: 1}]}\n")
	if got := <-early; got != "new" {
		t.Errorf("the name is %q", got)
	}
}

// Spans that an earlier daemon's rules decided have their rule's name where this daemon's are the same.
func TestNamesOfInheritedRules(t *testing.T) {
	const file = "sampling: {defaults: off, rules: [{name: slow, match: {path: {prefix: /slow}}, rate: 1}]}\n"
	earlier, _ := newStage(t, file)
	for content, want := range map[string]string{
		file: "slow",
		"sampling: {defaults: off, rules: [{name: fast, match: {path: {prefix: /slow}}, rate: 1}]}\n": "",
	} {
		k := &kernelStage{base: 1, generation: 8, inherited: 8, noted: earlier.noted}
		r := newRules(k, func(s bpf.Service) string { return s.Comm }, 1)
		loadRules(t, r, content)
		if got := r.rule(8, 0); got != want {
			t.Errorf("%s: the earlier rule is called %q, want %q", content, got, want)
		}
		// Later sets are this daemon's own affair.
		loadRules(t, r, file)
		if got := r.rule(8, 0); got != want {
			t.Errorf("%s: behind a reload the earlier rule is called %q, want %q", content, got, want)
		}
	}
}
