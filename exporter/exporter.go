// Package exporter takes spans out of ambit: over OTLP to a collector, into a bounded store in memory, and
// as lines on a terminal.
//
//	l7.Span -> encoder -> queue -> batch -> otlptracegrpc | otlptracehttp     OTLP
//	        -> copy -> traces, the least recently changed evicted             Store
//	        -> line, made safe for a terminal -> bounded channel -> writer    Printer
package exporter

import (
	"context"

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
