package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"

	"ambit/handover"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// cgroupLinks are the links at the root of the cgroup hierarchy, by the names under which they are kept; nil while detached.
type cgroupLinks map[string]link.Link

// Attach puts the socket programs at the root of cgroup v2, beside those of others, and looks over the sockets that
// are open already. root is where cgroup v2 is mounted. Links of an earlier daemon get this one's programs.
func (k *Kernel) Attach(root string) error {
	if k.links != nil {
		return nil
	}
	if k.inherited && !k.heritage.open {
		// It was paused: nobody saw how what it followed went on.
		if err := k.Abandon(); err != nil {
			return err
		}
	}
	k.links = make(cgroupLinks)
	k.continued = k.heritage.open
	for _, a := range []struct {
		name   string
		prog   *ebpf.Program
		attach ebpf.AttachType
	}{
		{"sock_create", k.objs.SockCreate, ebpf.AttachCGroupInetSockCreate},
		{"bound4", k.objs.Bound4, ebpf.AttachCGroupInet4PostBind},
		{"bound6", k.objs.Bound6, ebpf.AttachCGroupInet6PostBind},
		{"established", k.objs.Established, ebpf.AttachCGroupSockOps},
	} {
		l, took, err := k.attachCgroup(root, a.name, a.prog, a.attach)
		if err != nil {
			k.Detach()
			return privilege(fmt.Errorf("attach %s to cgroup %s: %w", a.attach, root, err))
		}
		k.links[a.name] = l
		k.continued = k.continued && took
	}
	if err := k.inventory(); err != nil {
		k.Detach()
		return err
	}
	return nil
}

// attachCgroup tells whether it took a link of an earlier daemon.
func (k *Kernel) attachCgroup(root, name string, prog *ebpf.Program, attach ebpf.AttachType) (l link.Link, took bool, err error) {
	if l, err = k.store.Link(name); l != nil {
		if err = l.Update(prog); err == nil {
			return l, true, nil
		}
		// Its cgroup has ended, or somebody detached it.
		err = errors.Join(handover.Detach(l), k.store.DropLink(name))
	}
	if err != nil {
		return nil, false, err
	}
	if l, err = link.AttachCgroup(link.CgroupOptions{Path: root, Attach: attach, Program: prog}); err != nil {
		return nil, false, err
	}
	// What can't be kept ends with this process, and the store tells of it.
	_ = k.store.PutLink(name, l)
	return l, false, nil
}

// Detach takes the socket programs off, unless they are left to the next daemon. It may be called twice.
func (k *Kernel) Detach() error {
	var errs []error
	for name, l := range k.links {
		if k.leaving {
			errs = append(errs, l.Close())
			continue
		}
		errs = append(errs, handover.Detach(l), k.store.DropLink(name))
	}
	k.links = nil
	return errors.Join(errs...)
}

// CgroupProgram is one program that Attach attaches.
type CgroupProgram struct {
	Name string
	Hook string // sockops or cgroup
}

// CgroupPrograms are those that Attach attaches.
var CgroupPrograms = []CgroupProgram{
	{"established", "sockops"}, {"sock_create", "cgroup"}, {"bound4", "cgroup"}, {"bound6", "cgroup"},
}

// inventory notes the owners of the sockets that are open now.
func (k *Kernel) inventory() error {
	it, err := link.AttachIter(link.IterOptions{Program: k.objs.Inventory})
	if err != nil {
		return privilege(fmt.Errorf("attach the iterator over open sockets: %w", err))
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return fmt.Errorf("open the iterator over open sockets: %w", err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("look over open sockets: %w", err)
	}
	return nil
}

// Stubs are the programs of one network namespace: each says in tap_parts where it is, then calls the tap.
type Stubs struct {
	LoEgress, Egress, Ingress *ebpf.Program
}

// Close lets go of the programs; attached ones stay until they are detached.
func (s *Stubs) Close() {
	for _, p := range []*ebpf.Program{s.LoEgress, s.Egress, s.Ingress} {
		if p != nil {
			p.Close()
		}
	}
}

// Offsets in struct tap_parts.
const (
	partsNetns = 0
	partsHook  = 8
)

// Tap makes the stubs of the namespace with the given cookie and counts it among the tapped ones.
func (k *Kernel) Tap(cookie uint64) (*Stubs, error) {
	var s Stubs
	for _, p := range []struct {
		to   **ebpf.Program
		name string
		hook ambitHook
	}{
		{&s.LoEgress, "ambit_lo", ambitHookHOOK_LO_EGRESS},
		{&s.Egress, "ambit_egress", ambitHookHOOK_EGRESS},
		{&s.Ingress, "ambit_ingress", ambitHookHOOK_INGRESS},
	} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: p.name,
			Type: ebpf.SchedCLS,
			Instructions: asm.Instructions{
				// Not in skb->cb, which is for those who share the hook.
				asm.Mov.Reg(asm.R6, asm.R1),
				asm.StoreImm(asm.RFP, -4, 0, asm.Word),
				asm.Mov.Reg(asm.R2, asm.RFP),
				asm.Add.Imm(asm.R2, -4),
				asm.LoadMapPtr(asm.R1, k.objs.TapParts.FD()),
				asm.FnMapLookupElem.Call(),
				asm.JEq.Imm(asm.R0, 0, "pass"),
				asm.LoadImm(asm.R1, int64(cookie), asm.DWord),
				asm.StoreMem(asm.R0, partsNetns, asm.R1, asm.DWord),
				asm.StoreImm(asm.R0, partsHook, int64(p.hook), asm.Word),
				asm.Mov.Reg(asm.R1, asm.R6),
				asm.LoadMapPtr(asm.R2, k.objs.Taps.FD()),
				asm.Mov.Imm(asm.R3, int32(ambitTapProgramTAP_PACKET)),
				asm.FnTailCall.Call(),
				asm.Mov.Imm(asm.R0, -1).WithSymbol("pass"),
				asm.Return(),
			},
			License: "Dual BSD/GPL",
		})
		if err != nil {
			s.Close()
			return nil, privilege(fmt.Errorf("load %s: %w", p.name, err))
		}
		*p.to = prog
	}
	if err := k.objs.Tapped.Put(cookie, uint8(1)); err != nil {
		s.Close()
		return nil, fmt.Errorf("note the tapped namespace %d: %w", cookie, err)
	}
	return &s, nil
}

// Untap forgets a namespace whose taps are gone.
func (k *Kernel) Untap(cookie uint64) error {
	if err := k.objs.Tapped.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget the tapped namespace %d: %w", cookie, err)
	}
	return nil
}

// Retain forgets tapped namespaces that an earlier daemon had and this one, by their cookies, has not.
func (k *Kernel) Retain(tapped func(cookie uint64) bool) error {
	var gone []uint64
	var cookie uint64
	var one uint8
	it := k.objs.Tapped.Iterate()
	for it.Next(&cookie, &one) {
		if !tapped(cookie) {
			gone = append(gone, cookie)
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("list the tapped namespaces: %w", err)
	}
	for _, cookie := range gone {
		if err := k.Untap(cookie); err != nil {
			return err
		}
	}
	return nil
}

// Sweep ends exchanges past the idle limit and forgets flows that nothing else ends.
func (k *Kernel) Sweep() error {
	if _, err := k.objs.Sweep.Run(&ebpf.RunOptions{}); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("run the sweep of idle exchanges: %w", err)
	}
	return nil
}

// Abandon counts what is in flight as dropped and forgets all flows: behind it the taps see nothing of how they go on.
// Call it when they are detached.
func (k *Kernel) Abandon() error {
	if _, err := k.objs.Abandon.Run(&ebpf.RunOptions{}); err != nil {
		return fmt.Errorf("forget the connections that were traced: %w", err)
	}
	return nil
}

// Open lets the taps see packets, in all namespaces at once; until then those that are attached pass them on. So no
// exchange is met by some of them alone.
func (k *Kernel) Open() error {
	if err := k.objs.Taps.Put(uint32(ambitTapProgramTAP_PACKET), k.objs.Tap); err != nil {
		return fmt.Errorf("open the taps: %w", err)
	}
	return nil
}

// Shut undoes Open.
func (k *Kernel) Shut() error {
	if err := k.objs.Taps.Delete(uint32(ambitTapProgramTAP_PACKET)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("shut the taps: %w", err)
	}
	return nil
}
