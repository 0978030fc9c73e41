// Package stage runs an ambit on the namespaces of a lab, with a collector behind it. A test acts in the
// namespaces and then takes the spans: the stage waits for exactly as many as it was told, and holds ambit's
// counters to their sum.
package stage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/admin"
	"ambit/tests/harness"
)

// Config describes a stage.
type Config struct {
	Lab *harness.Lab
	// Namespaces are tapped. At least one.
	Namespaces []*harness.Namespace
	// Flags are those of ambit run, behind the stage's own; without any, everything is kept, queries with
	// their values, and nothing is excluded.
	Flags []string
	// Env are variables of ambit's environment.
	Env []string
}

// Stage is a daemon, its collector, and how far the test has looked. It serves one goroutine.
type Stage struct {
	host      *harness.Namespace
	args, env []string // of ambit
	process   *harness.Process
	api       *admin.Client
	socket    string
	collector *collector
	before    admin.Status
	closed    bool
}

// startLimit is what a start may take: a second or two, most of them in the kernel's verifier, and many times that where
// others have the machine.
const startLimit = 30 * time.Second

// binary is the ambit under test: a process of its own, as it leaves its own sockets alone.
var binary string

// Binary is the path of the ambit under test, which Main has built.
func Binary() string { return binary }

// Main builds ambit, runs the tests and returns their exit code.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ambit-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ambit")
	build := exec.Command("go", "build", "-o", binary, "ambit/cmd/ambit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build ambit: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// NewLab makes a lab for a stage, which ends with the test.
func NewLab(t testing.TB) *harness.Lab {
	t.Helper()
	lab, err := harness.New(harness.Config{Prefix: "ambite"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return lab
}

// Cable makes two namespaces whose eth0 are the ends of one veth; each pair of prefixes is an address of either.
func Cable(t testing.TB, lab *harness.Lab, addresses ...[2]netip.Prefix) (client, server *harness.Namespace) {
	t.Helper()
	client, err := lab.Namespace("client")
	Must(t, err)
	server, err = lab.Namespace("server")
	Must(t, err)
	Must(t, harness.Veth(client, "eth0", server, "eth0"))
	for _, pair := range addresses {
		Must(t, client.Address("eth0", pair[0]), server.Address("eth0", pair[1]))
	}
	return client, server
}

// Start starts a daemon; when it returns, the namespaces are traced. It ends with the test.
func Start(t testing.TB, cfg Config) *Stage {
	t.Helper()
	host, err := cfg.Lab.Host()
	Must(t, err)
	s := &Stage{host: host, env: cfg.Env, collector: newCollector(t), socket: filepath.Join(t.TempDir(), "ambit.sock")}
	var names []string
	for _, ns := range cfg.Namespaces {
		names = append(names, ns.Name())
	}
	s.args = append([]string{
		"run", "--otlp-endpoint", "http://" + s.collector.address, "--sample-rate", "1", "--admin", "off",
		"--socket", s.socket, "--namespaces", strings.Join(names, ","), "--capture-query", "values",
		"--log-level", "error", "--live", "off", "--export-batch-wait", "10ms",
		// The collector shares the machine with the traffic: all that it has not taken yet may wait.
		"--export-queue-bytes", "256MiB",
	}, cfg.Flags...)
	s.launch(t, binary)
	s.before = s.Status(t)
	t.Cleanup(func() { s.Close(t) })
	return s
}

// Next starts another daemon of the same configuration, which is to take over from the one that runs or ran, and answers
// that. When it returns the new one traces, and the stage is its.
func (s *Stage) Next(t testing.TB, binary string) (former *harness.Process) {
	t.Helper()
	former = s.process
	s.launch(t, binary)
	return former
}

// launch starts a daemon, and waits until it traces.
func (s *Stage) launch(t testing.TB, binary string) {
	t.Helper()
	var err error
	s.process, err = s.host.Start(harness.Program{Path: binary, Args: s.args, Env: s.env})
	Must(t, err)
	for deadline := time.Now().Add(startLimit); ; time.Sleep(10 * time.Millisecond) {
		if s.api, err = admin.Dial(s.socket); err == nil {
			var status admin.Status
			if status, err = s.ask(); err == nil && status.State == admin.Tracing && status.PID == s.process.PID() {
				return
			}
		}
		select {
		case <-s.process.Done():
			t.Fatalf("ambit ended: %v: %s", s.process.Wait(), s.process.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("ambit does not trace after %v: %v: %s", startLimit, err, s.process.Log())
		}
	}
}

// Close ends the daemon, once. An error that it logged fails the test.
func (s *Stage) Close(t testing.TB) {
	t.Helper()
	if s.closed {
		return
	}
	s.closed = true
	if err := s.process.Stop(10 * time.Second); err != nil {
		t.Errorf("stop ambit: %v", err)
	}
	if log := s.process.Log(); log != "" {
		t.Errorf("ambit says: %s", log)
	}
}

func (s *Stage) ask() (admin.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.api.Status(ctx)
}

// Status is what the daemon tells of itself.
func (s *Stage) Status(t testing.TB) admin.Status {
	t.Helper()
	status, err := s.ask()
	if err != nil {
		t.Fatalf("%v: %s", err, s.process.Log())
	}
	return status
}

// Counts is what happened since the last look.
type Counts struct {
	admin.Exchanges
	// Events counts what is no exchange side, those that occurred.
	Events map[string]uint64
}

func since(before, now admin.Status) Counts {
	a, b := before.Exchanges, now.Exchanges
	c := Counts{Events: make(map[string]uint64)}
	c.Exchanges = admin.Exchanges{
		Seen: b.Seen - a.Seen, Unsampled: b.Unsampled - a.Unsampled, Submitted: b.Submitted - a.Submitted,
		Exported: b.Exported - a.Exported, InFlight: b.InFlight, Queued: b.Queued, Dropped: make(map[string]uint64),
	}
	for reason, n := range b.Dropped {
		if d := n - a.Dropped[reason]; d > 0 {
			c.Dropped[reason] = d
		}
	}
	for event, n := range now.Events {
		if d := n - before.Events[event]; d > 0 {
			c.Events[event] = d
		}
	}
	return c
}

// Spans waits until exactly so many spans were exported since the last look and nothing is in flight any
// more, and returns them by their start. It gives up when nothing moves for a second. The sum of the counters must hold, whatever was lost.
func (s *Stage) Spans(t testing.TB, want int) ([]Span, Counts) {
	t.Helper()
	var now admin.Status
	begun, changed := time.Now(), time.Now()
	for {
		status := s.Status(t)
		if !same(status.Exchanges, now.Exchanges) {
			changed = time.Now()
		}
		now = status
		counts := since(s.before, status)
		quiet := counts.InFlight == 0 && counts.Queued == 0
		if quiet && (counts.Exported >= uint64(want) || time.Since(changed) > time.Second) || time.Since(begun) > 10*time.Second {
			break
		}
		time.Sleep(3 * time.Millisecond)
	}
	spans, counts := s.look(t, now)
	if len(spans) != want || counts.Exported != uint64(want) || counts.InFlight+counts.Queued > 0 {
		t.Errorf("%d spans came, %d were exported, want %d; %v", len(spans), counts.Exported, want, counts)
	}
	return spans, counts
}

func same(a, b admin.Exchanges) bool {
	return a.Seen == b.Seen && a.Exported == b.Exported && a.InFlight == b.InFlight && a.Queued == b.Queued
}

// String is for messages of failed tests.
func (c Counts) String() string {
	return fmt.Sprintf("seen %d, exported %d, unsampled %d, in flight %d, queued %d, dropped %s, events %s",
		c.Seen, c.Exported, c.Unsampled, c.InFlight, c.Queued, sorted(c.Dropped), sorted(c.Events))
}

func sorted(m map[string]uint64) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, " %s=%d", key, m[key])
	}
	return "[" + strings.TrimSpace(b.String()) + "]"
}

// Must fails the test on any error, where a test has several to hand over at once.
func Must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
