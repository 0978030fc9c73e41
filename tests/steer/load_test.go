package steer

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"ambit/admin"
	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// rateOf is the rate of a service's own route, with its reason; false where it has none yet.
func rateOf(t *testing.T, st *stage.Stage, service string) (admin.RouteRate, bool) {
	t.Helper()
	for _, r := range st.Rates(t, admin.RatesQuery{Limit: admin.MaxRates, Service: service}).Routes {
		if r.Kind == "SERVER" && r.Route == "/work" && r.Rate != nil {
			return r, true
		}
	}
	return admin.RouteRate{}, false
}

// A hog in the cgroup of one server, on the processor that both are pinned to, lowers the rate of that workload within three
// seconds, and never that of the neighbour on another processor; when it ends, the rate comes back.
func TestHogLowersItsOwnWorkload(t *testing.T) {
	if n := runtime.NumCPU(); n < 2 {
		t.Fatalf("there are %d processors: the neighbour needs one of its own", n)
	}
	const rate = 0.5
	lab := stage.NewLab(t)
	ns, err := lab.Namespace("load")
	stage.Must(t, err)
	ours, err := lab.Cgroup("ours")
	stage.Must(t, err)
	theirs, err := lab.Cgroup("theirs")
	stage.Must(t, err)
	stage.StartRole(t, ns, ours, 8080, "front", "8080", "0")
	stage.StartRole(t, ns, theirs, 8081, "back", "8081", "1")
	st := stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{ns}, Flags: []string{
		"--control", "on", "--sample-rate", fmt.Sprint(rate), "--state", "", "--anomalies", "off",
	}})
	for _, port := range []uint16{8080, 8081} {
		stage.StartRole(t, ns, nil, 0, "ask", fmt.Sprintf("127.0.0.1:%d", port), "50")
	}
	neighbour := func() {
		t.Helper()
		if r, ok := rateOf(t, st, "back"); ok && (*r.Rate != rate || r.Reason != "default") {
			t.Fatalf("the neighbour's rate is %v, for %s: %+v", *r.Rate, r.Reason, r.Load)
		}
	}
	stage.Wait(t, "both services have their rates", func() error {
		a, first := rateOf(t, st, "front")
		b, second := rateOf(t, st, "back")
		if !first || !second || *a.Rate != rate || *b.Rate != rate {
			return fmt.Errorf("they are %+v and %+v", a, b)
		}
		return nil
	})

	hog := stage.StartRole(t, ns, ours, 0, "hog", "0")
	begun := time.Now()
	for {
		neighbour()
		r, _ := rateOf(t, st, "front")
		if r.Rate != nil && *r.Rate <= rate/2 && r.Reason == "pressure" {
			break
		}
		if time.Since(begun) > 3*time.Second {
			t.Fatalf("3 s behind the hog's start the rate is %v, for %s: %+v", *r.Rate, r.Reason, r.Load)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("lowered %s behind the hog's start", time.Since(begun).Round(10*time.Millisecond))
	for range 30 {
		neighbour()
		time.Sleep(100 * time.Millisecond)
	}
	hog.Kill()
	begun = time.Now()
	for {
		neighbour()
		r, _ := rateOf(t, st, "front")
		if r.Rate != nil && *r.Rate == rate && r.Reason == "default" {
			break
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("30 s behind the hog's end the rate is %v, for %s: %+v", *r.Rate, r.Reason, r.Load)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("back %s behind the hog's end", time.Since(begun).Round(100*time.Millisecond))
}
