package topology

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/admin"
	"ambit/tests/harness"
)

// instance is an ambit that runs as a process of its own in the host's namespace, with a collector of its own.
type instance struct {
	*harness.Process
	*collector
	api    *admin.Client
	host   *harness.Namespace
	socket string
	args   []string
}

// trace starts an ambit that keeps every request of these namespaces. It ends with the test or before.
func trace(t testing.TB, lab *harness.Lab, namespaces []*harness.Namespace, flags ...string) *instance {
	t.Helper()
	names := make([]string, len(namespaces))
	for i, ns := range namespaces {
		names[i] = ns.Name()
	}
	return traceNamed(t, lab, names, flags...)
}

// traceNamed is trace for namespaces that need not be there yet.
func traceNamed(t testing.TB, lab *harness.Lab, names []string, flags ...string) *instance {
	t.Helper()
	host, err := lab.Host()
	must(t, err)
	d := &instance{collector: newCollector(t), host: host, socket: filepath.Join(t.TempDir(), "ambit.sock")}
	d.args = append([]string{
		"run", "--otlp-endpoint", "http://" + d.addr, "--sample-rate", "1", "--admin", "off", "--socket", d.socket,
		"--namespaces", strings.Join(names, ","), "--export-batch-wait", "50ms",
		// Clients, servers, ambit and the collector share the machine: the collector may fall behind, all
		// that it has not taken yet may wait, and so the sums can be exact.
		"--export-queue-bytes", "256MiB",
	}, flags...)
	d.start(t)
	t.Cleanup(func() { d.stop(t) })
	return d
}

// start returns when the ambit traces. One that was killed is started again as it was.
func (d *instance) start(t testing.TB) {
	t.Helper()
	var err error
	d.Process, err = d.host.Start(harness.Program{Path: binary, Args: d.args})
	must(t, err)
	wait(t, "ambit traces", func() error {
		select {
		case <-d.Done():
			t.Fatalf("ambit ended: %v: %s", d.Wait(), d.Log())
		default:
		}
		if d.api, err = admin.Dial(d.socket); err != nil {
			return err
		}
		if state := d.status(t).State; state != admin.Tracing {
			return fmt.Errorf("it is %s", state)
		}
		return nil
	})
}

// stop ends the daemon in good order, once.
func (d *instance) stop(t testing.TB) {
	t.Helper()
	select {
	case <-d.Done():
		return
	default:
	}
	if err := d.Stop(10 * time.Second); err != nil {
		t.Errorf("stop ambit: %v: %s", err, d.Log())
	}
	if strings.Contains(d.Log(), "level=ERROR") {
		t.Errorf("ambit complained:\n%s", d.Log())
	}
}

func (d *instance) status(t testing.TB) admin.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := d.api.Status(ctx)
	if err != nil {
		t.Fatalf("%v: %s", err, d.Log())
	}
	return s
}

func (d *instance) rate(t testing.TB, share float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := d.api.SetRates(ctx, share); err != nil {
		t.Fatal(err)
	}
}

// settled waits until nothing moves any more, and returns the exchange sides counted since before.
func (d *instance) settled(t testing.TB, before admin.Exchanges) admin.Exchanges {
	t.Helper()
	var now admin.Exchanges
	var calm int
	deadline := time.Now().Add(15 * time.Second)
	for calm < 2 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		s := d.status(t).Exchanges
		if s.Seen == now.Seen && s.InFlight == 0 && s.Queued == 0 {
			calm++
		} else {
			calm = 0
		}
		now = s
	}
	dropped := make(map[string]uint64)
	for reason, n := range now.Dropped {
		dropped[reason] = n - before.Dropped[reason]
	}
	return admin.Exchanges{
		Seen: now.Seen - before.Seen, Unsampled: now.Unsampled - before.Unsampled,
		Submitted: now.Submitted - before.Submitted, Exported: now.Exported - before.Exported,
		InFlight: now.InFlight, Queued: now.Queued, Dropped: dropped,
	}
}

// harmless are the events that are no loss.
var harmless = []string{
	// A FIN that finds its connection held by the program that its closing socket runs; what is lost by it is counted as dropped.
	"segments_contended",
	"connections", "connections_ended", "values_cut"}

// exact holds the daemon to what it must have seen since before: so many exchange sides, of them so many
// kept, and nothing lost in any way. It returns what the collector got.
func (d *instance) exact(t testing.TB, before admin.Status, seen uint64) []span {
	t.Helper()
	e := d.settled(t, before.Exchanges)
	if e.Seen != seen {
		t.Errorf("%d exchange sides were seen, want %d", e.Seen, seen)
	}
	if sum := e.Exported + e.Unsampled + e.DroppedTotal() + e.InFlight + e.Queued; sum != e.Seen || e.InFlight+e.Queued > 0 {
		t.Errorf("the sum does not hold: %+v", e)
	}
	for reason, n := range e.Dropped {
		if n > 0 {
			t.Errorf("%d exchange sides were dropped: %s", n, reason)
		}
	}
	events := d.status(t).Events
	for _, event := range slices.Sorted(maps.Keys(events)) {
		if n := events[event] - before.Events[event]; n > 0 && !slices.Contains(harmless, event) {
			t.Errorf("%s was counted %d times", event, n)
		}
	}
	spans := d.take()
	if uint64(len(spans)) != e.Exported {
		t.Errorf("the collector got %d spans, exported were %d", len(spans), e.Exported)
	}
	return spans
}

// wait tries until there is no error.
func wait(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("after 30 s it does not hold that %s: %v", what, err)
}
