package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit/admin"
	"ambit/tests/kernels/report"
)

const (
	ambit  = "/ambit"
	socket = "/run/ambit/ambit.sock"
	// startLimit is how long ambit may take until it traces: the verifier runs under emulation.
	startLimit = 4 * time.Minute
	// settleLimit is how long anything else may take that follows by itself.
	settleLimit = 15 * time.Second
)

// daemon is ambit as a process. The command's output is its log.
type daemon struct {
	process *exec.Cmd
	log     bytes.Buffer
	ended   chan struct{} // closed when the process has ended, with result
	result  error
}

func startDaemon(flags ...string) (*daemon, error) {
	d := &daemon{ended: make(chan struct{})}
	d.process = exec.Command(ambit, append([]string{"run", "--socket", socket, "--live", "off"}, flags...)...)
	d.process.Stdout, d.process.Stderr = &d.log, &d.log
	if err := d.process.Start(); err != nil {
		return nil, fmt.Errorf("start ambit: %w", err)
	}
	go func() {
		d.result = d.process.Wait()
		close(d.ended)
	}()
	return d, nil
}

// ask runs one of ambit's commands and decodes its answer.
func ask(into any, command ...string) error {
	c := exec.Command(ambit, append(command, "--json", "--socket", socket)...)
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("ambit %s: %w: %s", strings.Join(command, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("ambit %s: %w in %q", strings.Join(command, " "), err, out)
	}
	return nil
}

// eventually calls f until it succeeds, the time is over or ambit ends; then f's last error counts.
func (d *daemon) eventually(limit time.Duration, f func() error) error {
	for deadline := time.Now().Add(limit); ; {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-d.ended:
			return fmt.Errorf("ambit has ended: %w: %s", d.result, d.log.String())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (d *daemon) tracing() error {
	return d.eventually(startLimit, func() error {
		var status admin.Status
		if err := ask(&status, "status"); err != nil {
			return err
		}
		if status.State != admin.Tracing {
			return fmt.Errorf("ambit is %s", status.State)
		}
		return nil
	})
}

// attached demands the taps of both namespaces, by this method, and the qdiscs that it needs.
func (d *daemon) attached(p pair, method string) (string, error) {
	var status admin.Status
	if err := ask(&status, "status"); err != nil {
		return "", err
	}
	var got, want []string
	for _, a := range status.Attachments {
		got = append(got, strings.Join([]string{a.Namespace, a.Interface, a.Hook, a.Method, a.Program}, " "))
	}
	for _, program := range []string{"sockops link established", "cgroup link sock_create", "cgroup link bound4", "cgroup link bound6"} {
		want = append(want, "  "+program)
	}
	for _, e := range p {
		want = append(want,
			e.name+" lo egress "+method+" ambit_lo",
			e.name+" "+e.name+" egress "+method+" ambit_egress",
			e.name+" "+e.name+" ingress "+method+" ambit_ingress")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return "", fmt.Errorf("attached are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	qdiscs := 0
	if method == report.ByClsact {
		qdiscs = 2 // on lo and on the end of the veth
	}
	for _, e := range p {
		n, err := e.clsacts()
		if err != nil {
			return "", err
		}
		if n != qdiscs {
			return "", fmt.Errorf("network namespace %s has %d clsact qdiscs, want %d", e.name, n, qdiscs)
		}
	}
	return strings.Join(got, "\n"), nil
}

// stop ends ambit as a service manager would.
func (d *daemon) stop() error {
	if err := d.process.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop ambit: %w", err)
	}
	select {
	case <-d.ended:
	case <-time.After(settleLimit):
		return errors.Join(fmt.Errorf("stop ambit: no end after %v", settleLimit), d.process.Process.Kill())
	}
	if d.result != nil {
		return fmt.Errorf("ambit ended: %w: %s", d.result, d.log.String())
	}
	return nil
}
