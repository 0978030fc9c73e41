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
	// Control is nil where rates are not moved.
	Control *Control `json:"control"`
	// Routes are those that were asked for, the busiest first, and Anomalies the latest events, newest first.
	Routes    []RouteRate `json:"routes"`
	Anomalies []Anomaly   `json:"anomalies"`
}

// Control is what the controller of rates knew in its last step.
type Control struct {
	Offered        float64           `json:"offered"` // exchange sides per second of routes that it moves
	Asked          float64           `json:"asked"`   // spans per second that its rates should keep of them
	Others         float64           `json:"others"`  // spans per second that are kept by rules, callers, the tail
	Level          float64           `json:"level"`   // spans per second that a route gets at the most
	Load           Load              `json:"load"`    // of the node
	Steps          uint64            `json:"steps"`
	StepSeconds    float64           `json:"step_seconds"`    // of the last
	ControlSeconds float64           `json:"control_seconds"` // of all
	Changes        map[string]uint64 `json:"changes"`         // of rates, by their reason
	FloorsGranted  uint64            `json:"floors_granted"`
	FloorsDeferred uint64            `json:"floors_deferred"`
	Falls          uint64            `json:"falls"` // times that a factor of load was lowered
	// AnomaliesFound counts events by kind.
	AnomaliesFound map[string]uint64 `json:"anomalies_found"`
}

// Load is where a factor of load stands.
type Load struct {
	Factor float64   `json:"factor"` // what remains of rates, 0 to 1
	State  string    `json:"state"`
	Cause  string    `json:"cause"`
	Since  time.Time `json:"since"`
}

// RouteRate is the rate of one route.
type RouteRate struct {
	Service string   `json:"service"`
	Kind    string   `json:"kind"`
	Method  string   `json:"method"`
	Route   string   `json:"route"` // the template
	Host    string   `json:"host"`  // that a client calls
	Offered float64  `json:"offered"`
	Rate    *float64 `json:"rate"` // nil where it is a rule's
	Spans   float64  `json:"spans"`
	Boost   *float64 `json:"boost"` // the rate of an anomaly, nil where there is none
	Reason  string   `json:"reason"`
	// Load is of its service's workload, Band what the latency band leaves, 0 to 1.
	Load    Load         `json:"load"`
	Band    float64      `json:"band"`
	Kept    time.Time    `json:"kept"` // when its latest span was kept, to a second
	History []RateChange `json:"history"`
	// Words tell the last decisions, one sentence each.
	Words []string `json:"words,omitempty"`
}

// RateChange is one change of a route's rate.
type RateChange struct {
	At      time.Time `json:"at"`
	From    *float64  `json:"from"` // nil: the default, or a rule's
	To      *float64  `json:"to"`
	Reason  string    `json:"reason"`
	Offered float64   `json:"offered"`
}

// Anomaly is one event of a route that behaves unlike itself.
type Anomaly struct {
	At      time.Time `json:"at"`
	Until   time.Time `json:"until"` // end of the boost
	Kind    string    `json:"kind"`
	Service string    `json:"service"`
	Method  string    `json:"method"`
	Route   string    `json:"route"`
	Value   float64   `json:"value"` // of latency seconds, of errors the ratio
	Usual   float64   `json:"usual"`
}

// RatesQuery says which routes are asked for.
type RatesQuery struct {
	Limit   int    // 0 asks for none
	Service string // "" is all
	// Route is a template, or a method, a blank and a template; "" is all. Words are told of those that it names.
	Route string
}

// MaxRates is the most routes that are told at once.
const MaxRates = 8192

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

// stateAnswer is the answer to POST /v1/pause, /v1/resume and /v1/handover.
type stateAnswer struct {
	State State `json:"state"`
}
