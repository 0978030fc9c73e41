package exporter

import (
	"strings"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

func atZero() time.Time { return time.Unix(1000, 0) }

func TestQueueTakesWhenFullOrDue(t *testing.T) {
	const delay = time.Second
	at := func(d time.Duration) time.Time { return atZero().Add(d) }
	q := testQueue(t, 3, 64<<10, 4, delay, QueryKeys)
	if s, due := q.take(atZero(), true); s != nil || due != 0 {
		t.Fatalf("an empty queue hands out %v, due %v", s, due)
	}
	q.add(numbered(0), atZero)
	if s, due := q.take(at(300*time.Millisecond), false); s != nil || due != 700*time.Millisecond {
		t.Fatalf("a young batch is handed out (%v) or due in %v", s, due)
	}
	if s, _ := q.take(at(delay), false); s == nil || len(s.spans) != 1 {
		t.Fatalf("a batch that is due is not handed out: %v", s)
	} else {
		q.release(s)
	}
	for i := range 5 {
		q.add(numbered(i), atZero)
	}
	s, _ := q.take(atZero(), false)
	if s == nil || len(s.spans) != 4 {
		t.Fatalf("a full batch is not handed out at once: %v", s)
	}
	if q.spans != 1 || q.bytes <= 0 {
		t.Errorf("%d spans in %d bytes are left, not 1", q.spans, q.bytes)
	}
	q.release(s)
	if s, _ = q.take(atZero(), true); s == nil || len(s.spans) != 1 {
		t.Fatalf("in a hurry the open batch is not handed out: %v", s)
	}
	if q.spans != 0 || q.bytes != 0 {
		t.Errorf("an empty queue has %d spans, %d bytes", q.spans, q.bytes)
	}
}

func TestQueueFillsBatchesWhileOthersWait(t *testing.T) {
	q := testQueue(t, 4, 64<<10, 4, time.Second, QueryKeys)
	for i := range 6 {
		q.add(numbered(i), atZero)
	}
	first, _ := q.take(atZero().Add(time.Hour), false)
	if len(first.spans) != 4 {
		t.Fatalf("first batch has %d spans", len(first.spans))
	}
	for i := range 2 {
		q.add(numbered(i), atZero)
	}
	if len(q.ready) != 0 || len(q.open.spans) != 4 {
		t.Fatalf("the open batch was closed before it was full: %d ready", len(q.ready))
	}
}

func TestQueueFullRefusesTheNewest(t *testing.T) {
	q := testQueue(t, 2, minBatchBytes, 1000, time.Second, QueryKeys)
	kept := 0
	for q.add(numbered(kept), atZero) == dropNone {
		kept++
	}
	if kept < 20 || kept > 40 {
		t.Errorf("two batches of 16 KiB hold %d spans", kept)
	}
	for range 3 {
		if reason := q.add(numbered(9999), atZero); reason != DropQueueFull {
			t.Fatalf("a full queue says %v", reason)
		}
	}
	if q.spans != kept {
		t.Errorf("%d spans of %d are left", q.spans, kept)
	}
	s := takeNow(t, q)
	first := decodeSpan(t, s.body(s.spans[0].extent))
	if string(first.SpanId) != string(numbered(0).SpanID[:]) {
		t.Errorf("the oldest span is %x", first.SpanId)
	}
	q.release(s)
	if reason := q.add(numbered(1), atZero); reason != dropNone {
		t.Errorf("a queue with room again says %v", reason)
	}
}

// In the last eighth of the queue, by bytes or by spans, the share falls to nothing.
func TestQueueSharesWhatIsLeft(t *testing.T) {
	for name, q := range map[string]*queue{
		"bytes": testQueue(t, 4, minBatchBytes, 1000, time.Second, QueryKeys), "spans": testQueue(t, 4, 1<<20, 40, time.Second, QueryKeys),
	} {
		t.Run(name, func(t *testing.T) {
			before, full := q.share(), 0
			if before != bpf.Full {
				t.Fatalf("an empty queue shares %d of %d", before, bpf.Full)
			}
			for i := 0; q.add(numbered(i), atZero) == dropNone; i++ {
				now := q.share()
				if now > before {
					t.Fatalf("span %d lets the share rise from %d to %d", i, before, now)
				}
				if before = now; now == bpf.Full {
					full++
				}
			}
			if all := q.spans; full < all*8/10 || full > all*19/20 {
				t.Errorf("%d of %d spans found all of it, want seven eighths", full, all)
			}
			if before > bpf.Full/3 {
				t.Errorf("a full queue shares %d of %d", before, bpf.Full)
			}
			s := takeNow(t, q)
			q.release(s)
			if now := q.share(); now != bpf.Full {
				t.Errorf("with a batch's room again it shares %d", now)
			}
		})
	}
}

func TestQueueRefusesWhatFitsNoBatch(t *testing.T) {
	large := exampleSpan()
	large.UserAgent = strings.Repeat("x", minBatchBytes)
	heavy := exampleSpan()
	heavy.Resource = &l7.Resource{Attributes: []l7.Attribute{{Key: "k", Str: strings.Repeat("x", minBatchBytes)}}}
	for what, s := range map[string]*l7.Span{"span": large, "resource": heavy} {
		q := testQueue(t, 2, minBatchBytes, 1000, time.Second, QueryKeys)
		for range 5 { // it must not use up slabs
			if reason := q.add(s, atZero); reason != DropTooLarge {
				t.Fatalf("a %s larger than a batch: %v", what, reason)
			}
		}
		if q.add(exampleSpan(), atZero) != dropNone || q.spans != 1 || len(q.free) != 1 {
			t.Errorf("after a %s larger than a batch: %d spans, %d slabs free", what, q.spans, len(q.free))
		}
		if reason := q.add(s, atZero); reason != DropTooLarge {
			t.Errorf("a %s larger than a batch, behind others: %v", what, reason)
		}
		if cap(takeNow(t, q).buf) != minBatchBytes {
			t.Errorf("a %s larger than a batch made a slab grow", what)
		}
	}
}

func TestQueueForgetsResourcesWithTheBatch(t *testing.T) {
	q := testQueue(t, 2, 64<<10, 2, time.Second, QueryKeys)
	for i := range 2 {
		q.add(numbered(i), atZero)
	}
	takeNow(t, q)
	if len(q.indices) != 0 || q.last != nil {
		t.Errorf("%d resources are still named", len(q.indices))
	}
}
