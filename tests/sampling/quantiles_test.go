package sampling

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

// bucketError is how far a bucket's geometric middle may be from what is in it: half a bucket, an eighth of a doubling. The
// kernel rounds the bounds of buckets, to less than a thousandth.
var bucketError = math.Exp2(1.0/16) - 1 + 1e-3

// rank is the nearest-rank place of a quantile among n, from 1.
func rank(q float64, n int) int { return max(1, int(math.Ceil(q*float64(n)))) }

// quantile is what a reader of an exponential histogram makes of it: the geometric middle of the bucket that holds it.
func quantile(h *stage.Histogram, q float64) float64 {
	left := rank(q, int(h.Count)) - int(h.Zero)
	for i, n := range h.Buckets {
		if left -= int(n); left <= 0 {
			return math.Exp2((float64(int(h.Offset)+i) + 0.5) / math.Exp2(float64(h.Scale)))
		}
	}
	return math.NaN()
}

// claim is a quantile that somebody tells, in seconds.
type claim struct {
	by       string
	q, value float64
}

// routeOf is the guessed template, which the two kinds have under two names.
func routeOf(attributes map[string]any) any {
	if route, there := attributes["url.template"]; there {
		return route
	}
	return attributes["ambit.route"]
}

// Quantiles of the counters, in ambit top and as OTLP's exponential histograms, are those of the kernel's own timestamps on
// the spans of the same exchanges, within half a bucket: 4.4 %.
func TestQuantiles(t *testing.T) {
	const requests = 12_000
	g := newGround(t, `sampling: {defaults: off}`)
	g.Top(t) // what it tells next is from here on
	g.Settled(t)
	do(t, g.ns, work{Target: g.home, Seed: 6, Requests: requests, Connections: 48, Mix: []request{
		{Share: 40, Target: "/quick/{number}"}, {Share: 20, Target: "/steady/{number}?200&5ms"},
		{Share: 20, Target: "/wild/{number}"}, {Share: 10, Target: "/wild/{number}?200&2ms"},
		{Share: 6, Target: "/wild/{number}?200&11ms"}, {Share: 4, Target: "/wild/{number}?200&60ms"},
	}})
	spans, _ := g.Settled(t)
	took := make(map[string][]time.Duration) // by kind and route
	for i := range spans {
		s := &spans[i]
		kind := "SERVER"
		if s.Client() {
			kind = "CLIENT"
		}
		key := fmt.Sprint(kind, " ", routeOf(s.Attributes))
		took[key] = append(took[key], s.End.Sub(s.Start))
	}
	if len(spans) != 2*requests || len(took) != 6 {
		t.Fatalf("%d spans of %d routes", len(spans), len(took))
	}
	told := make(map[string][]claim)
	stage.Wait(t, "OTLP's histograms have all requests", func() error {
		var counted uint64
		for _, h := range g.Histograms() {
			kind := map[string]string{"http.server.request.duration": "SERVER", "http.client.request.duration": "CLIENT"}[h.Name]
			if kind == "" {
				continue
			}
			counted += h.Count
			key := fmt.Sprint(kind, " ", routeOf(h.Attributes))
			told[key] = []claim{{"OTLP", 0.5, quantile(&h, 0.5)}, {"OTLP", 0.9, quantile(&h, 0.9)}, {"OTLP", 0.99, quantile(&h, 0.99)}}
		}
		if counted != 2*requests {
			return fmt.Errorf("they have %d of %d", counted, 2*requests)
		}
		return nil
	})
	for _, r := range g.Top(t).Rows {
		key := r.Kind + " " + r.Route
		told[key] = append(told[key], claim{"top", 0.5, r.P50}, claim{"top", 0.99, r.P99})
	}
	worst, compared := 0.0, 0
	for key, all := range took {
		slices.Sort(all)
		for _, c := range told[key] {
			want := all[rank(c.q, len(all))-1].Seconds()
			off := math.Abs(c.value/want - 1)
			if worst, compared = max(worst, off), compared+1; !(off <= bucketError) {
				t.Errorf("the %v-quantile of %s is %v by %s, of the spans %v", c.q, key, c.value, c.by, want)
			}
		}
	}
	if compared != 6*5 {
		t.Errorf("%d quantiles were compared", compared)
	}
	t.Logf("%d quantiles of %d exchange sides, %.2f %% off at most", compared, len(spans), 100*worst)
}
