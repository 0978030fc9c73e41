package exporter

import (
	"encoding/binary"

	"ambit/l7"

	"go.opentelemetry.io/otel/attribute"
)

// The event of a span whose route behaves unlike itself.
const (
	eventAnomaly          = "ambit.anomaly"
	attributeAnomalyKind  = attribute.Key("ambit.anomaly.kind")
	attributeAnomalyValue = attribute.Key("ambit.anomaly.value")
	attributeAnomalyUsual = attribute.Key("ambit.anomaly.usual")
)

var (
	keyAnomalyKind  = newEventKey(attributeAnomalyKind, tagAnyString)
	keyAnomalyValue = newEventKey(attributeAnomalyValue, tagAnyDouble)
	keyAnomalyUsual = newEventKey(attributeAnomalyUsual, tagAnyDouble)
)

// newEventKey is newWireKey for an attribute of an event.
func newEventKey(k attribute.Key, anyTag byte) wireKey {
	b := []byte(newWireKey(k, anyTag))
	b[0] = tagEventAttribute
	return wireKey(b)
}

// appendAnomaly appends the event, where there is one.
func (e *encoder) appendAnomaly(b []byte, s *l7.Span) []byte {
	if s.Anomaly == nil {
		return b
	}
	event := append(e.text[:0], tagEventTime)
	event = binary.LittleEndian.AppendUint64(event, uint64(s.Anomaly.At))
	event = appendBytes(event, tagEventName, eventAnomaly)
	event = appendStringAttribute(event, keyAnomalyKind, s.Anomaly.Kind)
	event = appendDoubleAttribute(event, keyAnomalyValue, s.Anomaly.Value)
	event = appendDoubleAttribute(event, keyAnomalyUsual, s.Anomaly.Usual)
	e.text = event
	return appendBytes(b, tagSpanEvent, event)
}
