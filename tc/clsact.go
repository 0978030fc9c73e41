package tc

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What marks a filter as ours, also after the daemon that made it was killed. Whether the qdisc is ours too
// is kept in the filter's handle, since nothing else outlives a daemon exactly as long as the filter does.
const (
	filterName = "ambit"
	// filterPriority comes after those that the kernel gives out by itself, which end at 49152.
	filterPriority = 53000
	handleGuest    = 0x616d6201 // the qdisc was there before
	handleOwner    = 0x616d6202 // the qdisc was made for our filters
)

var parents = map[direction]uint32{
	ingress: netlink.HANDLE_MIN_INGRESS,
	egress:  netlink.HANDLE_MIN_EGRESS,
}

// clsactHook is a program on an interface by a filter of its clsact qdisc. The filter outlives the process
// and ends with the qdisc or the interface.
type clsactHook struct {
	index   int
	at      direction
	handle  uint32
	program ebpf.ProgramID
}

// attachClsact runs in the interface's namespace. It takes the place of a filter that a dead daemon left.
func (v *visitor) attachClsact(index int, at direction, program *ebpf.Program) (*clsactHook, error) {
	info, err := program.Info()
	if err != nil {
		return nil, fmt.Errorf("look at program: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return nil, errors.New("look at program: the kernel gives it no ID")
	}
	owner, err := v.ensureQdisc(index)
	if err != nil {
		return nil, err
	}
	hook := &clsactHook{index: index, at: at, handle: handleGuest, program: id}
	if owner {
		hook.handle = handleOwner
	}
	err = netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index,
			Parent:    parents[at],
			Handle:    hook.handle,
			Priority:  filterPriority,
			Protocol:  unix.ETH_P_ALL,
		},
		Fd:           program.FD(),
		Name:         filterName,
		DirectAction: true,
	})
	if err != nil {
		// A qdisc without any filter of ours would not be known as ours later.
		return nil, errors.Join(lacking("add clsact filter", "cls_bpf", err), v.removeOwnQdisc(index, owner))
	}
	return hook, nil
}

// ensureQdisc tells whether the interface's clsact qdisc is ambit's, which makes it if there is none.
func (v *visitor) ensureQdisc(index int) (owner bool, err error) {
	// Twice, as the qdisc that is in the way may go, with its interface for instance, before it is looked at.
	for range 2 {
		err = netlink.QdiscAdd(clsact(index))
		if err == nil {
			if v.qdiscs != nil {
				v.qdiscs[index] = "clsact"
			}
			return true, nil
		}
		if !errors.Is(err, unix.EEXIST) {
			break
		}
		kinds, err := v.ingressQdiscs()
		if err != nil {
			return false, err
		}
		switch kinds[index] {
		case "clsact":
			return ownedQdisc(index)
		case "":
			v.qdiscs = nil
		default:
			// Its handle is clsact's, and a filter for egress would land on ingress.
			return false, fmt.Errorf("the interface has a qdisc of type %s, which leaves no place for clsact", kinds[index])
		}
	}
	return false, lacking("add clsact qdisc", "sch_ingress", err)
}

// ownedQdisc tells whether a filter of ours says that the qdisc was made for it.
func ownedQdisc(index int) (bool, error) {
	for at := range parents {
		filters, err := ourFilters(index, at)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(filters, ownsQdisc) {
			return true, nil
		}
	}
	return false, nil
}

// lacking tells a missing kernel module, ENOENT, from a missing interface, ENODEV.
func lacking(doing, module string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: the kernel has neither tcx (Linux 6.6) nor the module %s", doing, module)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// removed tells whether err says that a filter, its qdisc or its interface is not there any more.
func removed(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV)
}

func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// ingressQdiscs lists the qdiscs that are where clsact would be, by interface index. It asks once a visit:
// the kernel can list only those of all interfaces.
func (v *visitor) ingressQdiscs() (map[int]string, error) {
	if v.qdiscs != nil {
		return v.qdiscs, nil
	}
	qdiscs, err := whole(func() ([]netlink.Qdisc, error) { return netlink.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	v.qdiscs = make(map[int]string)
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT {
			v.qdiscs[q.Attrs().LinkIndex] = q.Type()
		}
	}
	return v.qdiscs, nil
}

// listFilters lists the filters of an interface's clsact qdisc; there are none without one.
func listFilters(index int, at direction) ([]netlink.Filter, error) {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	filters, err := whole(func() ([]netlink.Filter, error) { return netlink.FilterList(device, parents[at]) })
	if err != nil && !removed(err) {
		return nil, fmt.Errorf("list %s filters: %w", at, err)
	}
	return filters, nil
}

func ourFilters(index int, at direction) ([]*netlink.BpfFilter, error) {
	filters, err := listFilters(index, at)
	if err != nil {
		return nil, err
	}
	var ours []*netlink.BpfFilter
	for _, f := range filters {
		b, ok := f.(*netlink.BpfFilter)
		if ok && b.Name == filterName && (b.Handle == handleGuest || b.Handle == handleOwner) {
			ours = append(ours, b)
		}
	}
	return ours, nil
}

func ownsQdisc(f *netlink.BpfFilter) bool { return f.Handle == handleOwner }

// whole asks again for a list that a change ran into.
func whole[T any](list func() ([]T, error)) (items []T, err error) {
	for range 10 {
		if items, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return items, err
}

// attached is false when somebody has removed or replaced the filter, or its qdisc. It runs in the
// interface's namespace.
func (h *clsactHook) attached() (bool, error) {
	filters, err := ourFilters(h.index, h.at)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(filters, func(f *netlink.BpfFilter) bool { return f.Id == int(h.program) }), nil
}

func (h *clsactHook) detach(v *visitor) error { return v.sweepDirection(h.index, h.at) }

// leave is a detach: if no daemon comes nobody would take a filter off.
func (h *clsactHook) leave(v *visitor) error { return h.detach(v) }

// sweep removes all filters of ambit's from an interface, whoever made them, and the qdisc if it was made
// for them.
func (v *visitor) sweep(index int) error {
	kinds, err := v.ingressQdiscs()
	if err != nil || kinds[index] != "clsact" {
		return err
	}
	var errs []error
	for at := range parents {
		errs = append(errs, v.sweepDirection(index, at))
	}
	return errors.Join(errs...)
}

func (v *visitor) sweepDirection(index int, at direction) error {
	filters, err := ourFilters(index, at)
	if err != nil {
		return err
	}
	for _, f := range filters {
		if err := netlink.FilterDel(f); err != nil && !removed(err) {
			return fmt.Errorf("remove %s filter: %w", at, err)
		}
	}
	return v.removeOwnQdisc(index, slices.ContainsFunc(filters, ownsQdisc))
}

// removeOwnQdisc removes the qdisc if it is ours and nobody has a filter there.
func (v *visitor) removeOwnQdisc(index int, owner bool) error {
	if !owner {
		return nil
	}
	for at := range parents {
		filters, err := listFilters(index, at)
		if err != nil || len(filters) > 0 {
			return err
		}
	}
	delete(v.qdiscs, index)
	if err := netlink.QdiscDel(clsact(index)); err != nil && !removed(err) {
		return fmt.Errorf("remove clsact qdisc: %w", err)
	}
	return nil
}
