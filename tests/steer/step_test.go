package steer

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"

	"golang.org/x/sys/unix"
)

const port = 8080

// wrk has so many connections send a request each 20 ms or so.
func wrk(t *testing.T, ns *harness.Namespace, connections, seed int) *harness.Process {
	t.Helper()
	script, err := filepath.Abs("testdata/paced.lua")
	stage.Must(t, err)
	process, err := ns.Start(harness.Program{Path: "wrk", Args: []string{
		"-t1", "-c", fmt.Sprint(connections), "-d", "300s", "-s", script, fmt.Sprintf("http://127.0.0.1:%d", port), "--", "20", fmt.Sprint(seed),
	}})
	stage.Must(t, err)
	return process
}

// The load goes up tenfold and back while a budget of 100 spans a second holds: it is spent, no second exceeds it by a fifth, and what
// is kept counts back to what there was, before the step, in it and after.
func TestTenfoldStep(t *testing.T) {
	const budget = 100
	lab := stage.NewLab(t)
	ns, err := lab.Namespace("step")
	stage.Must(t, err)
	stage.StartRole(t, ns, nil, port, "front", fmt.Sprint(port), "")
	st := stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{ns}, Flags: []string{
		"--budget", fmt.Sprint(budget), "--load", "off", "--state", "",
	}})
	low := wrk(t, ns, 10, 1)
	before := time.Now()
	time.Sleep(15 * time.Second)
	up := time.Now()
	high := wrk(t, ns, 90, 2)
	time.Sleep(15 * time.Second)
	stage.Must(t, high.Signal(unix.SIGTERM))
	down := time.Now()
	time.Sleep(15 * time.Second)
	stage.Must(t, low.Signal(unix.SIGTERM))
	after := time.Now()
	_ = high.Wait()
	_ = low.Wait()
	metrics := st.Metrics(t)
	spans, counts := st.Settled(t)
	if counts.DroppedTotal() > 0 {
		t.Errorf("exchanges were dropped: %v", counts)
	}

	seconds := make(map[int64]int)
	var sum, variance float64
	floors := 0
	for i := range spans {
		s := &spans[i]
		seconds[s.End.Unix()]++
		p, known := stage.Probability(t, s)
		if !known {
			if reason := s.Attributes["ambit.sampling.reason"]; reason != "floor" {
				t.Errorf("a span without th was kept for the reason %v", reason)
			}
			floors++
			continue
		}
		sum += 1 / p
		variance += (1 - p) / (p * p)
	}
	var sides float64
	for series, n := range metrics {
		if strings.HasPrefix(series, "ambit_request_duration_seconds_count") {
			sides += n
		}
	}
	if off := (sum - (sides - float64(floors))) / math.Sqrt(variance); math.Abs(off) > 4 {
		t.Errorf("%d spans count back to %.0f of %.0f exchange sides, %.1f standard errors off", len(spans), sum, sides, off)
	}
	if sides < 30_000 {
		t.Errorf("only %.0f exchange sides were there: the load is not what was meant", sides)
	}
	for second, n := range seconds {
		if n > budget*12/10+budget/20 { // a twentieth more, as a decision is a little behind its packet's time
			t.Errorf("%d spans in the second %s", n, time.Unix(second, 0).Format(time.TimeOnly))
		}
	}
	for _, phase := range []struct {
		name     string
		from, to time.Time
	}{{"before", before.Add(5 * time.Second), up}, {"the step", up.Add(3 * time.Second), down}, {"after", down.Add(3 * time.Second), after}} {
		n, of := 0, 0
		for s := phase.from.Unix() + 1; s < phase.to.Unix(); s++ {
			n += seconds[s]
			of++
		}
		spent := float64(n) / float64(of) / budget
		t.Logf("%s: %.1f spans a second, %.1f %% of the budget", phase.name, float64(n)/float64(of), 100*spent)
		// On a quiet machine it is 95 to 97. Where others have the processors spans come in bursts, and the valve takes more.
		if spent < 0.9 {
			t.Errorf("%s: %.1f %% of the budget is spent, want 90 at least", phase.name, 100*spent)
		}
	}
	t.Logf("%d spans, %d of them floors, stand for %.0f of %.0f", len(spans), floors, sum, sides)
}
