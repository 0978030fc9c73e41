package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"ambit/tests/harness"
)

// Targets of the kernel's part, in nanoseconds.
const (
	rejectTarget   = 100
	exchangeTarget = 1200
)

// settling is how long traffic runs before it is measured: caches get warm, and a connection is taken up or given up.
const settling = 300 * time.Millisecond

func measureKernel(ctx context.Context, s *settings, r *report) error {
	if err := inLab(func(lab *harness.Lab) error { return measureLoopback(ctx, s, r, lab) }); err != nil {
		return err
	}
	return inLab(func(lab *harness.Lab) error { return measureForwarding(ctx, s, r, lab) })
}

// measureLoopback has client and server in one namespace, so both sides of each exchange are an application's.
func measureLoopback(ctx context.Context, s *settings, r *report, lab *harness.Lab) (failed error) {
	ns, err := lab.Namespace("lo")
	if err != nil {
		return err
	}
	t, err := tapNamespace(lab, ns, "lo")
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, t.Close()) }()

	costs, _, err := t.converse(ctx, s, ns, "binary", 1)
	if err != nil {
		return err
	}
	r.add(packetRow("reject: a segment that is not HTTP", loEgress, costs))

	for _, v := range []struct {
		talk        string
		connections int
		rate        float64
		target      bool
	}{
		{"http", 1, 0, true}, {"http", 1, 0.01, true}, {"http", 1, 1, true},
		{"http", 8, 0, true}, {"http", 8, 0.01, true}, {"http", 8, 1, true},
		{"traceparent", 1, 1, false},
	} {
		if err := t.kernel.SetBase(v.rate); err != nil {
			return err
		}
		costs, said, err := t.converse(ctx, s, ns, v.talk, v.connections)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("exchange at %v%%, %d connection(s)", v.rate*100, v.connections)
		if v.talk != "http" {
			name += ", sampled by its " + v.talk
		}
		row := exchangeRow(name, costs, said.perExchange())
		if v.target {
			row.Bound, row.Target = "<=", exchangeTarget
		}
		r.add(row)
	}
	return nil
}

// measureForwarding taps a node whose pods talk to each other: their packets pass a veth on each side of its bridge.
func measureForwarding(ctx context.Context, s *settings, r *report, lab *harness.Lab) (failed error) {
	node, err := lab.Node("node", netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1"))
	if err != nil {
		return err
	}
	a, err := node.Pod(ctx, "a", harness.AddressA4, harness.AddressA6, false)
	if err != nil {
		return err
	}
	b, err := node.Pod(ctx, "b", harness.AddressB4, harness.AddressB6, false)
	if err != nil {
		return err
	}
	t, err := tapNamespace(lab, node.Namespace, "node")
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, t.Close()) }()
	if _, err := startWorker(b.Namespace, serverRole, "http", fmt.Sprint(trafficPort)); err != nil {
		return err
	}
	address := netip.AddrPortFrom(harness.AddressB4, trafficPort)
	client, err := startWorker(a.Namespace, clientRole, "http", address.String(), "1", "loop")
	if err != nil {
		return err
	}
	time.Sleep(settling)
	costs, err := t.windows(ctx, s.windows, s.window)
	if err != nil {
		return err
	}
	if _, err := client.stop(); err != nil {
		return err
	}
	for _, h := range []hook{ingress, egress} {
		r.add(packetRow("forwarded packet, "+hookNames[h]+" of a host-side veth", h, costs))
	}
	return nil
}

func packetRow(name string, h hook, costs []cost) row {
	var samples []float64
	var packets float64
	for _, c := range costs {
		samples = append(samples, c.perPacket(h))
		packets += c.packets[h]
	}
	note := fmt.Sprintf("least %s; %.0f packets", number(slices.Min(samples)), packets)
	return medianRow("kernel", name, "ns/packet", "<=", rejectTarget, samples, note)
}

// exchangeRow is what a whole exchange costs, of so many packets.
func exchangeRow(name string, costs []cost, packets float64) row {
	var samples []float64
	var all float64
	for _, c := range costs {
		samples = append(samples, c.perPacket(loEgress)*packets)
		all += c.packets[loEgress]
	}
	note := fmt.Sprintf("least %s; %.0f exchanges of %.2f packets", number(slices.Min(samples)), all/packets, packets)
	return medianRow("kernel", name, "ns/exchange", "", 0, samples, note)
}
