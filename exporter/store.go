package exporter

import (
	"context"
	"strings"
	"sync"
	"unsafe"

	"ambit/l7"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// The bounds of a store that holds the last traces where no collector is set.
const (
	DefaultStoreTraces = 1000
	DefaultStoreBytes  = 4 << 20
	// MaxTraceSpans is how many spans of one trace a store keeps.
	MaxTraceSpans = 500
)

// TraceID identifies a trace.
type TraceID [16]byte

// Store keeps the last traces in memory. It is bounded by a number of traces and by bytes, which count each
// span's struct and text, each trace's bookkeeping and, once, each resource that is still named; beyond
// either, the trace that got no span for longest goes. A trace keeps its first MaxTraceSpans spans.
type Store struct {
	maxBytes int

	mu        sync.Mutex
	traces    *simplelru.LRU[TraceID, *storedTrace] // by the last span that came
	bytes     int
	resources map[*l7.Resource]int // how many traces name it
	stats     StoreStats
}

// StoreStats tells what a store holds and what it let go. Added = Spans + Evicted + Omitted.
type StoreStats struct {
	Traces, Spans, Bytes int
	Added                uint64 // spans
	Evicted              uint64 // spans that made room for later traces
	Omitted              uint64 // spans beyond MaxTraceSpans, or larger than the whole store
}

type storedTrace struct {
	spans     []l7.Span
	resources []*l7.Resource // those that the spans name, once each
	bytes     int            // without resources
	omitted   int
}

// traceOverhead is the cost of a trace besides its spans: its struct, its entry in the map and in the list.
const traceOverhead = int(unsafe.Sizeof(storedTrace{})) + 160

// NewStore makes a store of at most maxTraces traces and maxBytes bytes, both at least 1.
func NewStore(maxTraces, maxBytes int) *Store {
	s := &Store{maxBytes: max(maxBytes, 1), resources: make(map[*l7.Resource]int)}
	// The error is about a size below 1 alone.
	s.traces, _ = simplelru.NewLRU(max(maxTraces, 1), s.evicted)
	return s
}

// Add copies s into its trace.
func (st *Store) Add(s *l7.Span) {
	span, size := cloneSpan(s)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.stats.Added++
	t, ok := st.traces.Get(s.TraceID)
	if ok && len(t.spans) >= MaxTraceSpans || size+traceOverhead+resourceSize(s.Resource) > st.maxBytes {
		if ok {
			t.omitted++
		}
		st.stats.Omitted++
		return
	}
	if !ok {
		t = &storedTrace{}
		st.bytes += traceOverhead
		st.traces.Add(s.TraceID, t)
	}
	before := cap(t.spans)
	t.spans = append(t.spans, span)
	size += (cap(t.spans) - before) * int(unsafe.Sizeof(span))
	t.bytes += size
	st.bytes += size
	st.stats.Spans++
	st.name(t, s.Resource)
	for st.bytes > st.maxBytes && st.traces.Len() > 0 {
		st.traces.RemoveOldest()
	}
}

// name makes t one of the traces that name r.
func (st *Store) name(t *storedTrace, r *l7.Resource) {
	if r == nil {
		return
	}
	for _, known := range t.resources {
		if known == r {
			return
		}
	}
	t.resources = append(t.resources, r)
	t.bytes += int(unsafe.Sizeof(r))
	st.bytes += int(unsafe.Sizeof(r))
	if st.resources[r]++; st.resources[r] == 1 {
		st.bytes += resourceSize(r)
	}
}

// evicted is called by the list for each trace that leaves it.
func (st *Store) evicted(_ TraceID, t *storedTrace) {
	st.bytes -= traceOverhead + t.bytes
	st.stats.Spans -= len(t.spans)
	st.stats.Evicted += uint64(len(t.spans))
	for _, r := range t.resources {
		if st.resources[r]--; st.resources[r] == 0 {
			delete(st.resources, r)
			st.bytes -= resourceSize(r)
		}
	}
}

// Stats tells what the store holds.
func (st *Store) Stats() StoreStats {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := st.stats
	s.Traces, s.Bytes = st.traces.Len(), st.bytes
	return s
}

// Recent returns at most n traces, the one whose last span came last first.
func (st *Store) Recent(n int) []Summary {
	type found struct {
		id      TraceID
		spans   []l7.Span
		omitted int
	}
	var list []found
	st.mu.Lock()
	ids := st.traces.Keys() // oldest first
	for i := len(ids) - 1; i >= 0 && len(list) < n; i-- {
		t, _ := st.traces.Peek(ids[i])
		list = append(list, found{ids[i], t.spans, t.omitted})
	}
	st.mu.Unlock()
	// Stored spans never change, so they may be read while others come.
	out := make([]Summary, len(list))
	for i, f := range list {
		out[i] = summarize(f.id, f.spans, f.omitted, order(f.spans))
	}
	return out
}

// Trace returns the trace with that ID, and whether the store has it. Looking at a trace does not make it
// stay longer.
func (st *Store) Trace(id TraceID) (Trace, bool) {
	st.mu.Lock()
	t, ok := st.traces.Peek(id)
	if !ok {
		st.mu.Unlock()
		return Trace{}, false
	}
	spans, omitted := t.spans, t.omitted
	st.mu.Unlock()
	return newTrace(id, spans, omitted), true
}

// Close lets everything go. It cannot fail: the result is for Sink.
func (st *Store) Close(context.Context) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.traces.Purge()
	return nil
}

// cloneSpan copies s, its text into one string, and returns the size of that string.
func cloneSpan(s *l7.Span) (l7.Span, int) {
	c := *s
	texts := [...]*string{
		&c.Method, &c.MethodOriginal, &c.Scheme, &c.Path, &c.Query, &c.Host,
		&c.Version, &c.UserAgent, &c.RequestID, &c.TraceState, &c.Owner.Comm,
		&c.RequestType, &c.ResponseType, &c.GRPCMessage,
	}
	size := 0
	for _, t := range texts {
		size += len(*t)
	}
	var b strings.Builder
	b.Grow(size)
	for _, t := range texts {
		b.WriteString(*t)
	}
	all := b.String()
	for _, t := range texts {
		*t, all = all[:len(*t)], all[len(*t):]
	}
	return c, size
}

func resourceSize(r *l7.Resource) int {
	if r == nil {
		return 0
	}
	size := int(unsafe.Sizeof(*r)) + len(r.ServiceName) + cap(r.Attributes)*int(unsafe.Sizeof(l7.Attribute{}))
	for i := range r.Attributes {
		size += len(r.Attributes[i].Key) + len(r.Attributes[i].Str)
	}
	return size
}
