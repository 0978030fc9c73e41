package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"ambit/tests/e2e/stage"
)

// What a rate keeps follows from the trace ID alone, and the rate is on the span.
func TestRates(t *testing.T) {
	const requests = 60
	n := newNetwork(t)
	st := n.stage(t)
	p := n.cable()
	play := func() {
		c := connect(t, p, netip.AddrPort{})
		for i := range requests {
			stage.Must(t, c.play(asks(fmt.Sprintf("x-request-id: %d", i))))
		}
		c.close()
	}
	ids := func(spans []stage.Span) map[string][]string {
		all := map[string][]string{}
		for _, s := range spans {
			all[s.TraceID] = append(all[s.TraceID], s.Kind.String())
		}
		return all
	}
	play()
	every, _ := st.Spans(t, 2*requests)
	traces := ids(every)
	if len(traces) != requests {
		t.Fatalf("%d requests have %d traces", requests, len(traces))
	}
	for _, test := range []struct {
		rate      float64
		threshold uint64
		state     string
	}{
		{0.5, 1 << 55, "ot=th:8"}, {0.25, 3 << 54, "ot=th:c"}, {0.0625, 0xf << 52, "ot=th:f"}, {1, 0, "ot=th:0"}, {0, 1 << 56, ""},
	} {
		t.Run(fmt.Sprint(test.rate), func(t *testing.T) {
			var want []string
			for id := range traces {
				if r, err := strconv.ParseUint(id[18:], 16, 64); err != nil || r >= test.threshold {
					want = append(want, id)
				}
			}
			st.Rate(t, test.rate)
			play()
			spans, counts := st.Spans(t, 2*len(want))
			if counts.Seen != 2*requests || counts.Unsampled != uint64(2*(requests-len(want))) {
				t.Errorf("%v", counts)
			}
			got := ids(spans)
			for _, id := range want {
				if len(got[id]) != 2 || got[id][0] == got[id][1] {
					t.Errorf("trace %s has spans %v", id, got[id])
				}
			}
			for _, s := range spans {
				if s.TraceState != test.state {
					t.Errorf("tracestate is %q, want %q", s.TraceState, test.state)
				}
				if !slices.Contains(want, s.TraceID) {
					t.Errorf("trace %s is kept", s.TraceID)
				}
			}
		})
	}
	t.Run("the caller's decision holds at rate 0 and 1", func(t *testing.T) {
		st.Rate(t, 0)
		scene{say: append(asks(), asks(sampled)...), want: []exchange{at(1, traced(trace32, "-"))}, unsampled: 1}.check(t, st, p)
		st.Rate(t, 1)
		scene{say: append(asks(unmarked), asks()...), want: []exchange{at(1, plainly)}, unsampled: 1}.check(t, st, p)
	})
}
