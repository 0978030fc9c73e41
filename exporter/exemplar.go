package exporter

import (
	"sync"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

// exemplarsMax bounds the exemplars that are kept: 64 bytes each, and what a map adds.
const exemplarsMax = 2 * bpf.RoutesMax

// Exemplars remember the latest span of each route and outcome, so that a metric can point to a trace. It is safe for
// concurrent use.
type Exemplars struct {
	mu     sync.Mutex
	latest map[exemplarKey]exemplar
}

type exemplarKey struct {
	route   uint64
	outcome bpf.Outcome
}

type exemplar struct {
	trace [16]byte
	span  [8]byte
	took  float64 // seconds
	at    time.Time
}

// NewExemplars makes empty ones.
func NewExemplars() *Exemplars { return &Exemplars{latest: make(map[exemplarKey]exemplar)} }

// Note remembers a span that was kept, by the key and outcome that its series has. It keeps nothing of s.
func (e *Exemplars) Note(route uint64, outcome bpf.Outcome, s *l7.Span) {
	key := exemplarKey{route, outcome}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.latest[key]; !ok && len(e.latest) >= exemplarsMax {
		return
	}
	e.latest[key] = exemplar{s.TraceID, s.SpanID, time.Duration(s.End - s.Start).Seconds(), time.Unix(0, s.End)}
}

// take returns what was noted since it was called last.
func (e *Exemplars) take() map[exemplarKey]exemplar {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.latest
	e.latest = make(map[exemplarKey]exemplar, len(taken))
	return taken
}
