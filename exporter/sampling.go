package exporter

import (
	"ambit/l7"

	"go.opentelemetry.io/otel/attribute"
)

// Attributes that say why a span was kept.
const (
	attributeSamplingRule       = attribute.Key("ambit.sampling.rule")
	attributeSamplingClass      = attribute.Key("ambit.sampling.class")
	attributeSamplingReason     = attribute.Key("ambit.sampling.reason")
	attributeSamplingThreshold  = attribute.Key("ambit.sampling.threshold")
	attributeSamplingGeneration = attribute.Key("ambit.sampling.generation")
)

var (
	keySamplingRule       = newWireKey(attributeSamplingRule, tagAnyString)
	keySamplingClass      = newWireKey(attributeSamplingClass, tagAnyString)
	keySamplingReason     = newWireKey(attributeSamplingReason, tagAnyString)
	keySamplingThreshold  = newWireKey(attributeSamplingThreshold, tagAnyString)
	keySamplingGeneration = newWireKey(attributeSamplingGeneration, tagAnyInt)
)

// samplingMemo is memo for why a span was kept, which most spans of a node have in common.
type samplingMemo struct {
	rule         string
	reason       l7.Reason
	class        l7.Class
	generation   uint32
	threshold    uint64
	hasThreshold bool
	wire         []byte
}

func (m *samplingMemo) holds(s *l7.Span) bool {
	return m.threshold == s.Threshold && m.hasThreshold == s.HasThreshold && m.reason == s.Reason && m.class == s.Class &&
		m.generation == s.Generation && m.rule == s.Rule && m.wire != nil
}

// appendSampling appends why the span was kept; nothing where that is not known.
func (e *encoder) appendSampling(b []byte, s *l7.Span) []byte {
	if s.Reason == 0 {
		return b
	}
	if m := &e.sampling; !m.holds(s) {
		wire := appendStringAttribute(m.wire[:0], keySamplingReason, s.Reason.String())
		wire = appendStringAttribute(wire, keySamplingClass, s.Class.String())
		if s.Rule != "" {
			wire = appendStringAttribute(wire, keySamplingRule, e.valid(s.Rule))
		}
		if s.HasThreshold {
			e.text = l7.AppendThreshold(e.text[:0], s.Threshold)
			wire = appendStringAttribute(wire, keySamplingThreshold, e.text)
		}
		if s.Generation != 0 {
			wire = appendIntAttribute(wire, keySamplingGeneration, int64(s.Generation))
		}
		*m = samplingMemo{s.Rule, s.Reason, s.Class, s.Generation, s.Threshold, s.HasThreshold, wire}
	}
	return append(b, e.sampling.wire...)
}
