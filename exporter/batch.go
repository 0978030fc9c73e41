package exporter

import (
	"slices"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// batch turns a slab into what the OTLP clients send: one ResourceSpans per resource, one scope in each.
// Its buffers are reused: what build makes holds until the next build.
//
// It has two forms, which share their bytes. The messages carry their encoded fields as unknown ones, which protobuf
// writes out as they are; the payload is what that comes to.
type batch struct {
	scope []byte // the scope field of every ScopeSpans

	payload  *payload
	order    []uint32 // spans by resource, else as they came
	ends     []uint32 // per resource, into order
	messages []*tracepb.ResourceSpans
	spans    int
}

// newBatch makes a batch for slabs of so many bytes and spans. Its scope bears version, ambit's own.
func newBatch(version string, slabBytes, slabSpans int) *batch {
	scope := appendBytes(nil, tagScopeName, ScopeName)
	scope = appendBytes(scope, tagScopeVersion, version)
	return &batch{
		scope:   appendBytes(nil, tagScopeSpansScope, scope),
		payload: newPayload(slabBytes + spanOverhead*slabSpans + usualResources*resourceOverhead),
		order:   make([]uint32, 0, slabSpans),
	}
}

// What build adds to a slab's bytes at the most: a tag and a length for each span, and for each resource
// scope, schemas and four lengths. A slab of more than usualResources makes the buffer grow.
const (
	spanOverhead     = 6
	resourceOverhead = 256
	usualResources   = 64
)

var (
	resourceSchema = string(appendBytes(nil, tagResourceSpansSchemaURL, SchemaURL))
	scopeSchema    = string(appendBytes(nil, tagScopeSpansSchemaURL, SchemaURL))
)

// sort orders the slab's spans by resource, by counting.
func (b *batch) sort(s *slab) {
	b.ends = slices.Grow(b.ends[:0], len(s.resources))[:len(s.resources)]
	clear(b.ends)
	for i := range s.spans {
		b.ends[s.spans[i].resource]++
	}
	start := uint32(0)
	for r, n := range b.ends {
		b.ends[r] = start
		start += n
	}
	b.order = slices.Grow(b.order[:0], len(s.spans))[:len(s.spans)]
	for i := range s.spans {
		r := s.spans[i].resource
		b.order[b.ends[r]] = uint32(i)
		b.ends[r]++
	}
}

// build returns the messages for the slab's spans. It keeps nothing of s.
func (b *batch) build(s *slab) []*tracepb.ResourceSpans {
	b.sort(s)
	b.spans = len(s.spans)
	if b.payload.lent.Load() > 0 {
		// A call that was given up still reads it.
		b.payload = newPayload(cap(b.payload.bytes))
	}
	out := slices.Grow(b.payload.bytes[:0], len(s.buf)+spanOverhead*len(s.spans)+resourceOverhead*len(s.resources))
	for len(b.messages) < len(s.resources) {
		b.messages = append(b.messages, &tracepb.ResourceSpans{})
	}
	first := uint32(0)
	for r := range s.resources {
		spans := b.order[first:b.ends[r]]
		first = b.ends[r]

		scope := len(b.scope) + len(scopeSchema)
		for _, i := range spans {
			scope += sizeBytes(int(s.spans[i].len))
		}
		resource := s.body(s.resources[r])
		out = append(out, tagRequestResourceSpans)
		out = appendLength(out, sizeBytes(len(resource))+sizeBytes(scope)+len(resourceSchema))
		from := len(out)
		out = appendBytes(out, tagResourceSpansResource, resource)
		out = append(out, tagResourceSpansScope)
		out = appendLength(out, scope)
		out = append(out, b.scope...)
		for _, i := range spans {
			out = appendBytes(out, tagScopeSpansSpan, s.body(s.spans[i].extent))
		}
		out = append(out, scopeSchema...)
		out = append(out, resourceSchema...)
		b.messages[r].ProtoReflect().SetUnknown(out[from:len(out):len(out)])
	}
	b.payload.bytes = out
	return b.messages[:len(s.resources)]
}
