package tc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// rtnl is a route netlink socket in the namespace of the thread that opened it. It holds that namespace
// until it is closed.
type rtnl struct{ fd int }

func openRtnl() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &rtnl{fd}, nil
}

func (r *rtnl) Close() error { return unix.Close(r.fd) }

// cookie is the identity of the socket's namespace.
func (r *rtnl) cookie() (uint64, error) {
	cookie, err := unix.GetsockoptUint64(r.fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, fmt.Errorf("read network namespace cookie: the kernel has none, Linux 5.14 or later is needed: %w",
			errors.ErrUnsupported)
	}
	if err != nil {
		return 0, fmt.Errorf("read network namespace cookie: %w", err)
	}
	return cookie, nil
}

// iface is an interface as the kernel lists it.
type iface struct {
	index int
	name  string
	kind  uint16 // ARPHRD_*
	flags uint32 // IFF_*
}

// noIP are the hardware types that never carry IP, and so no TCP. Every other type is tapped, known or not:
// a program that cannot read its packets rejects them.
var noIP = map[uint16]bool{
	unix.ARPHRD_CAN:                true,
	unix.ARPHRD_MCTP:               true,
	unix.ARPHRD_IEEE80211:          true, // raw frames of a monitor; a wireless station's are ARPHRD_ETHER
	unix.ARPHRD_IEEE80211_PRISM:    true,
	unix.ARPHRD_IEEE80211_RADIOTAP: true,
	unix.ARPHRD_IEEE802154:         true, // the radio below a 6LoWPAN interface, which has its own type
	unix.ARPHRD_IEEE802154_MONITOR: true,
	unix.ARPHRD_PHONET:             true,
	unix.ARPHRD_PHONET_PIPE:        true,
	unix.ARPHRD_CAIF:               true,
	unix.ARPHRD_NETLINK:            true,
	unix.ARPHRD_VSOCKMON:           true,
}

func (i iface) tappable() bool { return i.flags&unix.IFF_UP != 0 && !noIP[i.kind] }

func (i iface) loopback() bool { return i.flags&unix.IFF_LOOPBACK != 0 }

// dumpSize is the most that the kernel puts in one datagram of a dump.
const dumpSize = 32 << 10

// links lists the namespace's interfaces. It asks for no statistics, which are most of the cost.
// buffer holds a datagram, of dumpSize at most.
func (r *rtnl) links(buffer []byte) ([]iface, error) {
	const rtextFilterSkipStats = 8
	request := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg+unix.SizeofRtAttr+4)
	order := binary.NativeEndian
	order.PutUint32(request[0:], uint32(len(request)))
	order.PutUint16(request[4:], unix.RTM_GETLINK)
	order.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	attribute := request[unix.SizeofNlMsghdr+unix.SizeofIfInfomsg:]
	order.PutUint16(attribute[0:], unix.SizeofRtAttr+4)
	order.PutUint16(attribute[2:], unix.IFLA_EXT_MASK)
	order.PutUint32(attribute[4:], rtextFilterSkipStats)

	// A dump that a change ran into is marked, and asked for again.
	for range 10 {
		links, torn, err := r.dumpLinks(request, buffer)
		if err != nil {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
		if !torn {
			return links, nil
		}
	}
	return nil, errors.New("list interfaces: they change too quickly to be listed")
}

func (r *rtnl) dumpLinks(request, buffer []byte) (links []iface, torn bool, err error) {
	if err := unix.Sendto(r.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, false, err
	}
	for {
		n, _, err := unix.Recvfrom(r.fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, false, err
		}
		for _, m := range messages {
			torn = torn || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return links, torn, nil
			case unix.NLMSG_ERROR:
				return nil, false, netlinkError(m.Data)
			case unix.RTM_NEWLINK:
				link, err := parseLink(&m)
				if err != nil {
					return nil, false, err
				}
				links = append(links, link)
			}
		}
	}
}

func parseLink(m *syscall.NetlinkMessage) (iface, error) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return iface{}, unix.EBADMSG
	}
	order := binary.NativeEndian
	link := iface{
		kind:  order.Uint16(m.Data[2:]),
		index: int(int32(order.Uint32(m.Data[4:]))),
		flags: order.Uint32(m.Data[8:]),
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return iface{}, err
	}
	for _, a := range attributes {
		if a.Attr.Type == unix.IFLA_IFNAME {
			link.name = unix.ByteSliceToString(a.Value)
		}
	}
	return link, nil
}

// netlinkError is the error in the body of an NLMSG_ERROR message, nil for an acknowledgement.
func netlinkError(body []byte) error {
	if len(body) < 4 {
		return unix.EBADMSG
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
