package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/l7"
	"ambit/remote"
	"ambit/sampling"
)

// ControlConfig says what moves rates. It can change while the daemon runs, but for State.
type ControlConfig struct {
	// Mode is "auto" (on where there is a budget of the node, a service or a class, a latency band, or remote sampling), "on" or "off".
	Mode string
	// Services and Classes have budgets of their own, in spans per second, within that of the node.
	Services, Classes []named
	// Load is "on" or "off"; Marks are those that differ from the shipped ones.
	Load  string
	Marks []loadMark
	// Anomalies is "on" or "off".
	Anomalies string
	Band      BandConfig
	Remote    RemoteConfig
	// State is the file that rates survive a restart in, "" is none.
	State string
}

// BandConfig is the latency band.
type BandConfig struct {
	// Services are names, or prefixes that end with *; none has no band.
	Services  []string
	High, Low time.Duration
	Least     float64
}

// RemoteConfig is Jaeger's remote sampling protocol, both ways.
type RemoteConfig struct {
	// Endpoint is asked for rates, each Interval; empty asks nobody.
	Endpoint string
	Interval time.Duration
	// Listen is ADDRESS:PORT where SDKs ask; empty serves nobody.
	Listen string
}

// named is a number with a name.
type named struct {
	name  string
	value float64
}

// loadMark is the low and the high mark of one signal of load.
type loadMark struct {
	signal string
	marks  sampling.Marks
}

// loadSignals are the signals that have marks, and where their marks are.
var loadSignals = []struct {
	name  string
	marks func(*sampling.LoadConfig) *sampling.Marks
}{
	{"node_cpu", func(l *sampling.LoadConfig) *sampling.Marks { return &l.NodeCPU }},
	{"node_memory", func(l *sampling.LoadConfig) *sampling.Marks { return &l.NodeMemory }},
	{"self", func(l *sampling.LoadConfig) *sampling.Marks { return &l.Self }},
	{"buffers", func(l *sampling.LoadConfig) *sampling.Marks { return &l.Buffers }},
	{"cpu", func(l *sampling.LoadConfig) *sampling.Marks { return &l.CPU }},
	{"memory", func(l *sampling.LoadConfig) *sampling.Marks { return &l.Memory }},
}

func loadNames() (names []string) {
	for _, s := range loadSignals {
		names = append(names, s.name)
	}
	return names
}

var classNames = [sampling.Classes]string{sampling.Critical: "critical", sampling.Normal: "normal", sampling.Background: "background"}

// namedBudget is NAME=SPANS; names lists those that there are, nil takes any.
func namedBudget(names []string, example string) codec[named] {
	number := numberIn(0, maxSpans)
	return codec[named]{
		noun: "budget", allowed: fmt.Sprintf("a name and spans per second such as %s, up to %v", example, int(maxSpans)),
		parse: func(text string) (named, error) {
			name, value, found := strings.Cut(text, "=")
			name = strings.TrimSpace(name)
			if !found || name == "" {
				return named{}, fmt.Errorf("%q is no name with a number", text)
			}
			if names != nil && !slices.Contains(names, name) {
				return named{}, fmt.Errorf("%q is none of %s", name, strings.Join(names, ", "))
			}
			v, err := number.parse(strings.TrimSpace(value))
			return named{name, v}, err
		},
		show: func(n named) string { return n.name + "=" + showFloat(n.value) },
	}
}

// once refuses a list in which two items have the same name.
func once[T any](name func(T) string) func([]T) error {
	return func(list []T) error {
		for i, item := range list {
			if slices.ContainsFunc(list[:i], func(o T) bool { return name(o) == name(item) }) {
				return fmt.Errorf("%q is given twice", name(item))
			}
		}
		return nil
	}
}

// loadMarks is SIGNAL=LOW:HIGH.
var loadMarks = codec[loadMark]{
	noun: "mark", allowed: "a signal (" + strings.Join(loadNames(), ", ") + ") with its low and high mark from 0 to 1, such as cpu=0.2:0.4",
	parse: func(text string) (loadMark, error) {
		name, both, found := strings.Cut(text, "=")
		low, high, two := strings.Cut(both, ":")
		if name = strings.TrimSpace(name); !found || !two {
			return loadMark{}, fmt.Errorf("%q is no signal with two marks", text)
		}
		if !slices.Contains(loadNames(), name) {
			return loadMark{}, fmt.Errorf("%q is no signal", name)
		}
		m := loadMark{signal: name}
		for to, text := range map[*float64]string{&m.marks.Low: low, &m.marks.High: high} {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil || !(v >= 0 && v <= 1) {
				return loadMark{}, fmt.Errorf("%q is no mark", text)
			}
			*to = v
		}
		if m.marks.Low > m.marks.High {
			return loadMark{}, fmt.Errorf("the low mark %v is above the high one", m.marks.Low)
		}
		return m, nil
	},
	show: func(m loadMark) string {
		return m.signal + "=" + showFloat(m.marks.Low) + ":" + showFloat(m.marks.High)
	},
}

var servicePattern = codec[string]{
	noun: "service", allowed: "names of services, or the beginning of some and *",
	parse: func(text string) (string, error) {
		if text == "" {
			return "", errors.New("an empty name is no service")
		}
		if at := strings.IndexByte(text, '*'); at >= 0 && at != len(text)-1 {
			return "", fmt.Errorf("%q has a * that is not its end", text)
		}
		return text, nil
	},
	show: func(v string) string { return v },
}

var remoteEndpoint = codec[string]{
	noun: "endpoint", allowed: remote.Schemes + ", or empty", show: text,
	parse: func(v string) (string, error) {
		if v == "" {
			return "", nil
		}
		if err := checkPlain(v); err != nil {
			return "", err
		}
		return v, remote.CheckEndpoint(v)
	},
}

// on tells whether rates are moved.
func (c *ControlConfig) on(budget float64) bool {
	switch c.Mode {
	case "on":
		return true
	case "auto":
		return budget > 0 || len(c.Services)+len(c.Classes) > 0 || len(c.Band.Services) > 0 || c.Remote.Endpoint != "" || c.Remote.Listen != ""
	}
	return false
}

// validate checks what no single setting knows.
func (c *ControlConfig) validate() error {
	if c.Band.Low > c.Band.High {
		return fmt.Errorf("sampling.band.low: %v is above sampling.band.high, %v", c.Band.Low, c.Band.High)
	}
	return nil
}

// controller is the configuration in the controller's terms.
func (s *SamplingConfig) controller(rate float64) sampling.Config {
	c := sampling.DefaultConfig(rate)
	c.Budget = s.Budget
	if len(s.Control.Services) > 0 {
		c.Services = make(map[string]float64, len(s.Control.Services))
		for _, b := range s.Control.Services {
			c.Services[b.name] = b.value
		}
	}
	for _, b := range s.Control.Classes {
		c.Classes[slices.Index(classNames[:], b.name)] = b.value
	}
	for _, m := range s.Control.Marks {
		for _, signal := range loadSignals {
			if signal.name == m.signal {
				*signal.marks(&c.Load) = m.marks
			}
		}
	}
	band := s.Control.Band
	c.Band = sampling.BandConfig{High: band.High, Low: band.Low, Least: band.Least}
	if len(band.Services) > 0 {
		c.Band.On = func(service string) bool {
			return slices.ContainsFunc(band.Services, func(pattern string) bool { return l7.MatchesService(pattern, service) })
		}
	}
	return c
}
