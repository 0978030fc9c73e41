package admin

import (
	"context"
	"net/http"
)

// Backend is the daemon as the API needs it. Its methods are called concurrently. An *Error chooses the
// answer's status; any other error is answered with 500.
type Backend interface {
	// State answers /healthz and /readyz and must not wait for anything.
	State() State
	// Status may take as long as its context allows.
	Status(context.Context) (Status, error)
	// Rates tells the rates in force, and those of the routes that are asked for.
	Rates(RatesQuery) (Rates, error)
	// SetRates puts a share of traces, from 0 to 1, in force in the kernel above the rates of all rules; ClearRates
	// takes it away.
	SetRates(ctx context.Context, share float64) (Rates, error)
	ClearRates(context.Context) (Rates, error)
	// Rules returns the rules in force.
	Rules() (RuleSet, error)
	// Reload reads the configuration anew and puts its rules, rates and budgets in force.
	Reload(context.Context) (RuleSet, error)
	// Force keeps the spans of some requests until it expires or Unforce ends it; Forcing tells how it fares.
	Force(context.Context, ForceRequest) (Forcing, error)
	Forcing(id string) (Forcing, error)
	Unforce(ctx context.Context, id string) (Forcing, error)
	// Pause detaches everything, Resume attaches it again; both are no error where it is so already.
	// Their context does not end with the caller's connection.
	Pause(context.Context) error
	Resume(context.Context) error
	// HandOver has the daemon leave everything to another one, which asks.
	HandOver(context.Context) error
	// Top tells of the routes. It may take a second.
	Top(context.Context) (Top, error)
	// Traces returns the latest n, newest first.
	Traces(n int) ([]TraceSummary, error)
	// Trace returns the one trace whose ID begins with these hex digits; width is the columns of its waterfall,
	// 0 leaves them to the daemon.
	Trace(id string, width int) (TraceDetail, error)
}

// Error is an answer that is no success. Its text goes to the caller as it is.
type Error struct {
	Status  int // of HTTP
	Message string
}

func (e *Error) Error() string { return e.Message }

// NotFound says that there is no such thing.
func NotFound(message string) error { return &Error{http.StatusNotFound, message} }

// Unavailable says that the daemon cannot do this as it is configured, or in its present state.
func Unavailable(message string) error { return &Error{http.StatusServiceUnavailable, message} }
