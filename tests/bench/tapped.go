package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"ambit/bpf"
	"ambit/tc"
	"ambit/tests/harness"
	"ambit/tests/harness/tapped"
)

// hook is where a program is attached; it indexes programs.
type hook int

const (
	loEgress hook = iota
	egress
	ingress
	hooks
)

var hookNames = [hooks]string{"lo egress", "egress", "ingress"}

// tapping is the kernel side at work in one namespace, with an empty program beside each of its own. The kernel measures
// the run time of both.
type tapping struct {
	kernel  *tapped.Kernel
	empties *tc.Taps
	stats   interface{ Close() error }
	own     [hooks]*ebpf.Program
	empty   [hooks]*ebpf.Program
	drained chan struct{} // closed when nobody reads the ring buffer any more
}

// tapNamespace loads the kernel side with the defaults of the daemon. Close it.
func tapNamespace(lab *harness.Lab, ns *harness.Namespace, name string) (_ *tapping, err error) {
	t := new(tapping)
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if t.stats, err = ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME)); err != nil {
		return nil, fmt.Errorf("make the kernel keep run times of programs: %w", err)
	}
	if t.kernel, err = tapped.Start(lab, name+"-own", ns); err != nil {
		return nil, err
	}
	p := t.kernel.Programs
	t.own = [hooks]*ebpf.Program{loEgress: p.LoEgress, egress: p.Egress, ingress: p.Ingress}
	t.drained = make(chan struct{})
	go t.drain()
	t.empties, err = tapped.Attach(lab, name+"-empty", func(tc.NetNS) (tc.Programs, error) {
		for h := range t.empty {
			var err error
			if t.empty[h], err = emptyProgram(); err != nil {
				return tc.Programs{}, err
			}
		}
		return programs(t.empty), nil
	}, ns)
	return t, err
}

func programs(p [hooks]*ebpf.Program) tc.Programs {
	return tc.Programs{LoEgress: p[loEgress], Egress: p[egress], Ingress: p[ingress]}
}

func emptyProgram() (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bench_empty", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load the empty program: %w", err)
	}
	return p, nil
}

// drain takes records as the daemon would, and does nothing with them.
func (t *tapping) drain() {
	defer close(t.drained)
	var record bpf.Record
	for {
		if _, err := t.kernel.Reader.Next(&record); err != nil {
			return
		}
	}
}

// Close detaches everything.
func (t *tapping) Close() error {
	var errs []error
	if t.empties != nil {
		errs = append(errs, t.empties.Close())
	}
	if t.kernel != nil {
		errs = append(errs, t.kernel.Close())
	}
	if t.drained != nil {
		<-t.drained
	}
	if t.stats != nil {
		errs = append(errs, t.stats.Close())
	}
	return errors.Join(errs...)
}

// reading is the state of all counters at one moment.
type reading struct {
	own, empty [hooks]bpf.ProgramInfo
	counters   bpf.Counters
}

func (t *tapping) read() (reading, error) {
	var r reading
	for h := range hooks {
		var err error
		if r.own[h], err = bpf.ProgramOf(t.own[h]); err != nil {
			return r, err
		}
		if r.empty[h], err = bpf.ProgramOf(t.empty[h]); err != nil {
			return r, err
		}
	}
	var err error
	r.counters, err = t.kernel.Counters()
	return r, err
}

// cost is what the programs took in a window.
type cost struct {
	net     [hooks]float64 // nanoseconds, net of the empty program
	packets [hooks]float64 // runs
}

// perPacket is the cost of a packet at a hook.
func (c *cost) perPacket(h hook) float64 { return c.net[h] / c.packets[h] }

func between(a, b *reading) cost {
	var c cost
	for h := range hooks {
		runs, emptyRuns := b.own[h].Runs-a.own[h].Runs, b.empty[h].Runs-a.empty[h].Runs
		if runs == 0 || emptyRuns == 0 {
			continue
		}
		empty := float64(b.empty[h].NS-a.empty[h].NS) / float64(emptyRuns)
		c.packets[h] = float64(runs)
		c.net[h] = float64(b.own[h].NS-a.own[h].NS) - empty*float64(runs)
	}
	return c
}

// enough is how many packets a window needs: on a machine with much else to do a short one may have none.
const enough = 100

// windows measures n times.
func (t *tapping) windows(ctx context.Context, n int, length time.Duration) ([]cost, error) {
	costs := make([]cost, n)
	last, err := t.read()
	if err != nil {
		return nil, err
	}
	for i := range costs {
		if costs[i], last, err = t.measure(ctx, &last, length); err != nil {
			return nil, err
		}
	}
	return costs, nil
}

// measure is one window, which begins at a reading and ends at another one.
func (t *tapping) measure(ctx context.Context, from *reading, length time.Duration) (cost, reading, error) {
	for deadline := time.Now().Add(length + 10*time.Second); ; {
		time.Sleep(length)
		if ctx.Err() != nil {
			return cost{}, reading{}, ctx.Err()
		}
		now, err := t.read()
		if err != nil {
			return cost{}, now, err
		}
		c := between(from, &now)
		if c.packets[loEgress]+c.packets[ingress] >= enough {
			return c, now, nil
		}
		if time.Now().After(deadline) {
			return c, now, fmt.Errorf("fewer than %d packets came in %v", enough, length+10*time.Second)
		}
	}
}
