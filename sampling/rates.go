package sampling

import "time"

// Reason says where a route's rate comes from.
type Reason uint8

// Reasons, the strongest last: the one that a rate has is that of what formed it last.
const (
	ByDefault  Reason = iota // the default rate: nothing else speaks of the route
	ByBudget                 // its share of the budget
	ByBand                   // its service is slow: the latency band has lowered it
	ByPressure               // its workload is under pressure
	ByRemote                 // a remote source
	ByRule                   // a rule, which the controller leaves alone
	ByState                  // the rate that it had before a restart, until a second has been measured
)

var reasonNames = [...]string{"default", "budget", "band", "pressure", "remote", "rule", "state"}

func (r Reason) String() string { return reasonNames[r] }

// Rate is what one route is to be sampled at.
type Rate struct {
	Key uint64
	// Rate is from 0 to 1; below 0 the route has none of its own, and the default holds.
	Rate float64
	// Boost is the rate of an anomaly, below 0 where there is none. The kernel takes the higher of the two.
	Boost float64
	// Floor grants the route a span at its next exchange, if nothing else keeps it.
	Floor  bool
	Reason Reason
}

// Rates is what a step came to. It holds until the next step.
type Rates struct {
	// Base is the rate of what has none of its own.
	Base float64
	// Safety is what remains of every probability, by class, from 0 to 1.
	Safety [Classes]float64
	// Routes are those of the step's Counters, in their order.
	Routes []Rate
	// FloorBudget is how many spans per second floors may take; 0 where there are no floors.
	FloorBudget float64
}

// Load is where the factor of a node or of a service stands.
type Load struct {
	Factor float64 // what remains of the rate, 0 to 1
	State  LoadState
	Cause  string // the signal that is above its mark, or was last
	Since  time.Time
}

// Totals count since the controller was made.
type Totals struct {
	Steps          uint64
	Changes        [len(reasonNames)]uint64 // of rates, by their new reason
	FloorsGranted  uint64                   // routes that were granted a span
	FloorsDeferred uint64                   // times that a route had to wait for one, as others waited longer
	Falls          uint64                   // times that a factor of load was lowered
}

// Summary is what a step knew, for those who want to see why.
type Summary struct {
	Budget  float64 // spans per second, 0: none
	Base    float64 // rate of what has none of its own
	Offered float64 // exchange sides per second of routes that the controller moves
	Asked   float64 // spans per second that its rates should keep
	Others  float64 // spans per second that are kept by rules, callers, the tail; negative where callers refuse
	Level   float64 // spans per second that a route gets at the most
	Node    Load
	Totals  Totals
}
