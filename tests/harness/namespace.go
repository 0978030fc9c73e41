package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

// Namespace is a named network namespace with its loopback up. Other programs find it as /run/netns/NAME.
type Namespace struct {
	lab    *Lab
	name   string
	handle netns.NsHandle
	inode  uint64
	host   bool // this process's own: it was not made here
	links  *netlink.Handle
	cgroup *Cgroup // of the programs that are started in it, unless they say otherwise
	// calls are run on a thread that stays in the namespace until it is closed: children that are started
	// from it die with it (their parent death signal is bound to the thread), so they never outlive this process.
	calls chan func()
	ended chan struct{}
}

// Namespace makes a namespace that is named after the lab: "h-x3k9-a" for "a".
func (l *Lab) Namespace(name string) (*Namespace, error) {
	ns := &Namespace{name: l.id + "-" + name}
	if err := shareNamed(); err != nil {
		return nil, fmt.Errorf("make namespace %s (it needs root): %w", ns.name, err)
	}
	err := l.take(ns, func() (netns.NsHandle, error) { return netns.NewNamed(ns.name) })
	if err == nil {
		err = ns.prepare()
	}
	if err != nil {
		return nil, fmt.Errorf("make namespace %s (it needs root): %w", ns.name, err)
	}
	return ns, nil
}

// shareNamed makes the directory of names a mount of its own, as the first "ip netns add" on a host does. Done by that one
// it would cover the names that are there already, and they could not be removed any more.
var shareNamed = sync.OnceValue(func() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(netnsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// iproute2 takes the same lock, and other labs do.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", netnsDir, err)
	}
	err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // it is none yet
		if err = unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("make %s a mount that is shared: %w", netnsDir, err)
	}
	return nil
})

// Host is this process's own namespace, for programs that are to run there, such as a daemon under test. It is
// not changed, and stays when the lab is closed; a veth into it goes with its other end.
func (l *Lab) Host() (*Namespace, error) {
	ns := &Namespace{name: "host", host: true}
	if err := l.take(ns, netns.Get); err != nil {
		return nil, fmt.Errorf("open the host's namespace: %w", err)
	}
	return ns, nil
}

// take opens a namespace, by a function that runs on the thread that will stay in it, and keeps it to be closed.
func (l *Lab) take(ns *Namespace, open func() (netns.NsHandle, error)) error {
	ns.lab, ns.cgroup = l, l.cgroup
	ns.calls, ns.ended = make(chan func()), make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("the lab is closed")
	}
	opened := make(chan error, 1)
	onThread(func() { ns.serve(open, opened) })
	if err := <-opened; err != nil {
		return err
	}
	l.namespaces = append(l.namespaces, ns)
	var stat unix.Stat_t
	if err := unix.Fstat(int(ns.handle), &stat); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	ns.inode = stat.Ino
	var err error
	if ns.links, err = netlink.NewHandleAt(ns.handle, unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	return nil
}

// serve opens the namespace on this thread and stays in it. The thread ends with the function, as it is
// never unlocked.
func (n *Namespace) serve(open func() (netns.NsHandle, error), opened chan<- error) {
	defer close(n.ended)
	var err error
	if n.handle, err = open(); err != nil {
		opened <- err
		return
	}
	opened <- nil
	for call := range n.calls {
		call()
	}
}

func (n *Namespace) prepare() error {
	if err := n.Sysctl(map[string]string{
		// Redirected packets arrive on lo with addresses that strict filtering would not expect there.
		"net/ipv4/conf/all/rp_filter":      "0",
		"net/ipv4/conf/default/rp_filter":  "0",
		"net/ipv4/conf/lo/rp_filter":       "0",
		"net/ipv6/conf/all/disable_ipv6":   "0",
		"net/ipv6/conf/lo/disable_ipv6":    "0",
		"net/ipv6/conf/default/accept_dad": "0", // addresses are used at once
	}); err != nil {
		return err
	}
	return n.up("lo")
}

// Name is the namespace's name under /run/netns.
func (n *Namespace) Name() string { return n.name }

// Path is where the namespace is mounted.
func (n *Namespace) Path() string {
	if n.host {
		return "/proc/self/ns/net"
	}
	return filepath.Join(netnsDir, n.name)
}

// Cgroup is the group of the programs that are started in the namespace: the lab's own, or a pod's.
func (n *Namespace) Cgroup() *Cgroup { return n.cgroup }

// Inode is the number that /proc/PID/ns/net shows.
func (n *Namespace) Inode() uint64 { return n.inode }

// Netlink is a route netlink handle inside the namespace, closed with it.
func (n *Namespace) Netlink() *netlink.Handle { return n.links }

// Cookie is the number by which BPF programs know the namespace.
func (n *Namespace) Cookie() (uint64, error) {
	var cookie uint64
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a socket in namespace %s: %w", n.name, err)
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if err != nil {
			return fmt.Errorf("ask for the cookie of namespace %s (Linux 5.14 has it): %w", n.name, err)
		}
		return nil
	})
	return cookie, err
}

// Do runs fn on a thread inside the namespace. Sockets that fn makes stay in the namespace; goroutines that
// it starts are not in it.
func (n *Namespace) Do(fn func() error) error {
	result := make(chan error, 1)
	onThread(func() {
		if err := netns.Set(n.handle); err != nil {
			result <- fmt.Errorf("enter namespace %s: %w", n.name, err)
			return
		}
		result <- fn()
	})
	return <-result
}

// Sysctl writes settings below /proc/sys, given by path, inside the namespace.
func (n *Namespace) Sysctl(settings map[string]string) error {
	return n.Do(func() error {
		for key, value := range settings {
			if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644); err != nil {
				return fmt.Errorf("set %s in namespace %s: %w", key, n.name, err)
			}
		}
		return nil
	})
}

// close gives the namespace's name, thread and handles back. The kernel destroys it when its last process
// and socket are gone.
func (n *Namespace) close() error {
	close(n.calls)
	<-n.ended
	if n.links != nil {
		n.links.Close()
	}
	var err error
	if !n.host {
		if err = netns.DeleteNamed(n.name); err != nil {
			err = fmt.Errorf("remove namespace %s: %w", n.name, err)
		}
	}
	return errors.Join(err, n.handle.Close())
}

// onThread runs fn on a thread of its own, which ends with it. The process's first thread is never used:
// it cannot end, and /proc/self would show what fn made of it.
func onThread(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn()
			return
		}
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			defer close(done)
			fn()
		}()
		<-done
		runtime.UnlockOSThread()
	}()
}
