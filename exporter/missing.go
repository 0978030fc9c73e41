package exporter

import (
	"ambit/l7"

	"go.opentelemetry.io/otel/attribute"
)

// Attributes that tell what a span lacks.
const (
	attributeCut     = attribute.Key("ambit.cut")
	attributeUnknown = attribute.Key("ambit.unknown")
)

var (
	keyCut     = newWireKey(attributeCut, tagAnyArray)
	keyUnknown = newWireKey(attributeUnknown, tagAnyArray)

	unknownRequest  = string(appendStringsAttribute(nil, keyUnknown, "request"))
	unknownResponse = string(appendStringsAttribute(nil, keyUnknown, "response"))
	unknownBoth     = string(appendStringsAttribute(nil, keyUnknown, "request", "response"))
)

// cutNames are the elements of ambit.cut.
var cutNames = [...]struct {
	cut  l7.Cut
	name string
}{
	{l7.CutRequestLine, "request_line"},
	{l7.CutMethod, "method"},
	{l7.CutPath, "path"},
	{l7.CutScheme, "scheme"},
	{l7.CutHost, "host"},
	{l7.CutUserAgent, "user_agent"},
	{l7.CutRequestID, "x-request-id"},
	{l7.CutTraceState, "tracestate"},
	{l7.CutContentType, "request.content-type"},
	{l7.CutResponseType, "response.content-type"},
	{l7.CutGRPCMessage, "grpc-message"},
}

// appendMissing appends what was cut, as far as it is sent, and which head is unknown in part.
func (e *encoder) appendMissing(b []byte, s *l7.Span) []byte {
	switch {
	case s.RequestUnknown && s.ResponseUnknown:
		b = append(b, unknownBoth...)
	case s.RequestUnknown:
		b = append(b, unknownRequest...)
	case s.ResponseUnknown:
		b = append(b, unknownResponse...)
	}
	if s.Cut == 0 {
		return b
	}
	cut := s.Cut
	if !e.capture.ContentType {
		cut &^= l7.CutContentType | l7.CutResponseType
	}
	if !e.capture.GRPCMessage {
		cut &^= l7.CutGRPCMessage
	}
	var names [len(cutNames)]string
	n := 0
	for _, c := range cutNames {
		if cut&c.cut != 0 {
			names[n] = c.name
			n++
		}
	}
	if n > 0 {
		b = appendStringsAttribute(b, keyCut, names[:n]...)
	}
	return b
}
