package topology

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
)

// The sweep for what is over meets flows while they are taken up, used and deleted, and disturbs none. The daemon
// sweeps once a second; here its program runs without a pause.
func TestSweepDisturbsNothing(t *testing.T) {
	ns, d, target := alone(t)
	stop := make(chan struct{})
	swept := make(chan error, 1)
	go func() { swept <- sweepUntil(stop) }()
	before := d.status(t)
	w := work{Target: target, Requests: 20_000, Connections: 8, PerConnection: 1}
	do(t, ns, w)
	close(stop)
	must(t, <-swept)
	byPath(t, d.exact(t, before, 2*uint64(w.Requests)), w, func(int) bool { return true })
}

// sweepUntil runs every program named sweep, which are those of ambits alone.
func sweepUntil(stop <-chan struct{}) (failed error) {
	var programs []*ebpf.Program
	defer func() {
		for _, p := range programs {
			failed = errors.Join(failed, p.Close())
		}
	}()
	for id := ebpf.ProgramID(0); ; {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went meanwhile
		} else if err != nil {
			return err
		}
		info, err := p.Info()
		if err != nil || info.Type != ebpf.Syscall || info.Name != "sweep" {
			if err := errors.Join(err, p.Close()); err != nil {
				return err
			}
			continue
		}
		programs = append(programs, p)
	}
	if len(programs) == 0 {
		return errors.New("no program is named sweep")
	}
	for {
		for _, p := range programs {
			if _, err := p.Run(&ebpf.RunOptions{}); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}
