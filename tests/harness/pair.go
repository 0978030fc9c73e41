package harness

import (
	"context"
	"net/netip"
	"slices"

	"ambit/tests/harness/ztunnel"
)

// The addresses of an ambient pair, those of the recording in testdata/ambient.
var (
	AddressA4 = netip.MustParseAddr("10.9.0.2")
	AddressA6 = netip.MustParseAddr("fd09::2")
	AddressB4 = netip.MustParseAddr("10.9.0.3")
	AddressB6 = netip.MustParseAddr("fd09::3")
	AddressW4 = netip.MustParseAddr("10.9.0.4")
	AddressW6 = netip.MustParseAddr("fd09::4")

	VIP4      = netip.MustParseAddrPort("10.96.0.10:80")
	VIP6      = netip.MustParseAddrPort("[fd96::10]:80")
	OtherVIP4 = netip.MustParseAddrPort("10.96.0.11:80") // leads to the same as VIP4
	OtherVIP6 = netip.MustParseAddrPort("[fd96::11]:80")
)

// BackendPort is where the services of an ambient pair lead in pod b.
const BackendPort = 8080

// PairConfig describes an ambient pair.
type PairConfig struct {
	// TwoNodes puts b on a node of its own, with a ztunnel of its own.
	TwoNodes bool
	// Services are added to VIP4, VIP6, OtherVIP4 and OtherVIP6, which lead to b.
	Services []ztunnel.Service
}

// Pair is the small mesh that most tests need: pods a and b in it and w outside of it, on one network, with
// IPv4 and IPv6. Its lab closes it.
type Pair struct {
	A, B, W *Pod
	Nodes   []*Node // one or two; the first is a's and w's, and the gateway of all
}

// AmbientPair makes an ambient pair. It returns when the pods can talk; what runs in them is the caller's.
func AmbientPair(ctx context.Context, lab *Lab, cfg PairConfig) (*Pair, error) {
	node, err := lab.Node("node1", netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1"))
	if err != nil {
		return nil, err
	}
	pair := &Pair{Nodes: []*Node{node}}
	if cfg.TwoNodes {
		other, err := lab.Node("node2", netip.MustParseAddr("10.9.0.254"), netip.MustParseAddr("fd09::fe"))
		if err != nil {
			return nil, err
		}
		if err := node.Join(other); err != nil {
			return nil, err
		}
		pair.Nodes = append(pair.Nodes, other)
	}
	last := pair.Nodes[len(pair.Nodes)-1]
	if pair.A, err = node.Pod(ctx, "a", AddressA4, AddressA6, true); err != nil {
		return nil, err
	}
	if pair.B, err = last.Pod(ctx, "b", AddressB4, AddressB6, true); err != nil {
		return nil, err
	}
	if pair.W, err = node.Pod(ctx, "w", AddressW4, AddressW6, false); err != nil {
		return nil, err
	}
	ca, err := ztunnel.NewCA()
	if err != nil {
		return nil, err
	}
	services := slices.Clone(cfg.Services)
	for _, address := range []netip.AddrPort{VIP4, VIP6, OtherVIP4, OtherVIP6} {
		backend := AddressB4
		if address.Addr().Is6() {
			backend = AddressB6
		}
		services = append(services, ztunnel.Service{
			Address: address, Backends: []netip.AddrPort{netip.AddrPortFrom(backend, BackendPort)},
		})
	}
	for _, node := range pair.Nodes {
		if err := node.StartZtunnel(ctx, []*Pod{pair.A, pair.B}, services, ca); err != nil {
			return nil, err
		}
	}
	return pair, nil
}
