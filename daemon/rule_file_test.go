package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"ambit/l7"
)

// everyRule is a file whose rules use everything that a rule can say.
const everyRule = `sampling:
  budget: 200
  defaults: [kubelet, favicon]
  rules:
    - name: checkout
      match:
        service: checkout*
        kind: server
        method: [GET, POST]
        path: {template: "/users/{id}"}
        extension: [css]
        host: "*.example.com"
        client: [10.0.0.1, "fd00::1"]
        status: [4xx, none]
        headers:
          user-agent: curl
          x-request-id: true
          content-type: [text/html]
          x-envoy-force-trace: "true"
          baggage: [k, a=b]
      rate: 0.5
      slow_threshold: 250ms
      errors: {statuses: [5xx, 404], grpc: [UNAVAILABLE, 4], endings: []}
      tail_rate: 1e-3
      class: critical
      cap: 0.5
      parent: scale
    - name: calls
      match:
        kind: [client, server]
        grpc: {service: shop.Cart, method: [Add, Get]}
      always: true
      errors: {}
    - name: all-calls
      match: {grpc: true}
      slow_threshold: off
      errors: off
    - {name: gone, match: {path: {prefix: [/old, /older/]}}, drop: true}
    - {name: exact, match: {path: {exact: /a}}, errors: {endings: reset}, drop: false}
`

func TestEveryRuleIsRead(t *testing.T) {
	path := writeFile(t, everyRule)
	cfg, origins, err := Load(Sources{File: path})
	if err != nil {
		t.Fatal(err)
	}
	half, thousandth, quarter, never := 0.5, 1e-3, 250*time.Millisecond, time.Duration(0)
	value := func(v ...string) l7.HeaderCondition { return l7.HeaderCondition{Values: v} }
	want := []l7.Rule{
		{Name: "checkout", Match: l7.Conditions{
			Services: []string{"checkout*"}, Kinds: []l7.Kind{l7.Server}, Methods: []string{"GET", "POST"},
			Path: l7.PathCondition{Templates: []string{"/users/{id}"}}, Extensions: []string{"css"}, Hosts: []string{"*.example.com"},
			Clients:  []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
			Statuses: []string{"4xx", "none"},
			Headers: l7.HeaderConditions{
				UserAgent: value("curl"), RequestID: l7.HeaderCondition{Present: true}, ContentType: value("text/html"),
				ForceTrace: value("true"), Baggage: value("k", "a=b"),
			},
		}, Action: l7.RuleAction{
			Rate: &half, Slow: &quarter, TailRate: &thousandth, Class: "critical", Cap: 0.5, Parent: "scale",
			Errors: &l7.ErrorRule{Statuses: []string{"5xx", "404"}, GRPC: []l7.GRPCCode{l7.GRPCUnavailable, l7.GRPCDeadlineExceeded}, Endings: []l7.Ending{}},
		}},
		{Name: "calls", Match: l7.Conditions{
			Kinds: []l7.Kind{l7.Client, l7.Server}, GRPC: &l7.GRPCCondition{Services: []string{"shop.Cart"}, Methods: []string{"Add", "Get"}},
		}, Action: l7.RuleAction{Always: true, Errors: &l7.ErrorRule{}}},
		{Name: "all-calls", Match: l7.Conditions{GRPC: &l7.GRPCCondition{}}, Action: l7.RuleAction{Slow: &never, Errors: &l7.ErrorRule{Off: true}}},
		{Name: "gone", Match: l7.Conditions{Path: l7.PathCondition{Prefixes: []string{"/old", "/older/"}}}, Action: l7.RuleAction{Drop: true}},
		{Name: "exact", Match: l7.Conditions{Path: l7.PathCondition{Exact: []string{"/a"}}}, Action: l7.RuleAction{Errors: &l7.ErrorRule{Endings: []l7.Ending{l7.EndedByReset}}}},
	}
	if !reflect.DeepEqual(cfg.Sampling.Rules, want) {
		for i := range want {
			t.Errorf("rule %d:\ngot  %+v\nwant %+v", i, cfg.Sampling.Rules[i], want[i])
		}
	}
	for i, line := range []int{5, 28, 34, 38, 39} {
		if got := origins[fmt.Sprintf("sampling.rules[%d]", i)].String(); got != fmt.Sprintf("%s:%d", path, line) {
			t.Errorf("rule %d is from %s, want line %d", i, got, line)
		}
	}
	if cfg.Sampling.TailBudget != 50 || origins[keyTailBudget].String() != "default, as a quarter of sampling.budget" {
		t.Errorf("tail budget %v from %s", cfg.Sampling.TailBudget, origins[keyTailBudget])
	}
	if all := cfg.Sampling.all(); len(all) != 7 || all[5].Name != "kubelet" || all[6].Name != "favicon" {
		t.Errorf("all rules: %+v", all)
	}
}

// What is shown is a file that says the same.
func TestRulesAreShown(t *testing.T) {
	path := writeFile(t, everyRule)
	cfg, origins, err := Load(Sources{File: path})
	if err != nil {
		t.Fatal(err)
	}
	var yaml, plain bytes.Buffer
	if err := cfg.WriteYAML(&yaml, origins, nil); err != nil {
		t.Fatal(err)
	}
	again, _, err := Load(Sources{File: writeFile(t, yaml.String())})
	if err != nil || !reflect.DeepEqual(again.Sampling, cfg.Sampling) {
		t.Errorf("read again: %v\ngot  %+v\nwant %+v\n%s", err, again.Sampling, cfg.Sampling, yaml.String())
	}
	if !strings.Contains(yaml.String(), "    - name: gone ") || !strings.Contains(yaml.String(), "# "+path+":39\n") {
		t.Errorf("no line of a rule in\n%s", yaml.String())
	}
	if err := cfg.WriteJSON(&plain, origins, nil); err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Key   string
		Value any
		Line  int
	}
	if err := json.Unmarshal(plain.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	last := rows[len(rows)-1]
	rules, _ := last.Value.([]any)
	if last.Key != "sampling.rules" || last.Line != 5 || len(rules) != 5 {
		t.Fatalf("%+v", last)
	}
	want := map[string]any{"name": "gone", "match": map[string]any{"path": map[string]any{"prefix": []any{"/old", "/older/"}}}, "drop": true}
	if !reflect.DeepEqual(rules[3], want) {
		t.Errorf("got  %v\nwant %v", rules[3], want)
	}
	text, err := ruleText(&cfg.Sampling.Rules[3])
	if want := "match: {path: {prefix: [/old, /older/]}}, drop: true"; err != nil || text != want {
		t.Errorf("%q, want %q, %v", text, want, err)
	}
	if text, err := ruleText(&l7.Rule{Name: "default"}); err != nil || text != "" {
		t.Errorf("of a rule that says nothing: %q, %v", text, err)
	}
}

// A wrong rule is refused with the line of what is wrong, and what is allowed.
func TestRuleRefusals(t *testing.T) {
	const head = "sampling:\n  rules:\n  - name: a\n    "
	const at = "FILE:4: sampling.rules[0]."
	for _, c := range []struct{ yaml, want string }{
		{"sampling:\n  rules: x", "FILE:2: sampling.rules: want a list of rules, got text"},
		{"sampling:\n  rules:\n  - x", "FILE:3: sampling.rules[0]: want keys and values, got text"},
		{"sampling:\n  rules:\n  - drop: true", "FILE:3: sampling.rules[0].name: a rule needs a name; allowed: 1 to 64 of a-z, A-Z, 0-9 and ._-"},
		{"sampling:\n  rules:\n  - name: ''", "FILE:3: sampling.rules[0].name: it is empty"},
		{"sampling:\n  rules:\n  - name: a\n  - name: b\n  - name: a", `FILE:5: sampling.rules[2].name: "a" is given twice, first in line 3`},
		{"sampling:\n  rules:\n  - name: favicon", `FILE:3: sampling.rules[0].name: "favicon" is a shipped rule's; allowed: another name, or sampling.defaults without it`},
		{"sampling:\n  rules:\n  - name: default", `FILE:3: sampling.rules[0].name: "default" is the rule behind all others; allowed: another name`},
		{"sampling:\n  rule: []", `FILE:2: unknown key "sampling.rule", did you mean "sampling.rules"?`},
		{"rules: []", `FILE:1: unknown key "rules"; allowed: otlp, sample_rate, sampling, admin, namespaces, exclude, capture, idle_limit, peers, trust_context, id_key, max_connections, max_http2_connections, ring_size, export, handover, store, metrics, log, live`},
		{"budget: 1", `FILE:1: unknown key "budget", did you mean "budget" in the section "sampling"?`},
		{"sampling:\n  header: off", `FILE:2: unknown key "sampling.header", did you mean "header" in the section "sampling.forced"?`},
		{head + "mtach: {}", `FILE:4: unknown key "sampling.rules[0].mtach", did you mean "match"?`},
		{head + "path: /a", `FILE:4: unknown key "sampling.rules[0].path", did you mean "path" in the section "match"?`},
		{head + "match: {rate: 1}", `FILE:4: unknown key "sampling.rules[0].match.rate", did you mean "rate" of the rule itself?`},
		{head + "match: {user_agent: x}", `FILE:4: unknown key "sampling.rules[0].match.user_agent", did you mean "user-agent" in the section "match.headers"?`},
		{head + "match: {colour: x}", `FILE:4: unknown key "sampling.rules[0].match.colour"; allowed: service, kind, method, path, extension, host, client, status, headers, grpc`},
		{head + "rate: 1\n    rate: 1", "FILE:5: sampling.rules[0].rate: given twice, first in line 4"},
		{head + "? [a]\n    : 1", "FILE:4: sampling.rules[0]: a key must be a word, got a list"},
		{head + "rate: high", at + "rate: want a number, got text"},
		{head + "rate: 1.5", at + "rate: 1.5 is out of range; allowed: a number from 0 to 1"},
		{head + "rate: .nan", at + `rate: ".nan" is not a number; allowed: a number`},
		{head + "tail_rate: [1]", at + "tail_rate: want a number, got a list"},
		{head + "cap: 0", at + "cap: 0 would keep nothing; allowed: spans per second above 0, or drop"},
		{head + "cap: -1", at + "cap: -1 is out of range; allowed: spans per second above 0 and up to 1000000"},
		{head + "drop: yes", at + "drop: want a truth value, got text; allowed: true, false"},
		{head + "drop: true\n    rate: 1", at + "drop: what is dropped can have no other action; allowed: drop alone"},
		{head + "slow_threshold: 5", at + "slow_threshold: 5 has no unit; allowed: a duration from 1µs to 1h, with its unit (ms, s, m, h), or off"},
		{head + "slow_threshold: 2h", at + "slow_threshold: 2h is out of range; allowed: a duration from 1µs to 1h, with its unit (ms, s, m, h), or off"},
		{head + "slow_threshold:", at + "slow_threshold: want a duration, or off, got nothing"},
		{head + "errors: on", at + "errors: want off, or keys and values, got text; allowed: off, or some of statuses, grpc, endings"},
		{head + "errors:\n      statuses:\n      - 5xx\n      - 600", `FILE:7: sampling.rules[0].errors.statuses: "600" is no status; allowed: classes such as 5xx, and statuses from 100 to 599`},
		{head + "errors: {grpc: [OK, unavailable]}", at + `errors.grpc: "unavailable" is unknown; allowed: numbers from 0 to 16, OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED`},
		{head + "errors: {endings: gone}", at + `errors.endings: "gone" is unknown; allowed: closed, reset, idle, stream_reset, refused`},
		{head + "class: low", at + `class: "low" is unknown; allowed: critical, normal, background`},
		{head + "parent: scale", at + "parent: there is no rate to scale by; allowed: scale with a rate"},
		{head + "force: true", `FILE:4: unknown key "sampling.rules[0].force"; allowed: name, match, rate, drop, always, slow_threshold, errors, tail_rate, class, cap, parent`},
		{head + "match: []", at + "match: want keys and values, got a list"},
		{head + "match: {service: []}", at + "match.service: an empty list accepts nothing; allowed: one text, or a list"},
		{head + "match: {service: [[a]]}", at + "match.service: want a text, or a list of texts, got a list"},
		{head + "match: {kind: peer}", at + `match.kind: "peer" is unknown; allowed: client, server`},
		{head + "match:\n      method:\n      - GET\n      - get", `FILE:7: sampling.rules[0].match.method: "get" is not known; allowed: GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH, QUERY`},
		{head + "match: {client: 10.0.0.0/8}", at + `match.client: "10.0.0.0/8" is no address; allowed: IP addresses`},
		{head + "match:\n      path:\n        exact: /a\n        prefix: /b", "FILE:7: sampling.rules[0].match.path.prefix: it goes not with match.path.exact; allowed: one of exact, prefix and template"},
		{head + "match: {path: /a}", at + "match.path: want keys and values, got text"},
		{head + "match: {headers: {x-request-id: false}}", at + `match.headers.x-request-id: "false" is no condition; allowed: true for any value, or values, in quotes where they are true or false`},
		{head + "match: {grpc: x}", at + "match.grpc: want keys and values, got text"},
		{head + "match: &m {}\n  - name: b\n    match: *m", "FILE:6: sampling.rules[1].match: want keys and values, got an alias"},
		{"sampling:\n  defaults: [on, favicon]", `FILE:2: sampling.defaults: "on" stands alone; allowed: on, off, or any of health-paths, health-agents, kubelet, grpc-health, metrics-paths, metrics-agents, favicon, static-files`},
		{"sampling:\n  defaults: favcion", `FILE:2: sampling.defaults: "favcion" is unknown (did you mean favicon?); allowed: on, off, or any of health-paths, health-agents, kubelet, grpc-health, metrics-paths, metrics-agents, favicon, static-files`},
		{"sampling:\n  forced:\n    header: x-force", `FILE:3: sampling.forced.header: "x-force" is unknown; allowed: off, x-envoy-force-trace`},
		{manyRules(1025), "FILE:3: sampling.rules: 1025 rules are too many; allowed: at most 1024"},
		{manyRules(1020), "FILE:3: sampling.rules: the rules are 1035, where those with several paths count as several; allowed: 1024, with the default ones"},
	} {
		path := writeFile(t, c.yaml)
		_, _, err := Load(Sources{File: path})
		if err == nil {
			t.Errorf("%.200q is taken", c.yaml)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), path, "FILE"); got != c.want {
			t.Errorf("%.200q:\ngot  %s\nwant %s", c.yaml, got, c.want)
		}
	}
}

func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("sampling:\n  rules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: r%d, rate: 1}\n", i)
	}
	return b.String()
}

func TestDefaultsThatHold(t *testing.T) {
	for text, want := range map[string]string{
		"on":                      "health-paths health-agents kubelet grpc-health metrics-paths metrics-agents favicon static-files",
		"true":                    "health-paths health-agents kubelet grpc-health metrics-paths metrics-agents favicon static-files",
		"off":                     "",
		"false":                   "",
		"[favicon, health-paths]": "health-paths favicon",
	} {
		cfg, _, err := Load(Sources{File: writeFile(t, "sampling:\n  defaults: "+text+"\n")})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var names []string
		for _, r := range cfg.Sampling.all() {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
