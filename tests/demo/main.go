// Demo shows ambit at work on a small ambient mesh that it builds out of network namespaces, and checks what
// ambit shows. "make demo" runs it; it needs root and leaves nothing behind.
//
//	client (outside the mesh) ----> frontend (pod a) --service address--> backend (pod b)
//	kubelet (the node) --/healthz--^ ^--/metrics-- prometheus (the node)
//
// Each pod has the redirection that istio-cni installs, and each node a stand-in for ztunnel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/harness"
)

func main() {
	harness.Roles{
		harness.ZtunnelRole: harness.Ztunnel,
		"frontend":          frontend,
		"backend":           backend,
		"client":            client,
		"kubelet":           kubelet,
		"prometheus":        prometheus,
	}.Dispatch()
	ambit := flag.String("ambit", "bin/ambit", "`PATH` of the ambit binary")
	duration := flag.Duration("duration", 15*time.Second, "how long there is traffic, 2s to 45s")
	flag.Parse()
	if *duration < 2*time.Second || *duration > 45*time.Second {
		fmt.Fprintf(os.Stderr, "-duration %v is out of range: give 2s to 45s\n", *duration)
		os.Exit(2)
	}
	// A second ^C ends the process at once; the next run clears away what it leaves.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	context.AfterFunc(ctx, stop)
	err := run(ctx, *ambit, *duration, os.Stdout)
	switch {
	case err == nil:
	case errors.Is(err, errInterrupted):
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(130) // as a shell says of a program that ^C ended
	default:
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

var errInterrupted = errors.New("interrupted: nothing was checked")

// run is the demo from the first namespace to the last.
func run(ctx context.Context, binary string, duration time.Duration, out *os.File) (failed error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("find ambit: %w: build it by make, or name it with -ambit", err)
	}
	lab, err := harness.New(harness.Config{Prefix: "ambit", KeepSignals: true})
	if err != nil {
		return err
	}
	defer func() {
		err := lab.Close()
		if err == nil {
			fmt.Fprintln(out, "\nEverything is taken down: no namespace, cgroup, process or file of the demo is left.")
		}
		failed = errors.Join(failed, err)
	}()

	dir, err := lab.Dir()
	if err != nil {
		return err
	}
	s := &shop{lab: lab, out: out, trace: newTraceID()}
	if err := s.build(ctx); err != nil {
		return interrupted(ctx, err)
	}
	s.explain()
	d := &daemon{binary: binary, socket: filepath.Join(dir, "ambit.sock")}
	if err := d.start(ctx, lab, s.namespaces(), out); err != nil {
		return interrupted(ctx, err)
	}
	if err := s.traffic(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return errors.Join(errInterrupted, d.stop())
	case <-time.After(duration):
	case <-d.process.Done():
		return fmt.Errorf("ambit ended by itself: %v: %s", d.process.Wait(), d.process.Log())
	}
	if err := s.quiet(); err != nil {
		return err
	}
	return errors.Join(s.check(d), d.show(s, out), d.stop())
}

// interrupted tells ^C from the errors that it brings about.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

func heading(out io.Writer, text string) {
	fmt.Fprintf(out, "\n%s\n%s\n", text, strings.Repeat("-", len(text)))
}
