package admin

import (
	"strings"
	"testing"
)

func TestWriteMovedRates(t *testing.T) {
	small, all, high := 0.00234, 1., 0.5
	rates := Rates{
		Default: 1, Threshold: "0", Source: "configuration", Changed: at("2026-03-01T12:00:00Z"),
		Control: &Control{
			Offered: 62300, Asked: 121, Others: -2.81, Level: 15.1, StepSeconds: 0.000238, FloorsGranted: 4, FloorsDeferred: 1,
			Load: Load{Factor: 0.25, State: "falling", Cause: "CPU pressure of the node", Since: at("2026-03-01T12:00:00Z")},
		},
		Routes: []RouteRate{
			{
				Service: "cart", Kind: "SERVER", Method: "GET", Route: "/items/{number}", Offered: 6569, Rate: &small, Spans: 15.4, Boost: &high, Reason: "budget",
				History: []RateChange{{At: at("2026-03-01T12:00:00Z"), To: &all, Reason: "budget", Offered: 3}, {At: at("2026-03-01T12:00:05Z"), From: &all, To: &small, Reason: "budget", Offered: 6500}},
				Words:   []string{"It offers much\x1b."},
			},
			{Service: "cart", Kind: "CLIENT", Method: "POST", Host: "db:9", Route: "/q", Reason: "rule"},
		},
		Anomalies: []Anomaly{
			{At: at("2026-03-01T12:00:00Z"), Kind: "latency_shift", Service: "cart", Method: "GET", Route: "/a", Value: 0.2, Usual: 0.1},
			{At: at("2026-03-01T12:00:00Z"), Kind: "error_rate", Service: "cart", Method: "GET", Route: "/b", Value: 0.2, Usual: 0.001},
		},
	}
	for name, c := range map[string]struct {
		write func(*strings.Builder) error
		want  string
	}{
		"table": {func(out *strings.Builder) error { return WriteRates(out, rates) }, `CONTROL rates are moved each second
offered 62,300/s exchange sides of routes whose rates are moved
asked 121/s spans of them; others (rules, callers, the tail) keep -2.81/s
level 15.1/s spans that a route gets at the most
load 25.0% of rates remain, falling since 2026-03-01T12:00:00.000Z, last for CPU pressure of the node
floors 4 granted, 1 deferred
last step 238 us

ROUTES of moved rates, the busiest first
SERVICE KIND ROUTE OFFERED/S RATE SPANS/S REASON SINCE
cart SERVER GET /items/{number} 6,569 0.00234 15.4 budget, boosted to 0.5 2026-03-01T12:00:05.000Z
cart CLIENT POST db:9/q 0 - 0 rule

ANOMALIES the latest
AT KIND SERVICE ROUTE FOUND USUAL
2026-03-01T12:00:00.000Z latency_shift cart GET /a 200 ms 100 ms
2026-03-01T12:00:00.000Z error_rate cart GET /b 20.0% 0.1%
`},
		"history": {func(out *strings.Builder) error { return WriteHistory(out, rates) }, `cart SERVER GET /items/{number} budget 0.00234
AT FROM TO REASON OFFERED/S
2026-03-01T12:00:00.000Z - 1 budget 3.00
2026-03-01T12:00:05.000Z 1 0.00234 budget 6,500

cart CLIENT POST db:9/q rule -
AT FROM TO REASON OFFERED/S
`},
		"words": {func(out *strings.Builder) error { return WriteExplanation(out, rates) }, "cart SERVER GET /items/{number}\nIt offers much\\u{001b}.\n\ncart CLIENT POST db:9/q\n"},
	} {
		var out strings.Builder
		if err := c.write(&out); err != nil || !strings.HasSuffix(squeeze(out.String()), c.want) {
			t.Errorf("%s: %v\n%s\nwant the end\n%s", name, err, squeeze(out.String()), c.want)
		}
	}
}
