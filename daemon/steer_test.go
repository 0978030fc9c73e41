package daemon

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/l7"
	"ambit/sampling"
)

// steered is a kernel side that remembers what it was told.
type steerStage struct {
	steering bpf.Steering
	rates    map[uint64]bpf.RouteRate
	floor    float64
	node     bpf.Budget
}

func (k *steerStage) Steer(s bpf.Steering) error { k.steering = s; return nil }
func (k *steerStage) SetBudget(index int, v float64) error {
	if index == bpf.BudgetFloor {
		k.floor = v
	}
	return nil
}
func (k *steerStage) Budgets() ([]bpf.Budget, error) {
	all := make([]bpf.Budget, bpf.BudgetsMax)
	all[bpf.BudgetNode] = k.node
	return all, nil
}
func (k *steerStage) routes(list []bpf.RouteRate) {
	k.rates = make(map[uint64]bpf.RouteRate)
	for _, r := range list {
		k.rates[r.Key] = r
	}
}

// drive is a steering on a stage, at made-up times and counters.
type drive struct {
	t      *testing.T
	k      *steerStage
	s      *steering
	log    bytes.Buffer
	now    time.Time
	config Config
	in     steered
	snap   *bpf.Snapshot
	signal sampling.Signals
}

func newDrive(t *testing.T, yaml string) *drive {
	d := &drive{t: t, k: &steerStage{}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	names := newRoutes(func(uint64) bool { return true }, noRules{})
	for key, template := range map[uint64]string{1: "/a", 3: "/b", 5: "/c"} {
		names.names[key] = &routeEntry{route: l7.Route{Kind: l7.Server, Method: "GET", Template: template}}
	}
	d.snap = &bpf.Snapshot{Services: map[uint16]bpf.Service{1: {Cgroup: 9}}}
	for _, key := range []uint64{1, 3, 5} {
		d.snap.Routes = append(d.snap.Routes, bpf.Route{Key: key, Service: 1, Kind: bpf.SideAcceptor})
	}
	d.configure(yaml)
	log := slog.New(slog.NewTextHandler(&d.log, nil))
	d.s = newSteering(d.k, d.k.routes, names, d.config.Sampling.Control.State, log)
	return d
}

type noRules struct{}

func (noRules) rule(uint32, uint16) string     { return "" }
func (noRules) template(uint32, uint16) string { return "" }

func (d *drive) configure(yaml string) {
	d.t.Helper()
	cfg, _, err := Load(Sources{File: writeFile(d.t, yaml)})
	if err != nil {
		d.t.Fatal(err)
	}
	d.config = cfg
	d.in = steered{version: d.in.version + 1, rate: cfg.SampleRate, sampling: &cfg.Sampling, verdicts: map[string]verdict{
		"checkout": {fixed: true, class: sampling.Critical},
	}}
}

// second lets a second pass in which each route counts so much, all of the same latency.
func (d *drive) second(took time.Duration, counts map[uint64]uint64) {
	d.t.Helper()
	d.now = d.now.Add(time.Second)
	next := *d.snap
	next.At, next.Series = d.now, nil
	for _, r := range d.snap.Routes {
		s := &bpf.Series{SeriesKey: bpf.SeriesKey{Route: r.Key, Service: 1, Kind: uint8(r.Kind), Outcome: 200}}
		for _, old := range d.snap.Series {
			if old.Route == r.Key {
				*s = *old
			}
		}
		s.Latency[bpf.LatencyBucket(uint64(took))] += counts[r.Key]
		kept := d.kept(r.Key, counts[r.Key])
		s.Kept += kept
		d.k.node.Kept += kept
		s.Sum += time.Duration(counts[r.Key]) * took
		next.Series = append(next.Series, s)
	}
	d.snap = &next
	name := func(bpf.Service) string { return "shop" }
	load := func(map[uint16]string, *bpf.Snapshot) sampling.Signals { return d.signal }
	if err := d.s.tick(d.now, d.snap, &d.in, name, load); err != nil {
		d.t.Fatal(err)
	}
}

// kept is how many of so many the kernel would keep.
func (d *drive) kept(key, count uint64) uint64 {
	rate := d.k.steering.Default
	if r, ok := d.k.rates[key]; ok && r.Threshold != bpf.ThresholdNone {
		rate = d.rate(key)
	}
	return uint64(rate*float64(count) + 0.5)
}

func (d *drive) rate(key uint64) float64 {
	r := d.k.rates[key]
	if r.Threshold == bpf.ThresholdNone {
		return -1
	}
	return 1 - float64(r.Threshold)/(1<<56)
}

func TestBudgetMovesRates(t *testing.T) {
	d := newDrive(t, "sampling: {budget: 100}\n")
	for range 4 {
		d.second(time.Millisecond, map[uint64]uint64{1: 2000, 3: 1000, 5: 4})
	}
	// About 117 a second are shared: all of the 4, and half of the rest each.
	if a, b, c := d.rate(1), d.rate(3), d.rate(5); a < 0.027 || a > 0.029 || !near(b, 2*a) || c != 1 {
		t.Errorf("rates %v, %v, %v", a, b, c)
	}
	if d.k.floor < 33 || d.k.floor > 34 || !d.k.steering.Floor || d.k.steering.Safety != [3]float64{1, 1, 1} {
		t.Errorf("floors %v a second, %+v", d.k.floor, d.k.steering)
	}
	control, base := d.s.show()
	if control == nil || base != 1 || control.Steps != 4 || control.Load.State != "steady" || control.Changes["budget"] == 0 {
		t.Errorf("control %+v, base %v", control, base)
	}
	list := d.s.list(admin.RatesQuery{Limit: 2})
	if len(list) != 2 || list[0].Route != "/a" || list[1].Route != "/b" || list[0].Reason != "budget" || !near(*list[0].Rate, d.rate(1)) || list[0].Words != nil {
		t.Errorf("routes %+v", list)
	}
	list = d.s.list(admin.RatesQuery{Limit: 9, Service: "shop", Route: "GET /c"})
	if len(list) != 1 || list[0].Route != "/c" || !strings.Contains(strings.Join(list[0].Words, "\n"), "all of it is kept") {
		t.Errorf("routes %+v", list)
	}
	if list := d.s.list(admin.RatesQuery{Limit: 9, Service: "other"}); len(list) != 0 {
		t.Errorf("of another service %+v", list)
	}

	// A rule's rate is not the controller's.
	d.s.names.names[1].decided.Rule = "checkout"
	d.second(time.Millisecond, map[uint64]uint64{1: 2000, 3: 1000, 5: 4})
	if d.rate(1) != -1 || d.rate(3) < 0.028 {
		t.Errorf("rates %v, %v", d.rate(1), d.rate(3))
	}

	// Without a budget the default rate holds again, alone.
	d.configure("sample_rate: 0.25\n")
	d.second(time.Millisecond, nil)
	if d.rate(3) != -1 || d.k.steering != bpf.Unsteered(0.25) || d.k.floor != 0 {
		t.Errorf("rate %v, %+v, floors %v", d.rate(3), d.k.steering, d.k.floor)
	}
	if control, _ := d.s.show(); control != nil || len(d.s.list(admin.RatesQuery{Limit: 9})) != 0 {
		t.Errorf("control %+v", control)
	}
}

func TestLoadLowersRates(t *testing.T) {
	d := newDrive(t, "sample_rate: 0.5\nsampling: {control: on, load_marks: [cpu=0.1:0.3]}\n")
	counts := map[uint64]uint64{1: 100}
	d.second(time.Millisecond, counts)
	d.signal = sampling.Signals{Services: map[string]sampling.Pressure{"shop": {CPU: 0.31}}}
	for range 3 {
		d.second(time.Millisecond, counts)
	}
	if d.rate(1) != 0.125 || d.k.steering.Safety[1] != 1 {
		t.Errorf("rate %v, %+v", d.rate(1), d.k.steering)
	}
	d.signal = sampling.Signals{Node: sampling.Pressure{Memory: 0.9}}
	d.second(time.Millisecond, counts)
	if d.k.steering.Safety != [3]float64{1, 0.5, 0.25} || !strings.Contains(d.log.String(), "the node is loaded") {
		t.Errorf("%+v, logged %s", d.k.steering, d.log.String())
	}
	d.configure("sample_rate: 0.5\nsampling: {control: on, load: off}\n")
	d.signal.Services = map[string]sampling.Pressure{"shop": {CPU: 1}}
	for range 30 {
		d.second(time.Millisecond, counts)
	}
	if d.rate(1) != -1 || d.k.steering.Safety != [3]float64{1, 1, 1} {
		t.Errorf("signals are heeded: %v, %+v", d.rate(1), d.k.steering)
	}
}

func TestAnomalyBoosts(t *testing.T) {
	d := newDrive(t, "sampling: {budget: 10}\n")
	counts := map[uint64]uint64{1: 50, 3: 50}
	for range 10 * 30 {
		d.second(10*time.Millisecond, counts)
	}
	if d.k.rates[1].Anomaly != bpf.ThresholdNone || d.s.odd.Load() != nil {
		t.Fatalf("boosted at once: %+v", d.k.rates[1])
	}
	for range 3 * 30 {
		d.second(30*time.Millisecond, counts)
		if d.s.odd.Load() != nil {
			break
		}
	}
	odd := d.s.odd.Load()
	if odd == nil || (*odd)[1] == nil || (*odd)[1].Kind != "latency_shift" || (*odd)[1].Value < 2*(*odd)[1].Usual {
		t.Fatalf("no anomaly was found: %v", odd)
	}
	if r := d.k.rates[1]; r.Anomaly >= r.Threshold {
		t.Errorf("not boosted: %+v", r)
	}
	if events := d.s.events(); len(events) != 2 || events[0].Service != "shop" || !strings.Contains(d.log.String(), "behaves unlike itself") {
		t.Errorf("events %+v, logged %s", events, d.log.String())
	}
	if control, _ := d.s.show(); control.AnomaliesFound["latency_shift"] != 2 {
		t.Errorf("found %v", control.AnomaliesFound)
	}
	for range 61 {
		d.second(30*time.Millisecond, counts)
	}
	if d.k.rates[1].Anomaly != bpf.ThresholdNone || d.s.odd.Load() != nil {
		t.Errorf("still boosted: %+v", d.k.rates[1])
	}
}

func TestStateSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rates.json")
	yaml := "sampling: {budget: 100, state: " + path + "}\n"
	d := newDrive(t, yaml)
	for range 3 {
		d.second(time.Millisecond, map[uint64]uint64{1: 2000})
	}
	if err := d.s.save(d.now, true); err != nil {
		t.Fatal(err)
	}
	again := newDrive(t, yaml)
	again.second(time.Millisecond, nil)
	if rate := again.k.steering.Default; rate < 0.05 || rate > 0.07 || !strings.Contains(again.log.String(), "as they were before the restart") {
		t.Errorf("begins with %v, logged %s", rate, again.log.String())
	}
	again.second(time.Millisecond, nil)
	if rate := again.rate(1); rate < 0.05 || rate > 0.07 {
		t.Errorf("the route begins with %v", rate)
	}

	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var state sampling.State
	if err := json.Unmarshal(content, &state); err != nil || len(state.Routes) == 0 {
		t.Fatalf("%v, %s", err, content)
	}
	for name, text := range map[string]string{
		"cut": string(content[:len(content)/2]), "empty": "", "another version": strings.Replace(string(content), `"version":1`, `"version":9`, 1),
		"no rates": strings.Replace(string(content), `"base":`, `"base":7`, 1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		anew := newDrive(t, yaml)
		anew.second(time.Millisecond, nil)
		if n := strings.Count(anew.log.String(), "\n"); anew.k.steering.Default != 1 || n != 1 || !strings.Contains(anew.log.String(), "are not used") {
			t.Errorf("%s: begins with %v, logged %s", name, anew.k.steering.Default, anew.log.String())
		}
	}
	old := time.Now().Add(-2 * stateOld)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if anew := newDrive(t, yaml); !strings.Contains(anew.log.String(), "old") {
		t.Errorf("logged %s", anew.log.String())
	}
}
