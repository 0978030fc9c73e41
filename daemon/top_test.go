package daemon

import (
	"math"
	"testing"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/l7"
)

func TestTopRows(t *testing.T) {
	now, names := shop()
	names.Decide(1, Decided{Rule: "slow", Reason: l7.ReasonSlow})
	base := &bpf.Snapshot{At: now.At.Add(-4 * time.Second), Routes: now.Routes, Services: now.Services}
	was := counted(now.Series[0].SeriesKey, 6, time.Millisecond)
	was.Kept = 5
	base.Series = []*bpf.Series{
		was,           // 4 since
		now.Series[3], // none since
		now.Series[7],
	}
	top := topOf(base, now, names, shopName)
	if top.SinceSeconds != 4 || top.Unnamed != 1 || len(top.Rows) != 5 {
		t.Fatalf("%+v", top)
	}
	byRoute := make(map[string]admin.TopRow)
	for _, r := range top.Rows {
		byRoute[r.Route] = r
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 0.045*b }
	// 4 of 1 ms, 5 of 3 ms in the other cgroup, and 2 that failed after 1 s.
	if r := byRoute["/users/{number}"]; r.Service != "frontend" || r.Kind != "SERVER" || r.Method != "GET" || r.Count != 17 || r.Rate != 11.0/4 ||
		r.ErrorShare != 2.0/11 || r.KeptShare != 1.0/11 || !near(r.P50, 0.003) || !near(r.P99, 1) || r.Rule != "slow" || r.Reason != "slow" {
		t.Errorf("a busy route: %+v", r)
	}
	if r := byRoute["/buy/{what}"]; r.Count != 3 || r.Rate != 0 || r.P50 != 0 {
		t.Errorf("an idle route: %+v", r)
	}
	if r := byRoute["/pot"]; r.Host != "tea:8080" || r.Kind != "CLIENT" || r.ErrorShare != 1 || r.Service != "client" {
		t.Errorf("a client's route: %+v", r)
	}
	if r := byRoute[""]; !r.Other || r.Count != 100 || r.Rate != 0 || !near(r.P50, 0.001) {
		t.Errorf("other: %+v", r)
	}
}

// What a route that went leaves to "other" is no traffic of now.
func TestTopPassesOverTheStepOfOther(t *testing.T) {
	now, names := shop()
	base := &bpf.Snapshot{At: now.At.Add(-4 * time.Second), Services: now.Services, Series: now.Series[:7]}
	base.Routes = append(base.Routes, now.Routes...)
	base.Routes = append(base.Routes, bpf.Route{Key: 50, Service: 1, Kind: int(l7.Server)})
	for _, r := range topOf(base, now, names, shopName).Rows {
		if r.Other && (r.Rate != 0 || r.Count != 100) {
			t.Errorf("%+v", r)
		}
	}
	base.Routes[len(base.Routes)-1].Service = 2 // another one's
	for _, r := range topOf(base, now, names, shopName).Rows {
		if r.Other && r.Rate != 25 {
			t.Errorf("%+v", r)
		}
	}
}

// A route that came again counts from zero.
func TestTopOfARouteThatCameAgain(t *testing.T) {
	now, names := shop()
	old := *now.Series[0]
	old.Begun = old.Begun.Add(-time.Hour)
	old.Latency[0] = 1000
	base := &bpf.Snapshot{At: now.At.Add(-2 * time.Second), Services: now.Services, Routes: now.Routes, Series: []*bpf.Series{&old}}
	for _, r := range topOf(base, now, names, shopName).Rows {
		if r.Route == "/users/{number}" && r.Rate != 17.0/2 {
			t.Errorf("%+v", r)
		}
	}
}

func TestWindowOfTop(t *testing.T) {
	at := time.Now()
	snap := func(after time.Duration) *bpf.Snapshot { return &bpf.Snapshot{At: at.Add(after)} }
	var w topWindow
	age := func(after time.Duration) time.Duration {
		now := snap(after)
		base := w.base(now)
		if base == nil {
			return 0
		}
		return now.At.Sub(base.At)
	}
	for _, c := range []struct {
		what        string
		after, want time.Duration
	}{
		{"who asks first has nothing to compare with", 0, 0},
		{"nor half a second later", 500 * time.Millisecond, 0},
		{"after a second there is", time.Second, time.Second},
		{"and then it grows", 2 * time.Second, 2 * time.Second},
		{"to twice of what is the least", 3 * time.Second, 3 * time.Second},
		{"and goes on with the next", 4 * time.Second, 2 * time.Second},
		{"in this way", 5 * time.Second, 3 * time.Second},
		{"after a pause it begins anew", 50 * time.Second, 0},
	} {
		if got := age(c.after); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	w.forget(at.Add(55 * time.Second))
	if w.newer == nil {
		t.Error("forgotten too early")
	}
	w.forget(at.Add(61 * time.Second))
	if w.newer != nil || w.older != nil {
		t.Error("kept though nobody asks")
	}
}
