package exporter

import (
	"fmt"
	"time"

	"ambit/bpf"
	"ambit/l7"

	"golang.org/x/sys/unix"
)

// extent is a piece of a slab's buffer.
type extent struct{ off, len uint32 }

// entry is one span of a slab: its encoded body, and the index of its resource in the slab.
type entry struct {
	extent
	resource uint32
}

// slab is one batch: encoded spans in the order in which they came, and the encoded resources that they
// name. It refers to nothing outside of itself, so its size is all that a waiting span costs.
type slab struct {
	number    uint64    // counts up in the order of opening
	opened    time.Time // when the first span came
	buf       []byte
	spans     []entry
	resources []extent
}

func (s *slab) reset() {
	s.buf, s.spans, s.resources = s.buf[:0], s.spans[:0], s.resources[:0]
}

func (s *slab) body(e extent) []byte {
	return s.buf[e.off : e.off+e.len]
}

// room is what is left of the buffer, to append to.
func (s *slab) room() []byte {
	return s.buf[len(s.buf):len(s.buf):cap(s.buf)]
}

// take makes what was appended to room a part of the slab, unless there was too little: append moved it elsewhere then.
func (s *slab) take(appended []byte) (extent, bool) {
	if len(appended) > cap(s.buf)-len(s.buf) {
		return extent{}, false
	}
	e := extent{uint32(len(s.buf)), uint32(len(appended))}
	s.buf = s.buf[:len(s.buf)+len(appended)]
	return e, true
}

// queue holds encoded spans until they are sent. Its memory is made once: slabs of a fixed number of bytes
// and spans each, filled one after the other. As it fills up, share says how much of what has a probability is to be taken
// still. When all are full it refuses the newest span, unencoded: that costs least where there is least to spare, and leaves
// whole what is already waiting.
//
//	free --open--> open --sealed: full, or due--> ready --taken--> (sender) --> free
//
// The slabs lie outside of Go's heap. In it they would let the garbage collector wait for as much garbage
// again; and pages that no outage has filled yet cost nothing this way. The last slab used is the next one
// used, so while all is well few are.
//
// The caller locks.
type queue struct {
	enc   encoder
	delay time.Duration
	arena []byte // all slabs
	// slabBytes is the size of each.
	slabBytes int

	free  []*slab
	open  *slab   // nil, or has at least one span
	ready []*slab // oldest first

	number uint64 // of the last slab opened
	sealed uint64 // number of the last one sealed
	spans  int    // in open and ready
	bytes  int

	// The resources of the open slab. Pointers are kept no longer than that slab is open.
	indices   map[*l7.Resource]uint32
	last      *l7.Resource
	lastIndex uint32
}

// newQueue makes a queue of slabs, at least two, each of slabBytes and slabSpans.
func newQueue(slabs, slabBytes, slabSpans int, delay time.Duration, capture Capture) (*queue, error) {
	slabs = max(slabs, 2)
	arena, err := unix.Mmap(-1, 0, slabs*slabBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for the queue of spans: %w", slabs*slabBytes, err)
	}
	q := &queue{
		enc:   encoder{capture: capture},
		delay: delay,
		arena: arena,

		slabBytes: slabBytes,

		free:    make([]*slab, slabs),
		ready:   make([]*slab, 0, slabs),
		indices: make(map[*l7.Resource]uint32),
	}
	for i := range q.free {
		from := i * slabBytes
		q.free[i] = &slab{
			buf:       arena[from : from : from+slabBytes],
			spans:     make([]entry, 0, slabSpans),
			resources: make([]extent, 0, 8),
		}
	}
	return q, nil
}

// close gives the memory back. Neither the queue nor any slab of it may be used afterwards.
func (q *queue) close() error {
	arena := q.arena
	q.arena, q.free, q.open, q.ready = nil, nil, nil, nil
	if err := unix.Munmap(arena); err != nil {
		return fmt.Errorf("unmap the queue of spans: %w", err)
	}
	return nil
}

// add encodes s into the open slab. It returns why it did not, or dropNone.
func (q *queue) add(s *l7.Span, now func() time.Time) DropReason {
	for {
		if q.open == nil {
			if len(q.free) == 0 {
				return DropQueueFull
			}
			q.openSlab(now())
		}
		if q.put(s) {
			return dropNone
		}
		if len(q.open.spans) == 0 {
			// It does not even fit alone.
			q.closeEmpty()
			return DropTooLarge
		}
		q.seal()
	}
}

// put encodes the span at the end of the open slab, if that has room for it and for its resource.
func (q *queue) put(s *l7.Span) bool {
	b := q.open
	if len(b.spans) == cap(b.spans) {
		return false
	}
	used, named, repaired := len(b.buf), len(b.resources), q.enc.repaired
	index, ok := q.name(s.Resource)
	if ok {
		var body extent
		if body, ok = b.take(q.enc.appendSpan(b.room(), s)); ok {
			b.spans = append(b.spans, entry{body, index})
			q.spans++
			q.bytes += len(b.buf) - used
			return true
		}
	}
	// It is encoded anew in the next slab, with its resource.
	b.buf, b.resources, q.enc.repaired = b.buf[:used], b.resources[:named], repaired
	return false
}

// name gives the index of r in the open slab, and encodes it there first where it is new to it.
func (q *queue) name(r *l7.Resource) (index uint32, ok bool) {
	if r == nil {
		r = &unknownService
	}
	if r == q.last {
		return q.lastIndex, true
	}
	if index, ok = q.indices[r]; !ok {
		body, ok := q.open.take(q.enc.appendResource(q.open.room(), r))
		if !ok {
			return 0, false
		}
		index = uint32(len(q.open.resources))
		q.open.resources = append(q.open.resources, body)
		q.indices[r] = index
	}
	q.last, q.lastIndex = r, index
	return index, true
}

// pressedPart is the part of the queue in which less and less is taken: its last eighth.
const pressedPart = 8

// share is what is taken as the queue fills up, of bpf.Full: all until its last eighth begins, nothing where it is full.
func (q *queue) share() uint32 {
	room := len(q.free) * q.slabBytes
	if b := q.open; b != nil {
		// Whichever is used up first.
		room += min(cap(b.buf)-len(b.buf), q.slabBytes/cap(b.spans)*(cap(b.spans)-len(b.spans)))
	}
	return uint32(min(room*pressedPart*bpf.Full/len(q.arena), bpf.Full))
}

func (q *queue) openSlab(now time.Time) {
	n := len(q.free) - 1
	q.open, q.free = q.free[n], q.free[:n]
	q.number++
	q.open.reset()
	q.open.number, q.open.opened = q.number, now
}

func (q *queue) closeEmpty() {
	q.free = append(q.free, q.open)
	q.closeOpen()
}

func (q *queue) seal() {
	q.ready = append(q.ready, q.open)
	q.sealed = q.open.number
	q.closeOpen()
}

func (q *queue) closeOpen() {
	q.open, q.last = nil, nil
	clear(q.indices)
}

// take hands out the oldest slab that is full, or the open one if it is due or hurry is set. Where there is
// none it returns nil, and how long until the open one is due; 0 is no open one.
func (q *queue) take(now time.Time, hurry bool) (*slab, time.Duration) {
	if len(q.ready) == 0 {
		if q.open == nil {
			return nil, 0
		}
		if left := q.open.opened.Add(q.delay).Sub(now); left > 0 && !hurry {
			return nil, left
		}
		// Only now: while others wait it goes on filling, so that a slow collector is not sent small batches.
		q.seal()
	}
	s := q.ready[0]
	copy(q.ready, q.ready[1:])
	q.ready = q.ready[:len(q.ready)-1]
	q.spans -= len(s.spans)
	q.bytes -= len(s.buf)
	return s, 0
}

func (q *queue) release(s *slab) {
	q.free = append(q.free, s)
}
