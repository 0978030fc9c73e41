package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ambit/l7"

	"go.yaml.in/yaml/v3"
)

// maxRules bounds the rules of a file; the kernel's own bound is told by l7.Compile.
const maxRules = 1024

// rules reads sampling.rules. Its errors name the line of what is wrong, as those of every other key do.
func (f configFile) rules(n *yaml.Node) error {
	if n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return f.at(n, "%s: want a list of rules, got %s", keyRules, kindOf(n))
	}
	if len(n.Content) > maxRules {
		return f.at(n, "%s: %d rules are too many; allowed: at most %d", keyRules, len(n.Content), maxRules)
	}
	names := map[string]int{}
	for i, item := range n.Content {
		r := ruleReader{file: f, label: rulePlace(i), nodes: map[string]*yaml.Node{}}
		if err := r.read(item); err != nil {
			return err
		}
		if first := names[r.rule.Name]; first != 0 {
			return f.at(r.nodes["name"], "%s.name: %q is given twice, first in line %d", r.label, r.rule.Name, first)
		}
		names[r.rule.Name] = r.nodes["name"].Line
		f.cfg.Sampling.Rules = append(f.cfg.Sampling.Rules, r.rule)
		f.origins[r.label] = Origin{Source: FromFile, Name: f.path, Line: item.Line}
	}
	f.origins[keyRules] = Origin{Source: FromFile, Name: f.path, Line: n.Line}
	return nil
}

// ruleReader reads one rule.
type ruleReader struct {
	file  configFile
	label string                // of the rule, in errors
	nodes map[string]*yaml.Node // of each field that was given, by the field as l7.FieldError has it
	rule  l7.Rule
}

func (r *ruleReader) at(n *yaml.Node, field, format string, args ...any) error {
	label := r.label
	if field != "" {
		label += "." + field
	}
	return r.file.at(n, "%s: %w", label, fmt.Errorf(format, args...))
}

func (r *ruleReader) read(n *yaml.Node) error {
	if err := r.section(ruleTop(), "", n); err != nil {
		return err
	}
	err := r.rule.Validate()
	var wrong *l7.FieldError
	if !errors.As(err, &wrong) {
		return err
	}
	at := r.nodes[wrong.Field]
	if at == nil {
		at = n
	} else if at.Kind == yaml.SequenceNode && wrong.Item >= 0 && wrong.Item < len(at.Content) {
		at = at.Content[wrong.Item]
	}
	return r.at(at, wrong.Field, "%w", wrong.Err)
}

// section reads the keys of a mapping; field is its own, "" for the rule.
func (r *ruleReader) section(keys ruleKeys, field string, n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return r.at(n, field, "want keys and values, got %s", kindOf(n))
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode {
			return r.at(name, field, "a key must be a word, got %s", kindOf(name))
		}
		key := name.Value
		inner := strings.TrimPrefix(field+"."+key, ".")
		if first := lines[key]; first != 0 {
			return r.at(name, inner, "given twice, first in line %d", first)
		}
		lines[key] = name.Line
		at := slices.IndexFunc(keys, func(k ruleKey) bool { return k.name == key })
		if at < 0 {
			return r.file.at(name, "unknown key %q%s", r.label+"."+inner, meantRule(keys, field, key))
		}
		r.nodes[inner] = value
		if err := keys[at].read(r, inner, value); err != nil {
			return err
		}
	}
	return nil
}

func section(keys func() ruleKeys) ruleField {
	return func(r *ruleReader, field string, n *yaml.Node) error { return r.section(keys(), field, n) }
}

// scalar is a text that is there.
func (r *ruleReader) scalar(field, want string, n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", r.at(n, field, "want %s, got %s", want, kindOf(n))
	}
	return n.Value, nil
}

func word(into func(*l7.Rule) *string) ruleField {
	return func(r *ruleReader, field string, n *yaml.Node) error {
		text, err := r.scalar(field, "a word", n)
		if err == nil && text == "" {
			err = r.at(n, field, "it is empty")
		}
		*into(&r.rule) = text
		return err
	}
}

func plainWord(text string) (string, error) { return text, nil }

func words(into func(*l7.Rule) *[]string) ruleField { return parsed(plainWord, into) }

// parsed reads one text, or a list with at least one.
func parsed[T any](parse func(string) (T, error), into func(*l7.Rule) *[]T) ruleField {
	read := list(into, parse)
	return func(r *ruleReader, field string, n *yaml.Node) error {
		if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
			return r.at(n, field, "an empty list accepts nothing; allowed: one text, or a list")
		}
		return read(r, field, n)
	}
}

// list reads one text, or a list that may be empty: one of nil was not given.
func list[T any](into func(*l7.Rule) *[]T, parse func(string) (T, error)) ruleField {
	return func(r *ruleReader, field string, n *yaml.Node) error {
		items := []*yaml.Node{n}
		if n.Kind == yaml.SequenceNode {
			items = n.Content
		}
		if len(items) > maxItems {
			return r.at(n, field, "%d items are too many; allowed: at most %d", len(items), maxItems)
		}
		values := make([]T, 0, len(items))
		for _, item := range items {
			text, err := r.scalar(field, "a text, or a list of texts", item)
			if err != nil {
				return err
			}
			v, err := parse(text)
			if err != nil {
				return r.at(item, field, "%w", err)
			}
			values = append(values, v)
		}
		*into(&r.rule) = values
		return nil
	}
}

func parseClient(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, fmt.Errorf("%q is no address; allowed: IP addresses", text)
	}
	return a.Unmap(), nil
}

// headerOf reads true for any value, or values, which are quoted where they would be true or false.
func headerOf(into func(*l7.HeaderConditions) *l7.HeaderCondition) ruleField {
	values := words(func(r *l7.Rule) *[]string { return &into(&r.Match.Headers).Values })
	return func(r *ruleReader, field string, n *yaml.Node) error {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
			if n.Value != "true" {
				return r.at(n, field, "%q is no condition; allowed: true for any value, or values, in quotes where they are true or false", n.Value)
			}
			into(&r.rule.Match.Headers).Present = true
			return nil
		}
		return values(r, field, n)
	}
}

func readGRPC(r *ruleReader, field string, n *yaml.Node) error {
	r.rule.Match.GRPC = new(l7.GRPCCondition)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && n.Value == "true" {
		return nil
	}
	return r.section(ruleGRPC(), field, n)
}

func truth(into func(*l7.Rule) *bool) ruleField {
	return func(r *ruleReader, field string, n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			return r.at(n, field, "want a truth value, got %s; allowed: %s", kindOf(n), trueOrFalse.allowed)
		}
		v, err := trueOrFalse.parse(n.Value)
		if err != nil {
			return r.at(n, field, "%w", refused(err, trueOrFalse.allowed))
		}
		*into(&r.rule) = v
		return nil
	}
}

// anyNumber leaves the range to the rule.
var anyNumber = numberIn(-1e300, 1e300)

func number(into func(*l7.Rule, float64)) ruleField {
	return func(r *ruleReader, field string, n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" {
			return r.at(n, field, "want a number, got %s", kindOf(n))
		}
		v, err := anyNumber.parse(n.Value)
		if err != nil {
			return r.at(n, field, "%w; allowed: a number", err)
		}
		into(&r.rule, v)
		return nil
	}
}

func readCap(r *ruleReader, field string, n *yaml.Node) error {
	if err := number(func(rule *l7.Rule, v float64) { rule.Action.Cap = v })(r, field, n); err != nil {
		return err
	}
	if r.rule.Action.Cap == 0 {
		return r.at(n, field, "0 would keep nothing; allowed: spans per second above 0, or drop")
	}
	return nil
}

var slowness = durationIn(time.Microsecond, time.Hour)

func readSlow(r *ruleReader, field string, n *yaml.Node) error {
	text, err := r.scalar(field, "a duration, or off", n)
	if err != nil {
		return err
	}
	never := time.Duration(0)
	r.rule.Action.Slow = &never
	if text == "off" || text == "false" {
		return nil
	}
	if never, err = slowness.parse(text); err != nil {
		return r.at(n, field, "%w, or off", refused(err, slowness.allowed))
	}
	return nil
}

func readErrors(r *ruleReader, field string, n *yaml.Node) error {
	r.rule.Action.Errors = new(l7.ErrorRule)
	if n.Kind == yaml.ScalarNode && (n.Value == "off" || n.Value == "false") {
		r.rule.Action.Errors.Off = true
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return r.at(n, field, "want off, or keys and values, got %s; allowed: off, or some of %s", kindOf(n), strings.Join(ruleErrors().names(), ", "))
	}
	return r.section(ruleErrors(), field, n)
}
