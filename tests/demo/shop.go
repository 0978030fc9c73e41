package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"time"

	"ambit/tests/harness"
)

// probeAddress is what istio-cni makes the source of kubelet's probes, so that they pass the redirection.
var probeAddress = netip.MustParseAddr("169.254.7.127")

// shop is the mesh and what runs in it.
type shop struct {
	lab     *harness.Lab
	out     io.Writer
	pair    *harness.Pair
	trace   string // ID of the trace that the client begins with, 32 hex digits
	callers []*harness.Process
}

func newTraceID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails, by its documentation
	return hex.EncodeToString(id[:])
}

// build makes the mesh and starts the applications.
func (s *shop) build(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var err error
	if s.pair, err = harness.AmbientPair(ctx, s.lab, harness.PairConfig{TwoNodes: true}); err != nil {
		return err
	}
	node := s.pair.Nodes[0]
	if err := node.Address("lo", netip.PrefixFrom(probeAddress, 32)); err != nil {
		return err
	}
	for _, app := range []struct {
		name string
		pod  *harness.Pod
		args []string
	}{
		{"backend", s.pair.B, nil},
		{"frontend", s.pair.A, []string{"http://" + harness.VIP4.String()}},
	} {
		process, err := s.start(app.pod.Namespace, app.name, app.args...)
		if err != nil {
			return err
		}
		if err := app.pod.WaitListen(ctx, appPort); err != nil {
			return fmt.Errorf("start the %s: %w: %s", app.name, err, process.Log())
		}
	}
	return nil
}

// start starts a role as a service of that name.
func (s *shop) start(ns *harness.Namespace, role string, args ...string) (*harness.Process, error) {
	program, err := harness.RoleProgram(role, args...)
	if err != nil {
		return nil, err
	}
	program.Bare = true
	program.Env = []string{"OTEL_SERVICE_NAME=" + role}
	return ns.Start(program)
}

// namespaces are the names of all that ambit is to tap.
func (s *shop) namespaces() []string {
	var names []string
	for _, node := range s.pair.Nodes {
		names = append(names, node.Name())
		for _, pod := range node.Pods {
			names = append(names, pod.Name())
		}
	}
	return names
}

func (s *shop) explain() {
	heading(s.out, "A small ambient mesh")
	fmt.Fprintf(s.out, `  client    %v  %s  outside the mesh
  frontend  %v  %s  on node 1, calls the backend at its service address %v
  backend   %v  %s  on node 2
  kubelet   %v  %s  probes the frontend, and prometheus scrapes it from there
The traffic of both pods goes through istio-cni's redirection and a ztunnel on each node. Nothing but the
namespaces above is tapped. The applications pass tracing headers on and export nothing.
`,
		s.pair.W.IP4, s.pair.W.Name(), s.pair.A.IP4, s.pair.A.Name(), harness.VIP4,
		s.pair.B.IP4, s.pair.B.Name(), probeAddress, s.pair.Nodes[0].Name())
	heading(s.out, "Spans, as ambit shows them live")
}

// traffic starts those who call.
func (s *shop) traffic() error {
	url := "http://" + netip.AddrPortFrom(s.pair.A.IP4, appPort).String()
	for _, caller := range []struct {
		ns   *harness.Namespace
		role string
		args []string
	}{
		{s.pair.W.Namespace, "client", []string{url, s.trace}},
		{s.pair.Nodes[0].Namespace, "kubelet", []string{url, probeAddress.String()}},
		{s.pair.Nodes[0].Namespace, "prometheus", []string{url}},
	} {
		process, err := s.start(caller.ns, caller.role, caller.args...)
		if err != nil {
			return err
		}
		s.callers = append(s.callers, process)
	}
	return nil
}

// quiet ends those who call, in the middle of nothing: they finish the request they are at.
func (s *shop) quiet() error {
	for _, process := range s.callers {
		if err := process.Stop(5 * time.Second); err != nil {
			return fmt.Errorf("end a caller: %w: %s", err, process.Log())
		}
	}
	return nil
}
