package stage

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"ambit/l7"
)

// TakeSampling takes out of got, which are attributes of s, why the span was kept and on which route, and says what is
// wrong with them. No rule but the one behind all has decided. The reason stays. late says that the side's socket may have
// been found behind the request's head: it counts as "other" then, without a route.
func TakeSampling(s *Span, got map[string]any, late bool) (wrong []string) {
	take := func(key string) any {
		value := got[key]
		delete(got, key)
		return value
	}
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	rule, class := take("ambit.sampling.rule"), take("ambit.sampling.class")
	if generation, _ := take("ambit.sampling.generation").(int64); rule != "default" || class != "normal" || generation < 1 {
		complain("rule %v of generation %v, class %v", rule, generation, class)
	}
	threshold, known := take("ambit.sampling.threshold").(string)
	if _, th, found := strings.Cut(s.TraceState, "ot=th:"); found != known {
		complain("threshold %q, and tracestate %q", threshold, s.TraceState)
	} else if th, _, _ = strings.Cut(th, ","); found && strings.SplitN(th, ";", 2)[0] != threshold {
		complain("threshold %q, and tracestate %q", threshold, s.TraceState)
	}
	key := "ambit.route"
	if s.Client() {
		key = "url.template"
	}
	route, named := take(key).(string)
	path, hasPath := s.Attributes["url.path"].(string)
	status, _ := s.Attributes["http.response.status_code"].(int64)
	_, cut := s.Attributes["ambit.cut"]
	switch want := l7.Template(path, false); {
	case named && (!hasPath || route != want && !isBeginning(route, want)):
		complain("route %.200q of path %.200q", route, path)
	case !named && want != "" && status/100 == 2 && !cut && !late:
		complain("no route of path %.200q", path)
	}
	return wrong
}

// isBeginning tells a long template that was cut.
func isBeginning(route, whole string) bool {
	begin, cut := strings.CutSuffix(route, "…")
	return cut && len(begin) > 200 && strings.HasPrefix(whole, begin)
}

// Probability is that with which a span was kept, by its tracestate; false where it is under none.
func Probability(t testing.TB, s *Span) (float64, bool) {
	t.Helper()
	if s.TraceState == "" {
		return 0, false
	}
	digits, found := strings.CutPrefix(s.TraceState, "ot=th:")
	threshold, err := strconv.ParseUint((digits + strings.Repeat("0", 14))[:14], 16, 64)
	if err != nil || !found {
		t.Fatalf("tracestate is %q: %v", s.TraceState, err)
	}
	return float64(1<<56-threshold) / (1 << 56), true
}
