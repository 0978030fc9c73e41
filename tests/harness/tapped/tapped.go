// Package tapped has the kernel side of ambit at work in namespaces of a lab, without the daemon.
package tapped

import (
	"errors"
	"log/slog"
	"path/filepath"

	"ambit/bpf"
	"ambit/daemon"
	"ambit/l7"
	"ambit/tc"
	"ambit/tests/harness"
)

// Kernel is the kernel side, open, with all kept, no rules and the defaults of the daemon. Whoever has it takes the records from
// Reader. Sockets of this process itself are ambit's own, and have none.
type Kernel struct {
	*bpf.Kernel
	Reader *bpf.Reader
	// Programs are those of the namespace that was tapped last.
	Programs tc.Programs

	taps *tc.Taps
}

// Start loads the kernel side and taps namespaces; name tells its locks from those of others in the lab. Close it.
func Start(lab *harness.Lab, name string, namespaces ...*harness.Namespace) (_ *Kernel, err error) {
	k := new(Kernel)
	defer func() {
		if err != nil {
			err = errors.Join(err, k.Close())
		}
	}()
	cfg := daemon.Defaults()
	if k.Kernel, err = bpf.Load(bpf.Config{
		Rate: 1, IDKey: cfg.IDKey, IdleLimit: cfg.IdleLimit, MaxConnections: uint32(cfg.MaxConnections),
		RingBytes: uint32(cfg.RingSize), TrustContext: cfg.TrustContext,
	}); err != nil {
		return nil, err
	}
	rules, err := l7.Compile(nil, k.Kernel.Seed())
	if err != nil {
		return nil, err
	}
	if _, err := k.Kernel.SetRules(rules.Table, rules.Actions); err != nil {
		return nil, err
	}
	if k.Reader, err = k.Kernel.Reader(); err != nil {
		return nil, err
	}
	cgroups, err := harness.CgroupRoot()
	if err != nil {
		return nil, err
	}
	if err := k.Kernel.Attach(cgroups); err != nil {
		return nil, err
	}
	if k.taps, err = Attach(lab, name, k.load, namespaces...); err != nil {
		return nil, err
	}
	return k, k.Kernel.Open()
}

func (k *Kernel) load(n tc.NetNS) (tc.Programs, error) {
	stubs, err := k.Kernel.Tap(n.Cookie)
	if err != nil {
		return tc.Programs{}, err
	}
	k.Programs = tc.Programs{LoEgress: stubs.LoEgress, Egress: stubs.Egress, Ingress: stubs.Ingress}
	return k.Programs, nil
}

// Attach attaches programs in namespaces, with locks by a name: several sets of programs may be there at once.
func Attach(lab *harness.Lab, name string, load func(tc.NetNS) (tc.Programs, error), namespaces ...*harness.Namespace) (*tc.Taps, error) {
	dir, err := lab.Dir()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, ns := range namespaces {
		names = append(names, ns.Name())
	}
	taps, err := tc.New(tc.Config{Select: names, Locks: filepath.Join(dir, name), Load: load, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if err := taps.Start(); err != nil {
		return nil, errors.Join(err, taps.Close())
	}
	return taps, nil
}

// Close detaches everything, and ends what reads.
func (k *Kernel) Close() error {
	var errs []error
	if k.taps != nil {
		errs = append(errs, k.taps.Close())
	}
	if k.Reader != nil {
		errs = append(errs, k.Reader.Close())
	}
	if k.Kernel != nil {
		errs = append(errs, k.Kernel.Close())
	}
	return errors.Join(errs...)
}
