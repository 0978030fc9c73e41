package decision

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"ambit/bpf"
	"ambit/l7"
)

// counted is what an exchange side is counted as.
type counted struct {
	route   uint64
	outcome bpf.Outcome
	service uint16
	kind    int
	error   bool
}

// tally holds how many exchange sides were counted, and of those kept.
type tally map[counted][2]uint32

// The kernel decides as the reference does, whatever comes together. Without budgets, so that the time is nothing to it.
func TestDecisionsOfRandomSituations(t *testing.T) {
	const sets, perSet = 220, 500
	k, c := open(t), newChance(1)
	reasons := make(map[string]int)
	for set := range sets {
		rules, caps := k.use(c.rules(1 + c.IntN(12))...)
		want := make(tally)
		for i := range perSet {
			s := c.situation(rules, caps)
			k.decide(s, nil, c)
			v := make(valve)
			sides := s.decide(v, 0, 0)
			if faults := k.compare(s, &sides, i%8 == 0); len(faults) > 0 {
				t.Fatalf("situation %d of set %d: %q\n%s", i, set, faults, describe(s))
			}
			if faults := k.compareBudgets(v); len(faults) > 0 {
				t.Fatalf("situation %d of set %d: %q\n%s", i, set, faults, describe(s))
			}
			for side := range sides {
				if s.app[side] {
					reasons[sides[side].word()]++
					k.tally(s, want, side, sides[side].reason != 0)
				}
			}
			k.forget()
		}
		if got := k.countedSoFar(); !maps.Equal(got, want) {
			t.Fatalf("set %d: counted %v, want %v", set, got, want)
		}
	}
	t.Logf("%d situations: %v", sets*perSet, reasons)
	for _, word := range []string{"none", "dropped", "head", "parent", "parent, th", "slow", "error", "forced", "anomaly", "floor"} {
		if reasons[word] < sets*perSet/200 {
			t.Errorf("%d sides of %d came to %q: too few to tell", reasons[word], sets*perSet, word)
		}
	}
}

// word says what came of it.
func (d *decision) word() string {
	switch {
	case d.dropped:
		return "dropped"
	case d.reason == l7.ReasonParent && d.known:
		return "parent, th"
	}
	return d.reason.String()
}

// compare holds every field of both sides' decisions to the reference.
func (k *kernel) compare(s *situation, sides *[bpf.Sides]decision, everyClass bool) (faults []string) {
	ex := k.exchange
	wrong := func(side int, what string, got, want any) {
		if got != want {
			faults = append(faults, fmt.Sprintf("side %d: %s %v, want %v", side, what, got, want))
		}
	}
	table := k.compiled.Table
	wrong(-1, "generation", ex.Generation, table.Generation)
	kept := uint8(0)
	for side := range sides {
		d, want := &ex.Decision[side], &sides[side]
		if !s.app[side] {
			if s.nobody() { // it might have become one
				d = &bpf.Decision{Reason: d.Reason, Flags: d.Flags &^ uint8(decisionDecisionFlagsDECISION_RULED)}
			}
			wrong(side, "of no application, decision", *d, bpf.Decision{})
			continue
		}
		flags := uint8(decisionDecisionFlagsDECISION_RULED | decisionDecisionFlagsDECISION_MADE)
		if want.known {
			flags |= bpf.DecisionThreshold
			wrong(side, "threshold", d.Threshold, want.threshold)
		}
		if want.dropped {
			flags |= bpf.DecisionDropped
		}
		if s.isNewRoute(side) {
			flags |= bpf.DecisionAnnounce
		}
		if want.reason != 0 {
			kept |= 1 << side
		}
		wrong(side, "reason", l7.Reason(d.Reason), want.reason)
		got := d.Flags
		if want.reason == 0 {
			got &^= bpf.DecisionThreshold // of what was asked for
		}
		wrong(side, "flags", got, flags)
		wrong(side, "class", int(d.Class), want.class)
		wrong(side, "rule", int(d.Rule), want.rule)
		wrong(side, "outcome", bpf.Outcome(d.Outcome), s.outcome())
		rule := func(action uint16) int {
			return int(k.compiled.Actions[(uint32(action)-table.Actions)%uint32(len(k.compiled.Actions))].Rule)
		}
		wrong(side, "rule of the head", rule(d.HeadAction), s.rule(side, notYet))
		for class := range d.Action {
			if everyClass || class == s.statusClass() {
				wrong(side, fmt.Sprintf("rule of class %d", class), rule(d.Action[class]), s.rule(side, class))
			}
		}
	}
	wrong(-1, "kept", ex.Kept, kept)
	if !s.cut {
		wrong(-1, "template", k.compiled.Template(int(ex.TemplateRule)), s.template())
	}
	return faults
}

// isNewRoute tells whether the answer makes a route of the side's own known.
func (s *situation) isNewRoute(side int) bool {
	return s.hasRoute(side) && !s.route[side].known && s.isFound()
}

// template is the one that names the route, "" where none does: of the first rule whose templates accept the path, whatever
// else that looks at.
func (s *situation) template() string {
	for _, rule := range s.rules {
		for _, template := range rule.Match.Path.Templates {
			if l7.Match([]l7.Rule{{Match: l7.Conditions{Path: l7.PathCondition{Templates: []string{template}}}}}, &s.request) == 0 {
				return template
			}
		}
	}
	return ""
}

// compareBudgets holds what the budgets counted to the reference.
func (k *kernel) compareBudgets(v valve) (faults []string) {
	for index, b := range k.budgets {
		want := v.of(index)
		if got := (bucket{kept: b.Kept, refused: b.Refused, stopped: b.Stopped}); got.kept != want.kept || got.refused != want.refused || got.stopped != want.stopped {
			faults = append(faults, fmt.Sprintf("budget %d: kept %d, refused %d, stopped %d; want %d, %d, %d",
				index, got.kept, got.refused, got.stopped, want.kept, want.refused, want.stopped))
		}
	}
	return faults
}

// tally adds a side to what is to be counted.
func (k *kernel) tally(s *situation, want tally, side int, kept bool) {
	service := uint16(slices.Index(services[:], s.service[side]))
	route := k.exchange.Decision[side].Route
	if !s.isNewRoute(side) && !s.route[side].known || !s.hasRoute(side) {
		route = bpf.OtherRoute(service, side)
	}
	key := counted{route, s.outcome(), service, side, s.isError(side)}
	n := want[key]
	n[0]++
	if kept {
		n[1]++
	}
	want[key] = n
}

// countedSoFar reads what was counted, and lets the counters begin anew.
func (k *kernel) countedSoFar() tally {
	got := make(tally)
	var key uint64
	var keys []uint64
	var s decisionSeries
	for it := k.counters.Iterate(); it.Next(&key, &s); {
		sum := s.Below
		for _, n := range s.Latency {
			sum += n
		}
		if sum == 0 { // those that are always there
			continue
		}
		got[counted{s.Route, bpf.Outcome(s.Outcome), s.Service, int(s.Kind), s.Error != 0}] = [2]uint32{sum, s.Kept}
		keys = append(keys, key)
	}
	for _, key := range keys {
		k.check(k.counters.Delete(key))
	}
	return got
}

// describe tells what a situation hangs on, and which rules hold.
func describe(s *situation) string {
	head := *s
	head.rules, head.client, head.remote = nil, [2]netip.Addr{}, netip.AddrPort{}
	text := fmt.Sprintf("%+v of %v to %v", head, s.client, s.remote)
	for side := range bpf.Sides {
		for _, class := range []int{notYet, s.statusClass()} {
			rule := s.rule(side, class)
			action, _ := json.Marshal(s.rules[rule])
			text += fmt.Sprintf("\nside %d, class %d: rule %d %s", side, class, rule, action)
		}
	}
	return text
}
