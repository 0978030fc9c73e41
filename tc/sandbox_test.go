package tc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The tests run in a world of their own, with its own processes, /run and network as the host's, so that
// "all" means what they made, and that nothing of it outlives them.
const (
	roleVariable = "TC_TEST_ROLE"
	roleInside   = "inside"
	roleDaemon   = "daemon"
	roleNobody   = "nobody"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case roleInside:
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the sandbox:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case roleDaemon:
		os.Exit(daemon())
	case roleNobody:
		_, err := New(Config{Load: func(NetNS) (Programs, error) { return Programs{}, nil }, Log: quiet()})
		var missing *PrivilegeError
		if !errors.As(err, &missing) {
			fmt.Println("not a PrivilegeError:", err)
			os.Exit(1)
		}
		fmt.Println(err)
		os.Exit(0)
	}
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Env = append(os.Environ(), roleVariable+"="+roleInside)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	// The death signal is sent when the thread ends that started the process.
	runtime.LockOSThread()
	if err := command.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in a sandbox, which needs root:", err)
		os.Exit(1)
	}
}

// native is how Taps attach on this kernel when they are not forced.
var native = methodTCX

func furnish() error {
	if _, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress}); err != nil {
		native = methodClsact
	}

	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("run", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	return linkUp("lo")
}

func linkUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// inside runs fn on a thread in the namespace of the file; "" is the sandbox's own.
func inside(t testing.TB, name string, fn func()) {
	t.Helper()
	if err := tryInside(name, func() error { fn(); return nil }); err != nil {
		t.Fatalf("enter %s: %v", name, err)
	}
}

func tryInside(name string, fn func() error) error {
	if name == "" {
		return fn()
	}
	return insideFile("/run/netns/"+name, fn)
}

func insideFile(path string, fn func() error) (err error) {
	onThread(func() (back bool) {
		var ns netns.NsHandle
		if ns, err = netns.GetFromPath(path); err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = fn()
		}
		return false
	})
	return err
}

// makeNetns makes a named namespace, as ip-netns does, whose lo is up.
func makeNetns(t testing.TB, name string) {
	t.Helper()
	if err := tryMakeNetns(name); err != nil {
		t.Fatalf("make network namespace %s: %v", name, err)
	}
	t.Cleanup(func() { _ = netns.DeleteNamed(name) })
}

func tryMakeNetns(name string) (err error) {
	onThread(func() (back bool) {
		var ns netns.NsHandle
		if ns, err = netns.NewNamed(name); err == nil {
			ns.Close()
			err = linkUp("lo")
		}
		return false
	})
	return err
}

func removeNetns(t testing.TB, name string) {
	t.Helper()
	if err := netns.DeleteNamed(name); err != nil {
		t.Fatalf("remove network namespace %s: %v", name, err)
	}
}

// makeVeth makes a pair of interfaces that are up, a in one namespace and b in another, and gives each an
// address.
func makeVeth(t testing.TB, nsA, a, addressA, nsB, b, addressB string) {
	t.Helper()
	inside(t, nsA, func() {
		peer, err := netns.GetFromName(nsB)
		if err != nil {
			t.Errorf("open %s: %v", nsB, err)
			return
		}
		defer peer.Close()
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b, PeerNamespace: netlink.NsFd(peer)}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Errorf("add veth: %v", err)
			return
		}
		setUp(t, a, addressA)
	})
	inside(t, nsB, func() { setUp(t, b, addressB) })
}

func setUp(t testing.TB, name, address string) {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err == nil && address != "" {
		parsed, _ := netlink.ParseAddr(address)
		err = netlink.AddrAdd(l, parsed)
	}
	if err != nil {
		t.Errorf("set up %s: %v", name, err)
	}
}

func ifindex(t testing.TB, ns, name string) (index int) {
	t.Helper()
	inside(t, ns, func() {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Errorf("look for %s: %v", name, err)
			return
		}
		index = l.Attrs().Index
	})
	return index
}

// sendUDP sends packets from a namespace to an address. On lo their receiver is the sender itself, so that
// nothing else is on the way.
func sendUDP(t testing.TB, ns, address string, count int) {
	t.Helper()
	inside(t, ns, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		to := &unix.SockaddrInet4{Port: 9}
		fmt.Sscanf(address, "%d.%d.%d.%d", &to.Addr[0], &to.Addr[1], &to.Addr[2], &to.Addr[3])
		if to.Addr[0] == 127 {
			if err := unix.Bind(fd, to); err != nil {
				t.Error(err)
				return
			}
		}
		for range count {
			if err := unix.Sendto(fd, []byte("x"), 0, to); err != nil {
				t.Errorf("send to %s: %v", address, err)
				return
			}
		}
	})
}

// counter is a program that counts packets and returns a verdict.
type counter struct {
	*ebpf.Program
	packets *ebpf.Map
}

const next = -1 // TCX_NEXT and TC_ACT_UNSPEC

func newCounter(name string, verdict int32) (counter, error) {
	packets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return counter{}, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:    name,
		Type:    ebpf.SchedCLS,
		License: "GPL",
		Instructions: asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, packets.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, verdict).WithSymbol("out"),
			asm.Return(),
		},
	})
	if err != nil {
		packets.Close()
		return counter{}, err
	}
	return counter{program, packets}, nil
}

func mustCounter(t testing.TB, name string) counter {
	t.Helper()
	c, err := newCounter(name, next)
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	t.Cleanup(func() { c.Close(); c.packets.Close() })
	return c
}

func (c counter) count(t testing.TB) (n uint64) {
	t.Helper()
	if err := c.packets.Lookup(uint32(0), &n); err != nil {
		t.Fatalf("read counter: %v", err)
	}
	return n
}

// inventory lists, independently of the package, every program and clsact qdisc on the interfaces of a
// namespace.
func inventory(t testing.TB, ns string) (found []string) {
	t.Helper()
	inside(t, ns, func() {
		links, err := netlink.LinkList()
		if err != nil {
			t.Errorf("list interfaces: %v", err)
			return
		}
		for _, l := range links {
			name, index := l.Attrs().Name, l.Attrs().Index
			for at, kind := range map[string]ebpf.AttachType{"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress} {
				result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: kind})
				if err != nil && !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
					t.Errorf("query %s of %s: %v", at, name, err)
					continue
				}
				if err != nil {
					continue
				}
				for _, p := range result.Programs {
					found = append(found, fmt.Sprintf("%s %s tcx %s", name, at, programName(t, p.ID)))
				}
			}
			qdiscs, err := netlink.QdiscList(l)
			if err != nil {
				t.Errorf("list qdiscs of %s: %v", name, err)
			}
			for _, q := range qdiscs {
				if q.Type() == "clsact" || q.Type() == "ingress" {
					found = append(found, fmt.Sprintf("%s qdisc %s", name, q.Type()))
				}
			}
			for at, parent := range parents {
				filters, err := netlink.FilterList(l, parent)
				if err != nil {
					t.Errorf("list filters of %s: %v", name, err)
				}
				for _, f := range filters {
					what := f.Type()
					if b, ok := f.(*netlink.BpfFilter); ok {
						what = b.Name
					}
					found = append(found, fmt.Sprintf("%s %s filter %s", name, at, what))
				}
			}
		}
	})
	return found
}

func programName(t testing.TB, id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return err.Error()
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		t.Errorf("look at program: %v", err)
		return ""
	}
	return info.Name
}

// patience is twice what the package promises, since the machine may be busy with other things.
const patience = 2 * time.Second

func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	began := time.Now()
	for !condition() {
		if time.Since(began) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("after %4d ms: %s", time.Since(began).Milliseconds(), what)
}

func contains(lines []string, part string) bool {
	for _, line := range lines {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}
