package daemon

import (
	"context"
	"errors"

	"ambit/remote"

	"github.com/prometheus/client_golang/prometheus"
)

// remoteSampling is both sides of Jaeger's protocol, each nil where it is off.
type remoteSampling struct {
	client *remote.Client
	poller *remote.Poller
	server *remote.Server
}

// openRemote prepares both sides, before anything is attached: an address in use is found then.
func (d *Daemon) openRemote() (err error) {
	cfg := &d.cfg.Sampling.Control.Remote
	if cfg.Endpoint != "" {
		if d.remote.client, err = remote.NewClient(cfg.Endpoint); err != nil {
			return err
		}
		d.remote.poller = remote.NewPoller(d.remote.client, cfg.Interval, d.log)
		d.steering.poller = d.remote.poller
	}
	if cfg.Listen != "" {
		d.remote.server, err = remote.Listen(cfg.Listen, d.steering.follow, d.log)
	}
	return err
}

func (r *remoteSampling) close(ctx context.Context) error {
	var errs []error
	if r.server != nil {
		errs = append(errs, r.server.Close(ctx))
	}
	if r.client != nil {
		errs = append(errs, r.client.Close())
	}
	return errors.Join(errs...)
}

var (
	remoteStrategies = prometheus.NewDesc("ambit_remote_strategies", "Services whose strategy a remote source told.", nil, nil)
	remoteFetches    = prometheus.NewDesc("ambit_remote_fetches_total", "Questions to the remote source.", []string{"result"}, nil)
	remoteAsked      = prometheus.NewDesc("ambit_remote_asked_total", "Questions of SDKs.", []string{"result"}, nil)
)

// remoteCollector makes metrics of remote sampling; of a side that is off there are none.
type remoteCollector struct{ d *Daemon }

func (remoteCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- remoteStrategies
	descs <- remoteFetches
	descs <- remoteAsked
}

func (c remoteCollector) Collect(out chan<- prometheus.Metric) {
	if c.d.ready() != nil {
		return
	}
	const counter = prometheus.CounterValue
	if p := c.d.remote.poller; p != nil {
		s := p.Stats()
		out <- prometheus.MustNewConstMetric(remoteStrategies, prometheus.GaugeValue, float64(s.Services))
		out <- prometheus.MustNewConstMetric(remoteFetches, counter, float64(s.Fetched), "fetched")
		out <- prometheus.MustNewConstMetric(remoteFetches, counter, float64(s.Failed), "failed")
	}
	if s := c.d.remote.server; s != nil {
		all, unknown := s.Asked()
		out <- prometheus.MustNewConstMetric(remoteAsked, counter, float64(all-unknown), "answered")
		out <- prometheus.MustNewConstMetric(remoteAsked, counter, float64(unknown), "unknown")
	}
}
