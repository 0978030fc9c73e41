package exporter

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"ambit/l7"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// takeNow takes what the queue has, due or not.
func takeNow(t *testing.T, q *queue) *slab {
	t.Helper()
	s, _ := q.take(time.Time{}, true)
	if s == nil {
		t.Fatal("the queue has nothing")
	}
	return s
}

func TestBatchHasOneResourceSpansPerResource(t *testing.T) {
	q := testQueue(t, 2, 64<<10, 100, time.Second, QueryKeys)
	twin := *backend // equal, and yet another resource
	resources := []*l7.Resource{frontend, backend, nil, &twin}
	for i := range 40 {
		s := numbered(i)
		s.Resource = resources[i*7%4]
		if reason := q.add(s, time.Now); reason != dropNone {
			t.Fatalf("span %d: %v", i, reason)
		}
	}
	batch := newBatch("1.2.3", 64<<10, 100)
	messages := batch.build(takeNow(t, q))
	got := roundTrip(t, messages)
	if wire, err := proto.Marshal(&coltracepb.ExportTraceServiceRequest{ResourceSpans: messages}); err != nil || !bytes.Equal(wire, batch.payload.bytes) {
		t.Errorf("the payload is not what the messages are (%v)", err)
	}
	if len(got) != 4 {
		t.Fatalf("%d ResourceSpans, not 4", len(got))
	}
	wantServices := map[string]int{"frontend": 10, "backend": 20, "unknown_service": 10}
	services := make(map[string]int)
	for _, rs := range got {
		attrs := attributesOf(t, rs.Resource.Attributes)
		name := attrs["service.name"].(string)
		if len(rs.ScopeSpans) != 1 {
			t.Fatalf("%s has %d scopes", name, len(rs.ScopeSpans))
		}
		ss := rs.ScopeSpans[0]
		services[name] += len(ss.Spans)
		if rs.SchemaUrl != SchemaURL || ss.SchemaUrl != SchemaURL {
			t.Errorf("%s: schema URLs %q, %q", name, rs.SchemaUrl, ss.SchemaUrl)
		}
		if ss.Scope.Name != "ambit" || ss.Scope.Version != "1.2.3" {
			t.Errorf("%s: scope %v", name, ss.Scope)
		}
		for i := 1; i < len(ss.Spans); i++ {
			if string(ss.Spans[i-1].SpanId) >= string(ss.Spans[i].SpanId) {
				t.Errorf("%s: spans are not in the order in which they came", name)
			}
		}
	}
	if !reflect.DeepEqual(services, wantServices) {
		t.Errorf("spans by service are %v, not %v", services, wantServices)
	}
	want := map[string]any{
		"service.name": "frontend", "process.pid": int64(4711), "host.name": "node-1",
		"container.id": frontend.Attributes[2].Str, "k8s.pod.uid": frontend.Attributes[3].Str,
	}
	if attrs := attributesOf(t, got[0].Resource.Attributes); !reflect.DeepEqual(attrs, want) {
		t.Errorf("the resource has %v, not %v", attrs, want)
	}
}

func TestResourceValuesOfAnyKind(t *testing.T) {
	r := &l7.Resource{Attributes: []l7.Attribute{
		{Key: "empty"}, {Key: "negative", Int: -1, IsInt: true}, {Key: "zero", IsInt: true},
		{Key: strings.Repeat("k", 200), Str: strings.Repeat("v", 20_000)}, {Key: "bad", Str: "a\xffb"}, {Key: "b\xffd", Str: "x"},
	}}
	s := exampleSpan()
	s.Resource = r
	q := testQueue(t, 2, 64<<10, 10, time.Second, QueryKeys)
	q.add(s, time.Now)
	got := roundTrip(t, newBatch("", 64<<10, 10).build(takeNow(t, q)))
	want := map[string]any{
		"empty": "", "negative": int64(-1), "zero": int64(0), strings.Repeat("k", 200): strings.Repeat("v", 20_000),
		"bad": "a\uFFFDb", "b\uFFFDd": "x",
	}
	if attrs := attributesOf(t, got[0].Resource.Attributes); !reflect.DeepEqual(attrs, want) {
		t.Errorf("the resource has %.300v", attrs)
	}
	if q.enc.repaired != 2 {
		t.Errorf("%d strings repaired, not 2", q.enc.repaired)
	}
}

func TestBatchIsReused(t *testing.T) {
	const spans = 300
	q := testQueue(t, 2, 64<<10, spans, time.Second, QueryKeys)
	batch := newBatch("1", 64<<10, spans)
	list := []*l7.Span{exampleSpan(), exampleSpan()}
	list[1].Resource = backend
	round := func() {
		for i := range 50 {
			q.add(list[i&1], time.Now)
		}
		s, _ := q.take(time.Time{}, true)
		batch.build(s)
		q.release(s)
	}
	round()
	// The map of resources and its buckets are the runtime's business.
	if n := testing.AllocsPerRun(20, round); n > 2 {
		t.Errorf("50 spans in a batch take %v allocations", n)
	}
}

func TestManyResourcesInOneBatch(t *testing.T) {
	q := testQueue(t, 2, 256<<10, 1024, time.Second, QueryKeys)
	for i := range 200 {
		s := numbered(i)
		s.Resource = &l7.Resource{Attributes: []l7.Attribute{{Key: "service.name", Str: fmt.Sprint(i)}}}
		if reason := q.add(s, time.Now); reason != dropNone {
			t.Fatal(reason)
		}
	}
	got := roundTrip(t, newBatch("1", 256<<10, 1024).build(takeNow(t, q)))
	if len(got) != 200 {
		t.Fatalf("%d resources", len(got))
	}
	for i, rs := range got {
		if rs.Resource.Attributes[0].Value.GetStringValue() != fmt.Sprint(i) || len(rs.ScopeSpans[0].Spans) != 1 {
			t.Fatalf("resource %d is %v", i, rs.Resource)
		}
	}
}

func TestSpanIsCopied(t *testing.T) {
	path := []byte("/before")
	s := exampleSpan()
	s.Path = string(path)
	q := testQueue(t, 2, 64<<10, 10, time.Second, QueryKeys)
	q.add(s, time.Now)
	*s = l7.Span{}
	got := roundTrip(t, newBatch("1", 64<<10, 10).build(takeNow(t, q)))
	if span := got[0].ScopeSpans[0].Spans[0]; span.Name != "GET" || span.Kind != tracepb.Span_SPAN_KIND_CLIENT {
		t.Errorf("the queue followed the caller's span: %v", span)
	}
}
