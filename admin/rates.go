package admin

import "time"

// Rates is what the kernel decides by.
type Rates struct {
	Default float64 `json:"default"` // share of the traces that are kept, 0 to 1
	// Threshold is the same as the kernel has it: 14 hex digits of 56 bits, or "100000000000000", which
	// keeps nothing. A trace is kept when its randomness is at least this.
	Threshold  string    `json:"threshold"`
	Source     string    `json:"source"`     // who set it
	Generation uint64    `json:"generation"` // counts the changes
	Changed    time.Time `json:"changed"`
}

// rateChange is the body of PUT /v1/rates.
type rateChange struct {
	Default *float64 `json:"default"`
}

// stateAnswer is the answer to POST /v1/pause and /v1/resume.
type stateAnswer struct {
	State State `json:"state"`
}
