package main

import (
	"context"
	"fmt"
	"time"

	"ambit/tests/harness"
)

// conversation is a client and a server at a talk, on loopback of a namespace.
type conversation struct {
	talk           string
	connections    int
	client, server *worker
}

func startConversation(ns *harness.Namespace, talk string, connections, port int) (*conversation, error) {
	c := &conversation{talk: talk, connections: connections}
	var err error
	if c.server, err = startWorker(ns, serverRole, talk, fmt.Sprint(port)); err != nil {
		return nil, err
	}
	c.client, err = startWorker(ns, clientRole, talk, fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprint(connections), "loop")
	return c, err
}

// said is what was said in a talk, from its beginning to its end. The counters of packets and of exchanges can't be
// read at one moment while it goes on.
type said struct {
	turns, exchanges, packets uint64
}

func (s said) perExchange() float64 { return float64(s.packets) / float64(s.exchanges) }

// stop ends it; the number of packets is left to be filled in.
func (c *conversation) stop() (said, error) {
	turns, err := c.client.stop()
	if err != nil {
		return said{}, err
	}
	if _, err := c.server.stop(); err != nil {
		return said{}, err
	}
	t := talks[c.talk]
	return said{turns: turns, exchanges: uint64(c.connections)*t.opened + turns*t.each}, nil
}

// converse measures while client and server talk, and checks that the kernel side saw what they said.
func (t *tapping) converse(ctx context.Context, s *settings, ns *harness.Namespace, talk string, connections int) ([]cost, said, error) {
	before, err := t.read()
	if err != nil {
		return nil, said{}, err
	}
	c, err := startConversation(ns, talk, connections, trafficPort)
	if err != nil {
		return nil, said{}, err
	}
	time.Sleep(settling)
	costs, err := t.windows(ctx, s.windows, s.window)
	if err != nil {
		return nil, said{}, err
	}
	all, err := c.stop()
	if err != nil {
		return nil, said{}, err
	}
	after, err := t.read()
	if err != nil {
		return nil, said{}, err
	}
	all.packets = after.own[loEgress].Runs - before.own[loEgress].Runs
	if err := sawAll(&before, &after, all); err != nil {
		return nil, said{}, fmt.Errorf("talk %q: %w", talk, err)
	}
	return costs, all, nil
}

// misreadings are counted where something of a connection was not understood.
var misreadings = []string{
	"desynchronised", "segments_contended", "http2_broken", "http2_table_full", "hpack_unknown_fields", "hpack_blocks_given_up",
}

// sawAll checks that the kernel side saw both sides of each exchange, and lost none and nothing of one.
func sawAll(before, after *reading, all said) error {
	if all.turns == 0 {
		return fmt.Errorf("no answer came")
	}
	if seen := after.counters.Exchanges.Seen - before.counters.Exchanges.Seen; seen != 2*all.exchanges {
		return fmt.Errorf("%d exchanges were answered, and the kernel side saw %d sides, want two of each", all.exchanges, seen)
	}
	for reason, n := range after.counters.Exchanges.Dropped {
		if n -= before.counters.Exchanges.Dropped[reason]; n > 0 {
			return fmt.Errorf("the kernel side dropped %d exchange sides: %s", n, reason)
		}
	}
	for _, event := range misreadings {
		if n := after.counters.Events[event] - before.counters.Events[event]; n > 0 {
			return fmt.Errorf("the kernel side counted %d of %s", n, event)
		}
	}
	return nil
}
