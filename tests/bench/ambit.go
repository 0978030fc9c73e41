package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"ambit/admin"
	"ambit/tests/harness"
)

// ambit is the program that is shipped, as a process of its own in the host's namespace.
type ambit struct {
	*harness.Process
	api *admin.Client
}

// startAmbit returns when the namespaces are traced. Everything that is not said is left at its default.
func startAmbit(lab *harness.Lab, host *harness.Namespace, binary, receiver string, rate float64, namespaces ...*harness.Namespace) (*ambit, error) {
	dir, err := lab.Dir()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "ambit.sock")
	names := make([]string, len(namespaces))
	for i, ns := range namespaces {
		names[i] = ns.Name()
	}
	a := new(ambit)
	if a.Process, err = host.Start(harness.Program{Path: binary, Args: []string{
		"run", "--otlp-endpoint", "http://" + receiver, "--sample-rate", fmt.Sprint(rate), "--admin", "off",
		"--socket", socket, "--namespaces", strings.Join(names, ","), "--log-level", "warn",
	}}); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := a.ready(socket)
		if err == nil {
			return a, nil
		}
		select {
		case <-a.Done():
			return nil, fmt.Errorf("ambit did not start: %v: %s", a.Wait(), a.Log())
		default:
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("ambit did not start in time: %w: %s", err, a.Log())
		}
	}
}

func (a *ambit) ready(socket string) error {
	var err error
	if a.api == nil {
		if a.api, err = admin.Dial(socket); err != nil {
			return err
		}
	}
	status, err := a.status()
	if err != nil {
		return err
	}
	if status.State != admin.Tracing {
		return fmt.Errorf("ambit is %s", status.State)
	}
	return nil
}

func (a *ambit) status() (admin.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return a.api.Status(ctx)
}

// settled is the status once every exchange has ended and every span has left.
func (a *ambit) settled() (admin.Status, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, err := a.status()
		if err != nil || status.Exchanges.InFlight+status.Exchanges.Queued == 0 {
			return status, err
		}
		if time.Now().After(deadline) {
			return status, errors.New("ambit still has something in flight 10 s after the traffic")
		}
	}
}

func (a *ambit) stop() error {
	if err := a.Stop(10 * time.Second); err != nil {
		return fmt.Errorf("stop ambit: %w: %s", err, a.Log())
	}
	return nil
}

// mappedMaps is how much of a process's resident memory is BPF maps that it has mapped, in bytes. The ring buffer's
// data is mapped twice, one after the other, and counts twice.
func mappedMaps(p *harness.Process) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("ask for the memory of process %d: %w", p.PID(), err)
	}
	var kib uint64
	inMap := false
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			inMap = fields[len(fields)-1] == "anon_inode:bpf-map"
		case inMap && len(fields) == 3 && fields[0] == "Rss:":
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the memory of process %d: %w", p.PID(), err)
			}
			kib += n
		}
	}
	return kib << 10, nil
}

// cpuTime is what a process has used of the processors, in seconds. The kernel counts hundredths.
func cpuTime(p *harness.Process) (float64, error) {
	process, err := procfs.NewProc(p.PID())
	if err != nil {
		return 0, fmt.Errorf("ask for the CPU time of process %d: %w", p.PID(), err)
	}
	stat, err := process.Stat()
	if err != nil {
		return 0, fmt.Errorf("ask for the CPU time of process %d: %w", p.PID(), err)
	}
	return stat.CPUTime(), nil
}

// groupTime is what all processes of a cgroup and of those below it have used of the processors, in seconds.
func groupTime(group *harness.Cgroup) (float64, error) {
	text, err := os.ReadFile(filepath.Join(group.Path(), "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("ask for the CPU time of a cgroup: %w", err)
	}
	var micros uint64
	if _, err := fmt.Sscanf(string(text), "usage_usec %d", &micros); err != nil {
		return 0, fmt.Errorf("read the CPU time of cgroup %s: %w", group.Path(), err)
	}
	return float64(micros) / 1e6, nil
}
