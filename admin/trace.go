package admin

import "time"

// TraceSummary is one trace in a list.
type TraceSummary struct {
	TraceID    string    `json:"trace_id"` // 32 hex digits
	Start      time.Time `json:"start"`
	DurationNS int64     `json:"duration_ns"` // first start to last end
	Spans      int       `json:"spans"`       // that are kept
	Omitted    int       `json:"omitted"`     // that came and are not
	Errors     int       `json:"errors"`      // of Spans
	Services   int       `json:"services"`    // how many are in it
	// Name and Service are those of the span that it began with, as far as it is known.
	Name    string `json:"name"`
	Service string `json:"service"`
}

// TraceDetail is one trace with its spans.
type TraceDetail struct {
	TraceSummary
	SpanList []Span `json:"span_list"`
	// Waterfall is the trace as text: a line that sums it up, and one for each span. It is plain, without
	// colours.
	Waterfall string `json:"waterfall"`
}

// Span is one exchange side that was kept.
type Span struct {
	SpanID     string    `json:"span_id"`             // 16 hex digits
	ParentID   string    `json:"parent_id,omitempty"` // empty: a root
	Kind       string    `json:"kind"`                // CLIENT or SERVER
	Name       string    `json:"name"`
	Service    string    `json:"service"`
	Start      time.Time `json:"start"`
	DurationNS int64     `json:"duration_ns"`
	Error      string    `json:"error,omitempty"`         // error.type; empty: none
	Message    string    `json:"error_message,omitempty"` // what the failed call said of it
	TraceState string    `json:"trace_state,omitempty"`
	// Attributes are those that the exporter would send, by key; values are strings or whole numbers.
	Attributes map[string]any `json:"attributes,omitempty"`
	// Resource holds the attributes of the service that the span belongs to.
	Resource map[string]any `json:"resource,omitempty"`
}
