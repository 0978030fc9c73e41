package daemon

import (
	"context"
	"math"
	"sync"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/l7"
)

// topWindow keeps snapshots to compare the counters with, while somebody asks. The differences are over topLeast to
// about twice that, and over topFirst when nobody has asked before.
type topWindow struct {
	mu           sync.Mutex
	older, newer *bpf.Snapshot
	asked        time.Time
}

const (
	topFirst = time.Second
	topLeast = 2 * time.Second
	// topForget is when snapshots are dropped that nobody asked for.
	topForget = 10 * time.Second
)

// base is what to compare now with; nil if there is nothing that is old enough.
func (w *topWindow) base(now *bpf.Snapshot) *bpf.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.At.Sub(w.asked) > topForget {
		w.older, w.newer = nil, nil
	}
	w.asked = now.At
	if w.newer == nil {
		w.newer = now
		return nil
	}
	if now.At.Sub(w.newer.At) >= topLeast {
		w.older, w.newer = w.newer, now
	}
	base := w.older
	if base == nil {
		base = w.newer
	}
	if now.At.Sub(base.At) < topFirst {
		return nil
	}
	return base
}

// forget drops what nobody has asked for since.
func (w *topWindow) forget(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.asked) > topForget {
		w.older, w.newer = nil, nil
	}
}

// Top tells of the routes. Who asks first waits for a second, in which there is something to count.
func (d *Daemon) Top(ctx context.Context) (admin.Top, error) {
	if err := d.ready(); err != nil {
		return admin.Top{}, err
	}
	for {
		if err := d.series.Read(); err != nil {
			return admin.Top{}, err
		}
		snap := d.series.Snapshot()
		if base := d.top.base(snap); base != nil {
			return topOf(base, snap, d.routes, d.serviceName), nil
		}
		select {
		case <-time.After(topFirst / 10):
		case <-ctx.Done():
			return admin.Top{}, ctx.Err()
		}
	}
}

// topSum adds up the series of one row.
type topSum struct {
	total, lately           *bpf.Series
	totalErrors, lateErrors uint64
	decided                 Decided
}

// topOf makes a row of each route that has a name, and of "other" of each service and kind.
func topOf(base, now *bpf.Snapshot, names *Routes, serviceName func(bpf.Service) string) admin.Top {
	seconds := now.At.Sub(base.At).Seconds()
	top := admin.Top{SinceSeconds: seconds, Rows: []admin.TopRow{}}
	services := make(map[uint16]string)
	unnamed := make(map[uint64]bool)
	sums := make(map[admin.TopRow]*topSum) // by what tells rows apart
	for s, lately := range since(base, now) {
		row := admin.TopRow{Kind: l7.Kind(s.Kind).String(), Other: s.Route == 0}
		if !row.Other {
			route, ok := names.Of(s.Route)
			if !ok {
				unnamed[s.Route] = true
				continue
			}
			row.Method, row.Route, row.Host = route.Method, route.Template, hostPort(route)
		}
		if _, ok := services[s.Service]; !ok {
			services[s.Service] = serviceName(now.Services[s.Service])
		}
		row.Service = services[s.Service]
		sum := sums[row]
		if sum == nil {
			sum = &topSum{total: &bpf.Series{}, lately: &bpf.Series{}}
			sums[row] = sum
		}
		sum.total, sum.lately = sum.total.Plus(s), sum.lately.Plus(lately)
		if s.Error {
			sum.totalErrors += s.Count()
			sum.lateErrors += lately.Count()
		}
		if by := names.Decided(s.Route); by != (Decided{}) {
			sum.decided = by
		}
	}
	for row, sum := range sums {
		top.Rows = append(top.Rows, sum.fill(row, seconds))
	}
	top.Unnamed = len(unnamed)
	return top
}

func (s *topSum) fill(row admin.TopRow, since float64) admin.TopRow {
	row.Count = s.total.Count()
	row.Rule = s.decided.Rule
	if s.decided.Reason != 0 {
		row.Reason = s.decided.Reason.String()
	}
	of, errors, count := s.total, s.totalErrors, row.Count
	if n := s.lately.Count(); n > 0 {
		of, errors, count = s.lately, s.lateErrors, n
		row.Rate = float64(n) / since
	}
	if count == 0 {
		return row
	}
	row.ErrorShare, row.KeptShare = float64(errors)/float64(count), min(float64(of.Kept)/float64(count), 1)
	row.P50, row.P99 = quantile(0.5, of), quantile(0.99, of)
	return row
}

func quantile(q float64, s *bpf.Series) float64 {
	v := bpf.LatencyQuantile(q, s.Below, &s.Latency)
	if math.IsNaN(v) { // JSON has none
		return 0
	}
	return v
}
