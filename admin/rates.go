package admin

import "time"

// Rates is what the kernel decides by where no rule says another rate, and what stands above the rules.
type Rates struct {
	Default float64 `json:"default"` // share of the traces that are kept, 0 to 1
	// Threshold is the same as the kernel has it: 14 hex digits of 56 bits, or "100000000000000", which
	// keeps nothing. A trace is kept when its randomness is at least this.
	Threshold string `json:"threshold"`
	// Override is the share that holds instead of Default and of the rates of all rules; nil where there is none.
	Override   *float64  `json:"override"`
	Source     string    `json:"source"`     // who changed something last
	Generation uint64    `json:"generation"` // counts the changes
	Changed    time.Time `json:"changed"`
	Budgets    []Budget  `json:"budgets"`
}

// Budget bounds spans. Its counters count from the start of the daemon, those of a rule from when it got its cap.
type Budget struct {
	Name    string  `json:"name"`  // node, tail, forced, or "rule " and its name
	Limit   float64 `json:"limit"` // spans per second, 0: none
	Kept    uint64  `json:"kept"`
	Refused uint64  `json:"refused"` // by the raised threshold
	Stopped uint64  `json:"stopped"` // of those, as nothing was left
}

// rateChange is the body of PUT /v1/rates.
type rateChange struct {
	Override *float64 `json:"override"`
}

// stateAnswer is the answer to POST /v1/pause and /v1/resume.
type stateAnswer struct {
	State State `json:"state"`
}
