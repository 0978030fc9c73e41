package exporter

import (
	"strings"
	"testing"

	"ambit/l7"
)

func checkoutTrace(t *testing.T) Trace {
	t.Helper()
	st := NewStore(10, 1<<20)
	root := inTrace(7, 1, 0, l7.Server, 0, 100)
	call := inTrace(7, 2, 1, l7.Client, 10, 50)
	served := inTrace(7, 3, 2, l7.Server, 20, 30)
	served.Resource = backend
	failed := inTrace(7, 4, 1, l7.Client, 90, 10)
	failed.Status, failed.Path, failed.HasQuery = 500, "/pay", false
	for _, s := range []*l7.Span{served, failed, root, call} {
		st.Add(s)
	}
	tr, ok := st.Trace(traceID(7))
	if !ok {
		t.Fatal("there is no trace")
	}
	return tr
}

func TestWaterfall(t *testing.T) {
	tr := checkoutTrace(t)
	got := Waterfall(&tr, Style{Width: 100, Query: QueryNone})
	want := `trace 00000000000000000000000000000007  4 spans  2 services  100ms  1 error  2026-09-01T12:30:15.25Z
SERVICE     KIND   METHOD PATH                    STATUS  OFFSET    TOOK
frontend    SERVER GET    /api/v1/items/4711      200        0µs   100ms ███████████████████████████
  frontend  CLIENT GET    /api/v1/items/4711      200     10.0ms  50.0ms   ██████████████
    backend SERVER GET    /api/v1/items/4711      200     20.0ms  30.0ms      █████████
  frontend  CLIENT GET    /pay                    500     90.0ms  10.0ms                         ███
kept: head
`
	if got != want {
		t.Errorf("it is\n%s\nnot\n%s", got, want)
	}
	for line := range strings.Lines(got) {
		if n := columnsOf(strings.TrimSuffix(line, "\n")); n > 100 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func TestWaterfallOfCalls(t *testing.T) {
	st := NewStore(10, 1<<20)
	root := inTrace(7, 1, 0, l7.Server, 0, 100)
	call := exampleCall()
	call.TraceID, call.SpanID, call.ParentID = root.TraceID, [8]byte{7: 2}, root.SpanID
	call.Start, call.End = root.Start+10e6, root.Start+60e6
	served := *call
	served.SpanID, served.ParentID, served.Kind, served.Resource = [8]byte{7: 3}, call.SpanID, l7.Server, backend
	for _, s := range []*l7.Span{root, call, &served} {
		st.Add(s)
	}
	tr, _ := st.Trace(traceID(7))
	got := Waterfall(&tr, Style{Width: 110, Query: QueryNone})
	want := `trace 00000000000000000000000000000007  3 spans  2 services  100ms  1 error  2026-09-01T12:30:15.25Z
SERVICE     KIND   METHOD PATH                       STATUS     OFFSET    TOOK
frontend    SERVER GET    /api/v1/items/4711         200           0µs   100ms ███████████████████████████████
  frontend  CLIENT gRPC   shop.v1.Cart/AddItem       NOT_FOUND  10.0ms  50.0ms    ████████████████
    backend SERVER gRPC   shop.v1.Cart/AddItem       NOT_FOUND  10.0ms  50.0ms    ████████████████
kept: head
`
	if got != want {
		t.Errorf("it is\n%s\nnot\n%s", got, want)
	}
}

// Whatever the texts, each column begins where its heading does, and the outcome is never cut off.
func TestWaterfallColumns(t *testing.T) {
	st := NewStore(10, 1<<20)
	root := inTrace(7, 1, 0, l7.Server, 0, 100)
	root.Resource = &l7.Resource{ServiceName: "支払い-" + strings.Repeat("long", 20)}
	child := inTrace(7, 2, 1, l7.Client, 10, 50)
	child.Method, child.MethodOriginal, child.Path = "_OTHER", "PROPFIND-AND-MORE", "/"+strings.Repeat("x", 300)
	closed := inTrace(7, 3, 2, l7.Server, 20, 30)
	closed.Status, closed.Ending, closed.Resource = 0, l7.EndedByIdle, nil
	for _, s := range []*l7.Span{root, child, closed} {
		st.Add(s)
	}
	tr, ok := st.Trace(traceID(7))
	if !ok {
		t.Fatal("there is no trace")
	}
	for _, width := range []int{0, 60, 80, 100, 200} {
		lines := strings.Split(strings.TrimSuffix(Waterfall(&tr, Style{Width: width}), "\n"), "\n")[1:]
		status := columnsOf(lines[0][:strings.Index(lines[0], "STATUS")])
		kind := columnsOf(lines[0][:strings.Index(lines[0], "KIND")])
		for i, want := range []string{"200", "200", "timeout"} {
			line := lines[i+1]
			at := strings.LastIndex(line[:strings.Index(line, "█")], " "+want+" ") + 1
			if at == 0 || columnsOf(line[:at]) != status {
				t.Errorf("at width %d %q does not stand in column %d of %q", width, want, status, line)
			}
			at = max(strings.Index(line, "SERVER"), strings.Index(line, "CLIENT"))
			if columnsOf(line[:at]) != kind {
				t.Errorf("at width %d the kind does not stand in column %d of %q", width, kind, line)
			}
		}
	}
}

func TestWaterfallOfAnyShape(t *testing.T) {
	tr := checkoutTrace(t)
	for width := 1; width < 200; width++ {
		text := Waterfall(&tr, Style{Width: width, Color: width%2 == 0})
		if strings.Count(text, "\n") != 7 {
			t.Fatalf("at width %d it has %d lines", width, strings.Count(text, "\n"))
		}
	}
	tr.Spans[1].Span.Reason, tr.Spans[3].Span.Reason = l7.ReasonSlow, l7.ReasonError
	if text := Waterfall(&tr, Style{}); !strings.HasSuffix(text, "\nkept: head, slow, error\n") {
		t.Errorf("reasons that differ: %s", text)
	}
	single := Trace{Summary: Summary{Spans: 1, Services: 1, Omitted: 3}, Spans: []TraceSpan{{Span: l7.Span{}, Depth: 400}}}
	text := Waterfall(&single, Style{})
	if !strings.Contains(text, "1 span ") || !strings.Contains(text, "3 spans more were not kept") || !strings.Contains(text, "█") {
		t.Errorf("a trace of no duration is\n%s", text)
	}
}

func TestBars(t *testing.T) {
	cases := []struct {
		what                string
		offset, took, total int64
		begin, end          int
	}{
		{"the whole", 0, 100, 100, 0, 20},
		{"the second half", 50, 50, 100, 10, 20},
		{"an instant is still seen", 50, 0, 100, 10, 11},
		{"an instant at the end too", 100, 0, 100, 19, 20},
		{"a trace of no duration", 0, 0, 0, 0, 1},
		{"a span that ends before it starts", 50, -20, 100, 10, 11},
		{"times out of range", -50, 1 << 50, 100, 0, 20},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			if b, e := barEnds(c.offset, c.took, c.total, 20); b != c.begin || e != c.end {
				t.Errorf("the bar goes from %d to %d, not from %d to %d", b, e, c.begin, c.end)
			}
		})
	}
}
