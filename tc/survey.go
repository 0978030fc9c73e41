package tc

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Surveyed is a network namespace as it was found, for people.
type Surveyed struct {
	Name    string
	Inode   uint64
	Ambient bool // ztunnel listens in it
	// Programs are those at TC's hooks, in the order in which they run, ambit's own among them.
	Programs []Hooked
	Err      error // why it, or a part of it, could not be looked at
}

// Hooked is a program at a hook of TC.
type Hooked struct {
	Interface string
	Hook      string // ingress or egress
	Method    string // tcx or clsact
	Name      string // of the program or the filter
}

// Survey looks at the host's network namespaces, and changes nothing.
func Survey() ([]Surveyed, error) {
	h, err := openHome()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	f := &finder{home: h, dirs: namedDirs, log: slog.New(slog.DiscardHandler), procs: make(map[int]process)}
	found, err := f.scan(true, true)
	if err != nil {
		return nil, err
	}
	var seen []*sighting
	var places []place
	for _, s := range found.spaces {
		seen = append(seen, s)
		places = append(places, s.place(h))
	}
	out := make([]Surveyed, len(seen))
	ask := checkAmbient()
	errs := h.visit(places, func(i int, v *visitor) error {
		if ask == nil {
			if out[i].Ambient, err = isAmbient(); err != nil {
				return err
			}
		}
		links, err := v.links()
		if err != nil {
			return err
		}
		var all []error
		for _, l := range links {
			programs, err := hooked(l)
			out[i].Programs = append(out[i].Programs, programs...)
			all = append(all, err)
		}
		return errors.Join(all...)
	})
	for i, s := range seen {
		out[i].Name, out[i].Inode = s.name(""), s.key.inode
		if !errors.Is(errs[i], errGone) {
			out[i].Err = errs[i]
		}
	}
	slices.SortFunc(out, func(a, b Surveyed) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// hooked lists what is at an interface of the thread's namespace.
func hooked(l iface) (out []Hooked, err error) {
	var errs []error
	for _, hook := range []struct {
		name   string
		attach ebpf.AttachType
		parent uint32
	}{{"ingress", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS}, {"egress", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS}} {
		result, err := link.QueryPrograms(link.QueryOptions{Target: l.index, Attach: hook.attach})
		if err == nil {
			for _, p := range result.Programs {
				out = append(out, Hooked{l.name, hook.name, methodTCX, nameOf(p.ID)})
			}
		} else if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("ask for the programs at %s of %s: %w", hook.name, l.name, err))
		}
		filters, err := netlink.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}, hook.parent)
		if err != nil {
			continue // without a qdisc there is no such parent
		}
		for _, f := range filters {
			name := f.Type()
			if b, ok := f.(*netlink.BpfFilter); ok {
				name = b.Name
			}
			out = append(out, Hooked{l.name, hook.name, methodClsact, name})
		}
	}
	return out, errors.Join(errs...)
}

func nameOf(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Sprintf("program %d", id)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Name == "" {
		return fmt.Sprintf("program %d", id)
	}
	return info.Name
}
