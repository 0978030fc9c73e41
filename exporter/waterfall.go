package exporter

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	waterfallWidth = 110 // where the style has no width
	minBar         = 12
	maxDepth       = 12 // deeper spans are indented no further
)

// Waterfall is a trace as text: a line that sums it up, and one per span with its place in the tree, its
// offset from the trace's start, its duration and a bar. It ends with a newline, and holds no control
// characters of the spans'.
func Waterfall(t *Trace, st Style) string {
	width := st.Width
	if width <= 0 {
		width = waterfallWidth
	}
	// Two columns of seven and three spaces stand between name and bar.
	room := max(width-2*columnDuration-3, 2*minBar)
	bar := max(room/3, minBar)
	name := max(room-bar, minBar)

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
	b = appendColumn(b, "SERVICE KIND METHOD PATH STATUS", name, false, true)
	b = append(b, ' ')
	b = appendColumn(b, "OFFSET", columnDuration, true, true)
	b = append(b, ' ')
	b = appendColumn(b, "TOOK", columnDuration, true, true)
	b = st.end(b, colorDim)
	b = append(b, '\n')
	for i := range t.Spans {
		b = t.appendSpan(b, &t.Spans[i], st, name, bar)
	}
	if t.Omitted > 0 {
		b = fmt.Appendf(b, "%s more were not kept\n", counted(t.Omitted, "span"))
	}
	return string(b)
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func (t *Trace) appendSpan(b []byte, ts *TraceSpan, st Style, name, bar int) []byte {
	s := &ts.Span
	outcome, color := outcomeText(s)
	if ts.Failed {
		color = colorError
	}
	title := strings.Repeat("  ", min(ts.Depth, maxDepth)) + serviceName(s) + " " + s.Kind.String() + " " + methodText(s)
	path := pathText(s, st.Query)
	// The outcome is never cut off: what stands before it is.
	left := name - len(outcome) - 1
	b, used := appendSafe(b, title+" "+path, left)
	b = append(b, ' ')
	b = st.begin(b, color)
	b = append(b, outcome...)
	b = st.end(b, color)
	for n := used + 1 + len(outcome); n < name; n++ {
		b = append(b, ' ')
	}
	offset := s.Start - t.Start.UnixNano()
	b = append(b, ' ')
	b = appendColumn(b, durationText(offset), columnDuration, true, true)
	b = append(b, ' ')
	b = appendColumn(b, durationText(s.End-s.Start), columnDuration, true, true)
	b = append(b, ' ')
	begin, end := barEnds(offset, s.End-s.Start, int64(t.Duration), bar)
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
