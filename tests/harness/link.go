package harness

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth joins two namespaces by a veth pair with those interface names, both ends up. Attributes that matter
// to some tests (several queues, another MTU) are the caller's to set afterwards.
func Veth(a *Namespace, aName string, b *Namespace, bName string) error {
	err := a.links.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aName},
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(b.handle),
	})
	if err != nil {
		return fmt.Errorf("join %s in %s and %s in %s by a veth pair: %w", aName, a.name, bName, b.name, err)
	}
	if err := a.up(aName); err != nil {
		return err
	}
	return b.up(bName)
}

// Bridge makes a bridge with those ports, up. It forwards from the first packet on.
func (n *Namespace) Bridge(name string, ports ...string) error {
	snooping := false // it would hold back IPv6 neighbour discovery at first
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &snooping}
	if err := n.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make bridge %s in %s: %w", name, n.name, err)
	}
	if err := n.up(name); err != nil {
		return err
	}
	for _, port := range ports {
		if err := n.Enslave(name, port); err != nil {
			return err
		}
	}
	return nil
}

// Enslave makes an interface a port of a bridge.
func (n *Namespace) Enslave(bridge, port string) error {
	master, err := n.link(bridge)
	if err != nil {
		return err
	}
	slave, err := n.link(port)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetMaster(slave, master); err != nil {
		return fmt.Errorf("make %s a port of bridge %s in %s: %w", port, bridge, n.name, err)
	}
	return nil
}

// Address gives an interface an address, usable at once.
func (n *Namespace) Address(name string, prefix netip.Prefix) error {
	link, err := n.link(name)
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	if err := n.links.AddrAdd(link, address); err != nil {
		return fmt.Errorf("give %s in %s the address %v: %w", name, n.name, prefix, err)
	}
	return nil
}

// Route leads a destination through a gateway or, if that is the zero Addr, straight out of an interface.
func (n *Namespace) Route(destination netip.Prefix, gateway netip.Addr, name string) error {
	link, err := n.link(name)
	if err != nil {
		return err
	}
	route := &netlink.Route{Dst: ipNet(destination.Masked()), LinkIndex: link.Attrs().Index}
	if gateway.IsValid() {
		route.Gw = gateway.AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := n.links.RouteAdd(route); err != nil {
		return fmt.Errorf("route %v through %v on %s in %s: %w", destination, gateway, name, n.name, err)
	}
	return nil
}

// DeleteLink removes an interface, and with it a veth's other end.
func (n *Namespace) DeleteLink(name string) error {
	link, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.links.LinkDel(link); err != nil {
		return fmt.Errorf("remove %s in %s: %w", name, n.name, err)
	}
	return nil
}

func (n *Namespace) up(name string) error {
	link, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s in %s up: %w", name, n.name, err)
	}
	return nil
}

func (n *Namespace) link(name string) (netlink.Link, error) {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s in %s: %w", name, n.name, err)
	}
	return link, nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
