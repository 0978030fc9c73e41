package tc

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// tcxHook is a program on an interface by a tcx link. The link ends with the process at the latest. It does
// not hold the interface, and goes along when the interface moves to another namespace.
type tcxHook struct {
	index int
	link  link.Link
}

// attachTCX runs in the interface's namespace. It appends, so that programs that are already there see
// each packet first. It answers ebpf.ErrNotSupported on a kernel without tcx.
func attachTCX(index int, at direction, program *ebpf.Program) (*tcxHook, error) {
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
		return nil, err
	}
	return &tcxHook{index, l}, nil
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
	if err := h.link.Close(); err != nil {
		return fmt.Errorf("close tcx link: %w", err)
	}
	return nil
}
