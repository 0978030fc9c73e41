package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"ambit/bpf"
	"ambit/daemon"
	"ambit/exporter"
	"ambit/l7"
	"ambit/meta"
	"ambit/tests/harness"
)

// Targets of the userspace part.
const (
	spansTarget       = 300_000 // per second and core
	allocationsTarget = 2       // per span
)

// recordCount is how many different records go round.
const recordCount = 64

func measureUserspace(ctx context.Context, s *settings, r *report) error {
	return inLab(func(lab *harness.Lab) (failed error) {
		host, err := lab.Host()
		if err != nil {
			return err
		}
		receiver, err := startWorker(host, receiverRole)
		if err != nil {
			return err
		}
		p, err := newPath(receiver.ready)
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, p.sink.Close(context.Background())) }()

		const rounds = 5
		// The first round fills the caches, and is not counted.
		if err := p.run(s.spans / rounds); err != nil {
			return err
		}
		var speeds, allocations []float64
		for range rounds {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			speed, allocated, err := p.measured(s.spans / rounds)
			if err != nil {
				return err
			}
			speeds = append(speeds, speed)
			allocations = append(allocations, allocated)
		}
		stats := p.sink.Stats()
		taken, err := receiver.stop()
		if err != nil {
			return err
		}
		if stats.DroppedTotal() > 0 || taken != p.added || stats.Exported != p.added {
			return fmt.Errorf("%d spans were added, %d exported, %d dropped, and the receiver got %d", p.added, stats.Exported, stats.DroppedTotal(), taken)
		}
		r.add(
			medianRow("userspace", "record to collector", "spans/s/core", ">=", spansTarget, speeds,
				fmt.Sprintf("%s µs of processor a span", number(1e6/median(speeds)))),
			medianRow("userspace", "record to collector", "allocations/span", "<=", allocationsTarget, allocations, ""),
		)
		return nil
	})
}

// path is what a record goes through behind the ring buffer, as the daemon's pump does it.
type path struct {
	assembler *l7.Assembler
	meta      *meta.Meta
	sink      *exporter.OTLP
	records   [recordCount]bpf.Record
	spans     [bpf.Sides]l7.Span
	added     uint64
}

func newPath(endpoint string) (*path, error) {
	p := &path{assembler: l7.NewAssembler()}
	cfg := daemon.Defaults()
	var err error
	if p.meta, err = meta.New(meta.Config{}); err != nil {
		return nil, err
	}
	if p.sink, err = exporter.NewOTLP(context.Background(), exporter.OTLPConfig{
		Endpoint: "http://" + endpoint, Version: daemon.Version, QueueBytes: int(cfg.Export.QueueBytes),
		BatchSpans: cfg.Export.BatchSpans, BatchDelay: cfg.Export.BatchWait, RetryFor: cfg.Export.RetryFor,
	}); err != nil {
		return nil, err
	}
	for i := range p.records {
		fillRecord(&p.records[i], i)
	}
	return p, nil
}

// fillRecord makes the record of an exchange with both its sides, as the talk "http" of the kernel's part has.
func fillRecord(rec *bpf.Record, i int) {
	now := uint64(time.Second)
	rec.StartNs, rec.FirstNs, rec.EndNs = now, now+1e6, now+2e6
	rec.ResponseBody = 13
	rec.Status = 200
	rec.Protocol = 1
	rec.Ending = bpf.EndingResponse
	for side := range rec.Decision {
		rec.Decision[side] = bpf.Decision{Reason: bpf.ReasonHead, Flags: bpf.DecisionThreshold, Rule: 1}
	}
	rec.Flags = bpf.FlagOpenerTraced
	rec.Kept, rec.Seen = 3, 3
	text := rec.Text[:0]
	for field, value := range map[int]string{
		bpf.FieldRequestLine: fmt.Sprintf("GET /api/v1/users/%d?fields=name HTTP/1.1", 10000+i),
		bpf.FieldHost:        "backend.shop.svc.cluster.local:8080",
		bpf.FieldUserAgent:   "bench/1.0",
	} {
		rec.Fields[field].Off, rec.Fields[field].Len = uint16(len(text)), uint16(len(value))
		text = append(text, value...)
	}
	rec.Used = uint16(len(text))
	client, server := bpf.Endpoint{Port: uint16(40000 + i)}, bpf.Endpoint{Port: 8080}
	for _, e := range []*bpf.Endpoint{&client, &server} {
		e.Addr = [16]byte{10: 0xff, 11: 0xff, 12: 10, 13: 9, 14: 0, 15: byte(e.Port)}
	}
	rec.Ends.Local = [bpf.Sides]bpf.Endpoint{client, server}
	rec.Ends.Remote = [bpf.Sides]bpf.Endpoint{server, client}
	// Two processes that are surely there.
	for side, pid := range []int{os.Getpid(), os.Getppid()} {
		party := &rec.Ends.Party[side]
		party.Tgid = uint32(pid)
		for c, letter := range []byte{'c', 's'}[side : side+1] {
			party.Comm[c] = int8(letter)
		}
	}
}

// run takes so many spans through the path and waits until they are sent.
func (p *path) run(spans int) error {
	clock := time.Now().UnixNano()
	for n := 0; n < spans; {
		rec := &p.records[n/bpf.Sides%recordCount]
		binary.BigEndian.PutUint64(rec.TraceId[8:], p.added+1)
		binary.BigEndian.PutUint64(rec.SpanId[bpf.SideOpener][:], p.added+1)
		binary.BigEndian.PutUint64(rec.SpanId[bpf.SideAcceptor][:], p.added+2)
		made := p.assembler.Assemble(rec, clock, &p.spans)
		for i := range made {
			p.meta.Enrich(&p.spans[i])
			p.sink.Add(&p.spans[i])
		}
		n += made
		p.added += uint64(made)
		// The daemon would drop what does not fit into the queue; here the speed is wanted at which nothing is.
		for n%512 == 0 && p.full() {
			time.Sleep(500 * time.Microsecond)
		}
	}
	return p.sink.Flush(context.Background())
}

func (p *path) full() bool {
	stats := p.sink.Stats()
	return stats.QueuedBytes > stats.CapacityBytes/2
}

// measured is run with what it took: spans per second of processor time, and allocations per span.
func (p *path) measured(spans int) (speed, allocations float64, err error) {
	var before, after runtime.MemStats
	added := p.added
	runtime.ReadMemStats(&before)
	used, err := ownTime()
	if err != nil {
		return 0, 0, err
	}
	if err := p.run(spans); err != nil {
		return 0, 0, err
	}
	now, err := ownTime()
	if err != nil {
		return 0, 0, err
	}
	runtime.ReadMemStats(&after)
	made := float64(p.added - added)
	return made / (now - used).Seconds(), float64(after.Mallocs-before.Mallocs) / made, nil
}

// ownTime is the processor time that this process has used.
func ownTime() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("ask for the processor time used: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}
