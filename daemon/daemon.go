// Package daemon is ambit at work: it wires the kernel side, the taps, the assembly of spans and the
// exporter together, and answers the local API.
//
//	bpf.Reader -> l7.Assemble -> meta.Enrich -> exporter.Add     pump.go, one goroutine
//	bpf.Sweep, bpf.SeriesReader, rules of new services           control.go, one goroutine
//	pressure, sampling.Controller -> bpf.Kernel.Steer            steer.go, the same goroutine
//	exporter.Metrics                                             metrics.go, its own goroutine
//	Load -> l7.Compile -> bpf.SetRules                           reload.go, rules.go, one goroutine
//	tc.Taps                                                      its own goroutine
//	admin.Server -> Daemon                                       backend.go, status.go, pause.go
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/exporter"
	"ambit/l7"
	"ambit/meta"
	"ambit/tc"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
)

// Daemon is one ambit. Its parts are made in the order of the fields and closed in the opposite one.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	release string // of the kernel

	cgroup string // where cgroup v2 is mounted
	meta   *meta.Meta
	kernel *bpf.Kernel
	out    output
	reader *bpf.Reader
	series *bpf.SeriesReader
	routes *Routes
	// metrics is nil where none go out by OTLP.
	metrics *exporter.Metrics
	top     topWindow
	pump    pump
	taps    *tc.Taps
	server  *admin.Server

	state atomic.Value // admin.State
	// change serialises Pause, Resume and Close.
	change sync.Mutex
	hooks  hooks
	torn   bool // a pause failed: some of the hooks are off, and not all
	rates  rateLog
	spaces spaces

	ticked atomic.Int64 // when control last did what is due, nanoseconds since the Unix epoch

	rules    *rules // nil until the kernel side is loaded
	steering *steering
	remote   remoteSampling
	gap      gap
	legacy   legacy
	wound    bool // down: what works has ended
	reloader reloader

	stop    context.CancelFunc // ends control
	running sync.WaitGroup
}

// Run runs a daemon until ctx ends, then flushes and takes everything down. from says where cfg was
// read: a reload reads it there again. Errors at the start leave nothing behind.
func Run(ctx context.Context, cfg Config, from From, log *slog.Logger) error {
	d, err := New(ctx, cfg, from, log)
	if err != nil {
		return err
	}
	log.Info("tracing", "version", Version, "endpoint", d.out.endpoint(), "sample_rate", cfg.SampleRate,
		"admin", cfg.Admin.Address, "socket", cfg.Admin.Socket, "attachments", len(d.taps.Attachments()))
	select {
	case <-ctx.Done():
	case <-d.legacy.alone:
		err = errors.New("the ambit that this one handed over to has ended: start anew")
	}
	log.Info("stopping")
	d.notify(sd.SdNotifyStopping)
	flush, cancel := context.WithTimeout(context.Background(), cfg.Export.FlushTimeout)
	defer cancel()
	return errors.Join(err, d.Close(flush))
}

// New makes a daemon and attaches it. When it returns, requests are traced.
func New(ctx context.Context, cfg Config, from From, log *slog.Logger) (_ *Daemon, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Daemon{cfg: cfg, log: log, started: time.Now(), release: kernelRelease(), reloader: reloader{from: from}}
	d.state.Store(admin.Starting)
	d.rates.setBase(cfg.SampleRate, "configuration")
	d.reloader.listen()
	defer func() {
		if err != nil {
			closing, cancel := context.WithTimeout(context.Background(), cfg.Export.FlushTimeout)
			defer cancel()
			err = errors.Join(err, d.Close(closing))
		}
	}()

	if d.gap, err = newGap(cfg.Sampling.Control.State, bootTime(d.started)); err != nil {
		log.Warn("the gap since an earlier daemon is not told", "error", err)
	}
	// Else the first thing that fails for want of a privilege is told, which need not sound like it.
	if err := tc.CheckPrivileges(); err != nil {
		return nil, err
	}
	if err := d.openStore(ctx); err != nil {
		return nil, err
	}
	// The API comes before the kernel: an address in use is found before anything is attached.
	d.server, err = admin.Listen(admin.Config{
		Address: cfg.Admin.Address, Socket: cfg.Admin.Socket,
		Collectors: []prometheus.Collector{redCollector{d, newRedEnded()}, pointsCollector{d}, remoteCollector{d}, gapCollector{d}, legacyCollector{d}}, Log: log,
	}, d)
	if err != nil {
		return nil, err
	}
	if d.cgroup, err = meta.CgroupMount("/"); err != nil {
		return nil, err
	}
	d.meta, err = meta.New(meta.Config{
		ResourceAttributes: os.Getenv("OTEL_RESOURCE_ATTRIBUTES"), Version: Version, NamespaceName: d.spaces.name,
	})
	if err != nil {
		return nil, err
	}
	if d.out, err = newOutput(ctx, cfg, log); err != nil {
		return nil, err
	}
	if err := d.load(); err != nil {
		return nil, err
	}
	if err := d.openRemote(); err != nil {
		return nil, err
	}
	if err := d.attach(); err != nil {
		return nil, err
	}
	working := d.begin()
	if err := d.beginMetrics(ctx); err != nil {
		return nil, err
	}
	// Loading needs more memory than running does: give it back now, not minutes later.
	debug.FreeOSMemory()
	if err := d.gap.over(time.Now(), d.legacy.continued); err != nil {
		log.Warn("the next daemon will not tell how long nothing was traced", "error", err)
	}
	if d.gap.length > 0 {
		log.Info("nothing was traced since an earlier daemon", "gap", d.gap.length.Round(time.Millisecond))
	}
	d.state.Store(admin.Tracing)
	d.running.Go(func() { d.serve(working) })
	return d, nil
}

// load loads the kernel side; nothing is attached yet.
func (d *Daemon) load() error {
	cgroups, err := d.excludedCgroups()
	if err != nil {
		return err
	}
	d.kernel, err = bpf.Load(bpf.Config{
		Rate:           d.cfg.SampleRate,
		IDKey:          d.cfg.IDKey,
		IdleLimit:      d.cfg.IdleLimit,
		MaxConnections: uint32(d.cfg.MaxConnections), MaxHTTP2Connections: uint32(d.cfg.MaxHTTP2Connections),
		RingBytes:      uint32(d.cfg.RingSize),
		TrustContext:   d.cfg.TrustContext,
		ForceContext:   d.cfg.Sampling.Forced.From,
		Peers:          d.cfg.Peers,
		ExcludePorts:   d.cfg.Exclude.Ports,
		ExcludeCgroups: cgroups,
		Keep:           d.legacy.store,
	})
	if err != nil {
		return err
	}
	if d.reader, err = d.kernel.Reader(); err != nil {
		return err
	}
	if d.series, err = d.kernel.Series(); err != nil {
		return err
	}
	d.rules = newRules(d.kernel, d.serviceOf, d.cfg.SampleRate)
	d.rules.renew = d.series.Renew
	d.routes = newRoutes(d.series.Name, d.rules)
	d.steering = newSteering(d.kernel, d.series.Steer, d.routes, d.cfg.Sampling.Control.State, d.log)
	if err := d.forgetRates(); err != nil {
		return err
	}
	return d.rules.load(&d.cfg, d.reloader.from.Origins)
}

// forgetRates takes away what an earlier daemon's controller gave, where this one has none that would.
func (d *Daemon) forgetRates() error {
	if inherited, _ := d.kernel.Inherited(); !inherited {
		return nil
	}
	d.series.SetSlow(nil)
	if d.cfg.Sampling.Control.on(d.cfg.Sampling.Budget) {
		return nil
	}
	d.series.Unsteer()
	if err := d.kernel.SetBudget(bpf.BudgetFloor, 0); err != nil {
		return err
	}
	return d.kernel.Steer(bpf.Unsteered(d.cfg.SampleRate))
}

// serviceOf names a service as its spans do.
func (d *Daemon) serviceOf(s bpf.Service) string {
	return d.meta.ServiceName(l7.Owner{Cgroup: s.Cgroup, NetNS: s.NetNS, Comm: s.Comm})
}

func (d *Daemon) excludedCgroups() ([]bpf.Cgroup, error) {
	var out []bpf.Cgroup
	for _, p := range d.cfg.Exclude.Cgroups {
		id, err := d.meta.CgroupID(p)
		if err != nil {
			return nil, fmt.Errorf("exclude.cgroups: %w", err)
		}
		clean := strings.Trim(strings.TrimPrefix(path.Clean("/"+p), d.cgroup), "/")
		depth := 0
		if clean != "" {
			depth = strings.Count(clean, "/") + 1
		}
		out = append(out, bpf.Cgroup{ID: id, Depth: depth})
	}
	return out, nil
}

// attach puts the programs in place: sockets first, so that the taps know whose they are.
func (d *Daemon) attach() error {
	if err := d.kernel.Attach(d.cgroup); err != nil {
		return err
	}
	d.hooks.listening.Store(true)
	taps, err := tc.New(tc.Config{
		Select: d.cfg.Namespaces, Exclude: d.cfg.Exclude.Namespaces, Load: d.tap, Released: d.untap, Keep: d.legacy.store, Log: d.log,
	})
	if err != nil {
		return err
	}
	d.taps = taps
	d.hooks.cgroup, d.hooks.sockets, d.hooks.taps = d.cgroup, d.kernel, d.taps
	if err := d.taps.Start(); err != nil {
		return err
	}
	if err := d.kernel.Open(); err != nil {
		return err
	}
	return d.takeOver()
}

// tap makes the programs of a namespace that is about to be tapped.
func (d *Daemon) tap(n tc.NetNS) (tc.Programs, error) {
	s, err := d.kernel.Tap(n.Cookie)
	if err != nil {
		return tc.Programs{}, err
	}
	if err := d.spaces.add(n, s); err != nil {
		s.Close()
		return tc.Programs{}, err
	}
	return tc.Programs{LoEgress: s.LoEgress, Egress: s.Egress, Ingress: s.Ingress}, nil
}

func (d *Daemon) untap(n tc.NetNS) {
	d.spaces.remove(n)
	if err := d.kernel.Untap(n.Cookie); err != nil {
		d.log.Warn("a network namespace that ended is still noted", "namespace", n.Name, "error", err)
	}
}

// begin starts the goroutines. Those that work until the end get the context that it answers.
func (d *Daemon) begin() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	d.pump.rules, d.pump.routes, d.pump.exemplars = d.rules, d.routes, exporter.NewExemplars()
	d.pump.otlp, d.pump.taken = d.out.otlp, d.kernel.Taken
	d.pump.anomalies = &d.steering.odd
	d.pump.start(d.reader, d.meta, d.out.sink, d.log, &d.running)
	d.running.Go(func() { d.control(ctx) })
	d.running.Go(func() { d.watch(ctx) })
	if d.remote.poller != nil {
		d.running.Go(func() { d.remote.poller.Run(ctx) })
	}
	return ctx
}

// Close detaches everything, or leaves it to the next daemon, flushes what was traced and frees all; ctx bounds the flush.
func (d *Daemon) Close(ctx context.Context) error {
	d.change.Lock()
	defer d.change.Unlock()
	defer d.reloader.close() // until the end SIGHUP ends nothing
	errs := []error{d.windDown(ctx)}
	if d.server != nil {
		errs = append(errs, d.server.Close(ctx))
	}
	if d.series != nil {
		errs = append(errs, d.series.Close())
	}
	leave := d.leaves()
	if d.kernel != nil {
		errs = append(errs, d.kernel.Close())
	}
	if !leave {
		errs = append(errs, d.legacy.store.Clear())
	}
	return errors.Join(append(errs, d.legacy.store.Close())...)
}

// windDown ends what works, and flushes what was traced. It may be called again. The caller holds d.change.
func (d *Daemon) windDown(ctx context.Context) error {
	if d.wound {
		return nil
	}
	d.wound = true
	var errs []error
	if d.State() != admin.Starting {
		errs = append(errs, d.gap.alive(time.Now()))
	}
	if d.kernel != nil && d.leaves() {
		d.kernel.Leave()
		if d.taps != nil {
			errs = append(errs, d.taps.Leave())
		}
	}
	if d.taps != nil {
		errs = append(errs, d.taps.Close())
	}
	if d.kernel != nil {
		errs = append(errs, d.kernel.Detach())
	}
	if d.stop != nil {
		d.pump.drain()
		d.stop()
	}
	if d.reader != nil {
		errs = append(errs, d.reader.Close())
	}
	d.running.Wait()
	// Both have to tell a collector something, which may be away: neither waits for the other.
	var flushing sync.WaitGroup
	if d.metrics != nil {
		flushing.Go(func() {
			// Not every collector takes metrics; that of spans is still in order.
			if err := d.metrics.Close(ctx); err != nil {
				d.log.Warn("the last metrics are not delivered", "error", err)
			}
		})
	}
	if d.out.sink != nil {
		errs = append(errs, d.out.sink.Close(ctx))
		d.out.report(d.log)
		if d.kernel != nil && d.State() != admin.Starting {
			d.settle()
		}
	}
	flushing.Wait()
	return errors.Join(append(errs, d.remote.close(ctx))...)
}
