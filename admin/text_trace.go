package admin

import (
	"fmt"
	"io"
	"strings"
)

// WriteTraces prints a list of traces for people.
func WriteTraces(w io.Writer, traces []TraceSummary) error {
	if len(traces) == 0 {
		_, err := fmt.Fprintln(w, "no traces yet")
		return err
	}
	var p page
	rows := [][]string{{"TRACE", "START", "DURATION", "SPANS", "ERRORS", "SERVICE", "NAME"}}
	for _, t := range traces {
		rows = append(rows, []string{t.TraceID, moment(t.Start), span(t.DurationNS), number(uint64(t.Spans)),
			number(uint64(t.Errors)), dash(t.Service), dash(t.Name)})
	}
	p.table(rows, 2, 3, 4)
	return p.writeTo(w)
}

// WriteTrace prints one trace for people: the daemon's waterfall.
func WriteTrace(w io.Writer, t TraceDetail) error {
	var p page
	for line := range strings.Lines(t.Waterfall) {
		p.text.WriteString(Printable(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return p.writeTo(w)
}
