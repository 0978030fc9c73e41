package exporter

import (
	"encoding/binary"
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
	keyRequestType     = newWireKey(semconv.HTTPRequestHeader("content-type").Key, tagAnyArray)
	keyResponseType    = newWireKey(semconv.HTTPResponseHeader("content-type").Key, tagAnyArray)
	keyRequestID       = newWireKey(semconv.HTTPRequestHeader("x-request-id").Key, tagAnyArray)
	keyTimeToFirstByte = newWireKey(attributeTimeToFirstByte, tagAnyDouble)

	// Attributes that are the same on every span that has them.
	network     = constantAttribute(semconv.NetworkTransportTCP) + constantAttribute(semconv.NetworkProtocolName("http"))
	networkIPv4 = network + constantAttribute(semconv.NetworkTypeIPv4)
	networkIPv6 = network + constantAttribute(semconv.NetworkTypeIPv6)
	joined      = string(appendBoolAttribute(nil, newWireKey(attributeJoined, tagAnyBool), true))
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

// encoder writes spans and resources as OTLP. Its buffers are reused, so it serves one goroutine.
type encoder struct {
	capture  Capture
	repaired uint64 // strings that were not UTF-8
	query    []byte // what is shown of the query
	text     []byte

	call, callStatus                                              memo
	method, scheme, serverAddress, version, userAgent, traceState memo
	name                                                          requestMemo
	sampling                                                      samplingMemo

	named, host string // the last span's Host, and serverHost of it
	// Client and server have different neighbours.
	peer, local [l7.Server + 1]addressMemo
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

// spanHead is the fields that every span has and whose size is fixed, with zeros for their values; what they are is
// in appendSpan. spanParent comes behind it on a span that has a parent.
var (
	spanHead = string([]byte{
		0: tagSpanTraceID, 1: 16, 18: tagSpanSpanID, 19: 8, 28: tagSpanKind, 30: tagSpanStart, 39: tagSpanEnd,
		48: tagSpanFlags&0x7f | 0x80, 49: tagSpanFlags >> 7, 53: 0,
	})
	spanParent = string([]byte{0: tagSpanParentID, 1: 8, 9: 0})
)

// appendSpan appends s as the body of an OTLP Span.
func (e *encoder) appendSpan(b []byte, s *l7.Span) []byte {
	rpcStatus, failure := outcomeOf(s)
	kind, flags := byte(kindServer), uint32(s.TraceFlags)|flagSampled
	if s.Kind == l7.Client {
		kind = kindClient
	}
	hasParent := s.ParentID != [8]byte{}
	if hasParent && s.Kind == l7.Server {
		flags |= flagRemoteKnown | flagRemote
	}
	b = append(b, spanHead...)
	head := b[len(b)-len(spanHead):]
	copy(head[2:18], s.TraceID[:])
	copy(head[20:28], s.SpanID[:])
	head[29] = kind
	binary.LittleEndian.PutUint64(head[31:], uint64(s.Start))
	binary.LittleEndian.PutUint64(head[40:], uint64(s.End))
	binary.LittleEndian.PutUint32(head[50:], flags)
	if hasParent {
		b = append(b, spanParent...)
		copy(b[len(b)-8:], s.ParentID[:])
	}
	if s.TraceState != "" {
		if !e.traceState.holds(s.TraceState) {
			text := e.valid(s.TraceState)
			e.traceState = memo{text, appendBytes(e.traceState.wire[:0], tagSpanTraceState, text)}
		}
		b = append(b, e.traceState.wire...)
	}
	if s.RPC == l7.NoRPC {
		b = e.appendMethod(b, s)
	} else {
		b = e.appendCall(b, s, rpcStatus)
	}
	b = e.appendRequest(b, s)
	b = e.appendNetwork(b, s)
	b = e.appendResponse(b, s)
	b = appendStream(b, s)
	if failure != "" {
		b = appendStringAttribute(b, keyErrorType, failure)
		b = e.appendError(b, s)
	}
	return b
}

// appendError appends the status of a span that failed. Only gRPC gives it a description.
func (e *encoder) appendError(b []byte, s *l7.Span) []byte {
	if s.RPC == l7.NoRPC || s.GRPCMessage == "" || !e.capture.GRPCMessage {
		return append(b, tagSpanStatus, 2, tagStatusCode, statusError)
	}
	message := e.valid(s.GRPCMessage)
	b = append(b, tagSpanStatus)
	b = appendLength(b, sizeBytes(len(message))+2)
	b = appendBytes(b, tagStatusMessage, message)
	return append(b, tagStatusCode, statusError)
}

func (e *encoder) appendRequest(b []byte, s *l7.Span) []byte {
	t := targetOf(s, e.hostOf(s))
	requestID := keyRequestID
	if s.RPC == l7.GRPC {
		requestID = keyMetadataRequestID // and rpc.method says what url.* would
	} else {
		b = e.appendURL(b, s, t)
	}
	if t.host != "" {
		b = e.appendAgain(b, &e.serverAddress, keyServerAddress, t.host)
	} else if t.addr.IsValid() {
		e.text = t.addr.AppendTo(e.text[:0])
		b = appendStringAttribute(b, keyServerAddress, e.text)
	}
	if t.known() && t.port != 0 {
		b = appendIntAttribute(b, keyServerPort, int64(t.port))
	}
	if s.UserAgent != "" {
		b = e.appendAgain(b, &e.userAgent, keyUserAgent, s.UserAgent)
	}
	if s.RequestID != "" {
		b = appendStringsAttribute(b, requestID, e.valid(s.RequestID))
	}
	if s.RequestType != "" && e.capture.ContentType {
		b = appendStringsAttribute(b, keyRequestType, e.valid(s.RequestType))
	}
	if s.RequestBody > 0 {
		b = appendIntAttribute(b, keyRequestBody, s.RequestBody)
	}
	return e.appendMissing(b, s)
}

// appendURL appends what the request asked of t.
func (e *encoder) appendURL(b []byte, s *l7.Span, t target) []byte {
	path := e.valid(s.Path)
	if path != "" {
		b = appendStringAttribute(b, keyPath, path)
		b = e.appendRoute(b, s)
	}
	hasQuery := s.HasQuery && e.capture.Query != QueryNone
	if hasQuery {
		e.query = appendQuery(e.query[:0], e.valid(s.Query), e.capture.Query)
		b = appendStringAttribute(b, keyQuery, e.query)
	}
	if s.Scheme != "" {
		b = e.appendAgain(b, &e.scheme, keyScheme, s.Scheme)
	}
	// Without its path it would be another URL: of CONNECT alone there is none.
	if s.Kind == l7.Client && s.Scheme != "" && t.known() && !(path == "" && s.RequestUnknown) {
		e.text = t.appendURL(e.text[:0], e.scheme.value, path)
		if hasQuery {
			e.text = append(e.text, '?')
			e.text = append(e.text, e.query...)
		}
		b = appendStringAttribute(b, keyURL, e.text)
	}
	return b
}

// hostOf is serverHost of the span's Host.
func (e *encoder) hostOf(s *l7.Span) string {
	if s.Host != e.named {
		e.named = e.valid(s.Host)
		e.host = serverHost(e.named)
	}
	return e.host
}

func (e *encoder) appendNetwork(b []byte, s *l7.Span) []byte {
	local, remote := s.Local.Addr().Unmap(), s.Remote.Addr().Unmap()
	switch {
	case remote.Is4() || !remote.IsValid() && local.Is4():
		b = append(b, networkIPv4...)
	case remote.Is6() || local.Is6():
		b = append(b, networkIPv6...)
	default:
		b = append(b, network...)
	}
	if s.Version != "" {
		b = e.appendAgain(b, &e.version, keyVersion, s.Version)
	}
	if remote.IsValid() {
		port := int64(s.Remote.Port())
		if s.Kind == l7.Client {
			b = e.appendAddress(b, &e.peer[l7.Client], remote, keyPeerAddress)
		} else {
			b = e.appendAddress(b, &e.peer[l7.Server], remote, keyPeerAddress, keyClientAddress)
			b = appendIntAttribute(b, keyClientPort, port)
		}
		b = appendIntAttribute(b, keyPeerPort, port)
	}
	if local.IsValid() {
		b = e.appendAddress(b, &e.local[s.Kind], local, keyLocalAddress)
		b = appendIntAttribute(b, keyLocalPort, int64(s.Local.Port()))
	}
	return b
}

func (e *encoder) appendResponse(b []byte, s *l7.Span) []byte {
	// Every call has 200 that went as gRPC has it go.
	if s.Status != 0 && !(s.RPC == l7.GRPC && s.Status == 200) {
		b = appendIntAttribute(b, keyStatus, int64(s.Status))
	}
	if s.ResponseType != "" && e.capture.ContentType {
		b = appendStringsAttribute(b, keyResponseType, e.valid(s.ResponseType))
	}
	if s.ResponseBody > 0 {
		b = appendIntAttribute(b, keyResponseBody, s.ResponseBody)
	}
	if s.FirstByte != 0 && s.FirstByte >= s.Start {
		b = appendDoubleAttribute(b, keyTimeToFirstByte, float64(s.FirstByte-s.Start)/1e9)
	}
	b = e.appendSampling(b, s)
	b = e.appendAnomaly(b, s)
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
