package ambient

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"istio.io/istio/cni/pkg/config"
	"istio.io/istio/cni/pkg/iptables"
	istiolog "istio.io/istio/pkg/log"
	"istio.io/istio/tools/istio-iptables/pkg/dependencies"

	"ambit/tests/harness"
	"ambit/tests/harness/labtest"
)

var update = flag.Bool("update", false, "rewrite tests/harness/rules from Istio's package instead of comparing")

// The harness keeps as data what istio-cni installs in a pod, so that tests and the demo need neither Istio
// nor seconds. Here Istio's package installs its own in one namespace and the harness its data in another,
// and the kernel must then say the same of both.
func TestRulesEqualIstios(t *testing.T) {
	lab := labtest.New(t)
	istio := namespace(t, lab, "istio")
	restoreV4, restoreV6 := installByIstio(t, istio)
	if *update {
		rewrite(t, istio, restoreV4, restoreV6)
		t.Log("tests/harness/rules is rewritten; run again without -update to compare")
		return
	}
	ours := namespace(t, lab, "ours")
	if err := ours.Redirect(t.Context()); err != nil {
		t.Fatal(err)
	}

	variant, err := ours.IptablesVariant(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"iptables" + variant + "-save"},
		{"ip6tables" + variant + "-save"},
		{"ip", "-4", "rule", "show"},
		{"ip", "-6", "rule", "show"},
		{"ip", "-4", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"},
	} {
		t.Run(strings.Join(command, " "), func(t *testing.T) {
			want, got := state(t, istio, command), state(t, ours, command)
			if got != want {
				t.Errorf("the data in tests/harness/rules gives\n%s\nIstio's package gives\n%s\n"+
					"after a change of Istio's version: go test ./... -run TestRulesEqualIstios -args -update", got, want)
			}
			if !strings.Contains(want, "0x111") && !strings.Contains(want, "100") {
				t.Errorf("Istio's namespace shows none of Istio's settings:\n%s", want)
			}
		})
	}
}

func namespace(t *testing.T, lab *harness.Lab, name string) *harness.Namespace {
	t.Helper()
	ns, err := lab.Namespace(name)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// installByIstio does what istio-cni does with the settings of its Helm chart, and returns the texts that it
// gave to iptables-restore and ip6tables-restore.
func installByIstio(t *testing.T, ns *harness.Namespace) (v4, v6 string) {
	t.Helper()
	cfg := &config.AmbientConfig{
		EnableIPv6:  true,
		RedirectDNS: true,
		// DefaultHostProbeSNATIP and -V6 of cni/pkg/nodeagent, a package that takes minutes to build.
		HostProbeSNATAddress:   netip.MustParseAddr("169.254.7.127"),
		HostProbeV6SNATAddress: netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
	}
	err := ns.Do(func() error {
		real := &dependencies.RealDependencies{}
		_, pod, err := iptables.NewIptablesConfigurator(cfg, cfg, real, real, iptables.RealNlDeps())
		if err != nil {
			return fmt.Errorf("make Istio's configurator: %w", err)
		}
		rules := pod.AppendInpodRules(config.PodLevelOverrides{})
		v4, v6 = rules.BuildV4Restore(), rules.BuildV6Restore()
		return pod.CreateInpodRules(istiolog.FindScope(istiolog.DefaultScopeName), config.PodLevelOverrides{})
	})
	if err != nil {
		t.Fatalf("install by Istio's package: %v", err)
	}
	return v4, v6
}

// state is what a command prints in the namespace, without what differs from run to run.
func state(t *testing.T, ns *harness.Namespace, command []string) string {
	t.Helper()
	out, err := ns.Run(context.Background(), command[0], command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "#") {
			continue // the time of day
		}
		if strings.HasPrefix(line, ":") {
			line, _, _ = strings.Cut(line, " [") // counters
		}
		kept.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return kept.String()
}

// rewrite makes the harness's data anew: the rules as Istio's package words them, routes and routing rules
// as the kernel shows them afterwards.
func rewrite(t *testing.T, ns *harness.Namespace, restoreV4, restoreV6 string) {
	t.Helper()
	files := map[string]string{"inpod.v4.rules": restoreV4, "inpod.v6.rules": restoreV6}
	for family, name := range map[string]string{"-4": "inpod.v4.routes", "-6": "inpod.v6.routes"} {
		var batch strings.Builder
		for line := range strings.Lines(state(t, ns, []string{"ip", family, "rule", "show"})) {
			if preference, selector, ok := strings.Cut(line, ":"); ok && strings.Contains(line, "fwmark") {
				fmt.Fprintf(&batch, "rule add pref %s %s\n", preference, strings.TrimSpace(selector))
			}
		}
		for line := range strings.Lines(state(t, ns, []string{"ip", family, "route", "show", "table", "100"})) {
			fmt.Fprintf(&batch, "route add %s table 100\n", strings.TrimSpace(line))
		}
		files[name] = batch.String()
	}
	for name, text := range files {
		if err := os.WriteFile("../harness/rules/"+name, []byte(strings.TrimSpace(text)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
