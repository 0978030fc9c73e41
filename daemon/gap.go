package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gap tells for how long nothing was traced before this daemon: a file beside the state is as old as the last moment at which
// an earlier one was at work. Without a state file nothing is told.
type gap struct {
	path string
	last time.Time // of the earlier daemon, zero where none is known
	// length is 0 until the daemon traces, and where there was no earlier one since the machine started.
	length time.Duration
}

// newGap reads what an earlier daemon left; booted is when the machine started.
func newGap(state string, booted time.Time) (gap, error) {
	if state == "" {
		return gap{}, nil
	}
	g := gap{path: filepath.Join(filepath.Dir(state), "alive")}
	info, err := os.Stat(g.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return g, nil
	case err != nil:
		return g, fmt.Errorf("look for an earlier daemon: %w", err)
	}
	if info.ModTime().After(booted) {
		g.last = info.ModTime()
	}
	return g, nil
}

// over is to be called when the daemon traces. continued tells that all was traced since the earlier one.
func (g *gap) over(now time.Time, continued bool) error {
	if !g.last.IsZero() && now.After(g.last) && !continued {
		g.length = now.Sub(g.last)
	}
	if g.path == "" {
		return nil
	}
	f, err := os.OpenFile(g.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		g.path = "" // said once
		return fmt.Errorf("note that ambit is at work: %w", err)
	}
	return errors.Join(f.Close(), g.alive(now))
}

// alive notes that the daemon is at work. It is due every second, and when everything is about to be detached.
func (g *gap) alive(now time.Time) error {
	if g.path == "" {
		return nil
	}
	if err := os.Chtimes(g.path, now, now); err != nil {
		return fmt.Errorf("note that ambit is at work: %w", err)
	}
	return nil
}

// bootTime is when the machine started, to a second.
func bootTime(now time.Time) time.Time {
	uptime, err := os.ReadFile("/proc/uptime")
	var seconds float64
	if err != nil {
		return now
	}
	if _, err := fmt.Sscan(string(uptime), &seconds); err != nil {
		return now
	}
	return now.Add(-time.Duration(seconds * float64(time.Second)))
}

var gapSeconds = prometheus.NewDesc("ambit_restart_gap_seconds",
	"Time for which nothing was traced between an earlier daemon and this one; 0 where there was none since the machine started, or none is known.", nil, nil)

// gapCollector makes a metric of it.
type gapCollector struct{ d *Daemon }

func (gapCollector) Describe(descs chan<- *prometheus.Desc) { descs <- gapSeconds }

func (c gapCollector) Collect(out chan<- prometheus.Metric) {
	if c.d.ready() != nil {
		return
	}
	out <- prometheus.MustNewConstMetric(gapSeconds, prometheus.GaugeValue, c.d.gap.length.Seconds())
}
