package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ambit/l7"

	"go.yaml.in/yaml/v3"
)

// ruleField reads the value of one key. field is its path in the rule, as l7.FieldError has it.
type ruleField func(r *ruleReader, field string, n *yaml.Node) error

// ruleKey names what reads the value behind a key.
type ruleKey struct {
	name string
	read ruleField
}

// ruleKeys are the keys of one section of a rule, in the order of the documentation.
type ruleKeys []ruleKey

func ruleTop() ruleKeys {
	return ruleKeys{
		{"name", word(func(r *l7.Rule) *string { return &r.Name })},
		{"match", section(ruleMatch)},
		{"rate", number(func(r *l7.Rule, v float64) { r.Action.Rate = &v })},
		{"drop", truth(func(r *l7.Rule) *bool { return &r.Action.Drop })},
		{"always", truth(func(r *l7.Rule) *bool { return &r.Action.Always })},
		{"slow_threshold", readSlow},
		{"errors", readErrors},
		{"tail_rate", number(func(r *l7.Rule, v float64) { r.Action.TailRate = &v })},
		{"class", word(func(r *l7.Rule) *string { return &r.Action.Class })},
		{"cap", readCap},
		{"parent", word(func(r *l7.Rule) *string { return &r.Action.Parent })},
	}
}

func ruleMatch() ruleKeys {
	return ruleKeys{
		{"service", words(func(r *l7.Rule) *[]string { return &r.Match.Services })},
		{"kind", parsed(l7.ParseKind, func(r *l7.Rule) *[]l7.Kind { return &r.Match.Kinds })},
		{"method", words(func(r *l7.Rule) *[]string { return &r.Match.Methods })},
		{"path", section(rulePath)},
		{"extension", words(func(r *l7.Rule) *[]string { return &r.Match.Extensions })},
		{"host", words(func(r *l7.Rule) *[]string { return &r.Match.Hosts })},
		{"client", parsed(parseClient, func(r *l7.Rule) *[]netip.Addr { return &r.Match.Clients })},
		{"status", words(func(r *l7.Rule) *[]string { return &r.Match.Statuses })},
		{"headers", section(ruleHeaders)},
		{"grpc", readGRPC},
	}
}

func rulePath() ruleKeys {
	return ruleKeys{
		{"exact", words(func(r *l7.Rule) *[]string { return &r.Match.Path.Exact })},
		{"prefix", words(func(r *l7.Rule) *[]string { return &r.Match.Path.Prefixes })},
		{"template", words(func(r *l7.Rule) *[]string { return &r.Match.Path.Templates })},
	}
}

func ruleHeaders() ruleKeys {
	return ruleKeys{
		{"user-agent", headerOf(func(h *l7.HeaderConditions) *l7.HeaderCondition { return &h.UserAgent })},
		{"x-request-id", headerOf(func(h *l7.HeaderConditions) *l7.HeaderCondition { return &h.RequestID })},
		{"content-type", headerOf(func(h *l7.HeaderConditions) *l7.HeaderCondition { return &h.ContentType })},
		{"x-envoy-force-trace", headerOf(func(h *l7.HeaderConditions) *l7.HeaderCondition { return &h.ForceTrace })},
		{"baggage", headerOf(func(h *l7.HeaderConditions) *l7.HeaderCondition { return &h.Baggage })},
	}
}

func ruleGRPC() ruleKeys {
	return ruleKeys{
		{"service", words(func(r *l7.Rule) *[]string { return &r.Match.GRPC.Services })},
		{"method", words(func(r *l7.Rule) *[]string { return &r.Match.GRPC.Methods })},
	}
}

func ruleErrors() ruleKeys {
	return ruleKeys{
		{"statuses", list(func(r *l7.Rule) *[]string { return &r.Action.Errors.Statuses }, plainWord)},
		{"grpc", list(func(r *l7.Rule) *[]l7.GRPCCode { return &r.Action.Errors.GRPC }, l7.ParseGRPCCode)},
		{"endings", list(func(r *l7.Rule) *[]l7.Ending { return &r.Action.Errors.Endings }, l7.ParseEnding)},
	}
}

func (k ruleKeys) names() (names []string) {
	for i := range k {
		names = append(names, k[i].name)
	}
	return names
}

// meantRule guesses the key of a rule behind an unknown one, or lists what is allowed. field is the section, "" for the rule.
func meantRule(keys ruleKeys, field, key string) string {
	if near := Closest(key, keys.names()); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	spelling := strings.ToLower(strings.ReplaceAll(key, "_", "-"))
	for _, s := range []struct {
		name string
		keys ruleKeys
	}{
		{"match", ruleMatch()}, {"match.path", rulePath()}, {"match.headers", ruleHeaders()}, {"match.grpc", ruleGRPC()},
		{"errors", ruleErrors()},
	} {
		for _, name := range s.keys.names() {
			if s.name != field && (name == key || name == spelling) {
				return fmt.Sprintf(", did you mean %q in the section %q?", name, s.name)
			}
		}
	}
	if field != "" && slices.Contains(ruleTop().names(), key) {
		return fmt.Sprintf(", did you mean %q of the rule itself?", key)
	}
	return "; allowed: " + strings.Join(keys.names(), ", ")
}
