package tc

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"

	"ambit/handover"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Programs are what is attached in one namespace. All three are needed, and they may be the same.
type Programs struct {
	LoEgress, Egress, Ingress *ebpf.Program
}

func (p Programs) check() error {
	if p.LoEgress == nil || p.Egress == nil || p.Ingress == nil {
		return errors.New("a program is missing")
	}
	return nil
}

// close lets go of the programs; the kernel keeps one for as long as it is attached.
func (p Programs) close() error {
	return errors.Join(p.LoEgress.Close(), p.Egress.Close(), p.Ingress.Close())
}

// direction is the side of an interface that a program is attached to.
type direction string

const (
	ingress direction = "ingress"
	egress  direction = "egress"
)

// The ways to attach.
const (
	methodTCX    = "tcx"
	methodClsact = "clsact"
)

// hook is one program attached to one interface.
type hook interface {
	// attached tells whether it still is. It must be called inside the interface's namespace.
	attached() (bool, error)
	// detach is final. A clsact hook needs a visitor in the interface's namespace; that the hook or its
	// interface is gone is no error.
	detach(v *visitor) error
	// leave is detach where the next daemon is to find what it can.
	leave(v *visitor) error
}

// tap is what is attached in one namespace.
type tap struct {
	programs Programs
	ifaces   map[int]*tappedIface
	// trouble is why an interface that should be tapped is not, by its index. It is tried again at each look.
	trouble map[int]Skipped
	// swept is set once filters of a dead daemon have been looked for.
	swept    bool
	store    *handover.Store
	cookie   uint64 // of the namespace
	leaving  bool   // what is detached is left to the next daemon
	stopping *atomic.Bool
	log      *slog.Logger
}

type tappedIface struct {
	name  string
	hooks []tappedHook
	// leaving is set once it was to be detached: hooks are what could not be, to be tried again.
	leaving bool
}

type tappedHook struct {
	at     direction
	method string
	hook
}

func newTap(programs Programs, store *handover.Store, cookie uint64, stopping *atomic.Bool, log *slog.Logger) *tap {
	return &tap{
		programs: programs,
		store:    store,
		cookie:   cookie,
		ifaces:   make(map[int]*tappedIface),
		trouble:  make(map[int]Skipped),
		stopping: stopping,
		log:      log,
	}
}

// method is how to attach, found out at the first time, and how often that was done.
type method struct {
	clsact      bool
	taken, anew int // links of an earlier daemon, and what was attached by this one
}

// reconcile brings what is attached in line with the namespace's interfaces; it runs inside. With verify
// set it does not trust that what it attached still is. The error is that of the namespace; an interface
// that cannot be tapped goes to t.trouble.
func (t *tap) reconcile(v *visitor, m *method, verify bool) error {
	links, err := v.links()
	if err != nil {
		return err
	}
	wanted := make(map[int]iface, len(links))
	for _, l := range links {
		if l.tappable() {
			wanted[l.index] = l
		}
	}
	for index, i := range t.ifaces {
		l, want := wanted[index]
		if want {
			i.name = l.name
		}
		if want && (!verify || i.attached()) {
			continue
		}
		if err := i.detach(v, false); err != nil {
			return err
		}
		delete(t.ifaces, index)
	}
	maps.DeleteFunc(t.trouble, func(index int, _ Skipped) bool { _, want := wanted[index]; return !want })
	for _, l := range links {
		if t.stopping.Load() {
			return errStopping
		}
		_, want := wanted[l.index]
		if !t.swept && (!want || !m.clsact) {
			// Where a filter is about to be attached it takes the old one's place instead.
			if err := v.sweep(l.index); err != nil {
				return err
			}
		}
		if want && t.ifaces[l.index] == nil {
			t.tapIface(v, m, l)
		}
	}
	t.swept = true
	return nil
}

func (t *tap) tapIface(v *visitor, m *method, l iface) {
	before := t.trouble[l.index]
	delete(t.trouble, l.index)
	i, err := t.attach(v, m, l)
	if err == nil {
		t.ifaces[l.index] = i
		t.log.Debug("interface attached", "interface", l.name, "ifindex", l.index)
		return
	}
	if errors.Is(err, unix.ENODEV) {
		return // deleted since the listing
	}
	if errors.Is(err, unix.EPERM) {
		err = privilege("attach programs", "CAP_NET_ADMIN", err)
	}
	t.trouble[l.index] = Skipped{Interface: l.name, Err: err}
	if before.Err == nil || before.Err.Error() != err.Error() {
		t.log.Warn("interface cannot be tapped, trying again", "interface", l.name, "error", err)
	}
}

// attach attaches to an interface what belongs there, all or nothing.
func (t *tap) attach(v *visitor, m *method, l iface) (*tappedIface, error) {
	wanted := map[direction]*ebpf.Program{egress: t.programs.LoEgress}
	if !l.loopback() {
		wanted = map[direction]*ebpf.Program{egress: t.programs.Egress, ingress: t.programs.Ingress}
	}
	i := &tappedIface{name: l.name}
	for at, program := range wanted {
		h, err := t.attachHook(v, m, l.index, at, program)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach to %s: %w", at, err), i.detach(v, false))
		}
		i.hooks = append(i.hooks, h)
	}
	return i, nil
}

func (t *tap) attachHook(v *visitor, m *method, index int, at direction, program *ebpf.Program) (tappedHook, error) {
	if !m.clsact {
		h, taken, err := attachTCX(t.store, t.cookie, index, at, program)
		if err == nil {
			m.count(taken)
			return tappedHook{at, methodTCX, h}, nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return tappedHook{}, err
		}
		m.clsact = true
	}
	h, err := v.attachClsact(index, at, program)
	if err != nil {
		return tappedHook{}, err
	}
	m.count(false)
	return tappedHook{at, methodClsact, h}, nil
}

func (m *method) count(taken bool) {
	if taken {
		m.taken++
	} else {
		m.anew++
	}
}

// attached tells whether all the hooks of the interface still are. One that cannot be looked at is not.
func (i *tappedIface) attached() bool {
	return !i.leaving && !slices.ContainsFunc(i.hooks, func(h tappedHook) bool {
		attached, err := h.attached()
		return err != nil || !attached
	})
}

// detach goes on after an error, and keeps what it cannot undo. Without a visitor, when the namespace has
// ended, filters are gone already.
func (i *tappedIface) detach(v *visitor, leave bool) error {
	i.leaving = true
	var errs []error
	i.hooks = slices.DeleteFunc(i.hooks, func(h tappedHook) bool {
		if h.method == methodClsact && v == nil {
			return true
		}
		err := h.end(v, leave)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

func (h *tappedHook) end(v *visitor, leave bool) error {
	if leave {
		return h.leave(v)
	}
	return h.detach(v)
}

// detach takes everything off, but for what it cannot, or what is left to the next daemon.
func (t *tap) detach(v *visitor) error {
	var errs []error
	for index, i := range t.ifaces {
		err := i.detach(v, t.leaving)
		errs = append(errs, err)
		if err == nil {
			delete(t.ifaces, index)
		}
	}
	clear(t.trouble)
	return errors.Join(errs...)
}

// needsVisit tells whether detaching has to be done from inside.
func (t *tap) needsVisit() bool {
	for _, i := range t.ifaces {
		for _, h := range i.hooks {
			if h.method == methodClsact {
				return true
			}
		}
	}
	return false
}
