package tc

import (
	"errors"
	"fmt"

	"ambit/handover"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// tcxHook is a program on an interface by a tcx link. The link ends with the process at the latest, unless it is kept for
// the next one. It does not hold the interface, and goes along when the interface moves to another namespace.
type tcxHook struct {
	index int
	link  link.Link
	store *handover.Store
	name  string // in the store
}

// tcxName is what a link is called for the next daemon: by the namespace, the interface and the direction.
func tcxName(cookie uint64, index int, at direction) string {
	return fmt.Sprintf("t%x-%x-%c", cookie, index, at[0])
}

// takeTCX gives a link that an earlier daemon left the program of this one, in the place among others' that it has; nil
// where there is none, or it is not attached any more.
func takeTCX(store *handover.Store, name string, index int, program *ebpf.Program) (*tcxHook, error) {
	l, err := store.Link(name)
	if l == nil || err != nil {
		return nil, err
	}
	h := &tcxHook{index, l, store, name}
	if attached, err := h.attached(); err == nil && attached && l.Update(program) == nil {
		return h, nil
	}
	return nil, h.detach(nil)
}

// attachTCX runs in the interface's namespace. It appends, so that programs that are already there see
// each packet first. It answers ebpf.ErrNotSupported on a kernel without tcx, and whether the link is an earlier daemon's.
func attachTCX(store *handover.Store, cookie uint64, index int, at direction, program *ebpf.Program) (_ *tcxHook, taken bool, err error) {
	name := tcxName(cookie, index, at)
	if h, err := takeTCX(store, name, index, program); h != nil || err != nil {
		return h, h != nil, err
	}
	kind := ebpf.AttachTCXIngress
	if at == egress {
		kind = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: index,
		Program:   program,
		Attach:    kind,
		Anchor:    link.Tail(),
	})
	if err != nil {
		return nil, false, err
	}
	// What can't be kept ends with this process, and the store tells of it.
	_ = store.PutLink(name, l)
	return &tcxHook{index, l, store, name}, false, nil
}

// attached is false when the interface has been deleted, even if another has its index now.
func (h *tcxHook) attached() (bool, error) {
	info, err := h.link.Info()
	if err != nil {
		return false, fmt.Errorf("look at tcx link: %w", err)
	}
	tcx := info.TCX()
	return tcx != nil && int(tcx.Ifindex) == h.index, nil
}

func (h *tcxHook) detach(*visitor) error {
	if err := errors.Join(handover.Detach(h.link), h.store.DropLink(h.name)); err != nil {
		return fmt.Errorf("detach tcx link: %w", err)
	}
	return nil
}

// leave is for what is kept; else it is a detach.
func (h *tcxHook) leave(*visitor) error {
	if err := h.link.Close(); err != nil {
		return fmt.Errorf("close tcx link: %w", err)
	}
	return nil
}
