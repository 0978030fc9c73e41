package sampling

import (
	"fmt"
	"net/netip"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// Two nodes, each with an ambit of its own, keep the same traces without a word between them: those that a header names,
// and those that have no name but the connection's.
func TestNodesAgree(t *testing.T) {
	const requests = 20_000
	lab := stage.NewLab(t)
	from, to := netip.MustParseAddr("10.78.0.1"), netip.MustParseAddr("10.78.0.2")
	client, server := stage.Cable(t, lab, [2]netip.Prefix{netip.PrefixFrom(from, 24), netip.PrefixFrom(to, 24)})
	startServer(t, server, "serve", port)
	var nodes []*stage.Stage
	for _, ns := range []*harness.Namespace{client, server} {
		nodes = append(nodes, stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{ns}, Flags: []string{ringFlag}}))
	}
	for _, headers := range []string{
		"", "x-request-id: {hex}\r\n", "b3: {hex}{hex}-{hex}\r\n",
	} {
		for _, rate := range []float64{0.01, 0.3} {
			t.Run(fmt.Sprintf("%.12q at %v", headers, rate), func(t *testing.T) {
				var kept [2]map[string]string
				for _, node := range nodes {
					node.Rate(t, rate)
				}
				do(t, client, work{
					Target: fmt.Sprintf("%v:%d", to, port), Seed: 2, Requests: requests, Connections: 16,
					Mix: []request{{Share: 1, Target: "/items/{number}", Headers: headers}},
				})
				for i, node := range nodes {
					spans, counts := node.Settled(t)
					if counts.Seen != requests {
						t.Errorf("node %d: %v", i, counts)
					}
					kept[i] = make(map[string]string)
					for _, s := range spans {
						if s.Client() != (i == 0) {
							t.Errorf("node %d has a span of the other one's: %+v", i, s)
						}
						kept[i][s.TraceID] = s.TraceState
					}
				}
				for id, state := range kept[0] {
					if other, there := kept[1][id]; !there || other != state {
						t.Errorf("trace %s has tracestate %q on one node, %q on the other", id, state, other)
					}
				}
				if len(kept[0]) != len(kept[1]) || len(kept[0]) == 0 || len(kept[0]) == requests {
					t.Errorf("the nodes keep %d and %d traces", len(kept[0]), len(kept[1]))
				}
				t.Logf("both nodes keep the same %d of %d traces", len(kept[0]), requests)
			})
		}
	}
}
