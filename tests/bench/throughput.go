package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ambit/tests/harness"
)

// scene is a client's way to a server.
type scene struct {
	part, name string
	// load has the client ask for a while.
	load   func(context.Context, time.Duration) (load, error)
	traced []*harness.Namespace
	// sides of a request that are an application's, as far as it is traced.
	sides float64
	// targets for the median ratio of traced to untraced requests per second; 0 where there is none.
	targets []rateTarget
}

type rateTarget struct{ rate, target float64 }

var (
	http1Targets = []rateTarget{{0.01, 0.95}, {1, 0.90}}
	http2Targets = []rateTarget{{0.01, 0.95}, {1, 0}}
)

// batchWait is a little more than the last spans of a run wait for their batch to fill. Until then the processor time
// counts; asking ambit for its status costs it more than waiting.
const batchWait = 1200 * time.Millisecond

func measureThroughput(ctx context.Context, s *settings, r *report) error {
	if err := inLab(func(lab *harness.Lab) error {
		ns, err := lab.Namespace("lo")
		if err != nil {
			return err
		}
		if _, err := startWorker(ns, webRole); err != nil {
			return err
		}
		return compare(ctx, s, r, lab, &scene{
			part: "throughput", name: "loopback", load: wrkFrom(ns, fmt.Sprintf("http://127.0.0.1:%d/", trafficPort)),
			traced: []*harness.Namespace{ns}, sides: 2, targets: http1Targets,
		})
	}); err != nil {
		return err
	}
	return inLab(func(lab *harness.Lab) error {
		pair, err := harness.AmbientPair(ctx, lab, harness.PairConfig{})
		if err != nil {
			return err
		}
		if _, err := startWorker(pair.B.Namespace, webRole); err != nil {
			return err
		}
		return compare(ctx, s, r, lab, &scene{
			part: "throughput", name: "ambient pair", load: wrkFrom(pair.A.Namespace, fmt.Sprintf("http://%v/", harness.VIP4)),
			traced: []*harness.Namespace{pair.Nodes[0].Namespace, pair.A.Namespace, pair.B.Namespace, pair.W.Namespace},
			sides:  2, targets: http1Targets,
		})
	})
}

// measureHTTP2Throughput has each client and its server in one namespace.
func measureHTTP2Throughput(ctx context.Context, s *settings, r *report) error {
	for _, v := range []struct {
		name, server string
		load         func(context.Context, *harness.Lab, *harness.Namespace, time.Duration) (load, error)
	}{
		{"h2load", webRole, func(ctx context.Context, lab *harness.Lab, ns *harness.Namespace, d time.Duration) (load, error) {
			return h2load(ctx, lab, ns, fmt.Sprintf("http://127.0.0.1:%d/", trafficPort), d)
		}},
		{"gRPC", callServerRole, func(ctx context.Context, _ *harness.Lab, ns *harness.Namespace, d time.Duration) (load, error) {
			return calls(ctx, ns, fmt.Sprintf("127.0.0.1:%d", trafficPort), d)
		}},
	} {
		if err := inLab(func(lab *harness.Lab) error {
			ns, err := lab.Namespace("lo")
			if err != nil {
				return err
			}
			if _, err := startWorker(ns, v.server); err != nil {
				return err
			}
			return compare(ctx, s, r, lab, &scene{
				part: "http2-load", name: v.name,
				load:   func(ctx context.Context, d time.Duration) (load, error) { return v.load(ctx, lab, ns, d) },
				traced: []*harness.Namespace{ns}, sides: 2, targets: http2Targets,
			})
		}); err != nil {
			return err
		}
	}
	return nil
}

// compare runs the client with and without ambit, at each rate.
func compare(ctx context.Context, s *settings, r *report, lab *harness.Lab, way *scene) error {
	host, err := lab.Host()
	if err != nil {
		return err
	}
	// One run to get warm.
	if _, err := way.load(ctx, time.Second); err != nil {
		return err
	}
	for _, rate := range way.targets {
		var pairs []comparison
		for n := range s.pairs {
			c, err := comparePair(ctx, s, lab, host, way, rate.rate, n%2 == 1)
			if err != nil {
				return err
			}
			pairs = append(pairs, c)
		}
		addComparison(r, way.part, fmt.Sprintf("%s at %v%%", way.name, rate.rate*100), rate.target, pairs)
	}
	return nil
}

// comparison is one pair of runs.
type comparison struct {
	untraced, traced load
	// Processor time per request, in microseconds: of all that took part in a run, and within the traced one.
	untracedAll, tracedAll float64
	ambit, receiver        float64
	dropped, kept          float64 // spans
}

func comparePair(ctx context.Context, s *settings, lab *harness.Lab, host *harness.Namespace, way *scene, rate float64, tracedFirst bool) (comparison, error) {
	var c comparison
	untraced := func() error {
		before, err := groupTime(host.Cgroup())
		if err != nil {
			return err
		}
		if c.untraced, err = way.load(ctx, s.duration); err != nil {
			return err
		}
		after, err := groupTime(host.Cgroup())
		c.untracedAll = (after - before) * 1e6 / c.untraced.requests
		return err
	}
	traced := func() error { return c.trace(ctx, s, lab, host, way, rate) }
	// What drifts with time favours neither.
	order := []func() error{untraced, traced}
	if tracedFirst {
		slices.Reverse(order)
	}
	for _, one := range order {
		if err := one(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// trace is the run with ambit, which starts before it and is gone afterwards.
func (c *comparison) trace(ctx context.Context, s *settings, lab *harness.Lab, host *harness.Namespace, way *scene, rate float64) error {
	receiver, err := startWorker(host, receiverRole)
	if err != nil {
		return err
	}
	a, err := startAmbit(lab, host, s.binary, receiver.ready, rate, way.traced...)
	if err != nil {
		return err
	}
	before, err := usage(a.Process, receiver.Process)
	if err != nil {
		return err
	}
	began, err := groupTime(host.Cgroup())
	if err != nil {
		return err
	}
	if c.traced, err = way.load(ctx, s.duration); err != nil {
		return err
	}
	time.Sleep(batchWait)
	ended, err := groupTime(host.Cgroup())
	if err != nil {
		return err
	}
	after, err := usage(a.Process, receiver.Process)
	if err != nil {
		return err
	}
	c.tracedAll = (ended - began) * 1e6 / c.traced.requests
	status, err := a.settled()
	if err != nil {
		return err
	}
	c.ambit = (after[0] - before[0]) * 1e6 / c.traced.requests
	c.receiver = (after[1] - before[1]) * 1e6 / c.traced.requests
	// A client's last requests may be cut off, so there may be a few more than it counts.
	if seen := float64(status.Exchanges.Seen); seen < way.sides*c.traced.requests {
		return fmt.Errorf("%v: ambit saw %.0f exchange sides of %.0f requests, want %v of each; it counted %v",
			way.name, seen, c.traced.requests, way.sides, status.Events)
	}
	c.dropped, c.kept = float64(status.Exchanges.DroppedTotal()), float64(status.Exchanges.Submitted)
	if err := a.stop(); err != nil {
		return err
	}
	taken, err := receiver.stop()
	if err != nil {
		return err
	}
	if taken != status.Exchanges.Exported {
		return fmt.Errorf("%v: the receiver got %d spans, and ambit exported %d", way.name, taken, status.Exchanges.Exported)
	}
	return nil
}

func usage(processes ...*harness.Process) ([]float64, error) {
	var seconds []float64
	for _, p := range processes {
		one, err := cpuTime(p)
		if err != nil {
			return nil, err
		}
		seconds = append(seconds, one)
	}
	return seconds, nil
}

func addComparison(r *report, part, name string, target float64, pairs []comparison) {
	each := func(f func(comparison) float64) []float64 {
		var out []float64
		for _, c := range pairs {
			out = append(out, f(c))
		}
		return out
	}
	micro := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	var dropped, kept float64
	for _, c := range pairs {
		dropped += c.dropped
		kept += c.kept
	}
	bound := ">="
	if target == 0 {
		bound = ""
	}
	r.add(
		medianRow(part, name, "of untraced", bound, target,
			each(func(c comparison) float64 { return c.traced.perSec / c.untraced.perSec }),
			fmt.Sprintf("requests/s: %s untraced, %s traced; %s of %s spans dropped",
				number(median(each(func(c comparison) float64 { return c.untraced.perSec }))),
				number(median(each(func(c comparison) float64 { return c.traced.perSec }))), number(dropped), number(kept))),
		medianRow(part, name+", by processor time", "of untraced", "", 0,
			each(func(c comparison) float64 { return c.untracedAll / c.tracedAll }),
			fmt.Sprintf("µs/request of all processes: %s untraced, %s traced",
				number(median(each(func(c comparison) float64 { return c.untracedAll }))),
				number(median(each(func(c comparison) float64 { return c.tracedAll }))))),
		medianRow(part, name+", p50", "of untraced", "", 0,
			each(func(c comparison) float64 { return micro(c.traced.p50) / micro(c.untraced.p50) }),
			fmt.Sprintf("µs: %s untraced, %s traced",
				number(median(each(func(c comparison) float64 { return micro(c.untraced.p50) }))),
				number(median(each(func(c comparison) float64 { return micro(c.traced.p50) }))))),
		medianRow(part, name+", p99", "of untraced", "", 0,
			each(func(c comparison) float64 { return micro(c.traced.p99) / micro(c.untraced.p99) }),
			fmt.Sprintf("µs: %s untraced, %s traced",
				number(median(each(func(c comparison) float64 { return micro(c.untraced.p99) }))),
				number(median(each(func(c comparison) float64 { return micro(c.traced.p99) }))))),
		medianRow(part, name+", ambit's process", "µs/request", "", 0,
			each(func(c comparison) float64 { return c.ambit }),
			fmt.Sprintf("the receiver's: %s", number(median(each(func(c comparison) float64 { return c.receiver }))))),
	)
}
