package decision

import (
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

const half, quarter = never / 2, never / 4

// The steps of a decision in their order, each with what it wins over and what wins over it. All is asked of the
// acceptor's side; where nothing else is said the default rate is 0 and R is half of its range.
func TestPrecedence(t *testing.T) {
	rate := func(p float64) *float64 { return &p }
	k := open(t)
	for _, c := range []struct {
		what  string
		rule  l7.RuleAction // of the first rule, which accepts everything
		with  func(*situation)
		want  decision
		other []l7.Rule // in front of that one
	}{
		{what: "nothing asks for it", want: decision{}},

		{what: "what is forced by a rule is kept, and nobody knows how probable that was", rule: l7.RuleAction{Force: true}, want: decision{reason: l7.ReasonForced}},
		{what: "a header forces", with: func(s *situation) { s.forced, s.believed = true, true }, want: decision{reason: l7.ReasonForced}},
		{what: "where it is believed", with: func(s *situation) { s.forced = true }, want: decision{}},
		{
			what: "forced wins over a rule that drops", rule: l7.RuleAction{Drop: true},
			with: func(s *situation) { s.forced, s.believed = true, true }, want: decision{reason: l7.ReasonForced},
		},
		{
			what: "and over a caller that did not sample", rule: l7.RuleAction{Force: true},
			with: func(s *situation) { s.parent.decided = true }, want: decision{reason: l7.ReasonForced},
		},

		{
			what: "a rule that drops wins over a caller that sampled", rule: l7.RuleAction{Drop: true},
			with: func(s *situation) { s.parent = parent{true, true, none} }, want: decision{dropped: true},
		},
		{
			what: "over rates set", rule: l7.RuleAction{Drop: true}, with: func(s *situation) { s.set = 0 }, want: decision{dropped: true},
		},
		{
			what: "and over the tail", rule: l7.RuleAction{Drop: true}, with: func(s *situation) { s.status, s.took = 500, time.Minute },
			want: decision{dropped: true},
		},

		{
			what: "a caller that sampled gives its threshold", with: func(s *situation) { s.parent = parent{true, true, quarter} },
			want: decision{reason: l7.ReasonParent, known: true, threshold: quarter},
		},
		{
			what: "R at it is kept", with: func(s *situation) { s.parent = parent{true, true, s.r} },
			want: decision{reason: l7.ReasonParent, known: true, threshold: half},
		},
		{
			what: "R below it is kept too, but not by it", with: func(s *situation) { s.parent = parent{true, true, s.r + 1} },
			want: decision{reason: l7.ReasonParent},
		},
		{what: "a caller may give none", with: func(s *situation) { s.parent = parent{true, true, none} }, want: decision{reason: l7.ReasonParent}},
		{
			what: "a caller that did not sample wins over rates set", with: func(s *situation) { s.parent.decided, s.set = true, 0 }, want: decision{},
		},
		{
			what: "and over a rule's rate", rule: l7.RuleAction{Rate: rate(1)}, with: func(s *situation) { s.parent.decided = true }, want: decision{},
		},
		{
			what: "but not over the tail", with: func(s *situation) { s.parent.decided, s.status = true, 500 },
			want: decision{reason: l7.ReasonError, known: true},
		},
		{
			what: "a rule may ignore the caller", rule: l7.RuleAction{Rate: rate(0.75), Parent: "ignore"}, with: func(s *situation) { s.parent.decided = true },
			want: decision{reason: l7.ReasonHead, known: true, threshold: quarter},
		},
		{
			what: "and one that keeps always does", rule: l7.RuleAction{Always: true}, with: func(s *situation) { s.parent.decided = true },
			want: decision{reason: l7.ReasonHead, known: true},
		},
		{
			what: "a rule may keep a part of what the caller kept", rule: l7.RuleAction{Rate: rate(0.75), Parent: "scale"},
			with: func(s *situation) { s.parent = parent{true, true, quarter} },
			want: decision{reason: l7.ReasonParent, known: true, threshold: never - never/16*9},
		},
		{
			what: "and not the rest", rule: l7.RuleAction{Rate: rate(0.5), Parent: "scale"},
			with: func(s *situation) { s.parent = parent{true, true, quarter} }, want: decision{},
		},
		{
			what: "a part of what it kept under no known probability", rule: l7.RuleAction{Rate: rate(0.5), Parent: "scale"},
			with: func(s *situation) { s.parent = parent{true, true, none} }, want: decision{reason: l7.ReasonParent},
		},
		{
			what: "and not the rest of that", rule: l7.RuleAction{Rate: rate(0.25), Parent: "scale"},
			with: func(s *situation) { s.parent = parent{true, true, none} }, want: decision{},
		},

		{
			what: "rates set win over a rule's rate", rule: l7.RuleAction{Rate: rate(0)}, with: func(s *situation) { s.set = quarter },
			want: decision{reason: l7.ReasonHead, known: true, threshold: quarter},
		},
		{
			what: "also one that keeps always", rule: l7.RuleAction{Always: true}, with: func(s *situation) { s.set = never }, want: decision{},
		},
		{
			what: "a rule's rate wins over the route's", rule: l7.RuleAction{Rate: rate(0.5)}, with: func(s *situation) { s.route[1].known, s.route[1].threshold = true, 0 },
			want: decision{reason: l7.ReasonHead, known: true, threshold: half},
		},
		{
			what: "a route's wins over the default one", with: func(s *situation) { s.base, s.route[1].known, s.route[1].threshold = 0, true, quarter },
			want: decision{reason: l7.ReasonHead, known: true, threshold: quarter},
		},
		{what: "the default one comes last", with: func(s *situation) { s.base = quarter }, want: decision{reason: l7.ReasonHead, known: true, threshold: quarter}},
		{what: "R at a threshold is kept", with: func(s *situation) { s.base = s.r }, want: decision{reason: l7.ReasonHead, known: true, threshold: half}},
		{what: "R below it is not", with: func(s *situation) { s.base = s.r + 1 }, want: decision{}},

		{
			what: "an anomaly lowers the threshold", with: func(s *situation) { s.route[1].known, s.route[1].anomaly = true, quarter },
			want: decision{reason: l7.ReasonAnomaly, known: true, threshold: quarter},
		},
		{
			what: "what would have been kept without has its own reason", with: func(s *situation) { s.base, s.route[1].known, s.route[1].anomaly = half, true, quarter },
			want: decision{reason: l7.ReasonHead, known: true, threshold: quarter},
		},
		{
			what: "it never raises one", with: func(s *situation) { s.base, s.route[1].known, s.route[1].anomaly = 0, true, quarter },
			want: decision{reason: l7.ReasonHead, known: true},
		},
		{
			what: "it keeps what the caller did not", with: func(s *situation) { s.parent.decided, s.route[1].known, s.route[1].anomaly = true, true, quarter },
			want: decision{reason: l7.ReasonAnomaly, known: true, threshold: quarter},
		},

		{what: "the tail keeps what failed", with: func(s *situation) { s.status = 500 }, want: decision{reason: l7.ReasonError, known: true}},
		{what: "and what is slow", with: func(s *situation) { s.took = time.Second + 1 }, want: decision{reason: l7.ReasonSlow, known: true}},
		{what: "not what is just in time", with: func(s *situation) { s.took = time.Second }, want: decision{}},
		{
			what: "a route's own limit is one too", with: func(s *situation) {
				s.took, s.route[1].known, s.route[1].slow = time.Millisecond+1, true, uint64(time.Millisecond)
			}, want: decision{reason: l7.ReasonSlow, known: true},
		},
		{
			what: "failed is the reason of what is both", with: func(s *situation) { s.status, s.took = 503, time.Minute },
			want: decision{reason: l7.ReasonError, known: true},
		},
		{
			what: "the tail has its own rate", rule: l7.RuleAction{TailRate: rate(0.75)}, with: func(s *situation) { s.status = 500 },
			want: decision{reason: l7.ReasonError, known: true, threshold: quarter},
		},
		{
			what: "which keeps not all", rule: l7.RuleAction{TailRate: rate(0.25)}, with: func(s *situation) { s.status = 500 }, want: decision{},
		},
		{
			what: "of head and tail the lower threshold holds", rule: l7.RuleAction{Rate: rate(0.5), TailRate: rate(0.75)}, with: func(s *situation) { s.status = 500 },
			want: decision{reason: l7.ReasonHead, known: true, threshold: quarter},
		},
		{
			what: "the tail lowers a caller's", with: func(s *situation) { s.parent, s.status = parent{true, true, quarter}, 500 },
			want: decision{reason: l7.ReasonParent, known: true},
		},
		{
			what: "but gives none to what was kept without", with: func(s *situation) { s.parent, s.status = parent{true, true, none}, 500 },
			want: decision{reason: l7.ReasonParent},
		},
		{
			what: "nothing is slow or failed where a rule says so", rule: l7.RuleAction{Slow: new(time.Duration(0)), Errors: &l7.ErrorRule{Off: true}},
			with: func(s *situation) { s.status, s.ending, s.took = 500, l7.EndedByReset, time.Hour }, want: decision{},
		},

		{
			what: "safety leaves a part of every probability", with: func(s *situation) { s.base, s.safety[1] = 0, whole/2 },
			want: decision{reason: l7.ReasonHead, known: true, threshold: half},
		},
		{what: "and not the rest", with: func(s *situation) { s.base, s.safety[1] = 0, whole/2-1 }, want: decision{}},
		{
			what: "of the caller's too", with: func(s *situation) { s.parent, s.safety[1] = parent{true, true, 0}, whole/4*3 },
			want: decision{reason: l7.ReasonParent, known: true, threshold: quarter},
		},
		{what: "of the tail's", with: func(s *situation) { s.status, s.safety[1] = 500, 0 }, want: decision{}},
		{
			what: "of each class its own", rule: l7.RuleAction{Rate: rate(1), Class: "critical"}, with: func(s *situation) { s.safety = [3]uint32{whole, 0, 0} },
			want: decision{reason: l7.ReasonHead, known: true, class: 0},
		},
		{what: "of what is forced nothing", rule: l7.RuleAction{Force: true}, with: func(s *situation) { s.safety[1] = 0 }, want: decision{reason: l7.ReasonForced}},

		{
			what:  "a rule that looks at the status decides anew, once that is known",
			other: []l7.Rule{{Name: "teapots", Match: l7.Conditions{Statuses: []string{"4xx"}}, Action: l7.RuleAction{Drop: true}}},
			rule:  l7.RuleAction{Rate: rate(1)}, with: func(s *situation) { s.status = 418 }, want: decision{dropped: true, rule: -1},
		},
		{
			what:  "and not before",
			other: []l7.Rule{{Name: "teapots", Match: l7.Conditions{Statuses: []string{"4xx"}}, Action: l7.RuleAction{Drop: true}}},
			rule:  l7.RuleAction{Rate: rate(1)}, want: decision{reason: l7.ReasonHead, known: true},
		},

		{
			what: "a side whose socket was found behind the head has the rule of the other", rule: l7.RuleAction{Rate: rate(1)},
			with: func(s *situation) { s.late[1] = true }, want: decision{reason: l7.ReasonHead, known: true},
		},
		{
			what: "but not its route", with: func(s *situation) { s.late[1], s.route[0].known, s.route[0].threshold = true, true, 0 }, want: decision{},
		},
		{
			what: "it has its own", with: func(s *situation) { s.late[1], s.route[1].known, s.route[1].threshold = true, true, 0 },
			want: decision{reason: l7.ReasonHead, known: true},
		},
		{
			what: "where nobody was known the rules of its own side hold", rule: l7.RuleAction{Rate: rate(1)}, with: func(s *situation) { s.late = [2]bool{true, true} },
			other: []l7.Rule{{Name: "opener", Match: l7.Conditions{Kinds: []l7.Kind{l7.Client}}}}, want: decision{reason: l7.ReasonHead, known: true},
		},
		{
			what: "a route that is granted a span has it", with: func(s *situation) { s.route[1].known, s.route[1].floor = true, true },
			want: decision{reason: l7.ReasonFloor},
		},
		{what: "and a new one where those are", with: func(s *situation) { s.floors = true }, want: decision{reason: l7.ReasonFloor}},
		{what: "not one that is not found", with: func(s *situation) { s.floors, s.status = true, 404 }, want: decision{}},
		{
			what: "nor one that is dropped", rule: l7.RuleAction{Drop: true}, with: func(s *situation) { s.floors = true }, want: decision{dropped: true},
		},
		{
			what: "and nothing else would keep it: the rate goes first", rule: l7.RuleAction{Rate: rate(1)}, with: func(s *situation) { s.floors = true },
			want: decision{reason: l7.ReasonHead, known: true},
		},
		{what: "and the tail", with: func(s *situation) { s.floors, s.status = true, 500 }, want: decision{reason: l7.ReasonError, known: true}},
		{
			what: "a head that never was whole has the rule behind all", rule: l7.RuleAction{Drop: true},
			with: func(s *situation) { s.cut, s.base = true, quarter }, want: decision{reason: l7.ReasonHead, known: true, threshold: quarter, rule: 1},
		},
		{what: "and no route", with: func(s *situation) { s.cut = true }, want: decision{rule: 1}},
	} {
		t.Run(c.what, func(t *testing.T) {
			rules, caps := k.use(append(c.other, l7.Rule{Name: "all", Action: c.rule})...)
			s := plain(rules, caps)
			if c.with != nil {
				c.with(s)
			}
			want := c.want
			want.rule += len(c.other)
			if c.rule.Class == "" {
				want.class = 1
			}
			k.decide(s, nil, nil)
			defer k.forget()
			defer k.countedSoFar()
			d := &k.exchange.Decision[bpf.SideAcceptor]
			got := decision{
				reason: l7.Reason(d.Reason), known: d.Flags&bpf.DecisionThreshold != 0, rule: int(d.Rule), class: int(d.Class),
				dropped: d.Flags&bpf.DecisionDropped != 0,
			}
			if got.reason == 0 {
				got.known = false // what was asked for, and not kept
			} else if got.known {
				got.threshold = d.Threshold
			}
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			reference := s.decide(make(valve), 0, 0)[bpf.SideAcceptor]
			if !reference.known {
				reference.threshold = 0
			}
			if reference != want {
				t.Errorf("the reference says %+v, want %+v", reference, want)
			}
		})
	}
}
