package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/admin"
	"ambit/tests/harness"
)

// scene is a namespace with a server in it, and the host, whose loopback has the collectors.
type scene struct {
	host, pod *harness.Namespace
}

func newScene(t testing.TB) *scene {
	t.Helper()
	lab, err := harness.New(harness.Config{Prefix: "ambitf"})
	must(t, err)
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	s := new(scene)
	s.host, err = lab.Host()
	must(t, err)
	s.pod, err = lab.Namespace("pod")
	must(t, err)
	startServer(t, s.pod)
	return s
}

// instance is an ambit that traces the scene's namespace, as a process of its own.
type instance struct {
	*harness.Process
	*collector
	*scene
	api    *admin.Client
	socket string
	args   []string
}

// trace starts an ambit that keeps every request. It ends with the test or before.
func (s *scene) trace(t testing.TB, c *collector, flags ...string) *instance {
	t.Helper()
	d := &instance{scene: s, collector: c, socket: filepath.Join(t.TempDir(), "ambit.sock")}
	d.args = append([]string{
		"run", "--otlp-endpoint", "http://" + c.addr, "--sample-rate", "1", "--admin", "127.0.0.1:" + freePort(t), "--socket", d.socket,
		"--namespaces", s.pod.Name(), "--export-batch-wait", "100ms",
	}, flags...)
	d.start(t)
	t.Cleanup(func() { d.stop(t) })
	return d
}

// start returns when the ambit traces. One that has ended is started again as it was.
func (d *instance) start(t testing.TB) {
	t.Helper()
	var err error
	d.Process, err = d.host.Start(harness.Program{Path: binary, Args: d.args})
	must(t, err)
	wait(t, 30*time.Second, "ambit traces", func() error {
		select {
		case <-d.Done():
			t.Fatalf("ambit ended: %v: %s", d.Wait(), d.Log())
		default:
		}
		var err error
		if d.api, err = admin.Dial(d.socket); err != nil {
			return err
		}
		if state := d.status(t).State; state != admin.Tracing {
			return fmt.Errorf("it is %s", state)
		}
		return nil
	})
}

// stop ends the daemon in good order, once, and says how long it took.
func (d *instance) stop(t testing.TB) time.Duration {
	t.Helper()
	select {
	case <-d.Done():
		return 0
	default:
	}
	began := time.Now()
	if err := d.Stop(20 * time.Second); err != nil {
		t.Errorf("stop ambit: %v: %s", err, d.Log())
	}
	return time.Since(began)
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

// settled waits until nothing is in flight or queued, and checks that every exchange side of so many requests is
// accounted for.
func (d *instance) settled(t testing.TB, within time.Duration, requests uint64) admin.Exchanges {
	t.Helper()
	var e admin.Exchanges
	wait(t, within, "nothing moves any more", func() error {
		e = d.status(t).Exchanges
		if e.Seen != 2*requests || e.InFlight != 0 || e.Queued != 0 {
			return fmt.Errorf("%d requests were made: %+v", requests, e)
		}
		return nil
	})
	if sum := e.Exported + e.Unsampled + e.DroppedTotal(); sum != e.Seen {
		t.Errorf("seen %d, accounted for %d: %+v", e.Seen, sum, e)
	}
	return e
}

// wait polls until ok has no complaint.
func wait(t testing.TB, within time.Duration, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v it does not hold that %s: %v", within, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// objects are what a process holds of BPF, such as "prog 17". Another ambit may run beside the tests, so what is
// looked for afterwards are these.
func (d *instance) objects(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", d.PID()))
	must(t, err)
	var found []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // closed since it was listed
		}
		for line := range strings.Lines(string(text)) {
			for _, kind := range []string{"prog", "link"} {
				if id, ok := strings.CutPrefix(line, kind+"_id:"); ok {
					found = append(found, kind+" "+strings.TrimSpace(id))
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// freePort is a port of the host's loopback that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	free, err := harness.FreePort()
	must(t, err)
	return fmt.Sprint(free.Port())
}
