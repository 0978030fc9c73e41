package exporter

import (
	"encoding/binary"
	"strconv"
	"strings"
	"unicode/utf8"

	"ambit/l7"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"google.golang.org/protobuf/encoding/protowire"
)

// Attributes that no convention has.
const (
	attributeTimeToFirstByte = attribute.Key("ambit.time_to_first_byte")
	attributeSamplingReason  = attribute.Key("ambit.sampling.reason")
	attributeCut             = attribute.Key("ambit.cut")
	attributeJoined          = attribute.Key("ambit.connection.joined")
)

var (
	keyServerAddress   = newWireKey(semconv.ServerAddressKey, tagAnyString)
	keyServerPort      = newWireKey(semconv.ServerPortKey, tagAnyInt)
	keyClientAddress   = newWireKey(semconv.ClientAddressKey, tagAnyString)
	keyClientPort      = newWireKey(semconv.ClientPortKey, tagAnyInt)
	keyPeerAddress     = newWireKey(semconv.NetworkPeerAddressKey, tagAnyString)
	keyPeerPort        = newWireKey(semconv.NetworkPeerPortKey, tagAnyInt)
	keyLocalAddress    = newWireKey(semconv.NetworkLocalAddressKey, tagAnyString)
	keyLocalPort       = newWireKey(semconv.NetworkLocalPortKey, tagAnyInt)
	keyMethod          = newWireKey(semconv.HTTPRequestMethodKey, tagAnyString)
	keyMethodOriginal  = newWireKey(semconv.HTTPRequestMethodOriginalKey, tagAnyString)
	keyPath            = newWireKey(semconv.URLPathKey, tagAnyString)
	keyQuery           = newWireKey(semconv.URLQueryKey, tagAnyString)
	keyURL             = newWireKey(semconv.URLFullKey, tagAnyString)
	keyScheme          = newWireKey(semconv.URLSchemeKey, tagAnyString)
	keyVersion         = newWireKey(semconv.NetworkProtocolVersionKey, tagAnyString)
	keyUserAgent       = newWireKey(semconv.UserAgentOriginalKey, tagAnyString)
	keyStatus          = newWireKey(semconv.HTTPResponseStatusCodeKey, tagAnyInt)
	keyErrorType       = newWireKey(semconv.ErrorTypeKey, tagAnyString)
	keyRequestBody     = newWireKey(semconv.HTTPRequestBodySizeKey, tagAnyInt)
	keyResponseBody    = newWireKey(semconv.HTTPResponseBodySizeKey, tagAnyInt)
	keyRequestID       = newWireKey(semconv.HTTPRequestHeader("x-request-id").Key, tagAnyArray)
	keyTimeToFirstByte = newWireKey(attributeTimeToFirstByte, tagAnyDouble)
	keySamplingReason  = newWireKey(attributeSamplingReason, tagAnyString)
	keyCut             = newWireKey(attributeCut, tagAnyArray)

	// Attributes that are the same on every span that has them.
	transportTCP = constantAttribute(semconv.NetworkTransportTCP)
	protocolHTTP = constantAttribute(semconv.NetworkProtocolName("http"))
	typeIPv4     = constantAttribute(semconv.NetworkTypeIPv4)
	typeIPv6     = constantAttribute(semconv.NetworkTypeIPv6)
	joined       = string(appendBoolAttribute(nil, newWireKey(attributeJoined, tagAnyBool), true))
)

func constantAttribute(kv attribute.KeyValue) string {
	return string(appendStringAttribute(nil, newWireKey(kv.Key, tagAnyString), kv.Value.AsString()))
}

// Values of enums in opentelemetry.proto, and of Span.flags.
const (
	kindServer  = 2
	kindClient  = 3
	statusError = 2

	flagSampled     = 0x001
	flagRemoteKnown = 0x100 // is_remote is told
	flagRemote      = 0x200
)

// cutNames are the elements of ambit.cut, by bit.
var cutNames = [...]string{"request_line", "host", "user_agent", "x-request-id", "tracestate"}

// encoder writes spans and resources as OTLP. Its buffer is reused, so it serves one goroutine.
type encoder struct {
	capture  QueryCapture
	repaired uint64 // strings that were not UTF-8
	query    []byte // what is shown of the query
	text     []byte
}

// valid is s, or a repaired copy of it: one bad byte would make the collector refuse the whole batch. What
// made the span sees to it already, so this is the last line of defence.
func (e *encoder) valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	e.repaired++
	return strings.ToValidUTF8(s, "\uFFFD")
}

// appendSpan appends s as the body of an OTLP Span.
func (e *encoder) appendSpan(b []byte, s *l7.Span) []byte {
	failure := failureOf(s)
	b = appendBytes(b, tagSpanTraceID, s.TraceID[:])
	b = appendBytes(b, tagSpanSpanID, s.SpanID[:])
	if s.TraceState != "" {
		b = appendBytes(b, tagSpanTraceState, e.valid(s.TraceState))
	}
	flags := uint32(s.TraceFlags) | flagSampled
	if s.ParentID != [8]byte{} {
		b = appendBytes(b, tagSpanParentID, s.ParentID[:])
		if s.Kind == l7.Server {
			flags |= flagRemoteKnown | flagRemote
		}
	}
	b = appendBytes(b, tagSpanName, e.valid(spanName(s)))
	kind := byte(kindServer)
	if s.Kind == l7.Client {
		kind = kindClient
	}
	b = append(b, tagSpanKind, kind)
	b = append(b, tagSpanStart)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Start))
	b = append(b, tagSpanEnd)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.End))
	b = e.appendRequest(b, s)
	b = e.appendNetwork(b, s)
	b = appendResponse(b, s, failure)
	if failure != "" {
		b = append(b, tagSpanStatus, 2, tagStatusCode, statusError)
	}
	b = protowire.AppendVarint(b, tagSpanFlags)
	return binary.LittleEndian.AppendUint32(b, flags)
}

// spanName is the method alone: ambit knows no route, and a path would make a name per request.
func spanName(s *l7.Span) string {
	if s.Method == "" || s.Method == "_OTHER" {
		return "HTTP"
	}
	return s.Method
}

// failureOf is the value of error.type, "" for an exchange that did not fail: the status where it is an
// error, else how the exchange ended.
func failureOf(s *l7.Span) string {
	switch st := s.Status; {
	case st == 0:
	case st < 100, st >= 500, st >= 400 && s.Kind == l7.Client:
		return statusText(st)
	}
	switch s.Ending {
	case l7.EndedByClose:
		return "connection_closed"
	case l7.EndedByReset:
		return "connection_reset"
	case l7.EndedByIdle:
		return "timeout"
	}
	return ""
}

// errorStatuses saves an allocation for each failed request.
var errorStatuses = func() (t [200]string) {
	for i := range t {
		t[i] = strconv.Itoa(400 + i)
	}
	return t
}()

func statusText(status int) string {
	if status >= 400 && status < 600 {
		return errorStatuses[status-400]
	}
	return strconv.Itoa(status)
}

func (e *encoder) appendRequest(b []byte, s *l7.Span) []byte {
	if s.Method != "" {
		b = appendStringAttribute(b, keyMethod, e.valid(s.Method))
	}
	if s.MethodOriginal != "" {
		b = appendStringAttribute(b, keyMethodOriginal, e.valid(s.MethodOriginal))
	}
	path, scheme := e.valid(s.Path), e.valid(s.Scheme)
	if path != "" {
		b = appendStringAttribute(b, keyPath, path)
	}
	hasQuery := s.HasQuery && e.capture != QueryNone
	if hasQuery {
		e.query = appendQuery(e.query[:0], e.valid(s.Query), e.capture)
		b = appendStringAttribute(b, keyQuery, e.query)
	}
	if scheme != "" {
		b = appendStringAttribute(b, keyScheme, scheme)
	}
	t := targetOf(s, e.valid(s.Host))
	if t.host != "" {
		b = appendStringAttribute(b, keyServerAddress, t.host)
	} else if t.addr.IsValid() {
		e.text = t.addr.AppendTo(e.text[:0])
		b = appendStringAttribute(b, keyServerAddress, e.text)
	}
	if t.known() && t.port != 0 {
		b = appendIntAttribute(b, keyServerPort, int64(t.port))
	}
	if s.Kind == l7.Client && scheme != "" && t.known() {
		e.text = t.appendURL(e.text[:0], scheme, path)
		if hasQuery {
			e.text = append(e.text, '?')
			e.text = append(e.text, e.query...)
		}
		b = appendStringAttribute(b, keyURL, e.text)
	}
	if s.UserAgent != "" {
		b = appendStringAttribute(b, keyUserAgent, e.valid(s.UserAgent))
	}
	if s.RequestID != "" {
		b = appendStringsAttribute(b, keyRequestID, e.valid(s.RequestID))
	}
	if s.RequestBody > 0 {
		b = appendIntAttribute(b, keyRequestBody, s.RequestBody)
	}
	if s.Cut != 0 {
		var names [len(cutNames)]string
		n := 0
		for i, name := range cutNames {
			if s.Cut&(1<<i) != 0 {
				names[n] = name
				n++
			}
		}
		if n > 0 {
			b = appendStringsAttribute(b, keyCut, names[:n]...)
		}
	}
	return b
}

func (e *encoder) appendNetwork(b []byte, s *l7.Span) []byte {
	b = append(b, transportTCP...)
	b = append(b, protocolHTTP...)
	if s.Version != "" {
		b = appendStringAttribute(b, keyVersion, e.valid(s.Version))
	}
	local, remote := s.Local.Addr().Unmap(), s.Remote.Addr().Unmap()
	switch {
	case remote.Is4() || !remote.IsValid() && local.Is4():
		b = append(b, typeIPv4...)
	case remote.Is6() || local.Is6():
		b = append(b, typeIPv6...)
	}
	if remote.IsValid() {
		e.text = remote.AppendTo(e.text[:0])
		b = appendStringAttribute(b, keyPeerAddress, e.text)
		b = appendIntAttribute(b, keyPeerPort, int64(s.Remote.Port()))
		if s.Kind == l7.Server {
			b = appendStringAttribute(b, keyClientAddress, e.text)
			b = appendIntAttribute(b, keyClientPort, int64(s.Remote.Port()))
		}
	}
	if local.IsValid() {
		e.text = local.AppendTo(e.text[:0])
		b = appendStringAttribute(b, keyLocalAddress, e.text)
		b = appendIntAttribute(b, keyLocalPort, int64(s.Local.Port()))
	}
	return b
}

func appendResponse(b []byte, s *l7.Span, failure string) []byte {
	if s.Status != 0 {
		b = appendIntAttribute(b, keyStatus, int64(s.Status))
	}
	if failure != "" {
		b = appendStringAttribute(b, keyErrorType, failure)
	}
	if s.ResponseBody > 0 {
		b = appendIntAttribute(b, keyResponseBody, s.ResponseBody)
	}
	if s.FirstByte != 0 && s.FirstByte >= s.Start {
		b = appendDoubleAttribute(b, keyTimeToFirstByte, float64(s.FirstByte-s.Start)/1e9)
	}
	if s.Reason != 0 {
		b = appendStringAttribute(b, keySamplingReason, s.Reason.String())
	}
	if s.Joined {
		b = append(b, joined...)
	}
	return b
}

// unknownService is the resource of a span that has none: the conventions demand a service.name.
var unknownService = l7.Resource{
	ServiceName: "unknown_service",
	Attributes:  []l7.Attribute{{Key: string(semconv.ServiceNameKey), Str: "unknown_service"}},
}

// appendResource appends r as the body of an OTLP Resource.
func (e *encoder) appendResource(b []byte, r *l7.Resource) []byte {
	for i := range r.Attributes {
		a := &r.Attributes[i]
		name := e.valid(a.Key)
		var any int
		value := ""
		if a.IsInt {
			any = 1 + protowire.SizeVarint(uint64(a.Int))
		} else {
			value = e.valid(a.Str)
			any = sizeBytes(len(value))
		}
		b = append(b, tagResourceAttribute)
		b = appendLength(b, sizeBytes(len(name))+sizeBytes(any))
		b = appendBytes(b, tagKey, name)
		b = append(b, tagValue)
		b = appendLength(b, any)
		if a.IsInt {
			b = append(b, tagAnyInt)
			b = protowire.AppendVarint(b, uint64(a.Int))
		} else {
			b = appendBytes(b, tagAnyString, value)
		}
	}
	return b
}
