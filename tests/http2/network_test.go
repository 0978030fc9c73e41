package http2

import (
	"context"
	"net/netip"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// network is two namespaces: with a cable between them, or pods of an ambient mesh whose connections ztunnel ends.
type network struct {
	lab              *harness.Lab
	clientNS, server *harness.Namespace
	mesh             bool
}

var (
	clientIP = netip.MustParseAddr("10.78.0.1")
	serverIP = netip.MustParseAddr("10.78.0.2")
)

func cable(t testing.TB) *network {
	t.Helper()
	n := &network{lab: stage.NewLab(t)}
	n.clientNS, n.server = stage.Cable(t, n.lab, [2]netip.Prefix{netip.PrefixFrom(clientIP, 24), netip.PrefixFrom(serverIP, 24)})
	return n
}

func ambient(t testing.TB) *network {
	t.Helper()
	n := &network{lab: stage.NewLab(t), mesh: true}
	pair, err := harness.AmbientPair(context.Background(), n.lab, harness.PairConfig{})
	stage.Must(t, err)
	n.clientNS, n.server = pair.A.Namespace, pair.B.Namespace
	return n
}

func (n *network) stage(t testing.TB, flags ...string) *stage.Stage {
	t.Helper()
	return stage.Start(t, stage.Config{Lab: n.lab, Namespaces: []*harness.Namespace{n.clientNS, n.server}, Flags: flags})
}

// addresses are those of the client and of the server's socket, and the one that the client connects to.
func (n *network) addresses(port uint16) (client netip.Addr, local, target netip.AddrPort) {
	if n.mesh {
		return harness.AddressA4, netip.AddrPortFrom(harness.AddressB4, port), harness.VIP4
	}
	local = netip.AddrPortFrom(serverIP, port)
	return clientIP, local, local
}

// port is the one that a server has to take: a mesh has one service.
func (n *network) port(otherwise uint16) uint16 {
	if n.mesh {
		return harness.BackendPort
	}
	return otherwise
}
