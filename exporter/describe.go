package exporter

import (
	"fmt"

	"ambit/l7"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Description is a span as a collector would see it.
type Description struct {
	Name       string
	Error      string         // error.type, "" is none
	Message    string         // the status's description
	TraceState string         // with ot=th, where the span has a threshold
	Attributes map[string]any // string, int64, float64 or []any of them
}

// Describe gives what the exporter would send of s, by way of its own encoding.
func Describe(s *l7.Span, capture Capture) (Description, error) {
	e := encoder{capture: capture}
	var sent tracepb.Span
	if err := proto.Unmarshal(e.appendSpan(nil, s), &sent); err != nil {
		return Description{}, fmt.Errorf("decode a span: %w", err)
	}
	d := Description{
		Name:       sent.Name,
		Error:      failureOf(s),
		Message:    sent.Status.GetMessage(),
		TraceState: sent.TraceState,
		Attributes: make(map[string]any, len(sent.Attributes)),
	}
	for _, a := range sent.Attributes {
		d.Attributes[a.Key] = plain(a.Value)
	}
	return d, nil
}

func plain(v *commonpb.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return v.IntValue
	case *commonpb.AnyValue_DoubleValue:
		return v.DoubleValue
	case *commonpb.AnyValue_BoolValue:
		return v.BoolValue
	case *commonpb.AnyValue_ArrayValue:
		list := make([]any, len(v.ArrayValue.GetValues()))
		for i, e := range v.ArrayValue.GetValues() {
			list[i] = plain(e)
		}
		return list
	}
	return nil
}
