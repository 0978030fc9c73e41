package parser

import (
	"encoding/gob"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/tests/harness"
	"ambit/tests/harness/labtest"
	"ambit/tests/harness/tapped"
)

// loaded is the parser as the kernel runs it, and who talks over real connections before it.
type loaded struct {
	kernel *tapped.Kernel
	lab    *harness.Lab
	ns     *harness.Namespace
	talker *speaker
	start  map[string]uint64 // what the maps held before the first connection
	flows  uint64            // what the table of connections holds while none is open but those that stay
	busy   bool              // some do

	mu      sync.Mutex
	rounds  int // times that the ring buffer was found empty
	records map[uint16][]bpf.Record
	sides   uint64 // that were in records
}

// speaker is a process that talks.
type speaker struct {
	process *harness.Process
	in      *gob.Encoder
	out     *gob.Decoder
	end     io.Closer // of its standard input
}

// load taps the loopback interface of a namespace, in which both ends of connections are.
func load(t testing.TB) *loaded {
	t.Helper()
	lab := labtest.New(t)
	ns, err := lab.Namespace("a")
	if err != nil {
		t.Fatal(err)
	}
	return loadAt(t, lab, ns, "127.0.0.1", "", ns)
}

// loadCable taps the two ends of a veth.
func loadCable(t testing.TB) *loaded {
	t.Helper()
	lab := labtest.New(t)
	a, err := lab.Namespace("a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := lab.Namespace("b")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		harness.Veth(a, "eth0", b, "eth0"),
		a.Address("eth0", netip.MustParsePrefix("10.79.0.1/24")),
		b.Address("eth0", netip.MustParsePrefix("10.79.0.2/24")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return loadAt(t, lab, a, "10.79.0.2", b.Path(), a, b)
}

func loadAt(t testing.TB, lab *harness.Lab, ns *harness.Namespace, address, path string, taps ...*harness.Namespace) *loaded {
	t.Helper()
	l := &loaded{lab: lab, ns: ns, records: make(map[uint16][]bpf.Record)}
	var err error
	if l.kernel, err = tapped.Start(lab, "loaded", taps...); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		l.drain()
	}()
	t.Cleanup(func() {
		if err := l.kernel.Close(); err != nil {
			t.Error(err)
		}
		<-drained
	})
	l.start = l.held(t)
	l.flows = l.start["flows"]
	l.talker = l.speak(t, "talk", address, path)
	return l
}

// speak starts a process in a role.
func (l *loaded) speak(t testing.TB, name string, args ...string) *speaker {
	t.Helper()
	p, err := harness.RoleProgram(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	in, toIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromOut, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdin, p.Stdout = in, out
	s := &speaker{in: gob.NewEncoder(toIn), out: gob.NewDecoder(fromOut), end: toIn}
	if s.process, err = l.ns.Start(p); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	t.Cleanup(func() {
		toIn.Close()
		if err := s.process.Wait(); err != nil {
			t.Errorf("%v: %s", err, s.process.Log())
		}
		fromOut.Close()
	})
	return s
}

// heard is the process's next answer.
func (s *speaker) heard(t testing.TB) talked {
	t.Helper()
	var a talked
	if err := s.out.Decode(&a); err != nil {
		t.Fatalf("%v: %s", err, s.process.Log())
	}
	if a.Error != "" {
		t.Fatal(a.Error)
	}
	return a
}

// drain keeps records by the opener's port, until the reader is closed.
func (l *loaded) drain() {
	for {
		var r bpf.Record
		got, err := l.kernel.Reader.Next(&r)
		l.mu.Lock()
		switch {
		case err != nil:
			l.rounds = -1
			l.mu.Unlock()
			return
		case got:
			port := max(r.Ends.Local[opener].Port, r.Ends.Remote[acceptor].Port)
			l.records[port] = append(l.records[port], r)
			l.sides += uint64(r.Kept&1 + r.Kept>>1&1)
		default:
			l.rounds++
		}
		l.mu.Unlock()
	}
}

// wait tries until there is no error.
func wait(t testing.TB, try func() error) {
	t.Helper()
	err := try()
	for deadline := time.Now().Add(10 * time.Second); err != nil; err = try() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: %v", err)
		}
		time.Sleep(time.Millisecond / 2)
	}
}

// drained waits until all records that there are were read.
func (l *loaded) drained(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	before := l.rounds
	l.mu.Unlock()
	wait(t, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.rounds < before+2 {
			return fmt.Errorf("the ring buffer is not empty")
		}
		return nil
	})
}

// asHost are the kernel's names of what the host build counts too, by the host's.
var asHost = map[string]string{
	"connections": "flows", "connections_ended": "flows_ended", "connections_not_http": "not_http", "responses_without_request": "orphan_response", "desynchronised": "desync",
	"resynchronised": "resync", "split_lines_table_full": "carry_full", "values_cut": "field_cut",
	"connections_upgraded": "upgraded", "connections_http2": "http2", "http2_table_full": "http2_full",
	"hpack_unknown_fields": "hpack_unknown", "hpack_blocks_given_up": "hpack_limit",
}

// counters are all that are not zero, by the host's names where it has one.
func (l *loaded) counters(t testing.TB) map[string]uint64 {
	t.Helper()
	c, err := l.kernel.Counters()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]uint64{"seen": c.Exchanges.Seen, "submitted": c.Exchanges.Submitted, "unsampled": c.Exchanges.Unsampled}
	for name, n := range c.Exchanges.Dropped {
		all["drop_"+name] = n
	}
	for name, n := range c.Events {
		if host, ok := asHost[name]; ok {
			name = host
		}
		all[name] = n
	}
	maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	return all
}

// ended waits until no connection is followed but those that stay open, and returns the counters.
func (l *loaded) ended(t testing.TB) map[string]uint64 {
	t.Helper()
	wait(t, func() error {
		if held := l.held(t)["flows"]; held != l.flows {
			return fmt.Errorf("the table of connections holds %d bytes, want %d: %v", held, l.flows, l.counters(t))
		}
		return nil
	})
	return l.counters(t)
}

// play plays each list of segments on a connection of its own, one after the other, and returns what came of each.
func (l *loaded) play(t testing.TB, plays ...[]segment) []outcome {
	t.Helper()
	outcomes := make([]outcome, len(plays))
	ports := make([]uint16, len(plays))
	before := l.counters(t)
	for i, segments := range plays {
		pieces := make([]piece, len(segments))
		for j, g := range segments {
			pieces[j] = piece{g.side, g.bytes}
		}
		if err := l.talker.in.Encode(pieces); err != nil {
			t.Fatal(err)
		}
		ports[i] = l.talker.heard(t).Port
		if slices.Contains(ports[:i], ports[i]) {
			t.Fatalf("port %d came twice: play fewer at once", ports[i])
		}
		now := l.ended(t)
		o := &outcomes[i]
		o.counters = maps.Clone(now)
		for name, n := range before {
			o.counters[name] -= n
		}
		maps.DeleteFunc(o.counters, func(_ string, n uint64) bool { return n == 0 })
		before = now
	}
	l.drained(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range outcomes {
		o := &outcomes[i]
		o.records = l.records[ports[i]]
		delete(l.records, ports[i])
		if l.busy {
			o.settle()
		}
	}
	return outcomes
}

// settle leaves out what others counted meanwhile: that the sum holds is for the counters of all to show.
func (o *outcome) settle() {
	var submitted uint64
	for i := range o.records {
		submitted += uint64(o.records[i].Kept&1 + o.records[i].Kept>>1&1)
	}
	o.counters["submitted"] = submitted
	o.counters["seen"] = submitted + o.counters["unsampled"]
	for name, n := range o.counters {
		if strings.HasPrefix(name, "drop_") {
			o.counters["seen"] += n
		}
	}
}

// held is the memory of what is kept of connections; it grows with each element.
func (l *loaded) held(t testing.TB) map[string]uint64 {
	t.Helper()
	infos, err := l.kernel.Maps()
	if err != nil {
		t.Fatal(err)
	}
	bytes := make(map[string]uint64)
	for _, m := range infos {
		switch m.Name {
		case "flows", "http2s", "waiting", "carries", "fragments":
			bytes[m.Name] = m.Bytes
		}
	}
	return bytes
}

// over holds what is left when all connections are closed: the sum, and nothing else.
func (l *loaded) over(t testing.TB) {
	t.Helper()
	all := l.ended(t)
	l.drained(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := all["submitted"] + all["unsampled"]
	for name, n := range all {
		if strings.HasPrefix(name, "drop_") {
			sum += n
		}
	}
	if all["seen"] != sum || l.sides != all["submitted"] {
		t.Errorf("the sum does not hold: %v; %d sides came in records", all, l.sides)
	}
	if err := l.kernel.Sweep(); err != nil {
		t.Error(err)
	}
	held := l.held(t)
	if len(held) != 5 || !maps.Equal(held, l.start) {
		t.Errorf("the maps hold %v bytes, at the start they held %v", held, l.start)
	}
	for port, records := range l.records {
		t.Errorf("%d records are of nobody's port %d: %+v", len(records), port, records[0].Ends)
	}
	if l.kernel.Reader.Bad > 0 {
		t.Errorf("%d samples are no records", l.kernel.Reader.Bad)
	}
	t.Logf("%v", all)
}
