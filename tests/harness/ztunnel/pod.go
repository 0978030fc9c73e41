package ztunnel

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds a connection attempt, as the real one's default does.
const dialTimeout = 10 * time.Second

// pod is a pod of this node: ztunnel's sockets in it and the HBONE connections that leave it.
type pod struct {
	Pod
	proxy *Proxy
	netns *os.File
	host  *os.File // the namespace of this process
	own   map[netip.Addr]struct{}
	tls   *tls.Config // both as client and as server
	pool  pool
}

func newPod(p *Proxy, described Pod, ca CA) (*pod, error) {
	pod := &pod{Pod: described, proxy: p, own: make(map[netip.Addr]struct{})}
	for _, address := range described.Addresses {
		pod.own[address] = struct{}{}
	}
	var err error
	if pod.tls, err = ca.config(described.Name); err != nil {
		return nil, err
	}
	if pod.netns, err = os.Open(described.NetNS); err != nil {
		return nil, fmt.Errorf("open its network namespace: %w", err)
	}
	if pod.host, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		pod.netns.Close()
		return nil, fmt.Errorf("open this process's network namespace: %w", err)
	}
	pod.pool.init()
	return pod, nil
}

func (p *pod) close() error {
	p.host.Close()
	return p.netns.Close()
}

// enter runs fn on a thread that is in the pod's namespace meanwhile.
func (p *pod) enter(fn func() error) error {
	runtime.LockOSThread()
	if err := unix.Setns(int(p.netns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the namespace of pod %s: %w", p.Name, err)
	}
	err := fn()
	if back := unix.Setns(int(p.host.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so that it ends with this goroutine and nobody else runs on it.
		return fmt.Errorf("leave the namespace of pod %s: %w", p.Name, back)
	}
	runtime.UnlockOSThread()
	return err
}

// listen makes the three listeners, each for IPv4 and IPv6 in one socket, and serves them.
func (p *pod) listen() error {
	for port, handle := range map[int]func(*net.TCPConn){
		OutboundPort: p.outbound,
		InboundPort:  p.inbound,
		HBONEPort:    p.hbone,
	} {
		var l net.Listener
		err := p.enter(func() (err error) {
			config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
				var failed error
				err := raw.Control(func(fd uintptr) {
					failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, Mark)
				})
				if err != nil {
					return err
				}
				return failed
			}}
			config.SetMultipathTCP(false) // Go's default is a kind of socket that the real one does not have
			l, err = config.Listen(context.Background(), "tcp", "[::]:"+strconv.Itoa(port))
			return err
		})
		if err != nil {
			return fmt.Errorf("listen on port %d: %w", port, err)
		}
		p.proxy.serve(l, handle)
	}
	return nil
}

// dial connects from inside the pod. If source is valid, the connection comes from that address, which need
// not be the pod's, and a new port.
func (p *pod) dial(source netip.Addr, destination netip.AddrPort) (*net.TCPConn, error) {
	fd, err := p.socket(destination.Addr().Is6())
	if err != nil {
		return nil, err
	}
	conn, err := connect(fd, source, destination)
	if err != nil {
		return nil, fmt.Errorf("connect from pod %s to %v: %w", p.Name, destination, err)
	}
	return conn, nil
}

func (p *pod) socket(v6 bool) (int, error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd := -1
	err := p.enter(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("open a socket in pod %s: %w", p.Name, err)
	}
	return fd, nil
}

// connect takes fd over: it is closed on error.
func connect(fd int, source netip.Addr, destination netip.AddrPort) (*net.TCPConn, error) {
	file := os.NewFile(uintptr(fd), "tcp")
	defer file.Close() // FileConn has its own descriptor
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, Mark); err != nil {
		return nil, fmt.Errorf("set SO_MARK (it needs CAP_NET_ADMIN): %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return nil, fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	if source.IsValid() {
		if err := spoof(fd, source); err != nil {
			return nil, err
		}
	}
	if err := unix.Connect(fd, sockaddr(destination)); err != nil && err != unix.EINPROGRESS {
		return nil, err
	}
	if err := await(file); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("take over a connection: %w", err)
	}
	return conn.(*net.TCPConn), nil
}

// spoof binds fd to an address that the pod need not have, and leaves the port to connect.
func spoof(fd int, source netip.Addr) error {
	level, transparent := unix.SOL_IP, unix.IP_TRANSPARENT
	if source.Is6() {
		level, transparent = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, level, transparent, 1); err != nil {
		return fmt.Errorf("set IP_TRANSPARENT (it needs CAP_NET_ADMIN): %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
		return fmt.Errorf("bind to the client's address %v: %w", source, err)
	}
	return nil
}

// await waits for the outcome of a connect that is under way.
func await(file *os.File) error {
	if err := file.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return fmt.Errorf("set a deadline: %w", err)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for a connection: %w", err)
	}
	var outcome error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || code != 0 {
			outcome = err
			if code != 0 {
				outcome = unix.Errno(code)
			}
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil // otherwise it is still under way
	})
	if err != nil {
		return fmt.Errorf("wait for a connection: %w", err)
	}
	return outcome
}

func sockaddr(address netip.AddrPort) unix.Sockaddr {
	if address.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(address.Port()), Addr: address.Addr().As16()}
}
