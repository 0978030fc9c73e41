package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"ambit/tests/harness/ztunnel"
)

// bridgeName is the bridge of every node, to which its pods are joined.
const bridgeName = "cni0"

// ZtunnelRole is the name under which a ztunnel stand-in runs as a process of its own: every program that
// builds an ambient pair dispatches Roles{ZtunnelRole: Ztunnel}.
const ZtunnelRole = "ztunnel"

// Ztunnel is the role of a ztunnel stand-in. Its configuration comes as JSON on the standard input.
func Ztunnel([]string) error {
	var cfg ztunnel.Config
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if _, err := ztunnel.Start(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		return err
	}
	select {}
}

// Node is a stand-in for a machine: a namespace with a bridge, whose processes are the host's.
type Node struct {
	*Namespace
	IP4, IP6 netip.Addr
	Pods     []*Pod
	Ztunnel  *Process // nil until StartZtunnel
}

// Pod is a namespace with one interface, eth0, on its node's bridge. What is started in it runs in its
// container's cgroup.
type Pod struct {
	*Namespace
	Node      *Node
	ShortName string
	IP4, IP6  netip.Addr
	Ambient   bool      // it has istio-cni's redirection
	Container Container // what the path of the pod's cgroup names
}

// Node makes a node with those addresses on its bridge. All pods share the subnets 10.9.0.0/24 and fd09::/64.
func (l *Lab) Node(name string, ip4, ip6 netip.Addr) (*Node, error) {
	ns, err := l.Namespace(name)
	if err != nil {
		return nil, err
	}
	n := &Node{Namespace: ns, IP4: ip4, IP6: ip6}
	if err := ns.Bridge(bridgeName); err != nil {
		return nil, err
	}
	for _, prefix := range []netip.Prefix{netip.PrefixFrom(ip4, 24), netip.PrefixFrom(ip6, 64)} {
		if err := ns.Address(bridgeName, prefix); err != nil {
			return nil, err
		}
	}
	return n, ns.Sysctl(map[string]string{
		"net/ipv4/ip_forward":          "1",
		"net/ipv6/conf/all/forwarding": "1",
	})
}

// Join puts two nodes on one network, by a cable between their bridges.
func (n *Node) Join(other *Node) error {
	here, there := "to-"+interfaceName(other.name), "to-"+interfaceName(n.name)
	if err := Veth(n.Namespace, here, other.Namespace, there); err != nil {
		return err
	}
	if err := n.Enslave(bridgeName, here); err != nil {
		return err
	}
	return other.Enslave(bridgeName, there)
}

// interfaceName is the part of a namespace's name that the caller chose, as far as an interface can have it.
func interfaceName(namespace string) string {
	parts := strings.SplitN(namespace, "-", 3)
	short := parts[len(parts)-1]
	return short[:min(len(short), 12)]
}

// Pod makes a pod on the node. An ambient one gets istio-cni's redirection: it has no TCP until the node's
// ztunnel runs.
func (n *Node) Pod(ctx context.Context, name string, ip4, ip6 netip.Addr, ambient bool) (*Pod, error) {
	ns, err := n.lab.Namespace(name)
	if err != nil {
		return nil, err
	}
	p := &Pod{Namespace: ns, Node: n, ShortName: name, IP4: ip4, IP6: ip6, Ambient: ambient}
	if ns.cgroup, p.Container, err = n.lab.ContainerCgroup(); err != nil {
		return nil, err
	}
	port := "veth-" + interfaceName(ns.name)
	if err := Veth(ns, "eth0", n.Namespace, port); err != nil {
		return nil, err
	}
	if err := n.Enslave(bridgeName, port); err != nil {
		return nil, err
	}
	for prefix, gateway := range map[netip.Prefix]netip.Addr{
		netip.PrefixFrom(ip4, 24): n.IP4,
		netip.PrefixFrom(ip6, 64): n.IP6,
	} {
		if err := ns.Address("eth0", prefix); err != nil {
			return nil, err
		}
		everywhere := netip.PrefixFrom(prefix.Addr(), 0)
		if err := ns.Route(everywhere, gateway, "eth0"); err != nil {
			return nil, err
		}
	}
	if ambient {
		if err := ns.Redirect(ctx); err != nil {
			return nil, err
		}
	}
	n.Pods = append(n.Pods, p)
	return p, nil
}

// Addresses of the pod: IPv4, IPv6.
func (p *Pod) Addresses() []netip.Addr { return []netip.Addr{p.IP4, p.IP6} }

// StartZtunnel starts the node's ztunnel for its ambient pods, in a container's cgroup of its own, and waits
// until it listens. mesh is every ambient pod of all nodes.
func (n *Node) StartZtunnel(ctx context.Context, mesh []*Pod, services []ztunnel.Service, ca ztunnel.CA) error {
	cfg := ztunnel.Config{Services: services, CA: ca}
	for _, pod := range mesh {
		cfg.Mesh = append(cfg.Mesh, pod.Addresses()...)
		if pod.Node == n {
			cfg.Pods = append(cfg.Pods, ztunnel.Pod{Name: pod.ShortName, NetNS: pod.Path(), Addresses: pod.Addresses()})
		}
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("encode the configuration of ztunnel: %w", err)
	}
	program, err := RoleProgram(ZtunnelRole)
	if err != nil {
		return err
	}
	program.Stdin = strings.NewReader(string(encoded))
	if program.Cgroup, _, err = n.lab.ContainerCgroup(); err != nil {
		return err
	}
	if n.Ztunnel, err = n.Start(program); err != nil {
		return err
	}
	for _, pod := range mesh {
		if pod.Node != n {
			continue
		}
		for _, port := range []uint16{ztunnel.OutboundPort, ztunnel.InboundPort, ztunnel.HBONEPort} {
			if err := n.Ztunnel.waitListen(ctx, pod.Namespace, port); err != nil {
				return fmt.Errorf("start the ztunnel of %s: %w", n.name, err)
			}
		}
	}
	return nil
}
