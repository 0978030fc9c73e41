package tc

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// NetNS is one network namespace.
type NetNS struct {
	// Name is "host" for the daemon's own namespace, else the name of its file under /run/netns (or another
	// of the watched directories), else "pid:N (comm)", N being a process in it when it was found.
	Name string
	// Inode is the number of its file in nsfs, as lsns and /proc/PID/ns/net show it. The kernel uses it anew
	// once the namespace has ended.
	Inode uint64
	// Cookie is the kernel's own identity of it (SO_NETNS_COOKIE), never used twice.
	Cookie uint64
}

// netnsKey tells namespaces that exist at the same time from each other.
type netnsKey struct{ dev, inode uint64 }

// errGone means that no way leads to a namespace any more, which is no error.
var errGone = errors.New("the network namespace is gone")

// visitor is a thread's stay in a network namespace.
type visitor struct {
	fd     int    // the namespace; closed when the visit ends
	buffer []byte // for netlink, shared by the visits of a tour
	socket *rtnl  // made when asked for, closed when the visit ends

	// qdiscs is what the ingress and clsact qdiscs of the namespace's interfaces are called, by interface
	// index; nil until asked for.
	qdiscs map[int]string
}

// home is the network namespace that the daemon lives in, and the way back to it.
type home struct {
	file *os.File
	key  netnsKey
}

func openHome() (*home, error) {
	// Of the calling thread: the process's main thread may be one that is visiting.
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("own network namespace, is /proc mounted: %w", err)
	}
	h := &home{file: file}
	if h.key, err = keyOf(int(file.Fd())); err != nil {
		file.Close()
		return nil, fmt.Errorf("own network namespace: %w", err)
	}
	return h, nil
}

func (h *home) Close() error { return h.file.Close() }

// path opens the home namespace from any thread.
func (h *home) path() string { return fmt.Sprintf("/proc/self/fd/%d", h.file.Fd()) }

func keyOf(fd int) (netnsKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return netnsKey{}, err
	}
	return netnsKey{st.Dev, st.Ino}, nil
}

// place is where a namespace can be entered: any of the paths that still leads to it.
type place struct {
	key   netnsKey
	paths []string
}

// open answers errGone when no path leads to the namespace any more.
func (p place) open() (int, error) {
	var denied error
	for _, path := range p.paths {
		// A path from the configuration may be anything, a FIFO too: never wait for it.
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				denied = privilege("open "+path, "CAP_SYS_PTRACE", err)
			} else if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENXIO) {
				denied = fmt.Errorf("open %s: %w", path, err)
			}
			continue
		}
		if key, err := keyOf(fd); err == nil && key == p.key {
			return fd, nil
		}
		unix.Close(fd)
	}
	if denied != nil {
		return -1, denied
	}
	return -1, errGone
}

// visit runs fn inside each of the places in turn and returns an error for each (errGone where it has
// ended). A thread of its own does it, which comes back to the home namespace or is thrown away.
func (h *home) visit(places []place, fn func(i int, v *visitor) error) []error {
	errs := make([]error, len(places))
	if len(places) == 0 {
		return errs
	}
	onThread(func() (back bool) {
		buffer := make([]byte, dumpSize)
		for i, p := range places {
			errs[i] = p.visit(buffer, func(v *visitor) error { return fn(i, v) })
		}
		return h.enter() == nil
	})
	return errs
}

// enter brings the calling thread home.
func (h *home) enter() error { return unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET) }

// onThread runs fn on a thread of its own, which ends if fn does not say that it is back in the home
// namespace. It is never the main thread, which cannot end and whose namespace passes for the process's.
func onThread(fn func() (back bool)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// As long as this goroutine holds the main thread, the next one gets another.
			onThread(fn)
			runtime.UnlockOSThread()
			return
		}
		// A goroutine that ends with its thread locked ends the thread.
		if fn() {
			runtime.UnlockOSThread()
		}
	}()
	<-done
}

func (p place) visit(buffer []byte, fn func(*visitor) error) error {
	fd, err := p.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EPERM) {
			return privilege("enter network namespace", "CAP_SYS_ADMIN", err)
		}
		return fmt.Errorf("enter network namespace: %w", err)
	}
	v := &visitor{fd: fd, buffer: buffer}
	defer v.close()
	return fn(v)
}

// rtnl is a netlink socket inside the namespace.
func (v *visitor) rtnl() (*rtnl, error) {
	if v.socket == nil {
		socket, err := openRtnl()
		if err != nil {
			return nil, err
		}
		v.socket = socket
	}
	return v.socket, nil
}

func (v *visitor) close() {
	if v.socket != nil {
		v.socket.Close()
	}
}

func (v *visitor) cookie() (uint64, error) {
	rt, err := v.rtnl()
	if err != nil {
		return 0, err
	}
	return rt.cookie()
}

func (v *visitor) links() ([]iface, error) {
	rt, err := v.rtnl()
	if err != nil {
		return nil, err
	}
	return rt.links(v.buffer)
}
