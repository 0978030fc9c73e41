package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"ambit/bpf"
	"ambit/l7"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// MetricSeries is one series of the kernel's counters and whose it is.
type MetricSeries struct {
	*bpf.Series
	// Resource is its service's; the same pointer for all series of one.
	Resource *l7.Resource
	// Route is its name. Of "other" it is nil; of another series nil says that the name is not known yet, so that it
	// waits.
	Route *l7.Route
}

// MetricsConfig says where and how metrics are sent.
type MetricsConfig struct {
	// Endpoint is as in OTLPConfig; empty leaves it to the environment.
	Endpoint string
	// Version is ambit's own, and that of the scope.
	Version string
	// GuessedRoute sends guessed templates as http.route too.
	GuessedRoute bool
	// Collect reads the counters.
	Collect   func() ([]MetricSeries, error)
	Exemplars *Exemplars
	Log       *slog.Logger
}

// MetricsStats counts data points; an exponential histogram of one set of attributes is one.
type MetricsStats struct {
	Endpoint string
	Exported uint64 // that the collector took
	Rejected uint64 // of a request that it took (partial success)
	// Failed were refused or got no answer. They are in the next export again, as nothing is taken off the counters.
	Failed uint64
	// LastError is one line without control characters, "" if the last export went well.
	LastError string
}

// Variables of metrics alone.
const (
	variableTemporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
	variableInterval    = "OTEL_METRIC_EXPORT_INTERVAL"
	variableTimeout     = "OTEL_METRIC_EXPORT_TIMEOUT"
)

const (
	defaultInterval      = time.Minute
	defaultExportTimeout = 30 * time.Second
)

// Metrics sends the kernel's counters to a collector, at an interval. Close ends it.
type Metrics struct {
	cfg    MetricsConfig
	way    metricsWay
	client metricsClient
	points pointMaker
	sent   map[bpf.SeriesKey]*sentSeries // where deltas are sent

	mu    sync.Mutex
	stats MetricsStats

	stop   context.CancelFunc
	ended  context.Context
	done   chan struct{}
	closed sync.Once
}

// sentSeries is what the collector has of a series.
type sentSeries struct {
	total *bpf.Series
	at    time.Time // until when
}

// metricsWay is where, how and how often metrics are sent.
type metricsWay struct {
	settings
	delta    bool
	interval time.Duration
	timeout  time.Duration // of all requests of one export
}

func (env environment) resolveMetrics(endpoint string) (way metricsWay, err error) {
	if way.settings, err = env.resolve(&OTLPConfig{Endpoint: endpoint}); err != nil {
		return way, err
	}
	if way.delta, err = env.readTemporality(); err != nil {
		return way, err
	}
	if way.interval, err = env.readMillis(variableInterval, defaultInterval); err != nil {
		return way, err
	}
	way.timeout, err = env.readMillis(variableTimeout, defaultExportTimeout)
	return way, err
}

// MetricsEndpoint says where metrics go: the endpoint for MetricsConfig, and whether there is one. own is where spans
// go, and variable the standard variable that said so, if it was one.
func MetricsEndpoint(own, variable string) (endpoint string, ok bool) {
	return forMetrics(os.Getenv).metricsEndpoint(own, variable)
}

func (env environment) metricsEndpoint(own, variable string) (endpoint string, ok bool) {
	name, _ := env.variable("ENDPOINT")
	switch {
	case name == env.prefixes()[0]+"ENDPOINT":
		return "", true
	case own != "" && variable == "":
		return own, true
	}
	return "", own != "" && name != ""
}

// NewMetrics makes the exporter and starts it. It does not connect: a collector that is away is no error. Errors are
// about the configuration and the environment.
func NewMetrics(ctx context.Context, cfg MetricsConfig) (*Metrics, error) {
	env := forMetrics(os.Getenv)
	way, err := env.resolveMetrics(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	m := &Metrics{
		cfg: cfg, way: way, sent: make(map[bpf.SeriesKey]*sentSeries), points: pointMaker{guessed: cfg.GuessedRoute},
		stats: MetricsStats{Endpoint: way.shown}, done: make(chan struct{}),
	}
	if m.client, err = newMetricsClient(ctx, way.settings); err != nil {
		return nil, fmt.Errorf("otlp endpoint %s: %w", way.shown, err)
	}
	m.ended, m.stop = context.WithCancel(context.Background())
	go m.run()
	return m, nil
}

// MetricsSettings tells how metrics are sent, where own and variable are those of MetricsEndpoint and getenv returns the
// variables; nothing where they are not. Its error is the one that NewMetrics would have.
func MetricsSettings(own, variable string, getenv func(name string) string) ([]Setting, error) {
	env := forMetrics(getenv)
	endpoint, ok := env.metricsEndpoint(own, variable)
	if !ok {
		return nil, nil
	}
	way, err := env.resolveMetrics(endpoint)
	if err != nil {
		return nil, err
	}
	from := ""
	if endpoint == "" {
		from, _ = env.variable("ENDPOINT")
	}
	list := []Setting{{Name: "metrics_endpoint", Value: way.shown, Variable: from, Env: env.prefixes()[0] + "ENDPOINT"}}
	for _, s := range env.settings(way.settings) {
		s.Name, s.Env = "metrics_"+s.Name, env.prefixes()[0]+strings.ToUpper(s.Name)
		list = append(list, s)
	}
	temporality := "cumulative"
	if way.delta {
		temporality = "delta"
	}
	for _, s := range []Setting{
		{Name: "metrics_temporality_preference", Value: temporality, Env: variableTemporality},
		{Name: "metric_export_interval", Value: way.interval.String(), Env: variableInterval},
		{Name: "metric_export_timeout", Value: way.timeout.String(), Env: variableTimeout},
	} {
		if strings.TrimSpace(env.get(s.Env)) != "" {
			s.Variable = s.Env
		}
		list = append(list, s)
	}
	return list, nil
}

// readTemporality tells whether deltas are sent.
func (env environment) readTemporality() (delta bool, err error) {
	switch v := strings.ToLower(strings.TrimSpace(env.get(variableTemporality))); v {
	case "", "cumulative":
		return false, nil
	case "delta", "lowmemory": // of histograms both mean deltas
		return true, nil
	default:
		return false, fmt.Errorf("%s: %q is neither cumulative, delta nor lowmemory", variableTemporality, v)
	}
}

func (env environment) readMillis(name string, zero time.Duration) (time.Duration, error) {
	v := strings.TrimSpace(env.get(name))
	if v == "" {
		return zero, nil
	}
	ms, err := strconv.Atoi(v)
	if err != nil || ms < 100 || time.Duration(ms) > 24*time.Hour/time.Millisecond {
		return 0, fmt.Errorf("%s: %q is no number of milliseconds between 100 and 86400000", name, v)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func (m *Metrics) run() {
	defer close(m.done)
	tick := time.NewTicker(m.way.interval)
	defer tick.Stop()
	for {
		select {
		case <-m.ended.Done():
			return
		case <-tick.C:
			m.export(m.ended)
		}
	}
}

// Close sends what was counted last, as long as ctx allows, and ends.
func (m *Metrics) Close(ctx context.Context) error {
	var err error
	m.closed.Do(func() {
		m.stop()
		<-m.done
		if failed := m.export(ctx); failed != nil {
			err = fmt.Errorf("send the last metrics: %w", failed)
		}
		err = errors.Join(err, m.client.close(ctx))
	})
	return err
}

// Stats returns the state of the exporter.
func (m *Metrics) Stats() MetricsStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// export sends everything once. One goroutine at a time calls it.
func (m *Metrics) export(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.way.timeout)
	defer cancel()
	list, err := m.cfg.Collect()
	if err != nil {
		return m.tell(fmt.Errorf("read the counters: %w", err))
	}
	now := time.Now()
	m.follow(list, now)
	exemplars := m.cfg.Exemplars.take()
	var errs []error
	for _, request := range m.points.requests(m.due(list, now), exemplars) {
		err := m.send(ctx, request, now)
		if err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return m.tell(errors.Join(errs...))
}

// tell notes how an export went, and logs the first of several that fail.
func (m *Metrics) tell(err error) error {
	text := ""
	if err != nil {
		text = printable(err.Error(), maxErrorText)
	}
	m.mu.Lock()
	before := m.stats.LastError
	m.stats.LastError = text
	m.mu.Unlock()
	switch {
	case text != "" && before == "":
		m.cfg.Log.Warn("metrics are not delivered, what is counted goes with a later export; metrics.otlp: false sends none", "endpoint", m.stats.Endpoint, "error", text)
	case text == "" && before != "":
		m.cfg.Log.Info("metrics are delivered again", "endpoint", m.stats.Endpoint)
	}
	return err
}

func (m *Metrics) send(ctx context.Context, r *metricsRequest, now time.Time) error {
	temporality := metricdata.CumulativeTemporality
	if m.way.delta {
		temporality = metricdata.DeltaTemporality
	}
	metrics, points := r.build(temporality, now, m.cfg.Version)
	rejected, err := m.client.export(ctx, metrics)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.stats.Failed += uint64(points)
		return err
	}
	lost := min(uint64(max(rejected, 0)), uint64(points))
	m.stats.Rejected += lost
	m.stats.Exported += uint64(points) - lost
	if !m.way.delta {
		return nil
	}
	for _, p := range r.points {
		for _, s := range p.members {
			m.sent[s.SeriesKey] = &sentSeries{total: s, at: now}
		}
	}
	return nil
}

// follow brings what was sent in line with series that went: "other" has their counters now, of which that has been sent.
func (m *Metrics) follow(list []MetricSeries, now time.Time) {
	present := make(map[bpf.SeriesKey]*bpf.Series, len(list))
	for _, s := range list {
		present[s.SeriesKey] = s.Series
	}
	for key, sent := range m.sent {
		if key.Route == 0 { // "other" never goes
			continue
		}
		if s := present[key]; s != nil && s.Begun.Equal(sent.total.Begun) {
			continue
		}
		delete(m.sent, key)
		other := key
		if other.Route = 0; present[other] == nil {
			other = other.Coarse()
		}
		moved := &bpf.Series{SeriesKey: other}
		at := now
		if before := m.sent[other]; before != nil {
			moved, at = before.total, before.at
		} else if s := present[other]; s != nil {
			at = s.Begun
		}
		m.sent[other] = &sentSeries{total: moved.Plus(sent.total), at: at}
	}
}

// duePoint is a series as it is sent: its total, or what was added since it was sent last.
type duePoint struct {
	MetricSeries
	counted *bpf.Series
	since   time.Time
}

// due lists what is to be sent. A delta of nothing is left out.
func (m *Metrics) due(list []MetricSeries, now time.Time) []duePoint {
	due := make([]duePoint, 0, len(list))
	for _, s := range list {
		if s.Route == nil && s.SeriesKey.Route != 0 {
			continue
		}
		p := duePoint{MetricSeries: s, counted: s.Series, since: s.Begun}
		if sent := m.sent[s.SeriesKey]; m.way.delta && sent != nil {
			p.counted, p.since = s.Minus(sent.total), sent.at
			if p.counted.Count() == 0 {
				continue
			}
		}
		if p.since.After(now) {
			p.since = now
		}
		due = append(due, p)
	}
	return due
}
