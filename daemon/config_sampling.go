package daemon

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"ambit/l7"
)

const (
	// maxSpans is the most spans per second that a budget can be.
	maxSpans = 1e6
	// tailShare is how much of the node's budget the tail has at the most, where nobody says.
	tailShare = 0.25
	// forceHeader is the header that may force a span.
	forceHeader = "x-envoy-force-trace"
)

// defaultNames are those of the shipped rules.
var defaultNames = func() (names []string) {
	for _, r := range l7.DefaultRules() {
		names = append(names, r.Name)
	}
	return names
}()

// maxMultiple is the largest multiple of a p99.
const maxMultiple = 1000

// multiple is 0, or at least 1: of what is below a p99 there is too much.
var multiple = func() codec[float64] {
	c := numberIn(0, maxMultiple)
	number := c.parse
	c.allowed = fmt.Sprintf("0, or a number from 1 to %d", maxMultiple)
	c.parse = func(text string) (float64, error) {
		v, err := number(text)
		if err == nil && v > 0 && v < 1 {
			err = fmt.Errorf("%s is out of range", text)
		}
		return v, err
	}
	return c
}()

var defaultRules = func() codec[string] {
	c := oneOf(append([]string{"on", "off"}, defaultNames...)...)
	word := c.parse
	c.allowed = "on, off, or any of " + strings.Join(defaultNames, ", ")
	c.parse = func(text string) (string, error) {
		switch text {
		case "true":
			return "on", nil
		case "false":
			return "off", nil
		}
		return word(text)
	}
	return c
}()

func checkDefaultRules(names []string) error {
	if len(names) == 0 {
		return errors.New("an empty list says nothing")
	}
	for i, n := range names {
		if (n == "on" || n == "off") && len(names) > 1 {
			return fmt.Errorf("%q stands alone", n)
		}
		if slices.Contains(names[:i], n) {
			return fmt.Errorf("%q is given twice", n)
		}
	}
	return nil
}

// defaults are the shipped rules that hold, in their own order.
func (s *SamplingConfig) defaults() (rules []l7.Rule) {
	for _, r := range l7.DefaultRules() {
		if s.Defaults[0] == "on" || slices.Contains(s.Defaults, r.Name) {
			rules = append(rules, r)
		}
	}
	return rules
}

// all are the rules in the order in which they are asked, but for the one behind them all.
func (s *SamplingConfig) all() []l7.Rule {
	return append(slices.Clone(s.Rules), s.defaults()...)
}

// validate checks the rules as a whole, where there are some.
func (s *SamplingConfig) validate() error {
	if err := s.Control.validate(); err != nil {
		return err
	}
	if len(s.Rules) == 0 {
		return nil
	}
	shipped := s.defaults()
	for i := range s.Rules {
		r := &s.Rules[i]
		if slices.ContainsFunc(shipped, func(d l7.Rule) bool { return d.Name == r.Name }) {
			err := fmt.Errorf("%q is a shipped rule's; allowed: another name, or sampling.defaults without it", r.Name)
			return &l7.RuleError{Rule: i, Name: r.Name, Err: &l7.FieldError{Field: "name", Item: -1, Err: err}}
		}
	}
	_, err := l7.Compile(s.all(), 1)
	return err
}

// rulePlace is the key of one rule of the file.
func rulePlace(place int) string { return fmt.Sprintf("%s[%d]", keyRules, place) }

// rulesAt puts an error of the rules as a whole where they were written.
func rulesAt(origins Origins, err error) error {
	key, one := keyRules, new(l7.RuleError)
	if errors.As(err, &one) {
		key, err = rulePlace(one.Rule), one.Err
	}
	at := origins[key]
	if at.Source != FromFile {
		return err
	}
	if key == keyRules {
		return fmt.Errorf("%s: %s: %w", at, key, err)
	}
	return fmt.Errorf("%s: %s.%w", at, key, err)
}

// stateFileOf is the default of where rates survive a restart: in the directory that systemd gives a service.
func stateFileOf(cfg *Config, origins Origins, env map[string]string) {
	const variable = "STATE_DIRECTORY"
	dir, _, _ := strings.Cut(env[variable], ":")
	if origins[keyState].Source != FromDefault || !path.IsAbs(dir) {
		return
	}
	cfg.Sampling.Control.State = path.Join(dir, "rates.json")
	origins[keyState] = Origin{Note: variable + " is set"}
}

// tailBudgetOf makes the default of the tail's budget fit the node's.
func tailBudgetOf(cfg *Config, origins Origins) {
	s := &cfg.Sampling
	most := s.Budget * tailShare
	if origins[keyTailBudget].Source != FromDefault || s.Budget == 0 || most >= s.TailBudget {
		return
	}
	s.TailBudget = most
	origins[keyTailBudget] = Origin{Note: "a quarter of sampling.budget"}
}
