package exporter

import (
	"ambit/l7"

	"go.opentelemetry.io/otel/attribute"
)

// Attributes of an HTTP/2 stream, which no convention has.
const (
	attributeStream    = attribute.Key("ambit.http2.stream")
	attributeErrorCode = attribute.Key("ambit.http2.error_code")
	attributeResetBy   = attribute.Key("ambit.reset_by")
)

var (
	keyStream     = newWireKey(attributeStream, tagAnyInt)
	keyErrorCode  = newWireKey(attributeErrorCode, tagAnyString)
	resetByClient = constantAttribute(attributeResetBy.String("client"))
	resetByServer = constantAttribute(attributeResetBy.String("server"))
)

// appendStream appends which stream of its connection the exchange was, and who ended it early, with which code:
// error.type tells of a call what gRPC makes of that.
func appendStream(b []byte, s *l7.Span) []byte {
	if s.Stream != 0 {
		b = appendIntAttribute(b, keyStream, int64(s.Stream))
	}
	switch {
	case s.Ending == l7.EndedByStreamReset && s.ResetByClient:
		b = append(b, resetByClient...)
	case s.Ending == l7.EndedByStreamReset, s.Ending == l7.EndedByRefusal:
		b = append(b, resetByServer...)
	default:
		return b
	}
	return appendStringAttribute(b, keyErrorCode, s.ErrorCode.String())
}
