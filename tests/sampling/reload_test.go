package sampling

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

// Two sets of rules that differ in all that they say of the same requests, in the number of rules and in their order.
const (
	setA = `sampling:
  tail_budget: 0
  rules:
  - {name: a-x, match: {path: {prefix: /x}}, drop: true}
  - {name: a-y, match: {path: {prefix: /y}}, always: true, class: critical}
  - {name: a-both, match: {path: {prefix: /both}}, rate: 1, class: background}
  - {name: a-share, match: {path: {template: "/share/{a}"}}, rate: 0.25, class: normal}
  - {name: a-slow, match: {path: {prefix: /slow}}, rate: 0, slow_threshold: 1ms, class: critical}
  - {name: a-late, match: {path: {prefix: /late}}, rate: 0, slow_threshold: off, errors: off}
  - {name: a-failed, match: {path: {prefix: /fails}, status: 5xx}, rate: 1, class: background}
  - {name: a-none, rate: 0, slow_threshold: off}
`
	setB = `sampling:
  tail_budget: 0
  rules:
  - {name: b-fails, match: {path: {prefix: /fails}}, rate: 0, errors: off}
  - {name: b-late, match: {path: {prefix: /late}}, rate: 0, slow_threshold: 1ms, class: background}
  - {name: b-slow, match: {path: {prefix: /slow}}, rate: 0, slow_threshold: off, errors: off}
  - {name: b-spare, match: {path: {prefix: /spare}}, drop: true}
  - {name: b-share, match: {path: {template: "/share/{b}"}}, rate: 0.75, class: critical}
  - {name: b-both, match: {path: {prefix: /both}}, always: true, class: normal}
  - {name: b-y, match: {path: {prefix: /y}}, drop: true}
  - {name: b-x, match: {path: {prefix: /x}}, rate: 1, class: normal}
  - {name: b-more, match: {path: {prefix: /more}}, drop: true}
  - {name: b-none, rate: 0, slow_threshold: off}
`
)

// outcome is what a set makes of a request that it keeps.
type outcome struct{ rule, class, reason, threshold, route string }

// outcomes are those of the two sets, by the first segment of the path. Where one is missing the set keeps nothing.
var outcomes = map[string]map[string]outcome{
	"a": {
		"y":     {"a-y", "critical", "head", "0", ""},
		"both":  {"a-both", "background", "head", "0", ""},
		"share": {"a-share", "normal", "head", "c", "/share/{a}"},
		"slow":  {"a-slow", "critical", "slow", "0", ""},
		"fails": {"a-failed", "background", "head", "0", ""},
	},
	"b": {
		"x":     {"b-x", "normal", "head", "0", ""},
		"both":  {"b-both", "normal", "head", "0", ""},
		"share": {"b-share", "critical", "head", "4", "/share/{b}"},
		"late":  {"b-late", "background", "slow", "0", ""},
	},
}

// While requests are under way the rules change 1,000 times between two sets that differ in every outcome. Each exchange is
// decided by one of the sets, head and tail, as its span says; each is counted; and what both sets keep is kept.
func TestReloads(t *testing.T) {
	const reloads = 1000
	g := newGround(t, setA)
	mix := []request{
		{Share: 3, Target: "/x/{number}?200&1ms"}, {Share: 3, Target: "/y/{number}?200&1ms"}, {Share: 3, Target: "/both/{number}"},
		{Share: 3, Target: "/share/{number}?200&1ms"}, {Share: 3, Target: "/slow/{number}?200&20ms"},
		{Share: 3, Target: "/late/{number}?200&20ms"}, {Share: 3, Target: "/fails/{number}?500&3ms"},
	}
	sent := make([]int, len(mix))
	var enough atomic.Bool
	loaded := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for seed := uint64(10); !enough.Load(); seed++ {
			told, err := try(ctx, g.ns, work{Target: g.home, Seed: seed, Requests: 5000, Connections: 24, Mix: mix})
			if err != nil {
				loaded <- err
				return
			}
			for i, n := range told {
				sent[i] += n
			}
		}
		loaded <- nil
	}()
	sets := map[int64]string{1: "a"} // by generation
	begun := time.Now()
	for i := range reloads {
		set, name := setB, "b"
		if i%2 == 1 {
			set, name = setA, "a"
		}
		g.write(t, set)
		sets[int64(g.Reload(t).Generation)] = name
	}
	took := time.Since(begun)
	enough.Store(true)
	stage.Must(t, <-loaded)

	spans, counts := g.Settled(t)
	if counts.DroppedTotal() > 0 || counts.Events["rules_outdated"] > 0 {
		t.Errorf("%v", counts)
	}
	kept := make(map[string]int)       // by set and first segment
	generations := make(map[int64]int) // spans of each
	sides := make(map[string]int64)    // generation of each CLIENT span
	for i := range spans {
		s := &spans[i]
		generation, _ := s.Attributes["ambit.sampling.generation"].(int64)
		first := strings.Split(fmt.Sprint(s.Attributes["url.path"]), "/")[1]
		text := func(key string) string { v, _ := s.Attributes["ambit.sampling."+key].(string); return v }
		set, known := sets[generation]
		if !known { // the file was read of its own accord: all spans of it must agree
			set, _, _ = strings.Cut(text("rule"), "-")
			sets[generation] = set
		}
		route, _ := s.Attributes["http.route"].(string)
		if s.Client() && first == "share" {
			route, _ = s.Attributes["url.template"].(string)
		}
		got := outcome{text("rule"), text("class"), text("reason"), text("threshold"), route}
		want, keeps := outcomes[set][first]
		if !keeps || got != want || s.TraceState != "ot=th:"+want.threshold {
			t.Errorf("generation %d is set %q: of /%s it has a span of %v, %s; want %v", generation, set, first, got, s.TraceState, want)
		}
		kept[set+" "+first]++
		generations[generation]++
		if s.Client() {
			sides[s.SpanID] = generation
		}
	}
	for i := range spans {
		if s := &spans[i]; !s.Client() && sides[s.ParentID] != s.Attributes["ambit.sampling.generation"] {
			t.Errorf("two sides of an exchange are of generations %d and %v", sides[s.ParentID], s.Attributes["ambit.sampling.generation"])
		}
	}
	if both := kept["a both"] + kept["b both"]; both != 2*sent[2] {
		t.Errorf("%d sides are kept of what both sets keep, %d were sent", both, 2*sent[2])
	}
	total := 0
	want := make(map[string]int)
	for i, n := range sent {
		total += n
		want["/"+strings.Split(mix[i].Target, "/")[1]] += n
	}
	if counts.Seen != uint64(2*total) {
		t.Errorf("%d requests were sent: %v", total, counts)
	}
	for kind, routes := range counted(g.Metrics(t)) {
		got := make(map[string]int)
		for route, n := range routes {
			_, path, _ := strings.Cut(route, " /")
			first, _, _ := strings.Cut(path, "/")
			got["/"+first] += n
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v are counted, %v were sent", kind, got, want)
		}
	}
	for set, all := range outcomes {
		for first := range all {
			if kept[set+" "+first] == 0 {
				t.Errorf("set %s has no span of /%s: the traffic does not show what it should", set, first)
			}
		}
	}
	t.Logf("%d reloads in %.1f s during %d requests; %d spans of %d generations: %v", reloads, took.Seconds(), total, len(spans), len(generations), kept)
}
