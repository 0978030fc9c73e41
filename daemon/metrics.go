package daemon

import (
	"context"
	"fmt"

	"ambit/bpf"
	"ambit/exporter"
	"ambit/l7"

	"github.com/prometheus/client_golang/prometheus"
)

// beginMetrics sends the counters of requests by OTLP, where that is wanted and there is an endpoint.
func (d *Daemon) beginMetrics(ctx context.Context) error {
	if !d.cfg.Metrics.OTLP {
		return nil
	}
	endpoint, ok := exporter.MetricsEndpoint(d.cfg.OTLP.Endpoint, d.cfg.OTLP.EndpointVariable)
	if !ok {
		return nil
	}
	var err error
	d.metrics, err = exporter.NewMetrics(ctx, exporter.MetricsConfig{
		Endpoint: endpoint, Version: Version, GuessedRoute: d.cfg.Capture.GuessedRoute,
		Collect: d.collectMetrics, Exemplars: d.pump.exemplars, Log: d.log,
	})
	if err != nil {
		return fmt.Errorf("start the exporter of metrics: %w", err)
	}
	return nil
}

// collectMetrics reads the counters, and says whose they are.
func (d *Daemon) collectMetrics() ([]exporter.MetricSeries, error) {
	if err := d.series.Read(); err != nil {
		return nil, err
	}
	return metricSeries(d.series.Snapshot(), d.routes, func(s bpf.Service) *l7.Resource {
		return d.meta.Resource(l7.Owner{Cgroup: s.Cgroup, NetNS: s.NetNS, Comm: s.Comm})
	}), nil
}

// metricSeries asks for each service once, so that all of its series have the same pointer.
func metricSeries(snap *bpf.Snapshot, names *Routes, resource func(bpf.Service) *l7.Resource) []exporter.MetricSeries {
	resources := make(map[uint16]*l7.Resource, len(snap.Services))
	list := make([]exporter.MetricSeries, 0, len(snap.Series))
	for _, s := range snap.Series {
		m := exporter.MetricSeries{Series: s, Resource: resources[s.Service]}
		if m.Resource == nil {
			m.Resource = resource(snap.Services[s.Service])
			resources[s.Service] = m.Resource
		}
		if s.Route != 0 {
			m.Route, _ = names.Of(s.Route)
		}
		list = append(list, m)
	}
	return list
}

var metricPoints = prometheus.NewDesc("ambit_metrics_points_total",
	"What became of data points that were to go out by OTLP.", []string{"result"}, nil)

// pointsCollector makes metrics of what the exporter of metrics did; without one there are none.
type pointsCollector struct{ d *Daemon }

func (pointsCollector) Describe(descs chan<- *prometheus.Desc) { descs <- metricPoints }

func (c pointsCollector) Collect(out chan<- prometheus.Metric) {
	if c.d.ready() != nil || c.d.metrics == nil {
		return
	}
	s := c.d.metrics.Stats()
	for result, n := range map[string]uint64{"exported": s.Exported, "rejected": s.Rejected, "failed": s.Failed} {
		out <- prometheus.MustNewConstMetric(metricPoints, prometheus.CounterValue, float64(n), result)
	}
}
