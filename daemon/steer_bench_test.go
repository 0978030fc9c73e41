package daemon

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"
	"ambit/sampling"
)

// What the controller of rates costs in each second in userspace, at 4,096 routes of 64 services, each of which has counted.
func BenchmarkControlTick(b *testing.B) {
	const routes = 4096
	k := &steerStage{}
	names := newRoutes(func(uint64) bool { return true }, noRules{})
	var snaps [2]*bpf.Snapshot
	for turn := range snaps {
		snaps[turn] = &bpf.Snapshot{At: time.Now(), Services: make(map[uint16]bpf.Service)}
	}
	for i := range routes {
		key := uint64(2*i + 3)
		names.names[key] = &routeEntry{route: l7.Route{Kind: l7.Server, Method: "GET", Template: fmt.Sprintf("/route/%d", i)}}
		for turn, snap := range snaps {
			snap.Services[uint16(1+i%64)] = bpf.Service{Cgroup: uint64(i % 64)}
			snap.Routes = append(snap.Routes, bpf.Route{Key: key, Service: uint16(1 + i%64), Kind: bpf.SideAcceptor})
			s := &bpf.Series{SeriesKey: bpf.SeriesKey{Route: key, Service: uint16(1 + i%64), Kind: 1, Outcome: 200}}
			s.Latency[60+i%40] = uint64((turn + 1) * (1 + 4096/(i+1)))
			snap.Series = append(snap.Series, s)
		}
	}
	cfg, _, err := Load(Sources{Flags: map[string]string{"budget": "1000"}})
	if err != nil {
		b.Fatal(err)
	}
	in := steered{version: 1, rate: 1, sampling: &cfg.Sampling}
	s := newSteering(k, func([]bpf.RouteRate) {}, names, "", slog.New(slog.DiscardHandler))
	serviceName := func(s bpf.Service) string { return fmt.Sprintf("service-%d", s.Cgroup) }
	signals := func(map[uint16]string, *bpf.Snapshot) sampling.Signals { return sampling.Signals{} }
	now := time.Now()
	for turn := 0; b.Loop(); turn++ {
		now = now.Add(time.Second)
		snap := snaps[turn%2]
		snap.At = now
		if err := s.tick(now, snap, &in, serviceName, signals); err != nil {
			b.Fatal(err)
		}
	}
}
