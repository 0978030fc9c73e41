package bpf

import "testing"

// What the controller of rates costs in each second on the kernel's side, where each of 4,096 routes has counted: the
// counters of all are read, and the rates of all are written. "go test -bench Control ./bpf ./daemon" is the whole of it.
func BenchmarkControlReadAndSteer(b *testing.B) {
	tab := newTable(b)
	keys, values := make([]uint64, RoutesMax-24), make([]ambitSeries, RoutesMax-24)
	rates := make([]RouteRate, len(keys))
	for i := range keys {
		route := uint64(i+1) | uint64(i*7+3)<<32
		tab.route(route, 1, 1)
		keys[i] = uint64(i)*0x9e3779b97f4a7c15 + 1
		values[i] = ambitSeries{Route: route, Kind: 1, Service: 1, Outcome: 200}
		rates[i] = RouteRate{Key: route, Anomaly: ThresholdNone}
	}
	for turn := 0; b.Loop(); turn++ {
		b.StopTimer()
		for i := range values {
			values[i].Latency[60+i%40]++
			values[i].SumNs += 1e6
			rates[i].Threshold = uint64(turn)
		}
		if _, err := tab.k.objs.Counters.BatchUpdate(keys, values, nil); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := tab.r.read(tab.now); err != nil {
			b.Fatal(err)
		}
		tab.r.Steer(rates)
	}
	if n := len(tab.r.Snapshot().Routes); n != len(keys) {
		b.Fatalf("%d routes are there", n)
	}
}
