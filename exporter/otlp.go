package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ambit/l7"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
)

// OTLPConfig says where and how spans are sent. A zero value takes what the field's comment says.
type OTLPConfig struct {
	// Endpoint is http://HOST:PORT, https://HOST:PORT or HOST:PORT; it goes before the environment's.
	Endpoint string
	// Protocol is "grpc" or "http/protobuf". Zero: OTEL_EXPORTER_OTLP_[TRACES_]PROTOCOL, else http/protobuf for
	// an endpoint with port 4318 or with a path, and grpc for any other.
	Protocol string
	// Version is ambit's own, and that of the spans' scope.
	Version string
	// Capture says what is sent of what may be private.
	Capture Capture

	QueueBytes int           // memory for spans that wait; 4 MiB
	BatchSpans int           // in a batch; 2048
	BatchBytes int           // of a batch before compression; 1 KiB for each span, up to 1 MiB and half of the queue
	BatchDelay time.Duration // a span waits no longer than this for its batch to fill; 1 s
	// Timeout is that of one attempt. Zero: OTEL_EXPORTER_OTLP_[TRACES_]TIMEOUT, else 10 s.
	Timeout time.Duration

	RetryMin time.Duration // first waiting time after a failed attempt; 500 ms
	RetryMax time.Duration // it doubles up to this; 10 s
	RetryFor time.Duration // a batch is tried no longer than this; 5 min

	Log *slog.Logger
}

const minBatchBytes = 16 << 10

// withDefaults returns cfg with its zero values filled in.
func (cfg OTLPConfig) withDefaults() (OTLPConfig, error) {
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = 4 << 20
	}
	if cfg.BatchSpans == 0 {
		cfg.BatchSpans = 2048
	}
	if cfg.BatchBytes == 0 {
		cfg.BatchBytes = max(minBatchBytes, min(cfg.BatchSpans<<10, 1<<20, cfg.QueueBytes/2))
	}
	for _, d := range []struct {
		value *time.Duration
		zero  time.Duration
	}{
		{&cfg.BatchDelay, time.Second},
		{&cfg.RetryMin, 500 * time.Millisecond},
		{&cfg.RetryMax, 10 * time.Second},
		{&cfg.RetryFor, 5 * time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.BatchBytes < minBatchBytes:
		return cfg, fmt.Errorf("otlp batch of %d bytes: less than %d hold no span surely", cfg.BatchBytes, minBatchBytes)
	case cfg.QueueBytes < 2*cfg.BatchBytes:
		return cfg, fmt.Errorf("otlp queue of %d bytes: must hold two batches, %d bytes", cfg.QueueBytes, 2*cfg.BatchBytes)
	case cfg.BatchSpans < 1:
		return cfg, fmt.Errorf("otlp batch of %d spans: must hold one", cfg.BatchSpans)
	}
	return cfg, nil
}

// OTLP sends spans to a collector. Add encodes a span into a queue; one goroutine takes batches from it and
// sends them one after the other.
//
// Memory: QueueBytes for the queue, 12 bytes for each span that it may hold, and once BatchBytes (twice, if
// every span has a resource of its own) for the batch on its way, and again where an attempt was given up that gRPC
// still reads. The client's copies of that batch come on top: over HTTP and with gzip, up to 1 MiB. With the defaults
// all of it stays below 8 MiB, however long the collector is away. When the queue is full, new spans are dropped and those that wait are kept.
type OTLP struct {
	cfg    OTLPConfig
	client otlptrace.Client
	idle   func() // closes idle connections

	mu      sync.Mutex
	queue   *queue
	stats   Stats // Queued, QueuedBytes and Repaired are filled in by Stats
	flying  slabSize
	settled uint64 // number of the last slab whose spans are accounted for
	flushTo uint64 // slabs up to this number are due
	closing bool
	share   atomic.Uint32 // queue.share, for those who don't lock
	settle  chan struct{} // closed and made anew whenever settled moves

	wake  chan struct{} // the sender shall look at the queue
	hurry chan struct{} // the sender shall not wait out its own backoff

	ctx    context.Context // ends every attempt
	cancel context.CancelFunc
	done   chan struct{} // the sender has ended

	sender sender
}

type slabSize struct{ spans, bytes int }

// NewOTLP makes the exporter and starts its sender. It does not connect: a collector that is away is no
// error. Errors are about the configuration and the environment.
func NewOTLP(ctx context.Context, cfg OTLPConfig) (*OTLP, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	set, err := resolve(&cfg)
	if err != nil {
		return nil, err
	}
	queue, err := newQueue(cfg.QueueBytes/cfg.BatchBytes, cfg.BatchBytes, cfg.BatchSpans, cfg.BatchDelay, cfg.Capture)
	if err != nil {
		return nil, err
	}
	client, idle := newClient(set)
	if err := client.Start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("otlp endpoint %s: %w", set.shown, err), queue.close())
	}
	o := &OTLP{
		cfg:    cfg,
		client: client,
		idle:   idle,
		queue:  queue,
		stats:  Stats{Endpoint: set.shown, Protocol: set.protocol},
		settle: make(chan struct{}),
		wake:   make(chan struct{}, 1),
		hurry:  make(chan struct{}, 1),
		done:   make(chan struct{}),
		sender: sender{batch: newBatch(cfg.Version, cfg.BatchBytes, cfg.BatchSpans)},
	}
	o.stats.CapacityBytes = cfg.QueueBytes
	o.share.Store(queue.share())
	o.ctx, o.cancel = context.WithCancel(context.Background())
	go o.run()
	return o, nil
}

// Add encodes s into the queue, or drops and counts it. It keeps nothing of s but the pointer to its Resource, until
// the batch is full or due, and the texts of its memos, until a span with other ones.
func (o *OTLP) Add(s *l7.Span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Added++
	if o.closing {
		o.stats.Dropped[DropShutdown]++
		return
	}
	opened := o.queue.number
	if reason := o.queue.add(s, time.Now); reason != dropNone {
		o.stats.Dropped[reason]++
	}
	o.share.Store(o.queue.share())
	if o.queue.number != opened {
		// A slab was begun, and perhaps one is full.
		signal(o.wake)
	}
}

// Share is what remains of every probability as the queue fills up, of bpf.Full: bpf.Record.Press raises thresholds by it.
func (o *OTLP) Share() uint32 { return o.share.Load() }

// Refuse counts spans that a raised threshold kept away.
func (o *OTLP) Refuse(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Added += uint64(n)
	o.stats.Dropped[DropQueuePressed] += uint64(n)
}

// signal leaves a token in c, unless one is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Flush sends what was added before the call, and returns when all of it is sent or dropped. Its error says
// that ctx ended before, and how much is left.
func (o *OTLP) Flush(ctx context.Context) error {
	o.mu.Lock()
	target := o.queue.sealed
	if o.queue.open != nil {
		target = o.queue.open.number
	}
	o.flushTo = max(o.flushTo, target)
	if !o.stats.FailingSince.IsZero() {
		signal(o.hurry)
	}
	o.mu.Unlock()
	signal(o.wake)
	for {
		o.mu.Lock()
		settled, changed := o.settled, o.settle
		left := o.queue.spans + o.flying.spans
		o.mu.Unlock()
		if settled >= target {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("flush spans to %s: %d are not sent: %w", o.stats.Endpoint, left, ctx.Err())
		}
	}
}

// closeTimeout is how long Close takes at the most where its context has no deadline.
const closeTimeout = 5 * time.Second

// Close stops taking spans, sends what waits, and gives up on the rest when ctx ends: those spans are
// counted as dropped. It may be called again.
func (o *OTLP) Close(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, closeTimeout)
		defer cancel()
	}
	o.mu.Lock()
	again := o.closing
	o.closing = true
	o.mu.Unlock()
	if again {
		<-o.done
		return nil
	}
	err := o.Flush(ctx)
	o.cancel()
	signal(o.wake)
	<-o.done
	// Nothing is under way any more, so this does not wait.
	if stop := o.client.Stop(context.Background()); stop != nil {
		err = errors.Join(err, fmt.Errorf("close connection to %s: %w", o.stats.Endpoint, stop))
	}
	o.idle()
	o.mu.Lock()
	defer o.mu.Unlock()
	return errors.Join(err, o.queue.close())
}

// Stats returns the state of the exporter, in itself consistent.
func (o *OTLP) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Queued = o.queue.spans + o.flying.spans
	s.InFlight = o.flying.spans
	s.QueuedBytes = o.queue.bytes + o.flying.bytes
	s.Repaired = o.queue.enc.repaired
	return s
}
