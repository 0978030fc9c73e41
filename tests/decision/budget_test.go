package decision

import (
	"slices"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

// A kernel takes its time, and a budget fills meanwhile. So the reference is asked twice, for the earliest and the latest
// time at which the kernel can have looked: where both agree the kernel has to, and its thresholds lie between theirs.

// valve is some state of the budgets that there are.
func (c *chance) valve(caps map[int]int, now uint64) valve {
	v := make(valve)
	indices := []int{bpf.BudgetNode, bpf.BudgetTail, bpf.BudgetForced, bpf.BudgetFloor}
	for rule := range len(caps) {
		indices = append(indices, bpf.BudgetCaps+rule)
	}
	for _, index := range indices {
		const lastOne, many = 1e18, 1000 // nanoseconds that one span takes
		v[index] = pick(c,
			&bucket{},
			&bucket{interval: many},
			&bucket{interval: lastOne},
			&bucket{interval: many, due: now + c.Uint64N(burst)},
			&bucket{interval: many, due: now + c.Uint64N(burst)},
			&bucket{interval: lastOne, due: now + c.Uint64N(burst)},
			&bucket{interval: many, due: now + burst + c.Uint64N(burst)},
			&bucket{interval: many, due: now + uint64(time.Hour)},
		)
	}
	return v
}

func TestDecisionsUnderBudgets(t *testing.T) {
	const sets, perSet = 60, 500
	k, c := open(t), newChance(2)
	agreed, throttled, stopped := 0, 0, 0
	for set := range sets {
		rules, caps := k.use(c.rules(1 + c.IntN(6))...)
		for i := range perSet {
			s := c.situation(rules, caps)
			// What one side spends the other one has no more: both would be too many times to tell.
			side := c.IntN(bpf.Sides)
			s.app[1-side], s.late[1-side] = false, false
			s.app[side] = true
			v := c.valve(caps, k.now())
			head, tail := k.decide(s, v, c)
			if s.cut {
				head = tail
			}
			early, late := v.clone(), v.clone()
			first, last := s.decide(early, head.from, tail.from), s.decide(late, head.to, tail.to)
			got := k.exchange.Decision[side].Threshold
			low, high := last[side].threshold, first[side].threshold
			first[side].threshold, last[side].threshold = got, got
			if first == last && sameCounts(early, late) {
				agreed++
				faults := append(k.compare(s, &first, false), k.compareBudgets(early)...)
				if len(faults) > 0 || first[side].known && (got < low || got > high) {
					t.Fatalf("situation %d of set %d: %q; threshold %x, want %x to %x\nbudgets %+v\n%s", i, set, faults, got, low, high, v, describe(s))
				}
			}
			for _, b := range early {
				throttled += int(b.refused)
				stopped += int(b.stopped)
			}
			k.forget()
		}
		k.countedSoFar()
	}
	t.Logf("of %d situations %d hung on no moment; %d spans were refused, %d at an empty bucket", sets*perSet, agreed, throttled, stopped)
	if agreed < sets*perSet/2 || throttled < 1000 || stopped < 1000 {
		t.Error("too few to tell")
	}
}

// sameCounts tells whether two valves counted the same.
func sameCounts(a, b valve) bool {
	for index := range bpf.BudgetsMax {
		x, y := a.of(index), b.of(index)
		if x.kept != y.kept || x.refused != y.refused || x.stopped != y.stopped {
			return false
		}
	}
	return true
}

// filled is a budget that is full to a fraction at a time.
func filled(fraction float64, now uint64) *bucket {
	return &bucket{interval: 1, due: now + uint64((1-fraction)*float64(burst))}
}

// empty has nothing left for an hour.
func empty(now uint64) *bucket { return &bucket{interval: 1, due: now + uint64(time.Hour)} }

// soon decides with budgets that are made of the time, until that took no longer than a twentieth of what fills one.
func (k *kernel) soon(s *situation, budgets func(now uint64) valve) {
	k.t.Helper()
	for {
		begin := k.now()
		if _, tail := k.decide(s, budgets(begin), nil); tail.to-begin < burst/20 {
			return
		}
		k.forget()
	}
}

// Background loses first, then normal, and critical last: of the node's budget by the head, of the tail's own by the tail.
func TestWhoIsThrottled(t *testing.T) {
	const all, some, nothing = "all", "some", "nothing"
	classes := []string{"critical", "normal", "background"}
	k := open(t)
	for _, c := range []struct {
		what   string
		budget int
		status int
		full   float64
		want   [3]string
	}{
		{"a full one is for all", bpf.BudgetNode, 200, 1, [3]string{all, all, all}},
		{"at 4/5 background begins to lose", bpf.BudgetNode, 200, 0.8, [3]string{all, all, some}},
		{"at 1/2 it has nothing, and normal loses", bpf.BudgetNode, 200, 0.5, [3]string{all, some, nothing}},
		{"at 1/10 there is some for critical alone", bpf.BudgetNode, 200, 0.1, [3]string{some, nothing, nothing}},
		{"an empty one is for none", bpf.BudgetNode, 200, 0, [3]string{nothing, nothing, nothing}},
		{"the tail's: a full one", bpf.BudgetTail, 500, 1, [3]string{all, all, all}},
		{"at 4/5", bpf.BudgetTail, 500, 0.8, [3]string{all, all, some}},
		{"at 1/2", bpf.BudgetTail, 500, 0.5, [3]string{all, some, nothing}},
		{"at 1/10", bpf.BudgetTail, 500, 0.1, [3]string{some, nothing, nothing}},
		{"empty", bpf.BudgetTail, 500, 0, [3]string{nothing, nothing, nothing}},
		{"of the node's the tail has what critical has: at 1/2", bpf.BudgetNode, 500, 0.5, [3]string{all, all, all}},
		{"at 1/10", bpf.BudgetNode, 500, 0.1, [3]string{some, some, some}},
		{"empty", bpf.BudgetNode, 500, 0, [3]string{nothing, nothing, nothing}},
	} {
		t.Run(c.what, func(t *testing.T) {
			for class, name := range classes {
				rate := float64(1)
				if c.status == 500 {
					rate = 0
				}
				rules, caps := k.use(l7.Rule{Name: "all", Action: l7.RuleAction{Rate: &rate, Class: name}})
				kept := func(r uint64) bool {
					s := plain(rules, caps)
					s.r, s.status, s.app[bpf.SideOpener] = r, c.status, false
					k.soon(s, func(now uint64) valve {
						if c.full == 0 {
							return valve{c.budget: empty(now)}
						}
						return valve{c.budget: filled(c.full, now)}
					})
					defer k.forget()
					return k.exchange.Kept != 0
				}
				got := nothing
				if kept(0) {
					got = all
				} else if kept(never - 1) {
					got = some
				}
				if got != c.want[class] {
					t.Errorf("of %s %s is kept, want %s", name, got, c.want[class])
				}
			}
		})
	}
}

// What is kept comes out of a budget, and what is not is counted there.
func TestWhatBudgetsCount(t *testing.T) {
	one := float64(1)
	zero := float64(0)
	k := open(t)
	for _, c := range []struct {
		what    string
		rule    l7.RuleAction
		with    func(*situation)
		budgets func(now uint64) valve
		reason  l7.Reason
		want    map[int]bucket // what it counts, by index
	}{
		{
			what: "a span of the head is one of the node's", rule: l7.RuleAction{Rate: &one}, reason: l7.ReasonHead,
			want: map[int]bucket{bpf.BudgetNode: {kept: 1}},
		},
		{
			what: "one of a rule with a cap is one of that too", rule: l7.RuleAction{Rate: &one, Cap: 1}, reason: l7.ReasonHead,
			want: map[int]bucket{bpf.BudgetNode: {kept: 1}, bpf.BudgetCaps: {kept: 1}},
		},
		{
			what: "where the cap is reached the node's is left alone", rule: l7.RuleAction{Rate: &one, Cap: 1},
			budgets: func(now uint64) valve { return valve{bpf.BudgetCaps: empty(now)} },
			want:    map[int]bucket{bpf.BudgetCaps: {refused: 1, stopped: 1}},
		},
		{
			what: "a cap knows no classes: half of it is half of every probability", rule: l7.RuleAction{Rate: &one, Cap: 1, Class: "critical"},
			with:    func(s *situation) { s.r = never / 3 },
			budgets: func(now uint64) valve { return valve{bpf.BudgetCaps: filled(0.5, now)} },
			want:    map[int]bucket{bpf.BudgetCaps: {refused: 1}},
		},
		{
			what: "one of the tail is one of its own, and of the node's", rule: l7.RuleAction{Rate: &zero},
			with: func(s *situation) { s.status = 500 }, reason: l7.ReasonError,
			want: map[int]bucket{bpf.BudgetTail: {kept: 1}, bpf.BudgetNode: {kept: 1}},
		},
		{
			what: "the hard stop of the tail", rule: l7.RuleAction{Rate: &zero}, with: func(s *situation) { s.status = 500 },
			budgets: func(now uint64) valve { return valve{bpf.BudgetTail: empty(now)} },
			want:    map[int]bucket{bpf.BudgetTail: {refused: 1, stopped: 1}},
		},
		{
			what: "is none of the head: what fails is kept where its rate is", rule: l7.RuleAction{Rate: &one}, with: func(s *situation) { s.status = 500 },
			budgets: func(now uint64) valve { return valve{bpf.BudgetTail: empty(now)} }, reason: l7.ReasonHead,
			want: map[int]bucket{bpf.BudgetNode: {kept: 1}},
		},
		{
			what: "a forced one is one of its own, and of the node's", rule: l7.RuleAction{Force: true}, reason: l7.ReasonForced,
			want: map[int]bucket{bpf.BudgetForced: {kept: 1}, bpf.BudgetNode: {kept: 1}},
		},
		{
			what: "above its budget nothing is forced, and the rest decides", rule: l7.RuleAction{Force: true, Rate: &one},
			budgets: func(now uint64) valve { return valve{bpf.BudgetForced: empty(now)} }, reason: l7.ReasonHead,
			want: map[int]bucket{bpf.BudgetForced: {stopped: 1}, bpf.BudgetNode: {kept: 1}},
		},
		{
			what: "what its rate does not keep no budget refuses", rule: l7.RuleAction{Rate: &zero},
			budgets: func(now uint64) valve { return valve{bpf.BudgetNode: empty(now)} }, want: map[int]bucket{},
		},
		{
			what: "nor what its caller does not", rule: l7.RuleAction{Rate: &zero, Parent: "scale"}, with: func(s *situation) { s.parent = parent{true, true, none} },
			budgets: func(now uint64) valve { return valve{bpf.BudgetNode: empty(now)} }, want: map[int]bucket{},
		},
		{
			what: "a caller's decision is no way around the node's", rule: l7.RuleAction{}, with: func(s *situation) { s.parent = parent{true, true, none} },
			budgets: func(now uint64) valve { return valve{bpf.BudgetNode: empty(now)} },
			want:    map[int]bucket{bpf.BudgetNode: {refused: 1, stopped: 1}},
		},
		{
			what: "a rule that drops spends nothing", rule: l7.RuleAction{Drop: true}, with: func(s *situation) { s.status = 500 }, want: map[int]bucket{},
		},
	} {
		t.Run(c.what, func(t *testing.T) {
			rules, caps := k.use(l7.Rule{Name: "all", Action: c.rule})
			s := plain(rules, caps)
			s.app[bpf.SideOpener] = false
			if c.with != nil {
				c.with(s)
			}
			k.soon(s, func(now uint64) valve {
				if c.budgets == nil {
					return nil
				}
				return c.budgets(now)
			})
			defer k.forget()
			if got := l7.Reason(k.exchange.Decision[bpf.SideAcceptor].Reason); got != c.reason {
				t.Errorf("kept by %v, want %v", got, c.reason)
			}
			for index, b := range k.budgets {
				if got := (bucket{kept: b.Kept, refused: b.Refused, stopped: b.Stopped}); got != c.want[index] {
					t.Errorf("budget %d: %+v, want %+v", index, got, c.want[index])
				}
			}
		})
	}
}

// A budget with one span left has it for one side alone.
func TestTheLastSpan(t *testing.T) {
	one := float64(1)
	k := open(t)
	rules, caps := k.use(l7.Rule{Name: "all", Action: l7.RuleAction{Rate: &one}})
	s := plain(rules, caps)
	k.decide(s, valve{bpf.BudgetNode: {interval: uint64(time.Hour)}}, nil)
	defer k.forget()
	reasons := []uint8{k.exchange.Decision[0].Reason, k.exchange.Decision[1].Reason}
	node := &k.budgets[bpf.BudgetNode]
	if !slices.Equal(reasons, []uint8{bpf.ReasonHead, 0}) || node.Kept != 1 || node.Refused != 1 || node.Stopped != 1 {
		t.Errorf("reasons %v; %+v", reasons, *node)
	}
}
