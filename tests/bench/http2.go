package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/harness"
)

// Targets of HTTP/2 in the kernel, in nanoseconds.
const (
	indexedTarget = 300
	literalTarget = 450
	sideTarget    = 1200
	dataTarget    = 150
)

// Where conversations take turns there are more rounds than windows elsewhere, of shorter ones: what happens to the
// machine within a round looks like a difference.
const (
	roundsPerWindow = 4
	windowsInOne    = 10
)

// measureHTTP2 has client and server in one namespace, as the kernel's part has.
func measureHTTP2(ctx context.Context, s *settings, r *report) error {
	return inLab(func(lab *harness.Lab) (failed error) {
		ns, err := lab.Namespace("lo")
		if err != nil {
			return err
		}
		t, err := tapNamespace(lab, ns, "lo")
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, t.Close()) }()
		if err := t.kernel.SetBase(0); err != nil {
			return err
		}
		if err := measureBlocks(ctx, s, r, t, ns); err != nil {
			return err
		}
		if err := measureData(ctx, s, r, t, ns); err != nil {
			return err
		}
		return measureCalls(ctx, s, r, t, ns)
	})
}

func measureCalls(ctx context.Context, s *settings, r *report, t *tapping, ns *harness.Namespace) error {
	for _, v := range []struct {
		talk, name string
		rates      []float64
	}{
		{"get", "GET", []float64{0, 0.01, 1}},
		{"get-apart", "GET, 10 streams", []float64{0, 0.01, 1}},
		{"get-together", "GET, 10 streams in one segment", []float64{0.01}},
		{"grpc", "gRPC", []float64{0, 0.01, 1}},
		{"grpc-apart", "gRPC, 10 streams", []float64{0, 0.01, 1}},
		{"grpc-together", "gRPC, 10 streams in one segment", []float64{0.01}},
		{"grpc-path", "gRPC, literal path", []float64{0.01}},
	} {
		for _, rate := range v.rates {
			if err := t.kernel.SetBase(rate); err != nil {
				return err
			}
			costs, said, err := t.converse(ctx, s, ns, v.talk, 1)
			if err != nil {
				return err
			}
			r.add(sideRow(fmt.Sprintf("%s at %v%%", v.name, rate*100), costs, said.perExchange()))
		}
	}
	return nil
}

// sideRow is what one side of an exchange of so many packets costs.
func sideRow(name string, costs []cost, packets float64) row {
	whole := exchangeRow(name, costs, packets)
	sides := make([]float64, len(whole.Samples))
	for i, sample := range whole.Samples {
		sides[i] = sample / 2
	}
	note := fmt.Sprintf("%s ns/exchange, %s", number(whole.Value), whole.Note)
	return medianRow("http2", name, "ns/side", "<=", sideTarget, sides, note)
}

// measureData has both sides of a stream send DATA in turn, so that there is no packet but such.
func measureData(ctx context.Context, s *settings, r *report, t *tapping, ns *harness.Namespace) error {
	for _, v := range []struct{ talk, name string }{
		{"inside", "begins inside of a frame"},
		{"whole", "one whole frame"},
		{"across", "the rest of a frame and a part of the next"},
	} {
		for _, size := range dataSizes {
			costs, said, err := t.converse(ctx, s, ns, fmt.Sprintf("data-%s-%d", v.talk, size), 1)
			if err != nil {
				return err
			}
			row := packetRow(fmt.Sprintf("DATA, %s bytes, %s", thousands(fmt.Sprint(size)), v.name), loEgress, costs)
			row.Part, row.Target = "http2", dataTarget
			row.Note += fmt.Sprintf(", %.2f for each segment with data", float64(said.packets)/float64(2*said.turns))
			r.add(row)
		}
	}
	return nil
}

// measureBlocks measures what a request's header block costs: the same exchange with the block and with an empty one,
// in windows in turn, so that both meet the same machine. All run on one processor: whether the two ends of a conversation
// share one would be a greater difference than a block.
func measureBlocks(ctx context.Context, s *settings, r *report, t *tapping, ns *harness.Namespace) error {
	const (
		empty = iota
		one
		indexed
		literal
	)
	before, err := t.read()
	if err != nil {
		return err
	}
	var conversations []*conversation
	for i, talk := range []string{empty: "block-empty", one: "block-one", indexed: "block-indexed", literal: "block-path"} {
		c, err := startConversation(ns, talk, 1, trafficPort+i)
		if err != nil {
			return err
		}
		if err := errors.Join(c.client.pin(), c.server.pin(), c.client.Signal(unix.SIGSTOP)); err != nil {
			return err
		}
		conversations = append(conversations, c)
	}
	perExchange := make([][]float64, len(conversations))
	rounds, window := s.windows*roundsPerWindow, s.window/windowsInOne
	for round := range rounds {
		for n := range conversations {
			// None always follows the same one.
			i := (round + n) % len(conversations)
			net, err := t.turn(ctx, conversations[i], window)
			if err != nil {
				return err
			}
			perExchange[i] = append(perExchange[i], 2*net.perPacket(loEgress))
		}
	}
	var all said
	for _, c := range conversations {
		if err := c.client.Signal(unix.SIGCONT); err != nil {
			return err
		}
		one, err := c.stop()
		if err != nil {
			return err
		}
		all.turns += one.turns
		all.exchanges += one.exchanges
	}
	after, err := t.read()
	if err != nil {
		return err
	}
	if err := sawAll(&before, &after, all); err != nil {
		return err
	}
	// What is reckoned as two packets has to have been two.
	all.packets = after.own[loEgress].Runs - before.own[loEgress].Runs
	if n := all.perExchange(); n > 2.02 {
		return fmt.Errorf("an exchange has %.3f packets, want 2", n)
	}
	add := func(name string, with, without int, bound string, target float64) {
		differences := make([]float64, rounds)
		for i := range differences {
			differences[i] = perExchange[with][i] - perExchange[without][i]
		}
		note := fmt.Sprintf("of the leasts %s; exchanges with and without: %s, %s ns",
			number(slices.Min(perExchange[with])-slices.Min(perExchange[without])), number(median(perExchange[with])), number(median(perExchange[without])))
		r.add(medianRow("http2", name, "ns", bound, target, differences, note))
	}
	add("header block: 7 fields, all indexed", indexed, empty, "<=", indexedTarget)
	add("header block: the same, path literal and Huffman-coded", literal, empty, "<=", literalTarget)
	add("header block: 7 fields, all indexed, to one of 1 field", indexed, one, "", 0)
	return nil
}

// turn measures while one conversation goes on and the others wait.
func (t *tapping) turn(ctx context.Context, c *conversation, length time.Duration) (cost, error) {
	if err := c.client.Signal(unix.SIGCONT); err != nil {
		return cost{}, err
	}
	// Caches get warm.
	time.Sleep(length / 4)
	from, err := t.read()
	if err != nil {
		return cost{}, err
	}
	net, _, err := t.measure(ctx, &from, length)
	return net, errors.Join(err, c.client.Signal(unix.SIGSTOP))
}
