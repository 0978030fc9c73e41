package sampling

import "time"

// Kind is the side of an exchange that a route's spans are of.
type Kind uint8

// Kinds.
const (
	Client Kind = iota
	Server
)

// Class says who loses first under pressure.
type Class uint8

// Classes, in the kernel's order: the critical loses last.
const (
	Critical Class = iota
	Normal
	Background
	Classes
)

// Route is what a step is told of one route. Counts are totals since the kernel side was loaded, and go up alone; where
// one is less than before, the route has begun anew.
type Route struct {
	Key     uint64
	Service string // as spans name it, "" is not known yet
	Kind    Kind
	Class   Class
	// Fixed tells that the rate is a rule's: the controller can't move it.
	Fixed bool
	// Remote is the rate that a remote source wants, from 0 to 1; below 0 it wants none.
	Remote float64

	Count uint64        // exchange sides
	Kept  uint64        // those that became spans
	Sum   time.Duration // of their latencies
}

// Counters is what a step is told of traffic.
type Counters struct {
	// Routes are all that the kernel tells apart. Their order does not matter.
	Routes []Route
	// Other is the number of exchange sides that are of no route of their own, since the kernel side was loaded: those of
	// new routes before their first answer, of what was not found, of what there was no room for.
	Other uint64
	// Kept and Refused are of the node's budget: spans, and what the valve refused though its rate would have kept it.
	Kept, Refused uint64
}

// Pressure is how much of the time something waits for a resource, from 0 to 1: PSI's "some", or what comes close.
type Pressure struct {
	CPU    float64
	Memory float64
}

// Signals is what a step is told of load.
type Signals struct {
	Node Pressure
	// Self is the share of one CPU that ambit itself uses in userspace.
	Self float64
	// Ring and Queue say how full the ring buffer and the exporter's queue are, from 0 to 1.
	Ring, Queue float64
	// Services has the pressure of workloads, the worst where a service is several; those not in it are under none.
	Services map[string]Pressure
	// Boosted are the routes that behave unlike themselves and are to be sampled more.
	Boosted map[uint64]bool
}
