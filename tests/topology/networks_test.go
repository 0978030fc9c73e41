package topology

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"ambit/tests/harness"
	"ambit/tests/harness/labtest"
)

// network is a client and a server, and the way between them.
type network struct {
	lab            *harness.Lab
	client, server *harness.Namespace
	between        *harness.Namespace // nil where nothing is
	v4, v6         route
}

// route is what the client connects to, and where that ends.
type route struct {
	target, backend netip.AddrPort
}

func newRoute(target, backend string) route {
	return route{netip.MustParseAddrPort(target), netip.MustParseAddrPort(backend)}
}

// namespaces are all of the network, each once.
func (n *network) namespaces() []*harness.Namespace {
	all := []*harness.Namespace{n.client}
	if n.server != n.client {
		all = append(all, n.server)
	}
	if n.between != nil {
		all = append(all, n.between)
	}
	return all
}

// networks are the ways between a client and a server on which nothing ends the connection, by name.
var networks = []struct {
	name string
	make func(testing.TB) *network
}{
	{"one namespace", oneNamespace},
	{"a bridge", bridged},
	{"a service address in the node", dnatBetween},
	{"a service address in the client's namespace", dnatAtClient},
	{"a service address in the server's namespace", dnatAtServer},
	{"a service address in the one namespace", dnatInside},
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func namespace(t testing.TB, lab *harness.Lab, name string) *harness.Namespace {
	t.Helper()
	ns, err := lab.Namespace(name)
	must(t, err)
	return ns
}

func oneNamespace(t testing.TB) *network {
	lab := labtest.New(t)
	ns := namespace(t, lab, "both")
	startServer(t, ns, 8080)
	return &network{
		lab: lab, client: ns, server: ns,
		v4: newRoute("127.0.0.1:8080", "127.0.0.1:8080"), v6: newRoute("[::1]:8080", "[::1]:8080"),
	}
}

// bridged joins client and server by a bridge in a third namespace.
func bridged(t testing.TB) *network {
	lab := labtest.New(t)
	n := &network{lab: lab, client: namespace(t, lab, "client"), server: namespace(t, lab, "server"), between: namespace(t, lab, "node")}
	must(t, harness.Veth(n.client, "eth0", n.between, "client"))
	must(t, harness.Veth(n.server, "eth0", n.between, "server"))
	must(t, n.between.Bridge("bridge", "client", "server"))
	for i, ns := range []*harness.Namespace{n.client, n.server} {
		for _, subnet := range []string{"10.5.0.%d/24", "fd05::%d/64"} {
			must(t, ns.Address("eth0", netip.MustParsePrefix(fmt.Sprintf(subnet, i+1))))
		}
	}
	startServer(t, n.server, 8080)
	n.v4, n.v6 = newRoute("10.5.0.2:8080", "10.5.0.2:8080"), newRoute("[fd05::2]:8080", "[fd05::2]:8080")
	return n
}

// routed joins client and server by a router in a third namespace.
func routed(t testing.TB) *network {
	lab := labtest.New(t)
	n := &network{lab: lab, client: namespace(t, lab, "client"), server: namespace(t, lab, "server"), between: namespace(t, lab, "node")}
	must(t, n.between.Sysctl(map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}))
	for i, ns := range []*harness.Namespace{n.client, n.server} {
		port := []string{"client", "server"}[i]
		must(t, harness.Veth(ns, "eth0", n.between, port))
		for _, subnet := range []string{fmt.Sprintf("10.%d.0.%%d/24", i+5), fmt.Sprintf("fd0%d::%%d/64", i+5)} {
			inside, gateway := netip.MustParsePrefix(fmt.Sprintf(subnet, 2)), netip.MustParsePrefix(fmt.Sprintf(subnet, 1))
			must(t, ns.Address("eth0", inside))
			must(t, n.between.Address(port, gateway))
			must(t, ns.Route(netip.PrefixFrom(inside.Addr(), 0), gateway.Addr(), "eth0"))
		}
	}
	startServer(t, n.server, 8080)
	n.v4, n.v6 = newRoute("10.96.0.20:80", "10.6.0.2:8080"), newRoute("[fd96::20]:80", "[fd06::2]:8080")
	return n
}

// dnat makes the service addresses of n in one of its namespaces.
func (n *network) dnat(t testing.TB, in *harness.Namespace) *network {
	t.Helper()
	for _, r := range []route{n.v4, n.v6} {
		must(t, in.DNAT(context.Background(), r.target, r.backend))
	}
	return n
}

func dnatBetween(t testing.TB) *network {
	n := routed(t)
	return n.dnat(t, n.between)
}

func dnatAtClient(t testing.TB) *network {
	n := routed(t)
	return n.dnat(t, n.client)
}

func dnatAtServer(t testing.TB) *network {
	n := routed(t)
	for _, r := range []route{n.v4, n.v6} {
		must(t, n.between.Route(host(r.target), r.backend.Addr(), "server"))
	}
	return n.dnat(t, n.server)
}

// dnatInside leads a client to a server in its own namespace.
func dnatInside(t testing.TB) *network {
	n := oneNamespace(t)
	n.v4, n.v6 = newRoute("10.96.0.20:80", "10.5.0.1:8080"), newRoute("[fd96::20]:80", "[fd05::1]:8080")
	for _, r := range []route{n.v4, n.v6} {
		must(t, n.client.Address("lo", host(r.backend)))
		must(t, n.client.Route(host(r.target), netip.Addr{}, "lo"))
	}
	return n.dnat(t, n.client)
}

// host is the prefix of an address alone.
func host(a netip.AddrPort) netip.Prefix {
	return netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
}
