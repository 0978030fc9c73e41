package exporter

import (
	"context"
	"encoding/binary"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"ambit/l7"
)

// inTrace is a span of trace n, starting after so many milliseconds and taking so many.
func inTrace(n int, id, parent byte, kind l7.Kind, after, took int64) *l7.Span {
	s := exampleSpan()
	s.TraceID = TraceID{}
	binary.BigEndian.PutUint64(s.TraceID[8:], uint64(n))
	s.SpanID, s.ParentID, s.Kind = [8]byte{7: id}, [8]byte{7: parent}, kind
	s.Start = startOfTest + after*1e6
	s.End = s.Start + took*1e6
	return s
}

func traceID(n int) TraceID {
	return inTrace(n, 0, 0, l7.Client, 0, 0).TraceID
}

// balanced holds the sum that StoreStats promises, and the bounds.
func balanced(t *testing.T, st *Store, maxTraces, maxBytes int) StoreStats {
	t.Helper()
	s := st.Stats()
	if s.Added != uint64(s.Spans)+s.Evicted+s.Omitted {
		t.Errorf("added %d != %d kept + %d evicted + %d omitted", s.Added, s.Spans, s.Evicted, s.Omitted)
	}
	if s.Traces > maxTraces || s.Bytes > maxBytes || s.Bytes < 0 {
		t.Errorf("%d traces of %d bytes, beyond %d of %d", s.Traces, s.Bytes, maxTraces, maxBytes)
	}
	return s
}

func TestStoreKeepsTheLastTraces(t *testing.T) {
	st := NewStore(3, 1<<20)
	for n := range 5 {
		st.Add(inTrace(n, 1, 0, l7.Server, int64(n), 1))
	}
	st.Add(inTrace(2, 2, 1, l7.Client, 9, 1)) // trace 2 is the newest again
	var order []TraceID
	for _, s := range st.Recent(10) {
		order = append(order, s.TraceID)
	}
	if want := []TraceID{traceID(2), traceID(4), traceID(3)}; !reflect.DeepEqual(order, want) {
		t.Errorf("the last traces are %v, not %v", order, want)
	}
	if got := st.Recent(1); len(got) != 1 || got[0].TraceID != traceID(2) {
		t.Errorf("the last trace is %v", got)
	}
	if got := st.Recent(0); len(got) != 0 {
		t.Errorf("no traces are %v", got)
	}
	if _, ok := st.Trace(traceID(0)); ok {
		t.Error("the oldest trace is still there")
	}
	if s := balanced(t, st, 3, 1<<20); s.Evicted != 2 || s.Traces != 3 || s.Spans != 4 {
		t.Errorf("stats are %+v", s)
	}
}

func TestLookingAtATraceDoesNotKeepIt(t *testing.T) {
	st := NewStore(2, 1<<20)
	st.Add(inTrace(0, 1, 0, l7.Server, 0, 1))
	st.Add(inTrace(1, 1, 0, l7.Server, 0, 1))
	st.Trace(traceID(0))
	st.Recent(2)
	st.Add(inTrace(2, 1, 0, l7.Server, 0, 1))
	if _, ok := st.Trace(traceID(0)); ok {
		t.Error("a trace that was looked at outlived a newer one")
	}
}

func TestStoreIsBoundedByBytes(t *testing.T) {
	const maxBytes = 200 << 10
	st := NewStore(1_000_000, maxBytes)
	for n := range 5000 {
		s := inTrace(n/3, byte(n%3)+1, 0, l7.Server, 0, 1)
		s.UserAgent = strings.Repeat("x", n%700)
		s.Resource = &l7.Resource{ServiceName: fmt.Sprint(n / 3), Attributes: []l7.Attribute{{Key: "k", Str: strings.Repeat("v", 50)}}}
		st.Add(s)
		balanced(t, st, 1_000_000, maxBytes)
	}
	if s := st.Stats(); s.Bytes < maxBytes/2 {
		t.Errorf("only %d bytes of %d are used", s.Bytes, maxBytes)
	}
	if err := st.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if s := balanced(t, st, 0, 0); s.Bytes != 0 || s.Spans != 0 || len(st.resources) != 0 {
		t.Errorf("an empty store has %+v and %d resources", s, len(st.resources))
	}
}

func TestStoreBytesAreThoseOfTheHeap(t *testing.T) {
	const maxBytes = 8 << 20
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	st := NewStore(1_000_000, maxBytes)
	for n := range 20_000 {
		s := inTrace(n/2, byte(n%2)+1, 0, l7.Server, 0, 1)
		s.Resource = backend
		st.Add(s)
	}
	grown, counted := heap()-before, st.Stats().Bytes
	if grown > maxBytes*12/10 || counted > maxBytes {
		t.Errorf("%d bytes of heap, %d counted, with a bound of %d", grown, counted, maxBytes)
	}
	runtime.KeepAlive(st)
}

func TestStoreCountsASharedResourceOnce(t *testing.T) {
	st := NewStore(100, 1<<20)
	heavy := &l7.Resource{ServiceName: "s", Attributes: []l7.Attribute{{Key: "k", Str: strings.Repeat("v", 10_000)}}}
	for n := range 50 {
		s := inTrace(n, 1, 0, l7.Server, 0, 1)
		s.Resource = heavy
		st.Add(s)
	}
	if s := st.Stats(); s.Traces != 50 || s.Bytes > 100_000 {
		t.Errorf("50 small traces of one service are %+v", s)
	}
}

func TestTraceHasALimitOfSpans(t *testing.T) {
	st := NewStore(10, 8<<20)
	for n := range MaxTraceSpans + 7 {
		st.Add(inTrace(0, byte(n), 0, l7.Server, int64(n), 1))
	}
	tr, ok := st.Trace(traceID(0))
	if !ok || len(tr.Spans) != MaxTraceSpans || tr.Omitted != 7 || tr.Summary.Spans != MaxTraceSpans {
		t.Errorf("%d spans, %d omitted", len(tr.Spans), tr.Omitted)
	}
	if s := balanced(t, st, 10, 8<<20); s.Omitted != 7 {
		t.Errorf("stats are %+v", s)
	}
}

func TestSpanLargerThanTheStore(t *testing.T) {
	st := NewStore(10, 4000)
	s := inTrace(0, 1, 0, l7.Server, 0, 1)
	s.UserAgent = strings.Repeat("x", 5000)
	st.Add(s)
	if stats := balanced(t, st, 10, 4000); stats.Omitted != 1 || stats.Traces != 0 {
		t.Errorf("stats are %+v", stats)
	}
	st.Add(inTrace(0, 1, 0, l7.Server, 0, 1))
	if stats := balanced(t, st, 10, 4000); stats.Traces != 1 {
		t.Errorf("stats are %+v", stats)
	}
}

func TestStoreCopiesTheSpan(t *testing.T) {
	text := []byte("GET/pathquerycurl")
	s := inTrace(0, 1, 0, l7.Server, 0, 1)
	s.Path = unsafe.String(&text[3], 5)
	st := NewStore(10, 1<<20)
	st.Add(s)
	for i := range text {
		text[i] = '#'
	}
	s.Method = "CHANGED"
	tr, _ := st.Trace(traceID(0))
	if got := tr.Spans[0].Span; got.Path != "/path" || got.Method != "GET" {
		t.Errorf("the store followed the caller's memory: %q %q", got.Method, got.Path)
	}
	for _, want := range []*l7.Span{exampleSpan(), exampleCall()} {
		clone, size := cloneSpan(want)
		if !reflect.DeepEqual(clone, *want) || size < len(want.Path)+len(want.UserAgent)+len(want.GRPCMessage)+len(want.ResponseType) {
			t.Errorf("a copy of %d bytes is %+v", size, clone)
		}
	}
	call := exampleCall()
	message := []byte("no such item")
	call.TraceID, call.GRPCMessage = traceID(1), unsafe.String(&message[0], len(message))
	st.Add(call)
	clear(message)
	if tr, _ := st.Trace(traceID(1)); tr.Spans[0].Span.GRPCMessage != "no such item" {
		t.Errorf("the store followed the caller's memory: %q", tr.Spans[0].Span.GRPCMessage)
	}
}

func TestStoreUnderManyHands(t *testing.T) {
	st := NewStore(20, 100<<10)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for n := range 2000 {
				st.Add(inTrace(n%40, byte(g), 0, l7.Server, int64(n), 1))
			}
		})
	}
	wg.Go(func() {
		for n := range 200 {
			st.Recent(10)
			st.Trace(traceID(n % 40))
			st.Stats()
		}
	})
	wg.Wait()
	if s := balanced(t, st, 20, 100<<10); s.Added != 8000 {
		t.Errorf("stats are %+v", s)
	}
}

func TestTree(t *testing.T) {
	const c, s = l7.Client, l7.Server
	type row struct {
		id, parent  byte
		kind        l7.Kind
		after, took int64
	}
	cases := []struct {
		what string
		rows []row
		want string // ids, indented by depth
	}{
		{"one span", []row{{1, 0, s, 0, 1}}, "1"},
		{"a chain that came in reverse", []row{{3, 2, s, 2, 1}, {2, 1, c, 1, 3}, {1, 0, s, 0, 9}}, "1 .2 ..3"},
		{"children by their start", []row{{1, 0, s, 0, 9}, {2, 1, c, 5, 1}, {3, 1, c, 3, 1}, {4, 3, s, 3, 1}}, "1 .3 ..4 .2"},
		{"a parent that nobody has makes a root", []row{{1, 0, s, 5, 1}, {2, 99, c, 1, 1}, {3, 2, s, 2, 1}}, "2 .3 1"},
		{"a span that is its own parent", []row{{1, 1, s, 0, 1}, {2, 1, c, 1, 1}}, "1 .2"},
		{"a circle is cut at its earliest span", []row{{1, 3, s, 2, 1}, {2, 1, c, 1, 1}, {3, 2, c, 3, 1}}, "2 .3 ..1"},
		{"a circle beside a root", []row{{1, 0, s, 9, 1}, {2, 3, c, 1, 1}, {3, 2, c, 3, 1}}, "1 2 .3"},
		{"an ID that occurs twice is that of the first", []row{{1, 0, s, 0, 9}, {1, 0, s, 1, 1}, {2, 1, c, 2, 1}}, "1 .2 1"},
		{"of two that start together the client goes first", []row{{2, 0, s, 0, 5}, {1, 0, c, 0, 5}}, "1 2"},
		{"of two that start together the longer goes first", []row{{2, 0, s, 0, 5}, {1, 0, s, 0, 7}}, "1 2"},
	}
	for _, tc := range cases {
		t.Run(tc.what, func(t *testing.T) {
			st := NewStore(10, 1<<20)
			for _, r := range tc.rows {
				st.Add(inTrace(0, r.id, r.parent, r.kind, r.after, r.took))
			}
			tr, ok := st.Trace(traceID(0))
			if !ok {
				t.Fatal("there is no trace")
			}
			var got []string
			for _, s := range tr.Spans {
				got = append(got, strings.Repeat(".", s.Depth)+fmt.Sprint(s.Span.SpanID[7]))
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("the tree is %q, not %q", strings.Join(got, " "), tc.want)
			}
			if tr.Root.SpanID != tr.Spans[0].Span.SpanID {
				t.Errorf("the root is %v", tr.Root.SpanID)
			}
		})
	}
}

func TestDeepTree(t *testing.T) {
	var spans []l7.Span
	for n := range MaxTraceSpans {
		s := inTrace(0, 0, 0, l7.Client, int64(n), 1)
		binary.BigEndian.PutUint64(s.SpanID[:], uint64(n+1))
		binary.BigEndian.PutUint64(s.ParentID[:], uint64(n))
		spans = append(spans, *s)
	}
	places := order(spans)
	if len(places) != MaxTraceSpans || places[MaxTraceSpans-1].depth != MaxTraceSpans-1 {
		t.Errorf("%d spans, the last at depth %d", len(places), places[len(places)-1].depth)
	}
}

func TestSummary(t *testing.T) {
	st := NewStore(10, 1<<20)
	root := inTrace(0, 1, 0, l7.Server, 0, 10)
	child := inTrace(0, 2, 1, l7.Client, 2, 20) // ends after its parent
	child.Resource, child.Status = backend, 404
	st.Add(child)
	st.Add(root)
	got := st.Recent(1)[0]
	if got.Spans != 2 || got.Services != 2 || got.Errors != 1 || got.Omitted != 0 {
		t.Errorf("it is %+v", got)
	}
	if !got.Start.Equal(time.Unix(0, startOfTest)) || got.Duration != 22*time.Millisecond || got.Root.SpanID != root.SpanID {
		t.Errorf("it is %+v", got)
	}
	tr, _ := st.Trace(traceID(0))
	if tr.Spans[0].Failed || !tr.Spans[1].Failed {
		t.Error("the error is at the wrong span")
	}
}
