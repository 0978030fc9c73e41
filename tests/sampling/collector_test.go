package sampling

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/sampling"
	"go.opentelemetry.io/collector/pdata/pcommon"

	"ambit/bpf"
	"ambit/l7"
	"ambit/tests/e2e/stage"
)

// Rates become the collector's thresholds, and thresholds its text.
func TestThresholdsAreTheCollectors(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	const cases = 200_000
	for range cases {
		p := math.Exp2(-55 * random.Float64() * random.Float64())
		want, err := sampling.ProbabilityToThreshold(p)
		stage.Must(t, err)
		if got := bpf.Threshold(p); got != want.Unsigned() {
			t.Fatalf("the threshold of %v is %x, the collector's is %x", p, got, want.Unsigned())
		}
		// With any number of zeros behind it.
		threshold := random.Uint64() >> 8 >> random.IntN(56) << random.IntN(56) & (1<<56 - 1)
		th, err := sampling.UnsignedToThreshold(threshold)
		stage.Must(t, err)
		if got := string(l7.AppendThreshold(nil, threshold)); got != th.TValue() {
			t.Fatalf("the text of %x is %s, the collector's is %s", threshold, got, th.TValue())
		}
	}
	t.Logf("%d random rates and thresholds agree", cases)
}

// randomness is a span's, as the collector reads it from its trace ID, or from rv; and the collector's view of its state.
func randomness(t testing.TB, s *stage.Span) (sampling.Randomness, *sampling.OpenTelemetryTraceState) {
	t.Helper()
	state, err := sampling.NewW3CTraceState(s.TraceState)
	stage.Must(t, err)
	if r, there := state.OTelValue().RValueRandomness(); there {
		return r, state.OTelValue()
	}
	var id pcommon.TraceID
	_, err = hex.Decode(id[:], []byte(s.TraceID))
	stage.Must(t, err)
	return sampling.TraceIDToRandomness(id), state.OTelValue()
}

// What the kernel keeps of real traffic is what the collector's sampler would keep of all of it, and counts for as many.
func TestKeepsWhatTheCollectorKeeps(t *testing.T) {
	const requests = 10_000
	const rules = `sampling: {rules: [{name: all, rate: %v, parent: %s}]}`
	g := newGround(t, fmt.Sprintf(rules, 1, "ignore"))
	const parent = "traceparent: 00-{hex}{hex}-{hex}-01\r\n"
	mix := []request{
		{Share: 1, Target: "/id", Headers: "x-request-id: {hex}\r\n"}, {Share: 1, Target: "/trace", Headers: parent},
		{Share: 1, Target: "/rv", Headers: parent + "tracestate: a=b,ot=rv:{rv}\r\n"},
	}
	play := func(t testing.TB) []stage.Span {
		do(t, g.ns, work{Target: g.home, Seed: 4, Requests: requests, Connections: 8, Mix: mix})
		spans, counts := g.Settled(t)
		if counts.Seen != 2*requests {
			t.Errorf("%v", counts)
		}
		return spans
	}
	every := play(t)
	if len(every) != 2*requests {
		t.Fatalf("%d spans of %d requests at rate 1", len(every), requests)
	}
	for _, rate := range []float64{0.002, 0.1, 1.0 / 3, 0.9} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			g.configure(t, fmt.Sprintf(rules, rate, "ignore"))
			threshold, err := sampling.ProbabilityToThreshold(rate)
			stage.Must(t, err)
			want := make(map[string]bool) // by trace IDs, which come again
			for i := range every {
				if r, _ := randomness(t, &every[i]); threshold.ShouldSample(r) {
					want[every[i].TraceID] = true
				}
			}
			kept := play(t)
			if len(kept) != 2*len(want) {
				t.Errorf("%d spans are kept, the collector would keep %d", len(kept), 2*len(want))
			}
			for i := range kept {
				r, state := randomness(t, &kept[i])
				if !want[kept[i].TraceID] || state.TValue() != threshold.TValue() || state.AdjustedCount() != threshold.AdjustedCount() {
					t.Errorf("a span with randomness %s and tracestate %q", r.RValue(), kept[i].TraceState)
				}
			}
			t.Logf("%d of %d spans are kept, each counts for %.3f", len(kept), len(every), threshold.AdjustedCount())
		})
	}
	t.Run("the caller's threshold", func(t *testing.T) {
		g.configure(t, fmt.Sprintf(rules, 0, "honour"))
		random := rand.New(rand.NewPCG(5, 5))
		thresholds := make(map[string]sampling.Threshold)
		mix = nil
		for i := range 40 {
			th, err := sampling.UnsignedToThreshold(random.Uint64() >> 8 >> (4 * random.IntN(4)) << (4 * random.IntN(8)) & (1<<56 - 1))
			stage.Must(t, err)
			path := fmt.Sprintf("/caller%02d", i)
			thresholds[path] = th
			mix = append(mix, request{Share: 1, Target: path, Headers: parent + "tracestate: ot=rv:{rv};th:" + th.TValue() + "\r\n"})
		}
		consistent := 0
		kept := play(t)
		for i := range kept {
			r, state := randomness(t, &kept[i])
			th := thresholds[fmt.Sprint(kept[i].Attributes["url.path"])]
			count := 0.0 // nobody knows
			if th.ShouldSample(r) {
				count = th.AdjustedCount()
				consistent++
			}
			if state.AdjustedCount() != count {
				t.Errorf("a span that its caller kept by %s counts for %v, by the collector for %v: %q", th.TValue(), state.AdjustedCount(), count, kept[i].TraceState)
			}
		}
		if len(kept) != 2*requests || consistent == 0 || consistent == len(kept) {
			t.Errorf("of %d spans %d have a consistent threshold", len(kept), consistent)
		}
		t.Logf("%d of %d spans have their caller's threshold, which their randomness agrees with", consistent, len(kept))
	})
}
