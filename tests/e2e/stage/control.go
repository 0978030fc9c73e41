package stage

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/admin"
)

// change asks the daemon for one change, whatever its answer is made of.
func change[T any](t testing.TB, s *Stage, ask func(context.Context) (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := ask(ctx)
	if err != nil {
		t.Fatalf("%v: %s", err, s.process.Log())
	}
	return answer
}

// Rate sets the share of the traces that are kept.
func (s *Stage) Rate(t testing.TB, share float64) {
	t.Helper()
	change(t, s, func(ctx context.Context) (admin.Rates, error) { return s.api.SetRates(ctx, share) })
}

// Reload reads the configuration anew, and returns the rules in force.
func (s *Stage) Reload(t testing.TB) admin.RuleSet {
	t.Helper()
	return change(t, s, s.api.Reload)
}

// Top is what "ambit top" shows.
func (s *Stage) Top(t testing.TB) admin.Top {
	t.Helper()
	return change(t, s, s.api.Top)
}

// Pause detaches everything.
func (s *Stage) Pause(t testing.TB) {
	t.Helper()
	if state := change(t, s, s.api.Pause); state != admin.Paused {
		t.Fatalf("after the pause ambit is %s", state)
	}
}

// Resume attaches everything again.
func (s *Stage) Resume(t testing.TB) {
	t.Helper()
	if state := change(t, s, s.api.Resume); state != admin.Tracing {
		t.Fatalf("after the pause's end ambit is %s", state)
	}
}

// Freeze stops the daemon's process where it is, so that nobody empties the ring buffer, until thaw is called.
func (s *Stage) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	Must(t, s.process.Signal(unix.SIGSTOP))
	thaw = func() {
		if err := s.process.Signal(unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(thaw) // a test that failed in between; a second one changes nothing
	return thaw
}

// Process is the number of the daemon's process.
func (s *Stage) Process() int { return s.process.PID() }

// Metrics are the daemon's for Prometheus: a series, with its labels as they are written, and its value.
func (s *Stage) Metrics(t testing.TB) map[string]float64 {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		},
	}}
	answer, err := client.Get("http://ambit/metrics")
	Must(t, err)
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("the metrics are answered with %s", answer.Status)
	}
	metrics := make(map[string]float64)
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		Must(t, err)
		metrics[line[:at]] = value
	}
	Must(t, lines.Err())
	return metrics
}

// Settled waits until nothing has moved for a moment, and returns all spans that came since the last look, however many.
func (s *Stage) Settled(t testing.TB) ([]Span, Counts) {
	t.Helper()
	var now admin.Status
	still := 0
	for deadline := time.Now().Add(10 * time.Second); still < 10; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s something moves still: %v", since(s.before, now))
		}
		status := s.Status(t)
		if same(status.Exchanges, now.Exchanges) && status.Exchanges.Queued == 0 {
			still++
		} else {
			still = 0
		}
		now = status
	}
	return s.look(t, now)
}

// look takes what was collected up to now, and holds the counters to their sum.
func (s *Stage) look(t testing.TB, now admin.Status) ([]Span, Counts) {
	t.Helper()
	counts := since(s.before, now)
	spans := s.collector.take()
	before := s.before.Exchanges.InFlight + s.before.Exchanges.Queued
	s.before = now
	if sum := counts.Exported + counts.Unsampled + counts.DroppedTotal() + counts.InFlight + counts.Queued; sum != counts.Seen+before {
		t.Errorf("the sum does not hold: %v", counts)
	}
	return spans, counts
}

// Wait tries until there is no error, for ten seconds.
func Wait(t testing.TB, what string, try func() error) {
	t.Helper()
	err := fmt.Errorf("it was not tried")
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("after 10 s it does not hold that %s: %v", what, err)
}

// Rates are the rates in force, and those of the routes that are asked for.
func (s *Stage) Rates(t testing.TB, q admin.RatesQuery) admin.Rates {
	t.Helper()
	return change(t, s, func(ctx context.Context) (admin.Rates, error) { return s.api.Rates(ctx, q) })
}

// Kill ends the daemon by SIGKILL.
func (s *Stage) Kill(t testing.TB) {
	t.Helper()
	s.process.Kill()
	<-s.process.Done()
}

// Flags appends to the flags of the daemons that Next starts.
func (s *Stage) Flags(flags ...string) { s.args = append(s.args, flags...) }
