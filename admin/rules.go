package admin

import (
	"errors"
	"fmt"
	"time"
)

// RuleSet is the rules in force, in the order in which they are asked.
type RuleSet struct {
	RulesStatus
	Rules []Rule `json:"rules"`
}

// Rule is one of them.
type Rule struct {
	Place  int            `json:"place"` // from 0
	Name   string         `json:"name"`
	Origin string         `json:"origin"` // FILE:LINE, "shipped", "ambit trace" or "behind all"
	Rule   map[string]any `json:"rule"`   // with the keys of the configuration file
	Text   string         `json:"text"`   // the same on one line, without the name
}

// RulesStatus is how the rules fare.
type RulesStatus struct {
	Generation uint32    `json:"generation"` // counts the sets that were put in force
	Count      int       `json:"count"`
	Loaded     time.Time `json:"loaded"` // when the configuration was read that they are from
	// LastError says why the latest configuration was not taken; empty where it was.
	LastError     string    `json:"last_error,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
}

// MaxForceFor is the longest that spans are forced for by one request.
const MaxForceFor = time.Hour

// ForceRequest asks for the spans of some requests, whatever the rules say, within the budget of forced spans. At least
// one of Service and Path is given.
type ForceRequest struct {
	Service string   `json:"service,omitempty"` // name, or its beginning with "*" behind
	Path    string   `json:"path,omitempty"`    // whole, or with placeholders such as {id}, or its first segments with "/*" behind
	Methods []string `json:"methods,omitempty"`
	Seconds float64  `json:"seconds"`
}

// Validate checks what needs no daemon.
func (r *ForceRequest) Validate() error {
	if r.Service == "" && r.Path == "" {
		return errors.New("neither a service nor a path is given: everything would be forced")
	}
	if most := MaxForceFor.Seconds(); !(r.Seconds > 0 && r.Seconds <= most) {
		return fmt.Errorf("%v seconds are out of range; allowed: above 0 and up to %v", r.Seconds, most)
	}
	return nil
}

// Forcing is a request for spans that was taken.
type Forcing struct {
	ID      string    `json:"id"`   // for DELETE /v1/forced/ID
	Rule    string    `json:"rule"` // name of the rule
	Expires time.Time `json:"expires"`
	Over    bool      `json:"over"`  // it has expired, or was ended
	Limit   float64   `json:"limit"` // forced spans per second of the node, 0: none
	Kept    uint64    `json:"kept"`  // forced spans of the node since it began
}
