package exporter

import (
	"encoding/binary"
	"math"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/encoding/protowire"
)

// OTLP's messages are written here in their wire format, field by field, and not as Go messages: a span of
// twenty attributes is some seventy Go objects, and protobuf takes 8 microseconds to measure and to marshal
// them, against a quarter of one for this. Tests read everything back with the generated types.

// Tags (field number << 3 | wire type) of opentelemetry.proto, which fit one byte each except where noted.
const (
	tagRequestResourceSpans = 1<<3 | 2

	tagResourceSpansResource  = 1<<3 | 2
	tagResourceSpansScope     = 2<<3 | 2
	tagResourceSpansSchemaURL = 3<<3 | 2

	tagScopeSpansScope     = 1<<3 | 2
	tagScopeSpansSpan      = 2<<3 | 2
	tagScopeSpansSchemaURL = 3<<3 | 2

	tagScopeName    = 1<<3 | 2
	tagScopeVersion = 2<<3 | 2

	tagResourceAttribute = 1<<3 | 2

	tagSpanTraceID    = 1<<3 | 2
	tagSpanSpanID     = 2<<3 | 2
	tagSpanTraceState = 3<<3 | 2
	tagSpanParentID   = 4<<3 | 2
	tagSpanName       = 5<<3 | 2
	tagSpanKind       = 6 << 3
	tagSpanStart      = 7<<3 | 1
	tagSpanEnd        = 8<<3 | 1
	tagSpanAttribute  = 9<<3 | 2
	tagSpanEvent      = 11<<3 | 2
	tagSpanStatus     = 15<<3 | 2
	tagSpanFlags      = 16<<3 | 5 // two bytes

	tagEventTime      = 1<<3 | 1
	tagEventName      = 2<<3 | 2
	tagEventAttribute = 3<<3 | 2

	tagStatusMessage = 2<<3 | 2
	tagStatusCode    = 3 << 3

	tagKey        = 1<<3 | 2
	tagValue      = 2<<3 | 2
	tagAnyString  = 1<<3 | 2
	tagAnyBool    = 2 << 3
	tagAnyInt     = 3 << 3
	tagAnyDouble  = 4<<3 | 1
	tagAnyArray   = 5<<3 | 2
	tagArrayValue = 1<<3 | 2
)

// wireKey is an attribute of a span up to its value: the tag and length of the KeyValue, the key, the tag and
// length of the AnyValue, and the tag of what that holds. The lengths are 0 here; they are known with the
// value, and fit a byte each unless that is long.
type wireKey string

func newWireKey(k attribute.Key, anyTag byte) wireKey {
	b := []byte{tagSpanAttribute, 0, tagKey}
	b = protowire.AppendString(b, string(k))
	return wireKey(append(b, tagValue, 0, anyTag))
}

// sizeBytes is the size of a field with a one-byte tag that holds n bytes.
func sizeBytes(n int) int {
	return 1 + protowire.SizeVarint(uint64(n)) + n
}

// appendLength is protowire.AppendVarint with the usual case inlined.
func appendLength(b []byte, n int) []byte {
	if n < 0x80 {
		return append(b, byte(n))
	}
	return protowire.AppendVarint(b, uint64(n))
}

// appendBytes appends a field with a one-byte tag that holds v.
func appendBytes[T string | []byte](b []byte, tag byte, v T) []byte {
	b = append(b, tag)
	b = appendLength(b, len(v))
	return append(b, v...)
}

// appendKey appends key with its lengths, for an AnyValue of size bytes of which the first is in key.
func appendKey(b []byte, key wireKey, size int) []byte {
	at := len(b)
	if total := len(key) - 3 + size; total < 0x80 {
		b = append(b, key...)
		b[at+1], b[len(b)-2] = byte(total), byte(size)
		return b
	}
	b = append(b, key[0])
	b = appendLength(b, len(key)-4+protowire.SizeVarint(uint64(size))+size)
	b = append(b, key[2:len(key)-2]...)
	b = appendLength(b, size)
	return append(b, key[len(key)-1])
}

func appendStringAttribute[T string | []byte](b []byte, key wireKey, v T) []byte {
	if total := len(key) - 1 + len(v); total < 0x80 {
		// The usual case of what follows, in one go.
		at := len(b)
		b = append(b, key...)
		b = append(b, byte(len(v)))
		b[at+1], b[len(b)-3] = byte(total), byte(2+len(v))
		return append(b, v...)
	}
	b = appendKey(b, key, sizeBytes(len(v)))
	b = appendLength(b, len(v))
	return append(b, v...)
}

func appendStringsAttribute(b []byte, key wireKey, v ...string) []byte {
	array := 0
	for _, s := range v {
		array += sizeBytes(sizeBytes(len(s)))
	}
	b = appendKey(b, key, sizeBytes(array))
	b = appendLength(b, array)
	for _, s := range v {
		b = append(b, tagArrayValue)
		b = appendLength(b, sizeBytes(len(s)))
		b = appendBytes(b, tagAnyString, s)
	}
	return b
}

func appendIntAttribute(b []byte, key wireKey, v int64) []byte {
	at := len(b)
	b = append(b, key...)
	b = protowire.AppendVarint(b, uint64(v))
	setLengths(b[at:], key)
	return b
}

func appendDoubleAttribute(b []byte, key wireKey, v float64) []byte {
	at := len(b)
	b = append(b, key...)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	setLengths(b[at:], key)
	return b
}

func appendBoolAttribute(b []byte, key wireKey, v bool) []byte {
	at := len(b)
	b = append(b, key...)
	b = append(b, byte(protowire.EncodeBool(v)))
	setLengths(b[at:], key)
	return b
}

// setLengths sets the lengths of an attribute whose value is a number: they fit a byte each.
func setLengths(attribute []byte, key wireKey) {
	attribute[1], attribute[len(key)-2] = byte(len(attribute)-2), byte(len(attribute)-len(key)+1)
}
