package daemon

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"ambit/l7"

	"go.yaml.in/yaml/v3"
)

// keyed builds the mapping of a rule in the order in which the documentation has it.
type keyed struct{ node yaml.Node }

func newKeyed() *keyed { return &keyed{yaml.Node{Kind: yaml.MappingNode}} }

func (k *keyed) put(name string, value *yaml.Node) {
	key := new(yaml.Node)
	key.SetString(name)
	k.node.Content = append(k.node.Content, key, value)
}

func (k *keyed) empty() bool { return len(k.node.Content) == 0 }

// section puts a mapping that has something.
func (k *keyed) section(name string, inner *keyed) {
	if !inner.empty() {
		k.put(name, &inner.node)
	}
}

func textNode(text string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(text)
	return n
}

func plainNode(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// texts puts a list, if it has items.
func (k *keyed) texts(name string, items []string) {
	if len(items) > 0 {
		k.list(name, items)
	}
}

func (k *keyed) list(name string, items []string) {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, item := range items {
		n.Content = append(n.Content, textNode(item))
	}
	k.put(name, n)
}

func (k *keyed) text(name, value string) {
	if value != "" {
		k.put(name, textNode(value))
	}
}

func (k *keyed) number(name string, value *float64) {
	if value != nil {
		k.put(name, plainNode("", strconv.FormatFloat(*value, 'g', -1, 64)))
	}
}

func (k *keyed) flag(name string, value bool) {
	if value {
		k.put(name, plainNode("!!bool", "true"))
	}
}

func (k *keyed) header(name string, h *l7.HeaderCondition) {
	k.flag(name, h.Present)
	k.texts(name, h.Values)
}

func spelt[T any](items []T, spell func(T) string) []string {
	texts := make([]string, 0, len(items))
	for _, item := range items {
		texts = append(texts, spell(item))
	}
	return texts
}

// ruleNode spells a rule as the file has it; read again it is the same.
func ruleNode(r *l7.Rule) *yaml.Node {
	k := newKeyed()
	k.put("name", textNode(r.Name))
	k.section("match", matchOf(&r.Match))
	a := &r.Action
	k.number("rate", a.Rate)
	k.flag("drop", a.Drop)
	k.flag("always", a.Always)
	k.flag("force", a.Force) // which no file has: of "ambit trace"
	if a.Slow != nil {
		text := showDuration(*a.Slow)
		if *a.Slow == 0 {
			text = "off"
		}
		k.put("slow_threshold", plainNode("", text))
	}
	if a.Errors != nil {
		k.put("errors", errorsNode(a.Errors))
	}
	k.number("tail_rate", a.TailRate)
	k.text("class", a.Class)
	if a.Cap > 0 {
		k.number("cap", &a.Cap)
	}
	k.text("parent", a.Parent)
	return &k.node
}

func matchOf(m *l7.Conditions) *keyed {
	k := newKeyed()
	k.texts("service", m.Services)
	k.texts("kind", spelt(m.Kinds, func(kind l7.Kind) string { return strings.ToLower(kind.String()) }))
	k.texts("method", m.Methods)
	path := newKeyed()
	path.texts("exact", m.Path.Exact)
	path.texts("prefix", m.Path.Prefixes)
	path.texts("template", m.Path.Templates)
	k.section("path", path)
	k.texts("extension", m.Extensions)
	k.texts("host", m.Hosts)
	for i, a := range m.Clients {
		if i == 0 {
			k.list("client", nil)
		}
		list := k.node.Content[len(k.node.Content)-1]
		list.Content = append(list.Content, textNode(a.String()))
	}
	k.texts("status", m.Statuses)
	headers := newKeyed()
	headers.header("user-agent", &m.Headers.UserAgent)
	headers.header("x-request-id", &m.Headers.RequestID)
	headers.header("content-type", &m.Headers.ContentType)
	headers.header("x-envoy-force-trace", &m.Headers.ForceTrace)
	headers.header("baggage", &m.Headers.Baggage)
	k.section("headers", headers)
	if m.GRPC != nil {
		grpc := newKeyed()
		grpc.texts("service", m.GRPC.Services)
		grpc.texts("method", m.GRPC.Methods)
		if grpc.empty() {
			k.flag("grpc", true)
		}
		k.section("grpc", grpc)
	}
	return k
}

func errorsNode(e *l7.ErrorRule) *yaml.Node {
	if e.Off {
		return plainNode("", "off")
	}
	k := newKeyed()
	if e.Statuses != nil {
		k.list("statuses", e.Statuses)
	}
	if e.GRPC != nil {
		k.list("grpc", spelt(e.GRPC, l7.GRPCCode.String))
	}
	if e.Endings != nil {
		k.list("endings", spelt(e.Endings, l7.Ending.String))
	}
	if k.empty() {
		k.node.Style = yaml.FlowStyle
	}
	return &k.node
}

// yamlLines spells the rules as a part of the section sampling; the first line of each says where it is from.
func (s *SamplingConfig) yamlLines(origins Origins) ([]shownLine, error) {
	if len(s.Rules) == 0 {
		return []shownLine{{"  rules: []", origins[keyRules].String()}}, nil
	}
	out := []shownLine{{"  rules:", origins[keyRules].String()}}
	for i := range s.Rules {
		text, err := blockYAML(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{ruleNode(&s.Rules[i])}})
		if err != nil {
			return nil, err
		}
		origin := origins[rulePlace(i)].String()
		for line := range strings.Lines(text) {
			out = append(out, shownLine{"    " + strings.TrimRight(line, "\n"), origin})
			origin = ""
		}
	}
	return out, nil
}

func blockYAML(n *yaml.Node) (string, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(n); err != nil {
		return "", err
	}
	return out.String(), encoder.Close()
}

// row is the rules as `ambit config --json` prints them.
func (s *SamplingConfig) row(o Origin) (shown, error) {
	rules := make([]any, 0, len(s.Rules))
	for i := range s.Rules {
		v, err := rulePlain(&s.Rules[i])
		if err != nil {
			return shown{}, err
		}
		rules = append(rules, v)
	}
	return shown{Key: keyRules, Value: rules, Source: o.Source.String(), Name: o.Name, Line: o.Line}, nil
}

// rulePlain is a rule for an encoder of JSON, with the keys of the file.
func rulePlain(r *l7.Rule) (map[string]any, error) {
	var v map[string]any
	if err := ruleNode(r).Decode(&v); err != nil {
		return nil, fmt.Errorf("write rule %q: %w", r.Name, err)
	}
	return v, nil
}

// ruleText is what a rule says, without its name, on one line.
func ruleText(r *l7.Rule) (string, error) {
	n := ruleNode(r)
	n.Content = n.Content[2:] // the name
	flow(n)
	text, err := blockYAML(n)
	if err != nil {
		return "", fmt.Errorf("write rule %q: %w", r.Name, err)
	}
	text = strings.Join(strings.Fields(text), " ") // a long one is broken into lines
	return strings.TrimSuffix(strings.TrimPrefix(text, "{"), "}"), nil
}

func flow(n *yaml.Node) {
	n.Style |= yaml.FlowStyle
	for _, inner := range n.Content {
		if inner.Kind != yaml.ScalarNode {
			flow(inner)
		}
	}
}
