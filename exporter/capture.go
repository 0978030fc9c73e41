package exporter

import "fmt"

// Capture says what is sent, where that is a choice.
type Capture struct {
	// Query is also what is shown of queries.
	Query QueryCapture
	// GRPCMessage sends a failed call's grpc-message, as the description of the span's status.
	GRPCMessage bool
	// ContentType sends the content types of request and response.
	ContentType bool
	// GuessedRoute sends guessed templates as http.route, and in names of spans, as those that rules give.
	GuessedRoute bool
}

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
