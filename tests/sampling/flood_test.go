package sampling

import (
	"fmt"
	"testing"

	"ambit/tests/e2e/stage"
)

// A flood of random paths and of forged headers exceeds no budget. What is not found takes no route, IDs share a template,
// and made-up paths that are answered have their service's quota and no more; routes that were known keep their names and
// their exact counters, and so does the next service to come.
func TestFlood(t *testing.T) {
	const budget, forced, known = 200, 10, 20
	const quota = 256 // routes of a service and kind
	g := newGround(t, fmt.Sprintf(`sampling: {budget: %d, control: off, forced: {header: x-envoy-force-trace, budget: %d}}`, budget, forced),
		"--forced-from", "127.0.0.0/8")
	sent, total := make(map[string]int), 0
	play := func(to string, requests int, mix []request) []stage.Span {
		for i, n := range do(t, g.ns, work{Target: to, Seed: 8, Requests: requests, Connections: 64, Mix: mix}) {
			total += n
			if to == g.home && i < known {
				sent["GET "+mix[i].Target] += n
			}
		}
		spans, counts := g.Settled(t)
		if counts.DroppedTotal() > 0 {
			t.Errorf("%v", counts)
		}
		return spans
	}
	var mix []request
	for i := range known {
		mix = append(mix, request{Share: 1, Target: fmt.Sprintf("/known%d/{number}", i)})
	}
	play(g.home, 10_000, mix)
	// check compares the counters, and returns how many routes there are of each kind.
	check := func(t *testing.T) (routes map[string]int, other map[string]int) {
		t.Helper()
		metrics := g.Metrics(t)
		routes, other = make(map[string]int), make(map[string]int)
		for kind, got := range counted(metrics) {
			sum := 0
			for _, n := range got {
				sum += n
			}
			if sum != total {
				t.Errorf("%s: %d requests are counted, %d were sent", kind, sum, total)
			}
			for route, n := range sent {
				if got[route] != n {
					t.Errorf("%s %s has %d requests, %d were sent", kind, route, got[route], n)
				}
			}
			for _, state := range []string{"new", "named", "closing"} {
				routes[kind] += int(metrics[fmt.Sprintf(`ambit_routes{kind="%s",state="%s"}`, kind, state)])
			}
			other[kind] = got["_OTHER "]
		}
		return routes, other
	}
	hold := func(t *testing.T, spans []stage.Span) (node, force int) {
		t.Helper()
		node = within(t, "the node", budget, spans, all)
		force = within(t, "forced", forced, spans, func(s *stage.Span) bool { return s.Attributes["ambit.sampling.reason"] == "forced" })
		if node < budget*3/4 || force == 0 {
			t.Errorf("the budgets are hardly used: %d spans in the busiest second, %d of them forced", node, force)
		}
		return node, force
	}
	const forgery = "traceparent: 00-{hex}{hex}-{hex}-01\r\ntracestate: ot=th:0\r\nx-envoy-force-trace: true\r\n" +
		"x-request-id: {hex}\r\nbaggage: {word}={hex},user={number}\r\n"
	forge := func(mix []request) (forged []request) {
		for _, r := range mix {
			r.Headers = forgery
			forged = append(forged, r)
		}
		return forged
	}
	t.Run("what is not found, and IDs", func(t *testing.T) {
		spans := play(g.home, 100_000, forge(append(mix,
			request{Share: 60, Target: "/{word}/{word}?404"}, request{Share: 20, Target: "/token/{token}"}, request{Share: 20, Target: "/hex/{hex}{hex}/of"})))
		routes, other := check(t)
		for kind, n := range routes {
			if n != known+2 || other[kind] == 0 {
				t.Errorf("%s: there are %d routes, want %d; %d requests have none", kind, n, known+2, other[kind])
			}
		}
		node, force := hold(t, spans)
		t.Logf("%d routes, %d requests have none; at most %d spans in a second, %d of them forced", routes["SERVER"], other["SERVER"], node, force)
	})
	t.Run("what is made up and found", func(t *testing.T) {
		spans := play(g.home, 100_000, forge(append(mix, request{Share: 100, Target: "/{word}/{word}"})))
		routes, other := check(t)
		for kind, n := range routes {
			if n != quota {
				t.Errorf("%s: there are %d routes, a service's quota is %d", kind, n, quota)
			}
		}
		node, force := hold(t, spans)
		t.Logf("%d routes, %d requests have none; at most %d spans in a second, %d of them forced", routes["SERVER"], other["SERVER"], node, force)
	})
	t.Run("the next service", func(t *testing.T) {
		startServer(t, g.ns, "serve-next", port+1)
		play(fmt.Sprintf("127.0.0.1:%d", port+1), 1000, []request{{Share: 1, Target: "/next/{number}"}})
		check(t)
		if n := counted(g.Metrics(t))["SERVER"]["GET /next/{number}"]; n != 1000 {
			t.Errorf("it has %d requests", n)
		}
	})
}
