package parser

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
	"unsafe"

	"ambit/bpf"
)

// Sides of a connection, and what a segment may end.
const (
	opener   = bpf.SideOpener
	acceptor = bpf.SideAcceptor

	fin = 0x01
	rst = 0x04
)

// The initial sequence numbers of every connection. The opener's wraps around within the first message.
const (
	openerISN   = 0xffffffa0
	acceptorISN = 0x10203040
)

// segment is one packet of a connection.
type segment struct {
	side  int
	seq   uint32
	ack   uint32
	flags byte // fin, rst
	bytes []byte
}

// script is what one connection sees, as the driver reads it.
type script struct{ bytes.Buffer }

func (s *script) u32(v uint32) { s.Write(binary.LittleEndian.AppendUint32(nil, v)) }

// connect begins a connection; joined: it was open before its first segment was seen.
func (s *script) connect(joined bool) {
	s.WriteByte('N')
	s.flag(joined)
	s.u32(openerISN)
	s.u32(acceptorISN)
}

// join begins a connection that was open before; http2: its first segment said that it speaks HTTP/2.
func (s *script) join(http2 bool) {
	s.WriteByte('N')
	if http2 {
		s.WriteByte(2)
	} else {
		s.WriteByte(1)
	}
	s.u32(openerISN)
	s.u32(acceptorISN)
}

func (s *script) flag(on bool) {
	if on {
		s.WriteByte(1)
	} else {
		s.WriteByte(0)
	}
}

func (s *script) segment(g segment) {
	s.WriteByte('S')
	s.WriteByte(byte(g.side))
	s.WriteByte(g.flags)
	s.u32(g.seq)
	s.u32(g.ack)
	s.u32(uint32(len(g.bytes)))
	s.Write(g.bytes)
}

// end closes the connection's sockets.
func (s *script) end(reset bool) {
	s.WriteByte('E')
	s.flag(reset)
}

// rate sets the base threshold: 2^56 * (1-p).
func (s *script) rate(threshold uint64) {
	s.WriteByte('R')
	s.Write(binary.LittleEndian.AppendUint64(nil, threshold))
}

// trust says whether tracing headers are believed, from the next connection on.
func (s *script) trust(on bool) {
	s.WriteByte('T')
	s.flag(on)
}

// limits sets how many elements the maps hold, at most 64, and whether the ring buffer is full.
func (s *script) limits(waiting, carries uint32, full bool) {
	s.WriteByte('L')
	s.u32(waiting)
	s.u32(carries)
	s.flag(full)
}

// outcome is what came of a script.
type outcome struct {
	records  []bpf.Record
	counters map[string]uint64
	report   report
}

// report is struct host_report.
type report struct {
	Steps, MostSteps, BadLoads, Live, Outstanding uint64
}

// driver is the parser as a process.
type driver struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errors bytes.Buffer
	names  []string
	dead   bool // it ended before it was stopped
}

// start runs the driver until the test ends.
func start(t testing.TB) *driver {
	t.Helper()
	d, err := launch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil && !d.dead {
			t.Error(err)
		}
	})
	return d
}

func launch() (*driver, error) {
	d := &driver{cmd: exec.Command(os.Getenv(driverVariable))}
	d.cmd.Stderr = &d.errors
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.out = bufio.NewReaderSize(out, 1<<16)
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	if err := d.greeting(); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// stop ends the driver and says what the sanitizers found.
func (d *driver) stop() error {
	d.in.Close()
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the parser ended with %w; its last words:\n%s", err, d.errors.Bytes())
	}
	return nil
}

// greeting checks that both sides of the pipe know the same structs.
func (d *driver) greeting() error {
	sizes := [3]uint32{}
	if err := binary.Read(d.out, binary.LittleEndian, &sizes); err != nil {
		return fmt.Errorf("read the driver's greeting: %w", err)
	}
	if int(sizes[0]) != int(unsafe.Sizeof(bpf.Record{})) || int(sizes[1]) != binary.Size(report{}) {
		return fmt.Errorf("the driver's structs have %d bytes, bpf.Record has %d", sizes[:2], unsafe.Sizeof(bpf.Record{}))
	}
	for range sizes[2] {
		var n uint32
		if err := binary.Read(d.out, binary.LittleEndian, &n); err != nil {
			return err
		}
		name := make([]byte, n)
		if _, err := io.ReadFull(d.out, name); err != nil {
			return err
		}
		d.names = append(d.names, string(name))
	}
	return nil
}

// stuck is how long the driver may take for what was written to it.
const stuck = 60 * time.Second

// run plays scripts, each on a connection of its own, and returns what came of each.
func (d *driver) run(t testing.TB, scripts ...*script) []outcome {
	t.Helper()
	watchdog := time.AfterFunc(stuck, func() { d.cmd.Process.Kill() })
	defer watchdog.Stop()
	var writing sync.WaitGroup
	var failed error
	writing.Go(func() {
		w := bufio.NewWriterSize(d.in, 1<<16)
		for _, s := range scripts {
			w.Write(s.Bytes())
			w.WriteByte('Q')
		}
		failed = w.Flush()
	})
	outcomes := make([]outcome, len(scripts))
	for i := range outcomes {
		if err := d.read(&outcomes[i]); err != nil {
			d.dead = true
			t.Fatalf("script %d of %d: %v: %v\nthe script:\n%q", i+1, len(scripts), err, d.stop(), scripts[i].Bytes())
		}
	}
	writing.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	return outcomes
}

func (d *driver) read(o *outcome) error {
	for {
		kind, err := d.out.ReadByte()
		if err != nil {
			return err
		}
		if kind == 'K' {
			break
		}
		var size uint32
		if err := binary.Read(d.out, binary.LittleEndian, &size); err != nil {
			return err
		}
		var r bpf.Record
		if int(size) > int(unsafe.Sizeof(r)) {
			return fmt.Errorf("a record of %d bytes", size)
		}
		if _, err := io.ReadFull(d.out, unsafe.Slice((*byte)(unsafe.Pointer(&r)), size)); err != nil {
			return err
		}
		o.records = append(o.records, r)
	}
	counters := make([]uint64, len(d.names))
	if err := binary.Read(d.out, binary.LittleEndian, counters); err != nil {
		return err
	}
	o.counters = make(map[string]uint64)
	for i, n := range counters {
		if n != 0 {
			o.counters[d.names[i]] = n
		}
	}
	return binary.Read(d.out, binary.LittleEndian, &o.report)
}

// check holds what is true of every connection that has ended, whatever came in: every exchange side is
// accounted for, nothing is left behind, no byte outside of a packet was asked for, and the work was bounded.
func (o *outcome) check() error {
	var drops uint64
	for name, n := range o.counters {
		if len(name) > 5 && name[:5] == "drop_" {
			drops += n
		}
	}
	c := o.counters
	switch {
	case c["seen"] != c["unsampled"]+c["submitted"]+drops:
		return fmt.Errorf("the sum does not hold: %v", c)
	case o.report.Live != 0 || o.report.Outstanding != 0:
		return fmt.Errorf("left behind: %+v", o.report)
	case o.report.BadLoads != 0:
		return fmt.Errorf("asked for %d bytes that are not there", o.report.BadLoads)
	case o.report.MostSteps != 0:
		return fmt.Errorf("%d steps more than the segment's length allows", o.report.MostSteps)
	}
	var sides uint64
	for i := range o.records {
		sides += uint64(o.records[i].Kept&1 + o.records[i].Kept>>1&1)
	}
	if sides != c["submitted"] {
		return fmt.Errorf("%d sides in records, %d counted as submitted", sides, c["submitted"])
	}
	return nil
}
