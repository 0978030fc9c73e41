package daemon

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/l7"
	"ambit/sampling"
)

// ruleKernel is what putting rules in force needs of the kernel side.
type ruleKernel interface {
	Seed() uint64
	SetRules(*bpf.Rules, []bpf.Action) (generation uint32, err error)
	SetServiceRows(*bpf.Rules) error
	SetBudget(index int, spansPerSecond float64) error
	Budgets() ([]bpf.Budget, error)
	SetBase(rate float64) error
	SetForceHeader(on bool) error
	Services() (map[uint16]bpf.Service, error)
	InheritedRules() (generation uint32, digest [sha256.Size]byte)
	NoteRules(digest [sha256.Size]byte)
}

// keptSets is how many older sets are remembered: an exchange that one of them decided may end long after it.
const keptSets = 64

// rules is the set in force and what it was made of.
//
//	reload, at the start too --\
//	force, unforce, expire -----+--> apply: compile, place caps, put in force
//	tick ----------------------- services that are new
type rules struct {
	kernel ruleKernel
	// name gives a service its name.
	name func(bpf.Service) string
	// renew is called when a configuration was read: routes are to tell anew which rule decides them.
	renew func()

	mu       sync.Mutex
	sampling SamplingConfig
	origins  Origins
	rate     float64
	forcings []*forcing // newest first, in front of all other rules
	over     []*forcing // ended not long ago
	forced   int        // how many there were
	stale    bool       // what is in force has a forcing that is over

	current    *l7.Compiled
	from       []string // where each of the rules in force is from
	generation uint32
	// sets has the names of a set by its generation, that of current among them. A map that is in it never changes.
	sets     atomic.Pointer[map[uint32]ruleNames]
	caps     map[string]ruleCap // by the rule's name
	services map[uint16]string  // that have their row, by party.service
	verdicts map[string]verdict // by the rule's name, of those in force; never changed once it is made
	// configured counts the configurations that were put in force.
	configured uint64
	loaded     time.Time
	err        string // of the latest configuration, if it was not taken
	errAt      time.Time
}

// ruleNames is what is remembered of a set.
type ruleNames struct {
	rules     []string // by their place
	templates []string // of each action, "" where it names no route
}

// ruleCap is a rule's own budget, and what it had counted for others before.
type ruleCap struct {
	budget uint32
	limit  float64
	before bpf.Budget
}

// newRules begins with a kernel side that has this rate.
func newRules(k ruleKernel, name func(bpf.Service) string, rate float64) *rules {
	r := &rules{
		kernel: k, name: name, rate: rate, renew: func() {}, sampling: SamplingConfig{Forced: ForcedConfig{Header: "off"}},
		caps: make(map[string]ruleCap), services: make(map[uint16]string),
	}
	r.sets.Store(&map[uint32]ruleNames{})
	return r
}

// load puts a configuration in force. On an error the one before it stays.
func (r *rules) load(cfg *Config, origins Origins) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, beforeOrigins := r.sampling, r.origins
	r.sampling, r.origins = cfg.Sampling, origins
	err := r.apply()
	if err == nil {
		err = r.putBudgets()
	}
	if err == nil && r.sampling.Forced.Header != before.Forced.Header {
		err = r.kernel.SetForceHeader(r.sampling.Forced.Header == forceHeader)
	}
	if err == nil && cfg.SampleRate != r.rate {
		// Where rates are moved the controller writes it.
		if !cfg.Sampling.Control.on(cfg.Sampling.Budget) {
			err = r.kernel.SetBase(cfg.SampleRate)
		}
		if err == nil {
			r.rate = cfg.SampleRate
		}
	}
	if err != nil {
		r.sampling, r.origins = before, beforeOrigins
		return err
	}
	r.loaded, r.err = time.Now(), ""
	r.configured++
	r.renew()
	return nil
}

// steered is what the controller has to know of the configuration in force. What it points to never changes.
func (r *rules) steered() *steered {
	r.mu.Lock()
	defer r.mu.Unlock()
	sampling := r.sampling
	return &steered{version: r.configured, rate: r.rate, sampling: &sampling, verdicts: r.verdicts}
}

// slowP99 is the setting in force.
func (r *rules) slowP99() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sampling.SlowP99
}

// refuse remembers why a configuration was not taken.
func (r *rules) refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.errAt = err.Error(), time.Now()
}

// putBudgets writes the budgets that are no rule's.
func (r *rules) putBudgets() error {
	for index, limit := range map[int]float64{
		bpf.BudgetNode: r.sampling.Budget, bpf.BudgetTail: r.sampling.TailBudget, bpf.BudgetForced: r.sampling.Forced.Budget,
	} {
		if err := r.kernel.SetBudget(index, limit); err != nil {
			return err
		}
	}
	return nil
}

// apply compiles the rules and puts them in force.
func (r *rules) apply() error {
	var all []l7.Rule
	for _, f := range r.forcings {
		all = append(all, f.rule)
	}
	compiled, err := l7.Compile(append(all, r.sampling.all()...), r.kernel.Seed())
	if err != nil {
		return fmt.Errorf("compile the rules: %w", err)
	}
	caps, err := r.placeCaps(compiled)
	if err != nil {
		return err
	}
	services, err := r.rows(compiled)
	if err != nil {
		return err
	}
	for name, c := range caps {
		if old, had := r.caps[name]; had && old == c {
			continue
		}
		if err := r.kernel.SetBudget(int(c.budget), c.limit); err != nil {
			return err
		}
	}
	generation, err := r.kernel.SetRules(compiled.Table, compiled.Actions)
	if err != nil {
		return err
	}
	r.current, r.generation, r.caps, r.services = compiled, generation, caps, services
	r.stale = false
	r.from = r.origin(compiled)
	r.verdicts = verdictsOf(compiled)
	sets := maps.Clone(*r.sets.Load())
	names := namesOf(compiled)
	sets[generation] = names
	// What the rules of an earlier daemon decided is named if they were the same.
	if inherited, digest := r.kernel.InheritedRules(); inherited != 0 && len(sets) == 1 && digest == names.digest() {
		sets[inherited] = names
	}
	r.kernel.NoteRules(names.digest())
	delete(sets, generation-keptSets)
	r.sets.Store(&sets)
	return nil
}

func verdictsOf(compiled *l7.Compiled) map[string]verdict {
	verdicts := make(map[string]verdict, len(compiled.Rules))
	for i := range compiled.Actions {
		action := &compiled.Actions[i]
		verdicts[compiled.Rules[action.Rule].Name] = verdict{
			fixed: action.Flags&(bpf.ActionDrop|bpf.ActionRate) != 0, class: sampling.Class(action.Class),
			rate: rateOf(action),
		}
	}
	return verdicts
}

// rateOf is the rate that an action gives, 0 where it drops or gives none.
func rateOf(a *bpf.Action) float64 {
	if a.Flags&bpf.ActionDrop != 0 || a.Flags&bpf.ActionRate == 0 {
		return 0
	}
	return 1 - float64(a.Threshold)/float64(bpf.ThresholdNever)
}

// placeCaps gives each rule with a cap a budget: the one it had, else one that no rule in force has, for those hold until
// the new ones do.
func (r *rules) placeCaps(compiled *l7.Compiled) (map[string]ruleCap, error) {
	caps := make(map[string]ruleCap)
	taken := make(map[uint32]bool)
	for _, c := range r.caps {
		taken[c.budget] = true
	}
	var counted []bpf.Budget
	next := uint32(bpf.BudgetCaps)
	for i := range compiled.Rules {
		rule := &compiled.Rules[i]
		if rule.Action.Cap == 0 {
			continue
		}
		c, had := r.caps[rule.Name]
		if !had {
			if counted == nil {
				var err error
				if counted, err = r.kernel.Budgets(); err != nil {
					return nil, err
				}
			}
			for taken[next] {
				next++
			}
			if next >= bpf.BudgetsMax {
				return nil, fmt.Errorf("place the cap of rule %q: all budgets are in use; allowed: %d rules with a cap", rule.Name, l7.MaxCaps)
			}
			c = ruleCap{budget: next, before: counted[next]}
			taken[next] = true
		}
		c.limit = rule.Action.Cap
		caps[rule.Name] = c
		compiled.SetCap(i, c.budget)
	}
	return caps, nil
}

// rows gives each service that the kernel knows its row, in the table alone, and tells their names.
func (r *rules) rows(compiled *l7.Compiled) (map[uint16]string, error) {
	services, err := r.kernel.Services()
	if err != nil {
		return nil, err
	}
	names := make(map[uint16]string, len(services))
	for index, s := range services {
		if s == (bpf.Service{}) || int(index) >= len(compiled.Table.ServiceRow) {
			continue
		}
		name, known := r.services[index]
		if !known {
			name = r.name(s)
		}
		row, err := compiled.ServiceRow(name)
		if err != nil {
			return nil, fmt.Errorf("find the rules of service %q: %w", name, err)
		}
		compiled.Table.ServiceRow[index] = row
		names[index] = name
	}
	return names, nil
}

// tick is due every second: services that are new get their rules, and what has expired ends.
func (r *rules) tick(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil {
		return nil
	}
	if r.expire(now) {
		return r.apply()
	}
	before := r.current.Table.ServiceRow
	services, err := r.rows(r.current)
	if err != nil {
		return err
	}
	if before != r.current.Table.ServiceRow {
		if err := r.kernel.SetServiceRows(r.current.Table); err != nil {
			return err
		}
	}
	r.services = services
	return nil
}

func namesOf(c *l7.Compiled) (n ruleNames) {
	for i := range c.Rules {
		n.rules = append(n.rules, c.Rules[i].Name)
	}
	for i := range c.Actions {
		n.templates = append(n.templates, c.Template(i))
	}
	return n
}

// digest tells sets of names apart.
func (n ruleNames) digest() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q %q", n.rules, n.templates))
}

// namesAt are the names of a generation, none where they are forgotten. It is asked for each span.
func (r *rules) namesAt(generation uint32) ruleNames {
	if names, known := (*r.sets.Load())[generation]; known || generation == 0 {
		return names
	}
	// The kernel decides by a set before SetRules returns: who comes so early waits for apply.
	r.mu.Lock()
	defer r.mu.Unlock()
	return (*r.sets.Load())[generation]
}

// rule names a rule by what the kernel says of it: its place among the rules of a generation. "" where that is forgotten.
func (r *rules) rule(generation uint32, place uint16) string {
	if names := r.namesAt(generation).rules; int(place) < len(names) {
		return names[place]
	}
	return ""
}

// template is the route's template that an action of a generation names, by its place.
func (r *rules) template(generation uint32, action uint16) string {
	if templates := r.namesAt(generation).templates; int(action) < len(templates) {
		return templates[action]
	}
	return ""
}

func (r *rules) status() admin.RulesStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statusLocked()
}

func (r *rules) statusLocked() admin.RulesStatus {
	s := admin.RulesStatus{Generation: r.generation, Loaded: r.loaded, LastError: r.err, LastErrorTime: r.errAt}
	if r.current != nil {
		s.Count = len(r.current.Rules)
	}
	if r.err == "" {
		s.LastErrorTime = time.Time{}
	}
	return s
}

// set shows the rules in force.
func (r *rules) set() (admin.RuleSet, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := admin.RuleSet{RulesStatus: r.statusLocked(), Rules: []admin.Rule{}}
	if r.current == nil {
		return out, nil
	}
	for i := range r.current.Rules {
		rule := &r.current.Rules[i]
		plain, err := rulePlain(rule)
		if err != nil {
			return out, err
		}
		text, err := ruleText(rule)
		if err != nil {
			return out, err
		}
		out.Rules = append(out.Rules, admin.Rule{Place: i, Name: rule.Name, Origin: r.from[i], Rule: plain, Text: text})
	}
	return out, nil
}

// origin says where each of the rules is from.
func (r *rules) origin(c *l7.Compiled) (from []string) {
	for range r.forcings {
		from = append(from, "ambit trace")
	}
	for i := range r.sampling.Rules {
		from = append(from, r.origins[rulePlace(i)].String())
	}
	for len(from) < len(c.Rules)-1 {
		from = append(from, "shipped")
	}
	return append(from, "behind all")
}

// budgets tells how the budgets fare: the node's, and those of rules in order of their names.
func (r *rules) budgets() ([]admin.Budget, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, err := r.kernel.Budgets()
	if err != nil {
		return nil, err
	}
	var out []admin.Budget
	add := func(name string, limit float64, b, before bpf.Budget) {
		out = append(out, admin.Budget{
			Name: name, Limit: limit, Kept: b.Kept - before.Kept, Refused: b.Refused - before.Refused, Stopped: b.Stopped - before.Stopped,
		})
	}
	none := bpf.Budget{}
	add("node", r.sampling.Budget, all[bpf.BudgetNode], none)
	add("tail", r.sampling.TailBudget, all[bpf.BudgetTail], none)
	add("forced", r.sampling.Forced.Budget, all[bpf.BudgetForced], none)
	for _, name := range slices.Sorted(maps.Keys(r.caps)) {
		c := r.caps[name]
		add("rule "+name, c.limit, all[c.budget], c.before)
	}
	return out, nil
}
