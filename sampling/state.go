package sampling

import (
	"encoding/json"
	"fmt"
	"slices"
)

// StateVersion is that of the form of State. A state of another one is not read.
const StateVersion = 1

// StateMax bounds the routes of a state.
const StateMax = 4096

// RouteName names a route beyond the life of one kernel side, whose keys are made anew each time.
type RouteName struct {
	Service  string `json:"service,omitempty"`
	Kind     Kind   `json:"kind"`
	Method   string `json:"method,omitempty"`
	Template string `json:"template,omitempty"`
	Peer     string `json:"peer,omitempty"` // what a CLIENT route calls, host:port
}

// State is what a controller begins with after a restart.
type State struct {
	Version int          `json:"version"`
	Base    float64      `json:"base"` // share of all that was offered: what routes begin with after a restart
	Node    float64      `json:"node"` // factor of the node's load
	Routes  []StateRoute `json:"routes"`
}

// StateRoute is the rate of one route.
type StateRoute struct {
	RouteName
	Rate float64 `json:"rate"`
}

// Save gives the state; name is asked for the name of each route that has a rate of its own, and may not know it.
func (c *Controller) Save(name func(key uint64) (RouteName, bool)) State {
	s := State{Version: StateVersion, Base: c.base, Node: c.node.Factor}
	if c.summary.Offered > 0 {
		s.Base = min(1, c.summary.Asked/c.summary.Offered)
	}
	for _, r := range c.list {
		if r.rate < 0 || !r.measured || len(s.Routes) == StateMax {
			continue
		}
		if n, ok := name(r.key); ok {
			s.Routes = append(s.Routes, StateRoute{RouteName: n, Rate: r.rate})
		}
	}
	return s
}

// DecodeState reads a state, and says what is wrong with one that can't be used.
func DecodeState(b []byte) (State, error) {
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("decode the state of the controller: %w", err)
	}
	inRange := func(p float64) bool { return p >= 0 && p <= 1 }
	switch {
	case s.Version != StateVersion:
		return State{}, fmt.Errorf("the state of the controller has version %d, and this is for version %d", s.Version, StateVersion)
	case len(s.Routes) > StateMax:
		return State{}, fmt.Errorf("the state of the controller has %d routes, more than %d", len(s.Routes), StateMax)
	case !inRange(s.Base) || !(s.Node > 0 && s.Node <= 1) || slices.ContainsFunc(s.Routes, func(r StateRoute) bool { return !inRange(r.Rate) }):
		return State{}, fmt.Errorf("the state of the controller has rates that are not from 0 to 1")
	}
	return s, nil
}

// Restore has the controller begin with a state, before its first step. Routes get their rates by Begin, as their names
// become known.
func (c *Controller) Restore(s State) {
	c.base, c.restored = s.Base, true
	c.node.Factor = s.Node
}

// Begin gives a route that the last step had, and of which nothing was measured yet, the rate to begin with.
func (c *Controller) Begin(key uint64, rate float64) {
	if r := c.routes[key]; r != nil && !r.measured {
		r.rate, r.reason = rate, ByState
	}
}
