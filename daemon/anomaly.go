package daemon

import (
	"time"

	"ambit/bpf"
	"ambit/sampling"
)

// anomalies is what is kept of the detector's events, and the window that is under way. Memory: two snapshots, and the
// latest anomaliesKept events.
type anomalies struct {
	detector *sampling.Detector
	base     *bpf.Snapshot
	events   []anomaly // newest first
}

// anomaliesKept bounds the events that "ambit rates" can show.
const anomaliesKept = 64

// anomaly is an event with the name that its route had.
type anomaly struct {
	sampling.Anomaly
	name sampling.RouteName
}

// observe ends a window when it is time, and answers the events that it brought.
func (a *anomalies) observe(now time.Time, snap *bpf.Snapshot, name func(uint64) (sampling.RouteName, bool)) []anomaly {
	if a.base == nil {
		a.base = snap
		return nil
	}
	if snap.At.Sub(a.base.At) < a.detector.Window() {
		return nil
	}
	windows := windowsOf(a.base, snap)
	a.base = snap
	var events []anomaly
	for _, found := range a.detector.Observe(now, windows) {
		event := anomaly{Anomaly: found}
		event.name, _ = name(found.Key)
		events = append(events, event)
	}
	a.events = append(events, a.events...)
	a.events = a.events[:min(len(a.events), anomaliesKept)]
	return events
}

// of is the event that the route is boosted for, if it is.
func (a *anomalies) of(key uint64, now time.Time) (sampling.Anomaly, bool) {
	for i := range a.events {
		if e := &a.events[i]; e.Key == key && now.Before(e.Until) {
			return e.Anomaly, true
		}
	}
	return sampling.Anomaly{}, false
}

// windowsOf is what each route counted between two snapshots, of those that counted something.
func windowsOf(base, now *bpf.Snapshot) []sampling.Window {
	var windows []sampling.Window
	for key, sum := range routesSince(base, now) {
		count := sum.Count()
		if count == 0 {
			continue
		}
		windows = append(windows, sampling.Window{
			Key: key, Count: count, Errors: sum.errors,
			P50: bpf.LatencyLog2(0.5, sum.Below, &sum.Latency), P90: bpf.LatencyLog2(0.9, sum.Below, &sum.Latency),
		})
	}
	return windows
}
