// Package sampling is the controller: from what the kernel counted in the last second and how loaded the node is it works
// out at which rates the kernel is to sample in the next one. It does no I/O and has no clock: time is an argument, and the
// same input gives the same rates.
//
//	Counters ──> offered load of each route ──┐
//	Signals ───> factor of the node           ├──> shares of the budget ──> Rates
//	             factors of services ─────────┤
//	latencies ─> band of services ────────────┘
//
// Between two steps the budget is defended by the valve in the kernel, which raises thresholds as the budget is used up. So
// a step need not be careful: it asks for a little more than the budget, and the valve takes that off again.
//
// Memory is bounded by the caller: a Controller keeps about 700 bytes for each route that it was given in the last step,
// the rates of its history among them, and 200 for each service. docs/sampling.md describes the method.
package sampling
