package exporter

import (
	"cmp"
	"slices"
	"time"

	"ambit/l7"
)

// Summary is a trace in one line.
type Summary struct {
	TraceID  TraceID
	Start    time.Time     // of the earliest span
	Duration time.Duration // up to the end of the latest one
	Spans    int           // that are kept
	Omitted  int           // that are not
	Errors   int           // of Spans
	Services int           // different names of services
	// Root is the span that the trace began with, as far as it is known: the earliest without a known parent.
	Root l7.Span
}

// Trace is the spans of one trace, each parent before its children.
type Trace struct {
	Summary
	Spans []TraceSpan
}

// TraceSpan is a span and its place in the tree.
type TraceSpan struct {
	Span l7.Span
	// Depth is 0 for a span whose parent the trace does not have.
	Depth int
	// Failed tells whether the span is an error by the conventions.
	Failed bool
}

// newTrace makes a trace of its spans, at least one.
func newTrace(id TraceID, spans []l7.Span, omitted int) Trace {
	places := order(spans)
	t := Trace{Summary: summarize(id, spans, omitted, places), Spans: make([]TraceSpan, len(places))}
	for i, p := range places {
		s := &spans[p.span]
		t.Spans[i] = TraceSpan{Span: *s, Depth: p.depth, Failed: failureOf(s) != ""}
	}
	return t
}

// summarize sums up spans, which places orders.
func summarize(id TraceID, spans []l7.Span, omitted int, places []place) Summary {
	s := Summary{TraceID: id, Spans: len(spans), Omitted: omitted}
	start, end := spans[0].Start, spans[0].End
	services := make(map[string]struct{})
	for i := range spans {
		span := &spans[i]
		start, end = min(start, span.Start), max(end, span.End)
		if failureOf(span) != "" {
			s.Errors++
		}
		services[serviceName(span)] = struct{}{}
	}
	s.Start, s.Duration, s.Services = time.Unix(0, start), time.Duration(end-start), len(services)
	s.Root = spans[places[0].span]
	return s
}

// place is where a span, by its index, stands in the tree.
type place struct{ span, depth int }

// order puts spans into the order of their tree, depth first: children by their start, and so are the
// spans without a parent among them. IDs come from the network: an ID that two spans have belongs to the
// first, and a circle of parents is cut open at its earliest span.
func order(spans []l7.Span) []place {
	byStart := make([]int, len(spans))
	for i := range byStart {
		byStart[i] = i
	}
	slices.SortStableFunc(byStart, func(a, b int) int {
		x, y := &spans[a], &spans[b]
		return cmp.Or(
			cmp.Compare(x.Start, y.Start),
			cmp.Compare(x.Kind, y.Kind), // a CLIENT span encloses its SERVER span
			cmp.Compare(y.End, x.End),
		)
	})
	byID := make(map[[8]byte]int, len(spans))
	for _, i := range byStart {
		if _, ok := byID[spans[i].SpanID]; !ok {
			byID[spans[i].SpanID] = i
		}
	}
	children := make(map[int][]int, len(spans))
	var roots []int
	for _, i := range byStart {
		parent, ok := byID[spans[i].ParentID]
		if !ok || parent == i || spans[i].ParentID == [8]byte{} {
			roots = append(roots, i)
		} else {
			children[parent] = append(children[parent], i)
		}
	}
	places := make([]place, 0, len(spans))
	seen := make([]bool, len(spans))
	var stack []place
	visit := func(root int) {
		stack = append(stack[:0], place{root, 0})
		for len(stack) > 0 {
			at := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if seen[at.span] {
				continue
			}
			seen[at.span] = true
			places = append(places, at)
			below := children[at.span]
			for k := len(below) - 1; k >= 0; k-- {
				stack = append(stack, place{below[k], at.depth + 1})
			}
		}
	}
	for _, i := range roots {
		visit(i)
	}
	for _, i := range byStart {
		if !seen[i] {
			visit(i)
		}
	}
	return places
}
