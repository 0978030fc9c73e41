package steer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ambit/admin"
	"ambit/tests/e2e/stage"
	"ambit/tests/harness"

	"golang.org/x/sys/unix"
)

// After a restart rates do not begin anew: what is new gets the share of all that was kept before.
func TestRatesSurviveARestart(t *testing.T) {
	lab := stage.NewLab(t)
	ns, err := lab.Namespace("restart")
	stage.Must(t, err)
	stage.StartRole(t, ns, nil, port, "front", fmt.Sprint(port), "")
	file := filepath.Join(t.TempDir(), "rates.json")
	begin := func() *stage.Stage {
		return stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{ns}, Flags: []string{
			"--budget", "20", "--load", "off", "--state", file,
		}})
	}
	st := begin()
	load := wrk(t, ns, 20, 1)
	stage.Wait(t, "the budget is shared", func() error {
		if c := st.Rates(t, admin.RatesQuery{}).Control; c == nil || c.Asked > 40 || c.Offered < 500 {
			return fmt.Errorf("the control is %+v", c)
		}
		return nil
	})
	stage.Must(t, load.Signal(unix.SIGTERM))
	_ = load.Wait()
	st.Close(t)
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	again := begin()
	// It is in force from the first step on.
	stage.Wait(t, "the first step", func() error {
		if c := again.Rates(t, admin.RatesQuery{}).Control; c == nil || c.Steps == 0 {
			return fmt.Errorf("the control is %+v", c)
		}
		return nil
	})
	if rates := again.Rates(t, admin.RatesQuery{}); rates.Default > 0.2 {
		t.Errorf("new routes begin with %v", rates.Default)
	}
}

// While a service is slow its base rate falls, and what is slower than its rule allows is kept all the same.
func TestBandLowersTheBaseRateAlone(t *testing.T) {
	lab := stage.NewLab(t)
	ns, err := lab.Namespace("band")
	stage.Must(t, err)
	config := filepath.Join(t.TempDir(), "ambit.yaml")
	stage.Must(t, os.WriteFile(config, []byte(`sampling:
  load: off
  anomalies: off
  band: {services: ["fro*"], high: 40ms, low: 20ms}
  rules: [{name: slow, match: {path: {prefix: /slow}}, slow_threshold: 100ms}]
`), 0o600))
	stage.StartRole(t, ns, nil, port, "front", fmt.Sprint(port), "")
	st := stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{ns}, Flags: []string{"--config", config, "--sample-rate", "0.5"}})
	get := func(path string) {
		t.Helper()
		_, err := ns.Run(t.Context(), "curl", "-sf", fmt.Sprintf("http://127.0.0.1:%d/%s", port, path))
		stage.Must(t, err)
	}
	rate := func() (float64, string) {
		for _, r := range st.Rates(t, admin.RatesQuery{Limit: 100, Service: "front"}).Routes {
			if r.Kind == "SERVER" && r.Route == "/slow/60ms" && r.Rate != nil {
				return *r.Rate, r.Reason
			}
		}
		return -1, ""
	}
	deadline := time.Now().Add(30 * time.Second)
	for at, reason := rate(); at < 0 || at > 0.4; at, reason = rate() {
		if time.Now().After(deadline) {
			t.Fatalf("the rate is %v, for %q", at, reason)
		}
		get("slow/60ms")
	}
	if at, reason := rate(); reason != "band" {
		t.Errorf("the rate is %v, for %q", at, reason)
	}
	st.Settled(t)
	for range 5 {
		get("slow/120ms")
	}
	spans, _ := st.Settled(t)
	slow := 0
	for i := range spans {
		if spans[i].Attributes["url.path"] == "/slow/120ms" {
			slow++
		}
	}
	if slow != 10 {
		t.Errorf("%d of the 10 sides of slow requests were kept", slow)
	}
}
