package tc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A foreign program in front of ours and one behind it see what they saw without it.
func TestForeignTCX(t *testing.T) {
	makeNetns(t, "t1")
	lo := ifindex(t, "t1", "lo")
	attach := func(c counter) (l link.Link) {
		inside(t, "t1", func() {
			var err error
			l, err = link.AttachTCX(link.TCXOptions{Interface: lo, Program: c.Program, Attach: ebpf.AttachTCXEgress})
			if err != nil {
				t.Errorf("attach: %v", err)
			}
		})
		t.Cleanup(func() { l.Close() })
		return l
	}
	early, late := mustCounter(t, "early"), mustCounter(t, "late")
	attach(early)
	r := newRecorder()
	taps := r.start(t, Config{Select: []string{"t1"}})
	attach(late)
	if got, want := inventory(t, "t1"), []string{"lo egress tcx early", "lo egress tcx ambit_lo", "lo egress tcx late"}; !slices.Equal(got, want) {
		t.Errorf("order is %q, want %q", got, want)
	}
	sendUDP(t, "t1", "127.0.0.1", 10)
	ours, _ := r.of("t1")
	if e, o, l := early.count(t), ours.lo.count(t), late.count(t); e != 10 || o != 10 || l != 10 {
		t.Errorf("of 10 packets the first saw %d, ours %d, the last %d", e, o, l)
	}
	if err := taps.Close(); err != nil {
		t.Error(err)
	}
	sendUDP(t, "t1", "127.0.0.1", 10)
	if e, l := early.count(t), late.count(t); e != 20 || l != 20 {
		t.Errorf("after us, of 20 packets the first saw %d, the last %d", e, l)
	}
	if got, want := inventory(t, "t1"), []string{"lo egress tcx early", "lo egress tcx late"}; !slices.Equal(got, want) {
		t.Errorf("left is %q, want %q", got, want)
	}
}

func addFilter(t *testing.T, ns string, index int, at direction, priority uint16, c counter) *netlink.BpfFilter {
	t.Helper()
	filter := &netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: index, Parent: parents[at], Handle: 1, Priority: priority, Protocol: unix.ETH_P_ALL},
		Fd:           c.FD(),
		Name:         fmt.Sprintf("foreign%d", priority),
		DirectAction: true,
	}
	inside(t, ns, func() {
		if err := netlink.FilterAdd(filter); err != nil {
			t.Errorf("add filter: %v", err)
		}
	})
	return filter
}

// Filters of others, at a lower and a higher priority than ours and at the same one, whether they or we
// made the qdisc.
func TestForeignClsact(t *testing.T) {
	for _, theirs := range []bool{true, false} {
		t.Run(fmt.Sprintf("their qdisc %t", theirs), func(t *testing.T) {
			makeNetns(t, "t1")
			lo := ifindex(t, "t1", "lo")
			priorities := []uint16{1, filterPriority, 60000}
			var counters []counter
			var filters []*netlink.BpfFilter
			addAll := func() {
				for _, priority := range priorities {
					c := mustCounter(t, "foreign")
					counters = append(counters, c)
					filters = append(filters, addFilter(t, "t1", lo, egress, priority, c))
				}
			}
			if theirs {
				inside(t, "t1", func() {
					if err := netlink.QdiscAdd(clsact(lo)); err != nil {
						t.Errorf("add qdisc: %v", err)
					}
				})
				addAll()
			}
			r := newRecorder()
			taps := r.start(t, Config{Select: []string{"t1"}, ForceClsact: true})
			if !theirs {
				addAll()
			}
			sendUDP(t, "t1", "127.0.0.1", 10)
			ours, _ := r.of("t1")
			if got := ours.lo.count(t); got != 10 {
				t.Errorf("ours saw %d packets of 10", got)
			}
			if err := taps.Close(); err != nil {
				t.Error(err)
			}
			sendUDP(t, "t1", "127.0.0.1", 10)
			for i, c := range counters {
				if got := c.count(t); got != 20 {
					t.Errorf("the filter at %d saw %d packets of 20", priorities[i], got)
				}
			}
			if got := inventory(t, "t1"); len(got) != 1+len(priorities) || contains(got, filterName) {
				t.Errorf("left is %q", got)
			}

			// Once more, so that ours comes into the qdisc that is left, and theirs go first.
			taps = newRecorder().start(t, Config{Select: []string{"t1"}, ForceClsact: true})
			inside(t, "t1", func() {
				for _, f := range filters {
					if err := netlink.FilterDel(f); err != nil {
						t.Errorf("remove filter: %v", err)
					}
				}
			})
			if err := taps.Close(); err != nil {
				t.Error(err)
			}
			if got := inventory(t, "t1"); !slices.Equal(got, []string{"lo qdisc clsact"}) {
				t.Errorf("a qdisc that we did not make has to stay, left is %q", got)
			}
		})
	}
}

// An ingress qdisc has clsact's place. That interface is skipped, the others are not.
func TestIngressQdisc(t *testing.T) {
	makeNetns(t, "t1")
	makeNetns(t, "t2")
	makeVeth(t, "t1", "eth0", "10.9.0.1/24", "t2", "eth0", "10.9.0.2/24")
	index := ifindex(t, "t1", "eth0")
	qdisc := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0)}}
	inside(t, "t1", func() {
		if err := netlink.QdiscAdd(qdisc); err != nil {
			t.Errorf("add qdisc: %v", err)
		}
	})
	taps := newRecorder().start(t, Config{Select: []string{"t1"}, ForceClsact: true})
	wantLines(t, taps, "t1 lo egress clsact")
	skipped := taps.Skipped()
	if len(skipped) != 1 || skipped[0].Interface != "eth0" || !strings.Contains(skipped[0].Err.Error(), "qdisc of type ingress") {
		t.Errorf("skipped: %v", skipped)
	}
	if got := inventory(t, "t1"); contains(got, "eth0 egress") || contains(got, "eth0 ingress") {
		t.Errorf("half attached: %q", got)
	}
	inside(t, "t1", func() {
		if err := netlink.QdiscDel(qdisc); err != nil {
			t.Errorf("remove qdisc: %v", err)
		}
		// Any event of the namespace has the interface tried again at once.
		if err := linkDownUp("eth0"); err != nil {
			t.Error(err)
		}
	})
	wantLines(t, taps, "t1 lo egress clsact", "t1 eth0 egress clsact", "t1 eth0 ingress clsact")
	if skipped := taps.Skipped(); len(skipped) > 0 {
		t.Errorf("skipped: %v", skipped)
	}
}

func linkDownUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetDown(l); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// Somebody removes what we attached; a look at the interface notices.
func TestRemovedByOthers(t *testing.T) {
	makeNetns(t, "t1")
	taps := newRecorder().start(t, Config{Select: []string{"t1"}, ForceClsact: true})
	inside(t, "t1", func() {
		if err := netlink.QdiscDel(clsact(1)); err != nil {
			t.Errorf("remove qdisc: %v", err)
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Errorf("add veth: %v", err)
		}
	})
	waitFor(t, "the filter is back", func() bool { return contains(inventory(t, "t1"), "lo egress filter ambit") })
	wantLines(t, taps, "t1 lo egress clsact")
}
