package harness

import (
	"context"
	"fmt"
	"net/netip"
)

// DNAT makes a service address of this namespace, as kube-proxy does: TCP to it, from here or passing through
// here, goes to backend. The answers must pass through here too, so client and backend need to be in different
// subnets that this namespace joins.
func (n *Namespace) DNAT(ctx context.Context, service, backend netip.AddrPort) error {
	rules := "*nat\n"
	for _, chain := range []string{"PREROUTING", "OUTPUT"} {
		rules += fmt.Sprintf("-A %s -d %v -p tcp -m tcp --dport %d -j DNAT --to-destination %v\n",
			chain, service.Addr(), service.Port(), backend)
	}
	rules += "COMMIT\n"
	v4, v6 := rules, ""
	if service.Addr().Is6() {
		v4, v6 = "", rules
	}
	if err := n.Rules(ctx, v4, v6); err != nil {
		return fmt.Errorf("lead %v to %v: %w", service, backend, err)
	}
	return nil
}
