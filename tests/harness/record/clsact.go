package record

import (
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachClsact attaches on kernels before 6.6. The filter and its qdisc go with the namespace.
func attachClsact(program *ebpf.Program, index int, kind ebpf.AttachType) (io.Closer, error) {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscReplace(qdisc); err != nil {
		return nil, fmt.Errorf("add a clsact qdisc: %w", err)
	}
	parent := uint32(netlink.HANDLE_MIN_EGRESS)
	if kind == ebpf.AttachTCXIngress {
		parent = netlink.HANDLE_MIN_INGRESS
	}
	err := netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: "record", DirectAction: true,
	})
	if err != nil {
		return nil, fmt.Errorf("add a bpf filter: %w", err)
	}
	return nothing{}, nil
}

type nothing struct{}

func (nothing) Close() error { return nil }
