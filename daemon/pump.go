package daemon

import (
	"errors"
	"log/slog"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"ambit/bpf"
	"ambit/exporter"
	"ambit/l7"
	"ambit/meta"

	"golang.org/x/sys/unix"
)

// pump takes records from the ring buffer, makes spans of them and hands them on. One goroutine runs it.
type pump struct {
	// rules name the rule of a span, routes learn the names of new routes, exemplars the latest span of each.
	rules     *rules
	routes    *Routes
	exemplars *exporter.Exemplars
	// anomalies are of the routes that behave unlike themselves now, by key.
	anomalies *atomic.Pointer[map[uint64]*l7.Anomaly]
	// otlp tells how full its queue is; nil where spans stay here.
	otlp *exporter.OTLP
	// taken is told of the exchange sides of each record.
	taken func(sides int)
	// idle is signalled whenever the ring buffer was found empty.
	idle chan struct{}
	// repaired is l7's.
	repaired atomic.Uint64
	running  atomic.Bool
}

// clockEvery is how old the difference between the clocks may get: a step of the wall clock shows in
// the spans that end this much later.
const clockEvery = 250 * time.Millisecond

func (p *pump) start(reader *bpf.Reader, m *meta.Meta, sink exporter.Sink, log *slog.Logger, running *sync.WaitGroup) {
	p.idle = make(chan struct{}, 1)
	p.running.Store(true)
	running.Go(func() {
		defer p.running.Store(false)
		if err := p.run(reader, m, sink); !errors.Is(err, os.ErrClosed) {
			log.Error("the ring buffer can't be read any more: no more spans; restart ambit", "error", err)
		}
	})
}

func (p *pump) run(reader *bpf.Reader, m *meta.Meta, sink exporter.Sink) error {
	assembler := l7.NewAssembler()
	var record bpf.Record
	var spans [bpf.Sides]l7.Span
	var announced [bpf.Sides]l7.Announcement
	var clock int64
	var setAt uint64
	for {
		ok, err := reader.Next(&record)
		if err != nil {
			return err
		}
		if !ok {
			select {
			case p.idle <- struct{}{}:
			default:
			}
			continue
		}
		// Records are in the order of their ends, so their own times say when to look at the clocks again.
		if record.EndNs >= setAt+uint64(clockEvery) || record.EndNs < setAt {
			clock, setAt = clockOffset(), record.EndNs
		}
		for i := range l7.Announcements(&record, &announced) {
			p.routes.Learn(&announced[i])
		}
		p.taken(bits.OnesCount8(record.Kept))
		p.press(&record)
		n := assembler.Assemble(&record, clock, &spans)
		for i := range n {
			m.Enrich(&spans[i])
			p.name(&record, &spans[i])
			sink.Add(&spans[i])
		}
		p.repaired.Store(assembler.Repaired)
	}
}

// press leaves out what finds no room in the exporter's queue, before it costs more.
func (p *pump) press(record *bpf.Record) {
	if p.otlp == nil {
		return
	}
	// Where nothing has room the queue itself counts it.
	if share := p.otlp.Share(); share > 0 && share < bpf.Full {
		p.otlp.Refuse(record.Press(share))
	}
}

// name tells a span the names of its rule and its route, and the metrics of the span.
func (p *pump) name(record *bpf.Record, span *l7.Span) {
	d := &record.Decision[span.Kind]
	span.Rule = p.rules.rule(record.Generation, d.Rule)
	var route *l7.Route
	if d.Route != 0 {
		p.exemplars.Note(d.Route, bpf.Outcome(d.Outcome), span)
		if odd := p.anomalies.Load(); odd != nil {
			span.Anomaly = (*odd)[d.Route]
		}
		route, _ = p.routes.Decide(d.Route, Decided{Rule: span.Rule, Reason: span.Reason})
	}
	if span.Path == "" || span.Cut&(l7.CutPath|l7.CutRequestLine) != 0 || span.RPC != l7.NoRPC {
		return // the path is unknown or not whole, or a name already
	}
	// What a rule gives holds for any answer. A guess needs a route that the kernel tells apart, so that random paths,
	// which are answered by 404, are none.
	if record.TemplateRule != bpf.NoRule {
		span.Route = routeText(p.rules.template(record.Generation, record.TemplateRule))
	}
	if span.RouteFromRule = span.Route != ""; !span.RouteFromRule && route != nil {
		span.Route, span.RouteFromRule = route.Template, route.FromRule
	}
}

// drain waits until what the kernel submitted so far has been taken.
func (p *pump) drain() {
	deadline := time.After(2 * time.Second)
	select {
	case <-p.idle:
	default:
	}
	for p.running.Load() {
		select {
		case <-p.idle:
			return
		case <-deadline:
			return
		}
	}
}

// clockOffset is what to add to CLOCK_MONOTONIC for the wall clock, in nanoseconds. The wall clock is read
// between two readings of the other, and of three tries the quickest counts.
func clockOffset() int64 {
	var offset int64
	best := int64(1 << 62)
	for range 3 {
		var before, wall, after unix.Timespec
		// These calls can't fail for these clocks.
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		_ = unix.ClockGettime(unix.CLOCK_REALTIME, &wall)
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
		if took := after.Nano() - before.Nano(); took < best {
			best = took
			offset = wall.Nano() - before.Nano() - took/2
		}
	}
	return offset
}
