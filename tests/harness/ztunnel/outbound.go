package ztunnel

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// service takes its backends in turn.
type service struct {
	backends []netip.AddrPort
	next     atomic.Uint64
}

func (s *service) pick() netip.AddrPort {
	return s.backends[(s.next.Add(1)-1)%uint64(len(s.backends))]
}

// outbound carries a connection that the pod's redirection sent to OutboundPort to where it was meant to go.
func (p *pod) outbound(app *net.TCPConn) {
	destination, err := originalDestination(app)
	if err != nil {
		p.proxy.log.Warn("an outbound connection has no original destination", "pod", p.Name, "error", err)
		app.Close()
		return
	}
	if destination.Port() == OutboundPort && p.isOwn(destination.Addr()) {
		app.Close() // somebody connected to the port itself: it would go round for ever
		return
	}
	if service, ok := p.proxy.services[destination]; ok {
		destination = service.pick()
	}
	if _, ok := p.proxy.mesh[destination.Addr()]; ok {
		p.tunnel(app, destination)
		return
	}
	remote, err := p.dial(netip.Addr{}, destination)
	if err != nil {
		p.proxy.log.Debug("an outbound connection could not be passed on", "error", err)
		app.Close()
		return
	}
	p.proxy.join(app, remote)
}

// inbound carries a plain connection that was redirected to InboundPort to the application, with the
// client's own address.
func (p *pod) inbound(client *net.TCPConn) {
	destination, err := originalDestination(client)
	if err != nil || destination.Port() == InboundPort {
		p.proxy.log.Warn("an inbound connection has no original destination", "pod", p.Name, "error", err)
		client.Close()
		return
	}
	app, err := p.dial(peer(client), destination)
	if err != nil {
		p.proxy.log.Debug("an inbound connection could not be passed on", "error", err)
		client.Close()
		return
	}
	p.proxy.join(client, app)
}

// isOwn tells whether an address belongs to the pod or its loopback.
func (p *pod) isOwn(address netip.Addr) bool {
	_, ok := p.own[address]
	return ok || address.IsLoopback()
}

// peer is the address of the other end; an IPv4 one in its own form.
func peer(c net.Conn) netip.Addr {
	return c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// originalDestination asks conntrack where a redirected connection was going.
func originalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask for the original destination: %w", err)
	}
	level := unix.SOL_IPV6 // where the option is IP6T_SO_ORIGINAL_DST, of the same number
	if peer(c).Is4() {
		level = unix.SOL_IP
	}
	var buffer unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(buffer))
	var failed unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, failed = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), unix.SO_ORIGINAL_DST,
			uintptr(unsafe.Pointer(&buffer)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && failed != 0 {
		err = failed
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask for the original destination: %w", err)
	}
	port := (*[2]byte)(unsafe.Pointer(&buffer.Port))
	number := uint16(port[0])<<8 | uint16(port[1])
	if level == unix.SOL_IPV6 {
		return netip.AddrPortFrom(netip.AddrFrom16(buffer.Addr), number), nil
	}
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&buffer))
	return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), number), nil
}
