package exporter

import (
	"testing"

	"ambit/l7"
)

func TestWhyASpanWasKept(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*l7.Span)
		want   map[string]any
	}{
		{"what no probability is known of has no threshold",
			func(s *l7.Span) { s.Reason, s.HasThreshold = l7.ReasonForced, false },
			map[string]any{"ambit.sampling.reason": "forced", "ambit.sampling.threshold": absent{}, "ambit.sampling.rule": "items"}},
		{"a threshold that keeps everything is 0",
			func(s *l7.Span) { s.Threshold = 0 },
			map[string]any{"ambit.sampling.threshold": "0"}},
		{"a threshold is the one of tracestate",
			func(s *l7.Span) { s.Threshold = 0xe6666666666666 },
			map[string]any{"ambit.sampling.threshold": "e6666666666666"}},
		{"critical is the first class, and no want of one",
			func(s *l7.Span) { s.Class = l7.ClassCritical },
			map[string]any{"ambit.sampling.class": "critical"}},
		{"a rule that is forgotten has no name",
			func(s *l7.Span) { s.Rule = "" },
			map[string]any{"ambit.sampling.rule": absent{}, "ambit.sampling.generation": int64(7), "ambit.sampling.class": "normal"}},
		{"a decision by no rules has no generation",
			func(s *l7.Span) { s.Rule, s.Generation = "", 0 },
			map[string]any{"ambit.sampling.generation": absent{}, "ambit.sampling.reason": "head"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := exampleSpan()
			c.change(s)
			holds(t, attributesOf(t, encodeSpan(t, s, QueryKeys).Attributes), c.want)
		})
	}
}

func TestEveryReasonHasItsName(t *testing.T) {
	for r := l7.ReasonHead; r <= l7.ReasonAnomaly; r++ {
		s := exampleSpan()
		s.Reason = r
		holds(t, attributesOf(t, encodeSpan(t, s, QueryKeys).Attributes), map[string]any{"ambit.sampling.reason": r.String()})
	}
}

// One encoder sees spans that differ in one thing alone: what it remembers of the last one holds for none of them.
func TestWhatIsRememberedOfTheLastSpan(t *testing.T) {
	e := &encoder{}
	e.appendSpan(nil, exampleSpan())
	for what, change := range map[string]func(*l7.Span){
		"rule":         func(s *l7.Span) { s.Rule = "others" },
		"class":        func(s *l7.Span) { s.Class = l7.ClassBackground },
		"reason":       func(s *l7.Span) { s.Reason = l7.ReasonSlow },
		"threshold":    func(s *l7.Span) { s.Threshold = 1 << 54 },
		"no threshold": func(s *l7.Span) { s.HasThreshold = false },
		"generation":   func(s *l7.Span) { s.Generation++ },
		"route":        func(s *l7.Span) { s.Route, s.RouteFromRule = "/api/{version}/items/{id}", true },
		"named route":  func(s *l7.Span) { s.RouteFromRule = true },
	} {
		s := exampleSpan()
		change(s)
		if again, fresh := e.appendSpan(nil, s), (&encoder{}).appendSpan(nil, s); string(again) != string(fresh) {
			t.Errorf("another %s: %q, not %q", what, again, fresh)
		}
		e.appendSpan(nil, exampleSpan())
	}
}

func TestRoutesOfSpans(t *testing.T) {
	const guess, ruled = "/api/v1/items/{number}", "/api/v1/items/{id}"
	for _, c := range []struct {
		what   string
		change func(*l7.Span)
		guess  bool // capture.guessed_route
		name   string
		want   map[string]any
	}{
		{"a guess is a client's url.template, and no name", func(*l7.Span) {}, false, "GET",
			map[string]any{"url.template": guess, "http.route": absent{}, "ambit.route": absent{}}},
		{"of a server it is none of the conventions' attributes", func(s *l7.Span) { s.Kind = l7.Server }, false, "GET",
			map[string]any{"ambit.route": guess, "http.route": absent{}, "url.template": absent{}}},
		{"unless the switch says so, and then it is a name", func(s *l7.Span) { s.Kind = l7.Server }, true, "GET " + guess,
			map[string]any{"http.route": guess, "ambit.route": absent{}, "url.template": absent{}}},
		{"a rule's template is http.route of a server, and a name",
			func(s *l7.Span) { s.Kind, s.Route, s.RouteFromRule = l7.Server, ruled, true }, false, "GET " + ruled,
			map[string]any{"http.route": ruled, "ambit.route": absent{}, "url.template": absent{}}},
		{"and url.template of a client, and a name",
			func(s *l7.Span) { s.Route, s.RouteFromRule = ruled, true }, false, "GET " + ruled,
			map[string]any{"url.template": ruled, "http.route": absent{}}},
		{"an unknown method stands as HTTP before it",
			func(s *l7.Span) { s.Method, s.MethodOriginal, s.Route, s.RouteFromRule = "_OTHER", "BREW", ruled, true }, false, "HTTP " + ruled,
			map[string]any{"http.request.method": "_OTHER"}},
		{"what has no route has none", func(s *l7.Span) { s.Route = "" }, true, "GET",
			map[string]any{"url.template": absent{}, "http.route": absent{}, "ambit.route": absent{}}},
		{"a path that was not read has none", func(s *l7.Span) { s.Path, s.Kind = "", l7.Server }, false, "GET",
			map[string]any{"http.route": absent{}, "ambit.route": absent{}, "url.path": absent{}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := exampleSpan()
			c.change(s)
			got := encodeCaptured(t, s, Capture{GuessedRoute: c.guess})
			if got.Name != c.name {
				t.Errorf("the name is %q, want %q", got.Name, c.name)
			}
			holds(t, attributesOf(t, got.Attributes), c.want)
		})
	}
}
