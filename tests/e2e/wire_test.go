package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// A wire is a cable between two namespaces that is made of two TAP devices and this process, which may do to frames
// what networks do. Each end is an Ethernet interface to its kernel, without offloads: no packet is larger than the MTU.
type wire struct {
	ends [2]*os.File // client, server

	mu      sync.Mutex
	change  func(f frame) [][]byte // nil: every frame goes through as it is
	changed int                    // frames that did not go through alone, in their turn and as they were
}

// frame is a packet that comes from one end.
type frame struct {
	from    end
	bytes   []byte
	payload []byte // of TCP; nil where it is none, or has none
	flags   byte   // of TCP
}

// newWire joins two new namespaces by a wire with the addresses of newNetwork.
func newWire(t *testing.T) (*network, *wire) {
	t.Helper()
	return newWireOf(t, unix.IFF_TAP, [2][]netip.Prefix{
		{netip.PrefixFrom(clientIP4, 24), netip.PrefixFrom(clientIP6, 64)}, {netip.PrefixFrom(serverIP4, 24), netip.PrefixFrom(serverIP6, 64)},
	})
}

// newWireOf joins them by TAP devices, or by TUN devices, whose packets have no Ethernet header and can't be changed.
func newWireOf(t *testing.T, kind uint16, addresses [2][]netip.Prefix) (*network, *wire) {
	t.Helper()
	n := &network{lab: stage.NewLab(t)}
	w := new(wire)
	for e, ns := range []**harness.Namespace{&n.clientNS, &n.server} {
		var err error
		*ns, err = n.lab.Namespace([]string{"client", "server"}[e])
		stage.Must(t, err)
		stage.Must(t, (*ns).Do(func() (err error) {
			w.ends[e], err = tap("eth0", kind)
			return err
		}))
		handle := (*ns).Netlink()
		link, err := handle.LinkByName("eth0")
		stage.Must(t, err)
		stage.Must(t, handle.LinkSetUp(link))
		for _, address := range addresses[e] {
			stage.Must(t, (*ns).Address("eth0", address))
		}
	}
	var copying sync.WaitGroup
	for e := range w.ends {
		copying.Go(func() {
			if err := w.copy(end(e)); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Errorf("the wire broke: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		stage.Must(t, w.ends[0].Close(), w.ends[1].Close())
		copying.Wait()
	})
	return n, w
}

// tap makes a TAP or TUN device in the namespace of this thread. It goes when the file is closed.
func tap(name string, kind uint16) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(kind | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

func (w *wire) copy(from end) error {
	for {
		buffer := make([]byte, 9000)
		n, err := w.ends[from].Read(buffer)
		if err != nil {
			return err
		}
		if err := w.pass(from, buffer[:n]); err != nil {
			return err
		}
	}
}

// pass keeps others from changing what happens to frames until this one has arrived.
func (w *wire) pass(from end, bytes []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := [][]byte{bytes}
	if w.change != nil {
		out = w.change(parseFrame(from, bytes))
		if len(out) != 1 || &out[0][0] != &bytes[0] {
			w.changed++
		}
	}
	for _, bytes := range out {
		if _, err := w.ends[1-from].Write(bytes); err != nil {
			return err
		}
	}
	return nil
}

// set says what happens to frames from now on, nil is nothing, and tells how many were changed before. All that left
// the wire before has arrived.
func (w *wire) set(change func(f frame) [][]byte) (changed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed, w.changed = w.changed, 0
	w.change = change
	return changed
}

const (
	ethernet = 14
	flagFIN  = 1
	flagRST  = 4
)

// parseFrame finds TCP behind IPv4 with its options and IPv6 with hop-by-hop and destination options.
func parseFrame(from end, bytes []byte) frame {
	f := frame{from: from, bytes: bytes}
	if len(bytes) < ethernet+40 {
		return f
	}
	packet := bytes[ethernet:]
	var header, length int
	var protocol byte
	switch binary.BigEndian.Uint16(bytes[12:]) {
	case unix.ETH_P_IP:
		header, length, protocol = int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:])), packet[9]
	case unix.ETH_P_IPV6:
		header, length, protocol = 40, 40+int(binary.BigEndian.Uint16(packet[4:])), packet[6]
		for protocol == unix.IPPROTO_HOPOPTS || protocol == unix.IPPROTO_DSTOPTS {
			protocol, header = packet[header], header+8+int(packet[header+1])*8
		}
	}
	if protocol != unix.IPPROTO_TCP || length > len(packet) || header+20 > length {
		return f
	}
	segment := packet[header:length]
	f.flags = segment[13]
	if f.payload = segment[int(segment[12]>>4)*4:]; len(f.payload) == 0 {
		f.payload = nil
	}
	return f
}

// tagged puts VLAN tags with the identifier 0 before a frame's type, the outer one first. Such tags carry a priority
// alone: a kernel takes the frame as its own whether it knows VLANs or not.
func tagged(bytes []byte, types ...uint16) []byte { return taggedFor(0, bytes, types...) }

func taggedFor(vlan uint16, bytes []byte, types ...uint16) []byte {
	out := append([]byte(nil), bytes[:12]...)
	for _, tag := range types {
		out = binary.BigEndian.AppendUint16(out, tag)
		out = binary.BigEndian.AppendUint16(out, 5<<13|vlan) // and a priority
	}
	return append(out, bytes[12:]...)
}
