package daemon

import (
	"sync/atomic"
	"testing"

	"ambit/bpf"
	"ambit/exporter"
	"ambit/l7"
)

func TestSpansAreToldTheirNames(t *testing.T) {
	_, r := newStage(t, `sampling: {defaults: off, rules: [{name: users, match: {path: {template: "/users/{id}"}}, rate: 1}]}`)
	p := &pump{rules: r, routes: newRoutes(always, r), exemplars: exporter.NewExemplars(), anomalies: new(atomic.Pointer[map[uint64]*l7.Anomaly])}
	p.routes.Learn(&l7.Announcement{Key: 5, Kind: l7.Server, Method: "GET", Path: "/orders/7", Rule: bpf.NoRule, Generation: 1, Decided: 1})
	if by := p.routes.Decided(5); by != (Decided{Rule: l7.DefaultRule}) {
		t.Errorf("a route that nobody kept a span of is decided by %+v", by)
	}
	for _, c := range []struct {
		what   string
		record bpf.Record
		span   l7.Span
		rule   string
		route  string
		ruled  bool
	}{
		{"a route that is told apart", bpf.Record{Generation: 1, TemplateRule: bpf.NoRule, Decision: [2]bpf.Decision{{}, {Route: 5, Rule: 1}}},
			l7.Span{Path: "/orders/8"}, l7.DefaultRule, "/orders/{number}", false},
		{"a rule's template, whether there is a route or not", bpf.Record{Generation: 1, Decision: [2]bpf.Decision{{}, {Route: 6}}},
			l7.Span{Path: "/users/1"}, "users", "/users/{id}", true},
		{"a path that is told apart from nothing", bpf.Record{Generation: 1, TemplateRule: bpf.NoRule, Decision: [2]bpf.Decision{{}, {Route: 7, Rule: 1}}},
			l7.Span{Path: "/wp-admin"}, l7.DefaultRule, "", false},
		{"a path that was not read", bpf.Record{Generation: 1, Decision: [2]bpf.Decision{{}, {Route: 5}}}, l7.Span{}, "users", "", false},
		{"a path that was cut", bpf.Record{Generation: 1, Decision: [2]bpf.Decision{{}, {Route: 5}}},
			l7.Span{Path: "/users/1", Cut: l7.CutRequestLine}, "users", "", false},
		{"a call", bpf.Record{Generation: 1, TemplateRule: bpf.NoRule, Decision: [2]bpf.Decision{{}, {Route: 5, Rule: 1}}},
			l7.Span{Path: "/shop.Cart/Add", RPC: l7.GRPC}, l7.DefaultRule, "", false},
		{"rules that are forgotten", bpf.Record{Generation: 99, Decision: [2]bpf.Decision{{}, {Route: 5}}},
			l7.Span{Path: "/orders/8"}, "", "/orders/{number}", false},
	} {
		s := c.span
		s.Kind, s.Reason = l7.Server, l7.ReasonHead
		p.name(&c.record, &s)
		if s.Rule != c.rule || s.Route != c.route || s.RouteFromRule != c.ruled {
			t.Errorf("%s: rule %q, route %q, by a rule %v", c.what, s.Rule, s.Route, s.RouteFromRule)
		}
	}
	if by := p.routes.Decided(5); by.Reason != l7.ReasonHead {
		t.Errorf("the latest span was decided by %+v", by)
	}
}

// BenchmarkName is what the names cost each span.
func BenchmarkName(b *testing.B) {
	p, record, span := namedSpan(b)
	b.ReportAllocs()
	for b.Loop() {
		p.name(record, span)
	}
}

func TestNamesCostNoMemory(t *testing.T) {
	p, record, span := namedSpan(t)
	if n := testing.AllocsPerRun(1000, func() { p.name(record, span) }); n != 0 || span.Route != "/orders/{number}" {
		t.Errorf("%v allocations for a span of route %q", n, span.Route)
	}
}

func namedSpan(t testing.TB) (*pump, *bpf.Record, *l7.Span) {
	k := new(kernelStage)
	r := newRules(k, func(s bpf.Service) string { return s.Comm }, 1)
	cfg := Defaults()
	if err := r.load(&cfg, Origins{}); err != nil {
		t.Fatal(err)
	}
	p := &pump{rules: r, routes: newRoutes(always, r), exemplars: exporter.NewExemplars(), anomalies: new(atomic.Pointer[map[uint64]*l7.Anomaly])}
	p.routes.Learn(&l7.Announcement{Key: 5, Kind: l7.Server, Method: "GET", Path: "/orders/7", Rule: bpf.NoRule, Generation: 1})
	record := &bpf.Record{Generation: 1, TemplateRule: bpf.NoRule, Decision: [2]bpf.Decision{{}, {Route: 5, Rule: 8}}}
	return p, record, &l7.Span{Kind: l7.Server, Path: "/orders/7", Reason: l7.ReasonHead}
}
