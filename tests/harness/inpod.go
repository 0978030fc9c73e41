package harness

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
)

// What istio-cni installs in a pod's namespace, with the settings of Istio's Helm chart (IPv6 and DNS capture
// on). tests/ambient holds these files equal to what Istio's own package generates and rewrites them.
var (
	//go:embed rules/inpod.v4.rules
	rulesV4 string // for iptables-restore
	//go:embed rules/inpod.v6.rules
	rulesV6 string // for ip6tables-restore
	//go:embed rules/inpod.v4.routes
	routesV4 string // for ip -4 -batch
	//go:embed rules/inpod.v6.routes
	routesV6 string // for ip -6 -batch
)

// variants of iptables in the order in which istio-cni tries them in a fresh namespace.
var variants = []string{"-nft", "", "-legacy"}

var chosen struct {
	sync.Mutex
	known   bool
	variant string
}

// IptablesVariant is the suffix of the iptables programs that work on this machine: "-nft", "-legacy" or
// none. It is found out once, by a rule set of no rules.
func (n *Namespace) IptablesVariant(ctx context.Context) (string, error) {
	chosen.Lock()
	defer chosen.Unlock()
	if chosen.known {
		return chosen.variant, nil
	}
	var errs []error
	for _, variant := range variants {
		if _, err := exec.LookPath("iptables" + variant + "-restore"); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := n.restore(ctx, "iptables"+variant+"-restore", "*nat\nCOMMIT\n"); err != nil {
			errs = append(errs, err)
			continue
		}
		chosen.known, chosen.variant = true, variant
		return variant, nil
	}
	return "", fmt.Errorf("find a working iptables: install the package iptables: %w", errors.Join(errs...))
}

// Redirect installs in a pod's namespace what istio-cni does, for IPv4 and IPv6: from then on the pod's TCP
// goes to ports 15001 and 15006, where a ztunnel has to listen.
func (n *Namespace) Redirect(ctx context.Context) error {
	if err := n.Rules(ctx, rulesV4, rulesV6); err != nil {
		return fmt.Errorf("install the redirection of istio-cni: %w", err)
	}
	for family, routes := range map[string]string{"-4": routesV4, "-6": routesV6} {
		if _, err := n.RunProgram(ctx, Program{
			Path: "ip", Args: []string{family, "-batch", "-"}, Stdin: strings.NewReader(routes),
		}); err != nil {
			return fmt.Errorf("install the routes of istio-cni: %w", err)
		}
	}
	return nil
}

// Rules adds rules in iptables-restore's language, for IPv4 and IPv6, to those that are there. An empty
// string adds none.
func (n *Namespace) Rules(ctx context.Context, v4, v6 string) error {
	variant, err := n.IptablesVariant(ctx)
	if err != nil {
		return err
	}
	if v4 != "" {
		if err := n.restore(ctx, "iptables"+variant+"-restore", v4); err != nil {
			return err
		}
	}
	if v6 != "" {
		return n.restore(ctx, "ip6tables"+variant+"-restore", v6)
	}
	return nil
}

func (n *Namespace) restore(ctx context.Context, program, rules string) error {
	_, err := n.RunProgram(ctx, Program{
		Path: program, Args: []string{"--noflush", "--wait", "10"}, Stdin: strings.NewReader(rules),
	})
	return err
}
