package sampling

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var start = time.Unix(1_700_000_000, 0)

// traffic is a made-up node: routes with loads, and what was counted of them.
type traffic struct {
	in     Counters
	random *rand.Rand
}

func newTraffic(routes int) *traffic {
	f := &traffic{random: rand.New(rand.NewPCG(1, 2))}
	for i := range routes {
		f.in.Routes = append(f.in.Routes, Route{Key: uint64(i + 1), Service: "s", Kind: Server, Class: Normal, Remote: -1})
	}
	return f
}

// second counts a second: of each route load exchanges, give or take what chance does, each of which takes so long.
func (f *traffic) second(rates *Rates, load float64, latency time.Duration) {
	for i := range f.in.Routes {
		n := max(0, load+math.Sqrt(load)*f.random.NormFloat64())
		f.in.Routes[i].Count += uint64(n)
		f.in.Routes[i].Sum += time.Duration(n) * latency
		if rates != nil {
			kept := uint64(n * max(rates.Routes[i].Rate, 0))
			f.in.Routes[i].Kept += kept
			f.in.Kept += kept
		}
	}
}

func withBudget(spansPerSecond float64) Config {
	c := DefaultConfig(0.1)
	c.Budget = spansPerSecond
	return c
}

func TestFill(t *testing.T) {
	for _, c := range []struct {
		name    string
		demands []float64
		supply  float64
		level   float64
	}{
		{"nobody wants anything", []float64{0, 0}, 10, 0},
		{"enough for all", []float64{1, 3}, 10, 3},
		{"all want more", []float64{10, 20}, 10, 5},
		{"what the small leave goes to the large", []float64{1, 10, 20}, 11, 5},
		{"no demand at all", nil, 10, 0},
	} {
		if level, _ := fill(c.demands, c.supply, nil); level != c.level {
			t.Errorf("%s: level %v, not %v", c.name, level, c.level)
		}
	}
}

// Under a load that stays what it is, rates stay where they are, but for noise.
func TestSteady(t *testing.T) {
	c, f := New(withBudget(100)), newTraffic(10)
	var rates *Rates
	turns, direction, last := 0, 0., 0.
	for i := range 300 {
		f.second(rates, 1000, time.Millisecond)
		rates = c.Step(start.Add(time.Duration(i)*time.Second), f.in, Signals{})
		sum := 0.
		for _, r := range rates.Routes {
			sum += r.Rate
		}
		mean := sum / 10
		if i > 10 {
			if want := askFirst * 100 / 10000; math.Abs(mean-want) > 0.1*want {
				t.Fatalf("second %d: mean rate %v, not about %v", i, mean, want)
			}
			if step := mean - last; math.Abs(step) > 0.05*last {
				if step*direction < 0 {
					turns++
				}
				direction = step
			}
		}
		last = mean
	}
	if turns > 3 {
		t.Errorf("the mean rate turned %d times by more than 5%%", turns)
	}
}

// A signal that stays at its mark moves nothing: neither at the high one nor at the low one, nor between. All of them at
// once don't either.
func TestAtTheMark(t *testing.T) {
	l := DefaultLoad()
	type at func(Marks) float64
	signals := map[string]func(at) Signals{
		"CPU of the node":    func(a at) Signals { return Signals{Node: Pressure{CPU: a(l.NodeCPU)}} },
		"memory of the node": func(a at) Signals { return Signals{Node: Pressure{Memory: a(l.NodeMemory)}} },
		"own CPU":            func(a at) Signals { return Signals{Self: a(l.Self)} },
		"ring buffer":        func(a at) Signals { return Signals{Ring: a(l.Buffers)} },
		"export queue":       func(a at) Signals { return Signals{Queue: a(l.Buffers)} },
		"CPU of a workload":  func(a at) Signals { return Signals{Services: map[string]Pressure{"s": {CPU: a(l.CPU)}}} },
		"memory of a workload": func(a at) Signals {
			return Signals{Services: map[string]Pressure{"s": {Memory: a(l.Memory)}}}
		},
		"all": func(a at) Signals {
			return Signals{
				Node: Pressure{a(l.NodeCPU), a(l.NodeMemory)}, Self: a(l.Self), Ring: a(l.Buffers), Queue: a(l.Buffers),
				Services: map[string]Pressure{"s": {a(l.CPU), a(l.Memory)}},
			}
		},
	}
	places := map[string]at{
		"low":     func(m Marks) float64 { return m.Low },
		"between": func(m Marks) float64 { return (m.Low + m.High) / 2 },
		"high":    func(m Marks) float64 { return m.High },
	}
	for name, signal := range signals {
		for where, place := range places {
			c, f := New(withBudget(100)), newTraffic(2)
			for i := range 120 {
				f.second(nil, 100, time.Millisecond)
				rates := c.Step(start.Add(time.Duration(i)*time.Second), f.in, signal(place))
				if reason := rates.Routes[0].Reason; rates.Safety[Background] != 1 || reason != ByBudget {
					t.Fatalf("%s at %s: safety %v, reason %v after %d s", name, where, rates.Safety, reason, i)
				}
			}
		}
	}
}

// Pressure of the node takes from the background first, and what it took comes back.
func TestNodePressure(t *testing.T) {
	c, f := New(withBudget(100)), newTraffic(2)
	step := func(i int, cpu float64) *Rates {
		f.second(nil, 100, time.Millisecond)
		return c.Step(start.Add(time.Duration(i)*time.Second), f.in, Signals{Node: Pressure{CPU: cpu}})
	}
	for i := range 3 {
		step(i, 0.95)
	}
	rates := step(3, 0.95)
	if s := rates.Safety; !(s[Background] < s[Normal] && s[Normal] < s[Critical]) {
		t.Errorf("under pressure: safety %v", s)
	}
	if n := c.Summary().Node; n.State != Falling || n.Cause == "" {
		t.Errorf("under pressure: %+v", n)
	}
	for i := range 30 {
		rates = step(4+i, 0)
	}
	if rates.Safety != [Classes]float64{1, 1, 1} || c.Summary().Node.State != Steady {
		t.Errorf("half a minute after it: safety %v, %+v", rates.Safety, c.Summary().Node)
	}
}

// A workload under pressure is sampled less within three seconds, and its neighbour as before.
func TestWorkloadPressure(t *testing.T) {
	config := DefaultConfig(0.5)
	c, f := New(config), newTraffic(2)
	f.in.Routes[1].Service = "neighbour"
	var rates *Rates
	for i := range 3 {
		f.second(nil, 100, time.Millisecond)
		rates = c.Step(start.Add(time.Duration(i)*time.Second), f.in, Signals{Services: map[string]Pressure{"s": {CPU: 0.9}}})
	}
	if r := rates.Routes[0]; !(r.Rate >= 0 && r.Rate <= 0.25) || r.Reason != ByPressure {
		t.Errorf("the workload: %+v", r)
	}
	if r := rates.Routes[1]; r.Rate >= 0 || r.Reason != ByDefault {
		t.Errorf("its neighbour: %+v", r)
	}
}

// The band lowers the rate of a slow service down to its least, and is back soon when it is fast again.
func TestBand(t *testing.T) {
	config := DefaultConfig(0.5)
	config.Band.On = func(string) bool { return true }
	c, f := New(config), newTraffic(1)
	var rates *Rates
	now := start
	run := func(seconds int, latency time.Duration) Rate {
		for range seconds {
			now = now.Add(time.Second)
			f.second(nil, 50, latency)
			rates = c.Step(now, f.in, Signals{})
		}
		return rates.Routes[0]
	}
	if r := run(600, 200*time.Millisecond); math.Abs(r.Rate-0.5*config.Band.Least) > 1e-9 || r.Reason != ByBand {
		t.Errorf("slow for long: %+v", r)
	}
	lowest := rates.Routes[0].Rate
	if r := run(60, 75*time.Millisecond); r.Rate != lowest {
		t.Errorf("between the marks: %+v", r)
	}
	if r := run(12, 10*time.Millisecond); r.Rate <= lowest {
		t.Errorf("fast again, for two steps: %+v", r)
	}
	if r := run(300, 10*time.Millisecond); r.Rate >= 0 || r.Reason != ByDefault {
		t.Errorf("fast for long: %+v", r)
	}
}

// A rare route is granted a span, and no more than a third of the budget goes there.
func TestFloors(t *testing.T) {
	c, f := New(withBudget(3)), newTraffic(50)
	granted := 0
	for i := range 10 {
		for r := range f.in.Routes {
			f.in.Routes[r].Count++
		}
		for _, r := range c.Step(start.Add(time.Duration(i)*time.Second), f.in, Signals{}).Routes {
			if r.Floor {
				granted++
			}
		}
	}
	// The first step has not counted anything yet: all routes are idle to it, and cost nothing.
	if got := granted - 50; got < 8 || got > 11 {
		t.Errorf("%d grants in 9 s, of one a second", got)
	}
	if c.Summary().Totals.FloorsDeferred == 0 {
		t.Error("nobody had to wait")
	}
}

// Whatever comes, rates are probabilities, a rule's rate is left alone, and a remote one is taken.
func TestAnything(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		config := DefaultConfig(random.Float64())
		if random.IntN(3) > 0 {
			config.Budget = math.Exp(random.Float64()*12 - 2)
		}
		config.Services = map[string]float64{"a": random.Float64() * 10}
		config.Classes[Background] = random.Float64()
		config.Band.On = func(string) bool { return random.IntN(2) == 0 }
		if err := config.Validate(); err != nil {
			t.Fatal(err)
		}
		c, f, now, last := New(config), newTraffic(1+random.IntN(20)), start, start.Add(-time.Second)
		for range 30 {
			for i := range f.in.Routes {
				r := &f.in.Routes[i]
				r.Service, r.Class = []string{"", "a", "b"}[random.IntN(3)], Class(random.IntN(int(Classes)))
				r.Fixed, r.Remote = random.IntN(4) == 0, -1
				if random.IntN(4) == 0 {
					r.Remote = random.Float64()
				}
				n := uint64(random.ExpFloat64() * 100)
				if random.IntN(50) == 0 {
					r.Count, r.Kept = 0, 0
				}
				r.Count, r.Kept, r.Sum = r.Count+n, r.Kept+n/2, r.Sum+time.Duration(n)*time.Second
			}
			f.in.Kept += uint64(random.IntN(1000))
			f.in.Other += uint64(random.IntN(1000))
			now = now.Add(time.Duration(random.IntN(2000)-10) * time.Millisecond)
			rates := c.Step(now, f.in, Signals{
				Node: Pressure{random.Float64(), random.Float64()}, Ring: random.Float64(), Boosted: map[uint64]bool{1: true},
				Services: map[string]Pressure{"a": {random.Float64(), random.Float64()}},
			})
			if !(rates.Base >= 0 && rates.Base <= 1) {
				t.Fatalf("base %v", rates.Base)
			}
			for class, s := range rates.Safety {
				if !(s > 0 && s <= 1) {
					t.Fatalf("safety %v of class %d", s, class)
				}
			}
			if !now.After(last) {
				continue // the answer is the last step's
			}
			last = now
			ofService, ofClass := 0., 0.
			for i, r := range rates.Routes {
				if !(r.Rate <= 1) || !(r.Boost <= 1) || r.Rate < 0 && r.Rate != -1 {
					t.Fatalf("%+v", r)
				}
				given, known := f.in.Routes[i], c.routes[r.Key]
				switch {
				case given.Fixed:
					if r.Rate != -1 || r.Reason != ByRule {
						t.Fatalf("a rule's rate is moved: %+v", r)
					}
				case given.Remote >= 0:
					if want := given.Remote * known.service.load.Factor; r.Rate != want || r.Reason != ByRemote {
						t.Fatalf("a remote rate of %v, of which pressure leaves %v: %+v", given.Remote, want, r)
					}
				case known.measured && r.Rate >= 0:
					if given.Service == "a" {
						ofService += r.Rate * known.offered
					}
					if given.Class == Background {
						ofClass += r.Rate * known.offered
					}
				}
			}
			if limit := config.Services["a"]; ofService > limit*(1+1e-9) {
				t.Fatalf("a service gets %v spans a second of %v", ofService, limit)
			}
			if limit := config.Classes[Background]; ofClass > limit*(1+1e-9) {
				t.Fatalf("a class gets %v spans a second of %v", ofClass, limit)
			}
		}
	}
}

// What is saved is what begins after a restart, and what is damaged is refused.
func TestState(t *testing.T) {
	c, f := New(withBudget(100)), newTraffic(3)
	for i := range 5 {
		f.second(nil, 1000, time.Millisecond)
		c.Step(start.Add(time.Duration(i)*time.Second), f.in, Signals{})
	}
	s := c.Save(func(key uint64) (RouteName, bool) { return RouteName{Template: string(rune('a' + key))}, key != 2 })
	if len(s.Routes) != 2 || s.Version != StateVersion {
		t.Fatalf("%+v", s)
	}
	next, g := New(withBudget(100)), newTraffic(3)
	next.Restore(s)
	next.Step(start, g.in, Signals{})
	next.Begin(1, s.Routes[0].Rate)
	if r := next.Step(start.Add(time.Second), g.in, Signals{}).Routes[0]; r.Rate != s.Routes[0].Rate || r.Reason != ByState {
		t.Errorf("after a restart: %+v", r)
	}
	for _, bad := range []string{"", "{", `{"version":2,"base":1,"node":1}`, `{"version":1,"base":2,"node":1}`, `{"version":1,"base":1,"node":1,"routes":[{"rate":-1}]}`} {
		if _, err := DecodeState([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestExplain(t *testing.T) {
	c, f := New(withBudget(10)), newTraffic(1)
	for i := range 40 {
		f.second(nil, 10*math.Pow(2, float64(i/2)), time.Millisecond)
		c.Step(start.Add(time.Duration(i)*time.Second), f.in, Signals{})
	}
	e, ok := c.Explain(1)
	if !ok || len(e.Changes) != historyLength || e.Rate.Reason != ByBudget {
		t.Fatalf("%+v", e)
	}
	for i, change := range e.Changes[1:] {
		if change.At.Before(e.Changes[i].At) || change.To >= e.Changes[i].To {
			t.Errorf("change %d: %+v behind %+v", i+1, change, e.Changes[i])
		}
	}
	if _, ok := c.Explain(2); ok {
		t.Error("it explains a route that there is not")
	}
}

func BenchmarkStep4096(b *testing.B) {
	c, f := New(withBudget(1000)), newTraffic(4096)
	now := start
	for b.Loop() {
		for i := range f.in.Routes {
			f.in.Routes[i].Count += uint64(i % 50)
		}
		now = now.Add(time.Second)
		c.Step(now, f.in, Signals{})
	}
}

// Services and classes have budgets of their own, with one of the node and without.
func TestBudgetsOfServicesAndClasses(t *testing.T) {
	for _, budget := range []float64{0, 1000} {
		config := DefaultConfig(0.5)
		config.Budget, config.Services, config.Classes[Background] = budget, map[string]float64{"bounded": 6}, 3
		c, f := New(config), newTraffic(4)
		f.in.Routes[0].Service, f.in.Routes[1].Service, f.in.Routes[2].Class = "bounded", "bounded", Background
		var rates *Rates
		for i := range 20 {
			f.second(rates, 400, time.Millisecond) // 100 each
			rates = c.Step(start.Add(time.Duration(i)*time.Second), f.in, Signals{})
		}
		spans := func(i int) float64 {
			rate := rates.Routes[i].Rate
			if rate < 0 {
				rate = rates.Base
			}
			return rate * c.routes[rates.Routes[i].Key].offered
		}
		if both := spans(0) + spans(1); math.Abs(both-6) > 0.01 || rates.Routes[0].Reason != ByBudget {
			t.Errorf("budget %v: the service gets %v spans a second for %v, want 6", budget, both, rates.Routes[0].Reason)
		}
		if class := spans(2); math.Abs(class-3) > 0.01 {
			t.Errorf("budget %v: the class gets %v spans a second, want 3", budget, class)
		}
		if free := spans(3); free < 40 {
			t.Errorf("budget %v: the others get %v spans a second", budget, free)
		}
	}
}
