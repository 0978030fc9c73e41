package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// nothingLeft demands a kernel as it was before: no program, link or pin, and no qdisc in the namespaces.
func (p pair) nothingLeft() error {
	var err error
	// The kernel frees what nobody holds any more a moment later.
	for deadline := time.Now().Add(settleLimit); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if err = noPrograms(); err == nil {
			break
		}
	}
	errs := []error{err}
	if pins, err := os.ReadDir("/sys/fs/bpf"); err != nil || len(pins) > 0 {
		errs = append(errs, fmt.Errorf("ambit left %v in /sys/fs/bpf (%w)", pins, err))
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("ambit left its socket %s (%w)", socket, err))
	}
	for _, e := range p {
		n, err := e.clsacts()
		if err == nil && n > 0 {
			err = fmt.Errorf("ambit left %d clsact qdiscs in network namespace %s", n, e.name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func noPrograms() error {
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list the kernel's programs: %w", err)
		}
		program, err := ebpf.NewProgramFromID(next)
		if errors.Is(err, os.ErrNotExist) { // gone meanwhile
			id = next
			continue
		}
		if err != nil {
			return fmt.Errorf("look at program %d: %w", next, err)
		}
		defer program.Close()
		return fmt.Errorf("ambit left a program: %v", program)
	}
}

// clsacts counts the qdiscs of that kind in the namespace.
func (e *end) clsacts() (n int, err error) {
	err = e.run(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return fmt.Errorf("list the interfaces of %s: %w", e.name, err)
		}
		for _, link := range links {
			qdiscs, err := netlink.QdiscList(link)
			if err != nil {
				return fmt.Errorf("list the qdiscs of %s: %w", link.Attrs().Name, err)
			}
			for _, q := range qdiscs {
				if q.Type() == "clsact" {
					n++
				}
			}
		}
		return nil
	})
	return n, err
}
