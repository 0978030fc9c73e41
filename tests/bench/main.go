// Bench measures what ambit costs: a packet, a request, a span, a connection. docs/performance.md says how, and what
// came out. "make bench" runs it; it needs root and leaves nothing behind.
//
//	kernel      run time of the programs on live traffic, net of an empty program    kernel.go
//	http2       the same of HTTP/2: a header block, a segment of DATA, a call        http2.go
//	throughput  wrk with and without ambit, in alternating pairs                     throughput.go
//	http2-load  h2load, and gRPC's own client and server, in the same way            throughput.go
//	userspace   spans per second and core, allocations per span                      userspace.go
//	memory      ambit and its maps while many connections are open                   memory.go
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/harness"
)

// roles are what processes of this program do.
var roles = harness.Roles{
	harness.ZtunnelRole: harness.Ztunnel,
	serverRole:          server,
	clientRole:          client,
	webRole:             web,
	receiverRole:        receiver,
	callServerRole:      callServer,
	callClientRole:      callClient,
}

// settings say what is measured, and for how long.
type settings struct {
	parts  []string
	binary string // path of ambit

	windows     int           // of each measurement of the kernel's part
	window      time.Duration // length of one
	pairs       int           // of runs of a client under load
	duration    time.Duration // of one run
	spans       int           // through userspace
	connections int           // open at once
}

// full takes about sixteen minutes; quick shows in a minute that everything still works.
var (
	full = settings{
		windows: 20, window: 500 * time.Millisecond, pairs: 8, duration: 3 * time.Second,
		spans: 3_000_000, connections: 10_000,
	}
	quick = settings{
		windows: 2, window: 100 * time.Millisecond, pairs: 1, duration: time.Second,
		spans: 50_000, connections: 200,
	}
)

// part measures something and adds its rows.
type part struct {
	name    string
	measure func(context.Context, *settings, *report) error
}

var allParts = []part{
	{"kernel", measureKernel},
	{"http2", measureHTTP2},
	{"throughput", measureThroughput},
	{"http2-load", measureHTTP2Throughput},
	{"userspace", measureUserspace},
	{"memory", measureMemory},
}

func partNames() []string {
	var names []string
	for _, p := range allParts {
		names = append(names, p.name)
	}
	return names
}

func main() {
	roles.Dispatch()
	s := full
	var asJSON, check, isQuick bool
	var chosen string
	flag.StringVar(&chosen, "parts", strings.Join(partNames(), ","), "`PARTS` to measure")
	flag.BoolVar(&isQuick, "quick", false, "show in a minute that it works; the figures mean little")
	flag.BoolVar(&asJSON, "json", false, "print JSON")
	flag.BoolVar(&check, "check", false, "exit with 1 where a target is not met")
	flag.StringVar(&s.binary, "ambit", "", "`PATH` of the ambit binary (default: build one)")
	flag.IntVar(&s.windows, "windows", s.windows, "`NUMBER` of windows of a kernel measurement")
	flag.DurationVar(&s.window, "window", s.window, "`LENGTH` of a window")
	flag.IntVar(&s.pairs, "pairs", s.pairs, "`NUMBER` of pairs of runs under load")
	flag.DurationVar(&s.duration, "duration", s.duration, "`LENGTH` of a run under load, whole seconds")
	flag.IntVar(&s.spans, "spans", s.spans, "`NUMBER` of spans through userspace")
	flag.IntVar(&s.connections, "connections", s.connections, "`NUMBER` of open connections")
	flag.Parse()
	if isQuick {
		quick.binary = s.binary
		s = quick
	}
	s.parts = strings.Split(chosen, ",")
	// A second signal ends the process at once; the next run clears away what it leaves.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	context.AfterFunc(ctx, stop)
	met, err := run(ctx, &s, asJSON, os.Stdout)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130) // as a shell says of a program that ^C ended
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	case check && !met:
		os.Exit(1)
	}
}

func (s *settings) validate() error {
	for _, name := range s.parts {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("-parts: %q is none of %s", name, strings.Join(partNames(), ", "))
		}
	}
	if min(s.windows, s.pairs, s.spans, s.connections) < 1 || s.window < time.Millisecond {
		return errors.New("every number has to be at least 1, and -window at least 1ms")
	}
	if s.duration < time.Second || s.duration%time.Second != 0 {
		return errors.New("-duration: wrk and h2load take whole seconds, from 1s on")
	}
	return nil
}

// run measures and prints, and tells whether every target was met. An error is one of measuring.
func run(ctx context.Context, s *settings, asJSON bool, out io.Writer) (met bool, failed error) {
	if err := s.validate(); err != nil {
		return false, err
	}
	// What this process's environment says to programs with telemetry is not for what is measured here.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") {
			if err := os.Unsetenv(name); err != nil {
				return false, fmt.Errorf("clear %s: %w", name, err)
			}
		}
	}
	if s.binary == "" {
		dir, err := os.MkdirTemp("", "ambit-bench-")
		if err != nil {
			return false, fmt.Errorf("make a folder for ambit: %w", err)
		}
		defer func() { failed = errors.Join(failed, os.RemoveAll(dir)) }()
		s.binary = filepath.Join(dir, "ambit")
		build := exec.Command("go", "build", "-o", s.binary, "ambit/cmd/ambit")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("build ambit: %w\n%s", err, text)
		}
	}
	r, err := newReport(s)
	if err != nil {
		return false, err
	}
	for _, p := range allParts {
		if !slices.Contains(s.parts, p.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", p.name)
		// What the other parts measured is worth showing.
		if err := p.measure(ctx, s, r); err != nil {
			failed = errors.Join(failed, fmt.Errorf("measure %s: %w", p.name, err))
		}
	}
	r.Seconds = time.Since(r.Began).Seconds()
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r); err != nil {
			return false, errors.Join(failed, fmt.Errorf("print the results: %w", err))
		}
	} else if err := r.print(out); err != nil {
		return false, errors.Join(failed, fmt.Errorf("print the results: %w", err))
	}
	return failed == nil && r.met(), failed
}

// inLab makes a lab for one part and closes it behind. Signals end what is measured, so that everything is closed
// in its order.
func inLab(measure func(*harness.Lab) error) (failed error) {
	lab, err := harness.New(harness.Config{Prefix: "bench", KeepSignals: true})
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, lab.Close()) }()
	return measure(lab)
}
