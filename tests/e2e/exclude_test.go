package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

func TestExcludedPorts(t *testing.T) {
	n := newNetwork(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	service := netip.MustParseAddrPort("10.77.0.9:8090")
	backend := netip.AddrPortFrom(serverIP4, 8092)
	stage.Must(t, n.clientNS.DNAT(ctx, service, backend))
	st := n.stage(t, "--exclude-ports", "8090,8091")
	none := scene{say: script{ask(1, plain), tell(1, okay)}}
	one := scene{say: none.say, want: []exchange{plainly}}
	cable := n.cable()
	t.Run("of the server", func(t *testing.T) {
		p := cable
		p.listen = "0.0.0.0:8091"
		none.check(t, st, p)
		loopback := n.loopback()
		loopback.listen = "127.0.0.1:8091"
		none.check(t, st, loopback)
	})
	t.Run("of the client", func(t *testing.T) {
		c := connect(t, cable, netip.AddrPortFrom(clientIP4, 8091))
		stage.Must(t, c.play(none.say))
		c.close()
		none.verify(t, st, cable, c)
	})
	t.Run("of others", func(t *testing.T) { one.check(t, st, cable) })
	t.Run("of a service address that the client calls: the client has no span", func(t *testing.T) {
		listener := listen(t, n.server, fmt.Sprintf("0.0.0.0:%d", backend.Port()))
		defer listener.Close()
		c := dialTo(t, n.clientNS, service, listener)
		stage.Must(t, c.play(none.say))
		c.close()
		spans, _ := st.Settled(t)
		for _, s := range spans {
			if s.Client() || s.ParentID != "" {
				t.Errorf("a span is %v, its parent %q: %v", s.Kind, s.ParentID, s.Attributes)
			}
		}
	})
}

func TestExcludedCgroups(t *testing.T) {
	n := newNetwork(t)
	quiet, err := n.lab.Cgroup("quiet")
	stage.Must(t, err)
	below, err := n.lab.Cgroup("quiet/below/it")
	stage.Must(t, err)
	root, err := harness.CgroupRoot()
	stage.Must(t, err)
	path, err := filepath.Rel(root, quiet.Path())
	stage.Must(t, err)
	serve := func(port uint16, group *harness.Cgroup) {
		s := &webServer{name: "go-serve", port: port}
		p := role(t, "serve", fmt.Sprint(port), filepath.Join(t.TempDir(), "log"))
		p.Cgroup = group
		s.start(t, n.server, p)
	}
	serve(8101, quiet) // before ambit
	serve(8102, nil)
	st := n.stage(t, "--exclude-cgroups", "/"+path)
	serve(8103, quiet)
	serve(8104, below)
	for _, test := range []struct {
		name           string
		group          *harness.Cgroup
		port           uint16
		client, server bool
	}{
		{"nobody is in it", nil, 8102, true, true},
		{"the client is in it", quiet, 8102, false, true},
		{"the client is below it", below, 8102, false, true},
		{"the server is in it", nil, 8103, true, false},
		{"the server is below it", nil, 8104, true, false},
		{"both are in it", quiet, 8103, false, false},
		{"the server is in it, and was there before ambit", nil, 8101, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			_, err := n.clientNS.RunProgram(ctx, harness.Program{
				Path: "curl", Cgroup: test.group,
				Args: []string{"--silent", "--noproxy", "*", "--max-time", "5", fmt.Sprintf("http://%v:%d/", serverIP4, test.port)},
			})
			stage.Must(t, err)
			spans, _ := st.Settled(t)
			clients, servers := sorted(spans)
			if (len(clients) == 1) != test.client || (len(servers) == 1) != test.server || len(spans) > 2 {
				t.Errorf("%d CLIENT and %d SERVER spans came", len(clients), len(servers))
			}
			if !test.client && len(servers) == 1 && servers[0].ParentID != "" {
				t.Errorf("the SERVER span has a parent that nobody sends")
			}
		})
	}
}
