package sampling

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"sync"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

var redCount = regexp.MustCompile(`^ambit_request_duration_seconds_count\{grpc_code="",kind="(\w+)",method="(\w+)",route="([^"]*)",`)

// counted are the counters of requests, as "METHOD TEMPLATE", by kind. What has no route of its own is "METHOD ".
func counted(metrics map[string]float64) map[string]map[string]int {
	counts := map[string]map[string]int{"CLIENT": {}, "SERVER": {}}
	for series, n := range metrics {
		if m := redCount.FindStringSubmatch(series); m != nil && n > 0 {
			counts[m[1]][m[2]+" "+m[3]] += int(n)
		}
	}
	return counts
}

// Whatever is kept, the counters of each of 1,000 routes of HTTP/1 and as many of HTTP/2 are those that wrk and h2load sent,
// on both sides, and nothing counts as another route. At rate 0 routes get their names too.
func TestCountersAreExact(t *testing.T) {
	const each = 10 // requests of a route, by each connection, at each rate
	lab := stage.NewLab(t)
	var zones []*zone
	var namespaces []*harness.Namespace
	for _, name := range []string{"north", "east", "south", "west"} {
		z := newZone(t, lab, name)
		zones = append(zones, z)
		namespaces = append(namespaces, z.ns)
	}
	st := stage.Start(t, stage.Config{Lab: lab, Namespaces: namespaces})
	want := make(map[string]int)
	sent := 0
	for _, rate := range []float64{0, 0.1, 1} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			st.Rate(t, rate)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var loads sync.WaitGroup
			failures := make([]error, 2*len(zones))
			for i, z := range zones {
				loads.Go(func() { failures[2*i] = z.wrk(ctx, each) })
				loads.Go(func() { failures[2*i+1] = z.h2load(ctx, each) })
				for route, n := range z.routes(each) {
					want[route] += n
					sent += n
				}
			}
			loads.Wait()
			stage.Must(t, failures...)
			spans, counts := st.Settled(t)
			metrics := st.Metrics(t)
			for kind, got := range counted(metrics) {
				if maps.Equal(got, want) {
					continue
				}
				wrong := 0
				for route, n := range want {
					if got[route] != n {
						if wrong++; wrong < 5 {
							t.Errorf("%s %s has %d requests, %d were sent", kind, route, got[route], n)
						}
					}
					delete(got, route)
				}
				t.Errorf("%s: %d routes of %d are wrong; beside them there are %v", kind, wrong, len(want), got)
			}
			for _, kind := range []string{"CLIENT", "SERVER"} {
				named, refused := metrics[fmt.Sprintf(`ambit_routes{kind="%s",state="named"}`, kind)], metrics[fmt.Sprintf(`ambit_routes_refused_total{kind="%s"}`, kind)]
				if int(named) != len(want) || refused != 0 {
					t.Errorf("%s: %v routes are named of %d, %v requests were refused one", kind, named, len(want), refused)
				}
			}
			if counts.DroppedTotal() > 0 || (rate == 0) != (len(spans) == 0) {
				t.Errorf("%d spans, %v", len(spans), counts)
			}
			t.Logf("%d requests so far on %d routes, each counted on both sides, %d spans now", sent, len(want), len(spans))
		})
	}
}
