// Package exporter takes spans out of ambit: over OTLP to a collector, into a bounded store in memory, and
// as lines on a terminal.
//
//	l7.Span -> encoder -> queue -> batch -> otlptracegrpc | otlptracehttp     OTLP
//	        -> copy -> traces, the least recently changed evicted             Store
//	        -> line, made safe for a terminal -> bounded channel -> writer    Printer
package exporter

import (
	"context"
	"fmt"

	"ambit/l7"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// SemconvVersion is the version of OpenTelemetry's semantic conventions that every attribute follows. The
// import of semconv names it a second time; a test holds the two equal.
const SemconvVersion = "1.43.0"

// SchemaURL is sent with every resource and scope.
const SchemaURL = semconv.SchemaURL

// ScopeName is the instrumentation scope of every span.
const ScopeName = "ambit"

// A Sink takes finished spans. Add keeps no pointer to the span that it is given, never blocks on a peer and
// counts what it cannot take. No Add may follow Close.
type Sink interface {
	Add(*l7.Span)
	Close(context.Context) error
}

var (
	_ Sink = (*OTLP)(nil)
	_ Sink = (*Store)(nil)
	_ Sink = (*Printer)(nil)
)

// QueryCapture says what is shown of a request's query, wherever ambit shows one.
type QueryCapture uint8

const (
	// QueryKeys keeps the keys and replaces every value. It is the default.
	QueryKeys QueryCapture = iota
	// QueryValues keeps the query as it was sent.
	QueryValues
	// QueryNone leaves the query out, and that there was one.
	QueryNone
)

var queryCaptures = [...]string{QueryKeys: "keys", QueryValues: "values", QueryNone: "none"}

func (q QueryCapture) String() string {
	return queryCaptures[q]
}

// ParseQueryCapture reads the value of capture.query.
func ParseQueryCapture(s string) (QueryCapture, error) {
	for q, name := range queryCaptures {
		if s == name {
			return QueryCapture(q), nil
		}
	}
	return 0, fmt.Errorf("capture.query: %q is none of keys, values, none", s)
}
