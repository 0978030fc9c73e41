package tc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// The ports on which ztunnel listens inside a captured pod's namespace.
const (
	ztunnelOutbound = 15001
	ztunnelHBONE    = 15008
)

// isAmbient tells whether istio-cni's in-pod redirection is at work in the namespace of the calling thread:
// something listens on both the HBONE port and the outbound one. One of them alone would be a sidecar's
// (15001) or a waypoint's (15008).
//
// The kernel is asked for the two listeners, rather than for all of them, because a list costs a walk over
// the host's whole table of listeners for each namespace.
func isAmbient() (bool, error) {
	fd, err := openDiagnosis()
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	for _, port := range []uint16{ztunnelHBONE, ztunnelOutbound} {
		listens, err := listensOn(fd, port)
		if err != nil || !listens {
			return false, err
		}
	}
	return true, nil
}

// checkAmbient finds out whether listeners can be asked for at all, by asking for one of its own. Without
// that, a kernel that cannot tell would look like a host without ambient pods.
func checkAmbient() error {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(listener)
	// lo may be down.
	if err := unix.SetsockoptInt(listener, unix.IPPROTO_IP, unix.IP_FREEBIND, 1); err != nil {
		return fmt.Errorf("set IP_FREEBIND: %w", err)
	}
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("bind to 127.0.0.1: %w", err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		return fmt.Errorf("listen on 127.0.0.1: %w", err)
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		return fmt.Errorf("read socket name: %w", err)
	}
	address, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return unix.EAFNOSUPPORT
	}
	fd, err := openDiagnosis()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if found, err := diagnose(fd, unix.AF_INET, uint16(address.Port)); err != nil || !found {
		return errors.Join(errors.New("the kernel does not tell who listens, it needs the module tcp_diag"), err)
	}
	return nil
}

func openDiagnosis() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, fmt.Errorf("open socket diagnosis: %w", err)
	}
	return fd, nil
}

// listensOn looks for a TCP listener that would take a connection to the loopback address.
func listensOn(fd int, port uint16) (bool, error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := diagnose(fd, family, port)
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

func diagnose(fd int, family uint8, port uint16) (bool, error) {
	// struct inet_diag_req_v2: family, protocol, ext, pad, states, then struct inet_diag_sockid: ports,
	// source[4], destination[4], interface, cookie[2].
	const requestSize = 8 + 48
	const sockDiagByFamily = 20
	message := make([]byte, unix.SizeofNlMsghdr+requestSize)
	order := binary.NativeEndian
	order.PutUint32(message[0:], uint32(len(message)))
	order.PutUint16(message[4:], sockDiagByFamily)
	order.PutUint16(message[6:], unix.NLM_F_REQUEST)
	request := message[unix.SizeofNlMsghdr:]
	request[0] = family
	request[1] = unix.IPPROTO_TCP
	order.PutUint32(request[4:], ^uint32(0))
	id := request[8:]
	binary.BigEndian.PutUint16(id[0:], port)
	if family == unix.AF_INET {
		copy(id[4:], []byte{127, 0, 0, 1})
	} else {
		id[4+15] = 1
	}
	order.PutUint64(id[40:], ^uint64(0)) // any cookie

	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("look for a listener: %w", err)
	}
	var buffer [4096]byte
	n, _, err := unix.Recvfrom(fd, buffer[:], 0)
	if err != nil {
		return false, fmt.Errorf("look for a listener: %w", err)
	}
	answers, err := syscall.ParseNetlinkMessage(buffer[:n])
	if err != nil || len(answers) == 0 {
		return false, fmt.Errorf("look for a listener: bad answer: %w", errors.Join(err, unix.EBADMSG))
	}
	if answers[0].Header.Type == sockDiagByFamily {
		const listen = 10 // TCP_LISTEN
		return len(answers[0].Data) > 1 && answers[0].Data[1] == listen, nil
	}
	// No such socket, or no IPv6 in this kernel.
	if err := netlinkError(answers[0].Data); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) {
		return false, fmt.Errorf("look for a listener: %w", err)
	}
	return false, nil
}
