package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"ambit/admin"
	"ambit/tests/harness"
)

// daemon is ambit as it runs in the demo.
type daemon struct {
	binary, socket string
	host           *harness.Namespace
	process        *harness.Process
	client         *admin.Client
}

// start starts ambit on those namespaces, its spans on out, and waits until it traces.
func (d *daemon) start(ctx context.Context, lab *harness.Lab, namespaces []string, out *os.File) error {
	var err error
	if d.host, err = lab.Host(); err != nil {
		return err
	}
	d.process, err = d.host.Start(harness.Program{
		Path: d.binary,
		Args: []string{
			"run", "--namespaces", strings.Join(namespaces, ","), "--socket", d.socket,
			"--admin", "127.0.0.1:0", "--live", "on", "--log-level", "warn",
		},
		// What the caller's environment says to other programs, a collector's address above all, is not for here.
		Bare: true, Env: []string{"PATH=" + os.Getenv("PATH"), "TERM=" + os.Getenv("TERM")},
		Stdout: out,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		err := d.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-d.process.Done():
			return fmt.Errorf("ambit did not start: %v: %s", d.process.Wait(), d.process.Log())
		case <-ctx.Done():
			return fmt.Errorf("ambit did not start in time: %w: %s", err, d.process.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *daemon) ready(ctx context.Context) error {
	var err error
	if d.client == nil {
		if d.client, err = admin.Dial(d.socket); err != nil {
			return err
		}
	}
	status, err := d.client.Status(ctx)
	if err != nil {
		return err
	}
	if status.State != admin.Tracing {
		return fmt.Errorf("ambit is %s", status.State)
	}
	return nil
}

// show prints a trace and the state as ambit's own commands do.
func (d *daemon) show(s *shop, out io.Writer) error {
	var errs []error
	for _, c := range []struct {
		heading string
		args    []string
	}{
		{"The first purchase: ambit traces " + s.trace, []string{"traces", "--socket", d.socket, s.trace}},
		{"What counts, with and without spans: ambit top", []string{"top", "--once", "--socket", d.socket}},
		{"ambit status", []string{"status", "--socket", d.socket}},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		text, err := d.host.Run(ctx, d.binary, c.args...)
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		heading(out, c.heading)
		fmt.Fprint(out, text)
	}
	return errors.Join(errs...)
}

// stop ends ambit as a service manager would.
func (d *daemon) stop() error {
	if err := d.process.Stop(8 * time.Second); err != nil {
		return fmt.Errorf("stop ambit: %w: %s", err, d.process.Log())
	}
	if _, err := os.Stat(d.socket); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("ambit has left its socket %s behind", d.socket)
	}
	return nil
}
