package tc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watcher says when to look again, so that looking at everything all the time is not needed.
//
// Interfaces: a netlink socket inside a namespace would keep that namespace alive. Instead there is one
// socket, in an otherwise empty namespace of the watcher's own, which hears the link events of every
// namespace that has been given a number there (NETLINK_LISTEN_ALL_NSID), and hears when one ends. The
// numbers hold nothing and go with the watcher.
type watcher struct {
	end     int             // eventfd
	inotify int             // of the directories of named namespaces, where links to them may be made
	mounts  int             // /proc/self/mountinfo: most named namespaces are mounted
	events  int             // netlink; -1 if events cannot be had
	numbers *netlink.Handle // in the watcher's namespace; nil without events
	next    int             // next number, never used twice

	remounted atomic.Bool // to be told by changes as files
}

// changes are what has happened since the last look.
type changes struct {
	files bool         // named namespaces may have come or gone
	links map[int]bool // numbers of namespaces with link events
	ended map[int]bool // numbers of namespaces that have ended
	lost  bool         // events were lost: anything may have changed
}

func openWatcher() (*watcher, error) {
	w := &watcher{end: -1, inotify: -1, mounts: -1, events: -1}
	var err error
	if w.end, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	if w.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		w.Close()
		return nil, fmt.Errorf("make inotify instance: %w", err)
	}
	if w.mounts, err = unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		w.Close()
		return nil, fmt.Errorf("open /proc/self/mountinfo: %w", err)
	}
	return w, nil
}

// listen starts hearing link events. Without it namespaces have to be looked into to see what changed.
func (w *watcher) listen(h *home) (err error) {
	onThread(func() (back bool) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make network namespace for events: %w", err)
			return true
		}
		err = w.openEvents()
		return h.enter() == nil
	})
	return err
}

// openEvents runs in the watcher's namespace.
func (w *watcher) openEvents() (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1); err != nil {
		return privilege("hear link events of every network namespace", "CAP_NET_BROADCAST", err)
	}
	const buffer = 1 << 20
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		return fmt.Errorf("enlarge netlink buffer: %w", err)
	}
	groups := uint32(1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NSID-1))
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("subscribe to link events: %w", err)
	}
	if w.numbers, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	w.events = fd
	return nil
}

func (w *watcher) Close() {
	if w.numbers != nil {
		w.numbers.Close()
	}
	for _, fd := range []int{w.end, w.inotify, w.mounts, w.events} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// number has the events of the namespace behind fd told under the number that it returns, 0 if there are
// no events.
func (w *watcher) number(fd int) (int, error) {
	if w.numbers == nil {
		return 0, nil
	}
	w.next++
	err := w.numbers.SetNetNsIdByFd(fd, w.next)
	if errors.Is(err, unix.EEXIST) {
		// It was let go of while something held it, and is back.
		return w.numbers.GetNetNsIdByFd(fd)
	}
	if err != nil {
		return 0, fmt.Errorf("number network namespace: %w", err)
	}
	return w.next, nil
}

// watchDirs watches those of the directories that exist; it is cheap enough to be called again and again.
func (w *watcher) watchDirs(dirs []string) {
	const mask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	for _, dir := range dirs {
		// One that is missing or cannot be watched is listed at every scan anyway.
		_, _ = unix.InotifyAddWatch(w.inotify, dir, mask)
	}
}

// stop ends the wait that is under way and every later one.
func (w *watcher) stop() error {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(w.end, one); err != nil {
		return fmt.Errorf("stop the watcher: %w", err)
	}
	return nil
}

// wait returns after limit, or before: when stopped, and if events is set, when there are changes.
func (w *watcher) wait(limit time.Duration, events bool) error {
	fds := []unix.PollFd{{Fd: int32(w.end), Events: unix.POLLIN}}
	if events {
		fds = append(fds,
			unix.PollFd{Fd: int32(w.inotify), Events: unix.POLLIN},
			unix.PollFd{Fd: int32(w.mounts), Events: unix.POLLPRI})
		if w.events >= 0 {
			fds = append(fds, unix.PollFd{Fd: int32(w.events), Events: unix.POLLIN})
		}
	}
	limit = max(limit, 0).Truncate(time.Millisecond) + time.Millisecond
	if _, err := unix.Poll(fds, int(limit.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for changes of network namespaces: %w", err)
	}
	if events {
		// The kernel tells a change of mounts once, to whoever asks first.
		if fds[2].Revents != 0 {
			w.remounted.Store(true)
		}
	}
	return nil
}

// changes takes everything that has happened so far.
func (w *watcher) changes() changes {
	c := changes{files: w.remounted.Swap(false), links: make(map[int]bool), ended: make(map[int]bool)}
	var buffer [4096]byte
	for {
		n, err := unix.Read(w.inotify, buffer[:])
		if n <= 0 || err != nil {
			break
		}
		c.files = true
	}
	if w.events < 0 {
		return c
	}
	var control [256]byte
	for {
		n, oob, _, _, err := unix.Recvmsg(w.events, buffer[:], control[:], 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS):
			c.lost = true
		case err != nil:
			return c
		default:
			c.add(buffer[:n], control[:oob])
		}
	}
}

// add reads one datagram. It holds one event, of which the end may be cut off.
func (c *changes) add(message, control []byte) {
	if len(message) < unix.SizeofNlMsghdr {
		return
	}
	switch binary.NativeEndian.Uint16(message[4:]) {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if number, ok := sender(control); ok {
			c.links[number] = true
		}
	case unix.RTM_DELNSID:
		const family = 4 // struct rtgenmsg, padded
		body := message[unix.SizeofNlMsghdr:]
		if len(body) < family+unix.SizeofRtAttr+4 {
			return
		}
		attribute := body[family:]
		if binary.NativeEndian.Uint16(attribute[2:]) == unix.NETNSA_NSID {
			c.ended[int(int32(binary.NativeEndian.Uint32(attribute[4:])))] = true
		}
	}
}

// sender is the number of the namespace that an event comes from.
func sender(control []byte) (int, bool) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(m.Data))), true
		}
	}
	return 0, false
}
