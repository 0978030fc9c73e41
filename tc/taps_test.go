package tc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ways are the combinations in which everything has to work.
var ways = []struct {
	name         string
	clsact, poll bool
}{
	{"native", false, false},
	{"clsact", true, false},
	{"native without events", false, true},
	{"clsact without events", true, true},
}

// eachWay runs a test with each of them. without events is what a daemon without CAP_NET_BROADCAST has.
func eachWay(t *testing.T, test func(t *testing.T, method string, start func(r *recorder, selected ...string) *Taps)) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			method := native
			if way.clsact {
				method = methodClsact
			}
			test(t, method, func(r *recorder, selected ...string) *Taps {
				taps := r.make(t, Config{Select: selected, ForceClsact: way.clsact})
				if way.poll {
					unix.Close(taps.watch.events)
					taps.watch.events = -1
					taps.watch.numbers.Close()
					taps.watch.numbers = nil
				}
				if err := taps.Start(); err != nil {
					t.Fatalf("start: %v", err)
				}
				return taps
			})
		})
	}
}

func TestFollowsNamespaces(t *testing.T) {
	eachWay(t, func(t *testing.T, method string, start func(*recorder, ...string) *Taps) {
		makeNetns(t, "t1")
		r := newRecorder()
		taps := start(r, "all")
		host, t1 := "host lo egress "+method, "t1 lo egress "+method
		wantLines(t, taps, host, t1)

		makeNetns(t, "t2")
		wantLines(t, taps, host, t1, "t2 lo egress "+method)
		removeNetns(t, "t1")
		wantLines(t, taps, host, "t2 lo egress "+method)
		waitFor(t, "t1 is released", func() bool { _, live := r.of("t1"); return !live })

		// A namespace that only a process is in.
		sleeper := exec.Command("sleep", "60")
		sleeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if err := sleeper.Start(); err != nil {
			t.Fatal(err)
		}
		anonymous := fmt.Sprintf("pid:%d (sleep)", sleeper.Process.Pid)
		waitFor(t, "the process's namespace is taken", func() bool {
			return contains(processNames(r), fmt.Sprintf("pid:%d ", sleeper.Process.Pid))
		})
		pid := fmt.Sprintf("/proc/%d/ns/net", sleeper.Process.Pid)
		// Its lo is down until somebody sets it up.
		if err := insideFile(pid, func() error { return linkUp("lo") }); err != nil {
			t.Fatal(err)
		}
		waitFor(t, anonymous+" is attached", func() bool {
			for _, a := range taps.Attachments() {
				if strings.HasPrefix(a.NetNS.Name, fmt.Sprintf("pid:%d ", sleeper.Process.Pid)) {
					return true
				}
			}
			return false
		})
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
		wantLines(t, taps, host, "t2 lo egress "+method)

		if err := taps.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if left := append(inventory(t, ""), inventory(t, "t2")...); left != nil {
			t.Errorf("left behind: %q", left)
		}
	})
}

func processNames(r *recorder) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.live {
		names = append(names, l.Name)
	}
	return names
}

func TestFollowsInterfaces(t *testing.T) {
	eachWay(t, func(t *testing.T, method string, start func(*recorder, ...string) *Taps) {
		makeNetns(t, "t1")
		makeNetns(t, "t2")
		makeVeth(t, "t1", "eth0", "10.9.0.1/24", "t2", "peer", "10.9.0.2/24")
		taps := start(newRecorder(), "t1", "t3")
		lo := "t1 lo egress " + method
		eth0 := []string{lo, "t1 eth0 egress " + method, "t1 eth0 ingress " + method}
		wantLines(t, taps, eth0...)

		set := func(ns, name string, change func(netlink.Link) error) {
			t.Helper()
			inside(t, ns, func() {
				l, err := netlink.LinkByName(name)
				if err == nil {
					err = change(l)
				}
				if err != nil {
					t.Errorf("change %s: %v", name, err)
				}
			})
		}
		set("t1", "eth0", netlink.LinkSetDown)
		wantLines(t, taps, lo)
		set("t1", "eth0", netlink.LinkSetUp)
		wantLines(t, taps, eth0...)

		// A second one, renamed, then deleted.
		inside(t, "t1", func() {
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "more0"}, PeerName: "more1"}
			if err := netlink.LinkAdd(veth); err != nil {
				t.Errorf("add veth: %v", err)
			}
			setUp(t, "more0", "")
		})
		wantLines(t, taps, append(eth0, "t1 more0 egress "+method, "t1 more0 ingress "+method)...)
		set("t1", "more0", netlink.LinkDel)
		wantLines(t, taps, eth0...)

		// Moved to a namespace that is not tapped, and from there to one that is.
		index := ifindex(t, "t1", "eth0")
		move := func(from, to string) {
			t.Helper()
			target, err := netns.GetFromName(to)
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			set(from, "eth0", func(l netlink.Link) error { return netlink.LinkSetNsFd(l, int(target)) })
			inside(t, to, func() { setUp(t, "eth0", "10.9.0.1/24") })
		}
		makeNetns(t, "t4")
		move("t1", "t4")
		wantLines(t, taps, lo)
		if left := inventory(t, "t4"); left != nil {
			t.Errorf("went along to the other namespace: %q", left)
		}
		makeNetns(t, "t3")
		move("t4", "t3")
		wantLines(t, taps, lo, "t3 lo egress "+method, "t3 eth0 egress "+method, "t3 eth0 ingress "+method)
		if now := ifindex(t, "t3", "eth0"); now != index {
			t.Logf("the index changed on the way, from %d to %d", index, now)
		}
	})
}

func TestSeesEachPacketOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, method string, start func(*recorder, ...string) *Taps) {
		makeNetns(t, "t1")
		makeNetns(t, "t2")
		makeVeth(t, "t1", "eth0", "10.9.0.1/24", "t2", "eth0", "10.9.0.2/24")
		r := newRecorder()
		start(r, "t1", "t2")
		one, _ := r.of("t1")
		two, _ := r.of("t2")

		before := one.lo.count(t)
		sendUDP(t, "t1", "127.0.0.1", 50)
		if got := one.lo.count(t) - before; got != 50 {
			t.Errorf("lo egress saw %d packets of 50", got)
		}
		// There is other traffic too: neighbours are looked for, and the port is closed.
		sendUDP(t, "t1", "10.9.0.2", 50)
		waitFor(t, "both ends see the packets", func() bool {
			return one.out.count(t) >= 50 && two.in.count(t) >= 50
		})
		if got := one.out.count(t); got > 80 {
			t.Errorf("egress saw %d packets, about 50 were sent", got)
		}
	})
}

// A namespace may end at any moment of the work on it.
func TestVanishingNamespaces(t *testing.T) {
	eachWay(t, func(t *testing.T, method string, start func(*recorder, ...string) *Taps) {
		makeNetns(t, "t0")
		r := newRecorder()
		taps := start(r, "all")
		for i := range 40 {
			name := fmt.Sprintf("t%d", 1+i%3)
			if err := tryMakeNetns(name); err != nil {
				t.Fatal(err)
			}
			_ = tryInside(name, func() error {
				return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a", Flags: 1}, PeerName: "b"})
			})
			// From before it is found until well after.
			time.Sleep(time.Duration(i%20) * 3 * time.Millisecond)
			removeNetns(t, name)
		}
		wantLines(t, taps, "host lo egress "+method, "t0 lo egress "+method)
		waitFor(t, "all others are released", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.live) == 2
		})
		if r.loads < 10 {
			t.Errorf("only %d namespaces were met before they ended", r.loads)
		}
		if skipped := taps.Skipped(); len(skipped) > 0 {
			t.Errorf("an end is no error: %v", skipped)
		}
	})
}

func TestVanishingInterfaces(t *testing.T) {
	eachWay(t, func(t *testing.T, method string, start func(*recorder, ...string) *Taps) {
		makeNetns(t, "t1")
		taps := start(newRecorder(), "t1")
		inside(t, "t1", func() {
			for i := range 30 {
				veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}
				if err := netlink.LinkAdd(veth); err != nil {
					t.Error(err)
					return
				}
				setUp(t, "a", "")
				setUp(t, "b", "")
				time.Sleep(time.Duration(i%20) * 2 * time.Millisecond)
				if err := netlink.LinkDel(veth); err != nil {
					t.Error(err)
				}
			}
		})
		wantLines(t, taps, "t1 lo egress "+method)
		if skipped := taps.Skipped(); len(skipped) > 0 {
			t.Errorf("an end is no error: %v", skipped)
		}
	})
}

func TestSelection(t *testing.T) {
	makeNetns(t, "t1")
	makeNetns(t, "t2")
	late := t.TempDir() + "/late"

	t.Run("exclude wins", func(t *testing.T) {
		taps := newRecorder().start(t, Config{Exclude: []string{"host", "/run/netns/t2"}})
		wantLines(t, taps, "t1 lo egress "+native)
	})
	t.Run("path that appears later", func(t *testing.T) {
		taps := newRecorder().start(t, Config{Select: []string{"host", "t9", late}})
		wantLines(t, taps, "host lo egress "+native)
		if err := os.WriteFile(late, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("/run/netns/t2", late, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		wantLines(t, taps, "host lo egress "+native, "t2 lo egress "+native)
		if err := unix.Unmount(late, 0); err != nil {
			t.Fatal(err)
		}
		wantLines(t, taps, "host lo egress "+native)
		if left := inventory(t, "t2"); left != nil {
			t.Errorf("left in a namespace that is not selected any more: %q", left)
		}
		makeNetns(t, "t9")
		wantLines(t, taps, "host lo egress "+native, "t9 lo egress "+native)
	})
	t.Run("the host's own under a file name", func(t *testing.T) {
		if err := os.WriteFile("/run/netns/t8", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove("/run/netns/t8")
		if err := unix.Mount("/proc/1/ns/net", "/run/netns/t8", "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount("/run/netns/t8", 0)
		taps := newRecorder().start(t, Config{Select: []string{"t8"}})
		wantLines(t, taps, "host lo egress "+native)
	})
}

func TestAmbient(t *testing.T) {
	makeNetns(t, "t1")
	makeNetns(t, "t2")
	listen := func(ns string, port int, ipv6 bool) (closer func()) {
		inside(t, ns, func() {
			family, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: port})
			if ipv6 {
				family, address = unix.AF_INET6, &unix.SockaddrInet6{Port: port}
			}
			fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = errors.Join(unix.Bind(fd, address), unix.Listen(fd, 1))
			}
			if err != nil {
				t.Error(err)
			}
			closer = func() { unix.Close(fd) }
		})
		return closer
	}
	defer listen("t1", ztunnelOutbound, false)() // a sidecar
	defer listen("t2", ztunnelHBONE, true)()     // a waypoint, so far
	taps := newRecorder().start(t, Config{Select: []string{"ambient"}})
	wantLines(t, taps)
	defer listen("t2", ztunnelOutbound, true)()
	wantLines(t, taps, "t2 lo egress "+native)
	time.Sleep(2 * scanEvery)
	wantLines(t, taps, "t2 lo egress "+native)
}

func TestLoadErrors(t *testing.T) {
	makeNetns(t, "t1")
	makeNetns(t, "t2")
	// Not to be taken for a namespace that is gone.
	broken := fmt.Errorf("the verifier says no: %w", os.ErrNotExist)
	r := newRecorder()
	r.refuse = func(ns NetNS) error {
		if ns.Name == "t2" {
			return broken
		}
		return nil
	}
	taps := r.make(t, Config{})
	err := taps.Start()
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "t2") {
		t.Errorf("start: %v", err)
	}
	if left := append(inventory(t, ""), inventory(t, "t1")...); left != nil {
		t.Errorf("left behind by a start that failed: %q", left)
	}

	removeNetns(t, "t2")
	taps = r.start(t, Config{})
	makeNetns(t, "t2")
	waitFor(t, "t2 is skipped", func() bool {
		skipped := taps.Skipped()
		return len(skipped) == 1 && skipped[0].NetNS.Name == "t2" && errors.Is(skipped[0].Err, broken)
	})
	r.mu.Lock()
	r.refuse = nil
	r.mu.Unlock()
	time.Sleep(time.Second)
	wantLines(t, taps, "host lo egress "+native, "t1 lo egress "+native, "t2 lo egress "+native)
	if skipped := taps.Skipped(); len(skipped) > 0 {
		t.Errorf("still skipped: %v", skipped)
	}
}
