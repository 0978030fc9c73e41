package exporter

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	waterfallWidth = 110 // where the style has no width
	minBar         = 12
	maxDepth       = 12 // deeper spans are indented no further
)

// waterfallColumns are the widths of a waterfall's columns that depend on the trace; two of times stand between
// them and the bar.
type waterfallColumns struct{ service, method, path, status, bar int }

// waterfallColumnsFor gives each column what its longest text takes, and the path the rest. Where that is too
// little, names of services are cut.
func (t *Trace) waterfallColumnsFor(width int) waterfallColumns {
	if width <= 0 {
		width = waterfallWidth
	}
	room := max(width-2*columnDuration-3, 2*minBar)
	c := waterfallColumns{service: len("SERVICE"), method: len("METHOD"), status: len("STATUS"), bar: max(room/3, minBar)}
	for i := range t.Spans {
		s := &t.Spans[i].Span
		outcome, _ := outcomeText(s)
		c.service = max(c.service, cellsOf(t.Spans[i].title()))
		c.method = max(c.method, cellsOf(methodText(s)))
		c.status = max(c.status, cellsOf(outcome))
	}
	c.method = min(c.method, columnMethod)
	// With a space behind each column but the last.
	left := room - c.bar - columnKind - c.method - c.status - 4
	c.service = min(c.service, max(left/2, len("SERVICE")))
	c.path = max(left-c.service, minPath/2)
	return c
}

// title is the name of a span's service at its place in the tree.
func (ts *TraceSpan) title() string {
	return strings.Repeat("  ", min(ts.Depth, maxDepth)) + serviceName(&ts.Span)
}

// cellsOf is how many columns a text takes.
func cellsOf(s string) int {
	_, used := appendSafe(nil, s, -1)
	return used
}

// Waterfall is a trace as text: a line that sums it up, and one per span with its place in the tree, its
// offset from the trace's start, its duration and a bar; then why they were kept. It ends with a newline, and holds no
// control characters of the spans'.
func Waterfall(t *Trace, st Style) string {
	c := t.waterfallColumnsFor(st.Width)
	b := []byte("trace ")
	b = hex.AppendEncode(b, t.TraceID[:])
	b = fmt.Appendf(b, "  %s  %s  %s", counted(t.Summary.Spans, "span"), counted(t.Services, "service"),
		durationText(int64(t.Duration)))
	if t.Errors > 0 {
		b = append(b, "  "...)
		b = st.begin(b, colorError)
		b = append(b, counted(t.Errors, "error")...)
		b = st.end(b, colorError)
	}
	b = t.Start.UTC().AppendFormat(append(b, "  "...), time.RFC3339Nano)
	b = append(b, '\n')
	b = st.begin(b, colorDim)
	for _, column := range []struct {
		name  string
		width int
	}{{"SERVICE", c.service}, {"KIND", columnKind}, {"METHOD", c.method}, {"PATH", c.path}, {"STATUS", c.status}} {
		b = append(appendColumn(b, column.name, column.width, false, true), ' ')
	}
	b = append(appendColumn(b, "OFFSET", columnDuration, true, true), ' ')
	b = appendColumn(b, "TOOK", columnDuration, true, true)
	b = st.end(b, colorDim)
	b = append(b, '\n')
	for i := range t.Spans {
		b = t.appendSpan(b, &t.Spans[i], st, c)
	}
	b = append(append(append(b, "kept: "...), t.reasons()...), '\n')
	if t.Omitted > 0 {
		b = fmt.Appendf(b, "%s more were not kept\n", counted(t.Omitted, "span"))
	}
	return string(b)
}

// reasons are why its spans were kept, each once.
func (t *Trace) reasons() string {
	var out []string
	for i := range t.Spans {
		if r := t.Spans[i].Span.Reason.String(); !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return strings.Join(out, ", ")
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func (t *Trace) appendSpan(b []byte, ts *TraceSpan, st Style, c waterfallColumns) []byte {
	s := &ts.Span
	outcome, color := outcomeText(s)
	if ts.Failed {
		color = colorError
	}
	b = append(appendColumn(b, ts.title(), c.service, false, true), ' ')
	b = append(appendColumn(b, s.Kind.String(), columnKind, false, true), ' ')
	b = append(appendColumn(b, methodText(s), c.method, false, true), ' ')
	b = append(appendColumn(b, pathText(s, st, c.path), c.path, false, true), ' ')
	b = st.begin(b, color)
	b = appendColumn(b, outcome, c.status, false, true)
	b = st.end(b, color)
	offset := s.Start - t.Start.UnixNano()
	b = append(b, ' ')
	b = append(appendColumn(b, durationText(offset), columnDuration, true, true), ' ')
	b = append(appendColumn(b, durationText(s.End-s.Start), columnDuration, true, true), ' ')
	begin, end := barEnds(offset, s.End-s.Start, int64(t.Duration), c.bar)
	b = append(b, strings.Repeat(" ", begin)...)
	b = st.begin(b, color)
	b = append(b, strings.Repeat("█", end-begin)...)
	b = st.end(b, color)
	return append(b, '\n')
}

// barEnds are the columns, of width, that a span covers; at least one.
func barEnds(offset, took, total int64, width int) (begin, end int) {
	if total <= 0 {
		return 0, 1
	}
	scale := float64(width) / float64(total)
	begin = min(max(int(float64(offset)*scale), 0), width-1)
	end = min(max(int(float64(offset+took)*scale+0.5), begin+1), width)
	return begin, end
}
