package l7

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func share(p float64) *float64 { return &p }

func lasting(d time.Duration) *time.Duration { return &d }

func header(values ...string) HeaderCondition { return HeaderCondition{Values: values} }

// What is wrong with a rule is told with its field, the item and what is allowed.
func TestRefusedRules(t *testing.T) {
	const (
		nine = "/1/2/3/4/5/6/7/8/9"
		path = "; allowed: paths such as /a/b, of at most 8 segments of at most 128 bytes, without query"
		host = "; allowed: names in lower case without port, or *. and a name, for one label more"
	)
	long := strings.Repeat("x", 129)
	for _, c := range []struct {
		what string
		rule Rule
		item int
		want string
	}{
		{"a service with a star in the midst", Rule{Match: Conditions{Services: []string{"a", "a*b"}}}, 1, `match.service: "a*b" is no name; allowed: names, or the beginning of names with * behind`},
		{"an unknown method", Rule{Match: Conditions{Methods: []string{"get"}}}, 0, `match.method: "get" is not known; allowed: GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH, QUERY`},
		{"a method twice", Rule{Match: Conditions{Methods: []string{"GET", "GET"}}}, 1, `match.method: "GET" is given twice`},
		{"a path without slash", Rule{Match: Conditions{Path: PathCondition{Exact: []string{"/a", "b"}}}}, 1, `match.path.exact: "b" does not begin with a slash` + path},
		{"a path with a query", Rule{Match: Conditions{Path: PathCondition{Prefixes: []string{"/a?b"}}}}, 0, `match.path.prefix: "/a?b" has a query or fragment` + path},
		{"a path with a blank", Rule{Match: Conditions{Path: PathCondition{Exact: []string{"/a b"}}}}, 0, `match.path.exact: "/a b" has characters that no path is sent with` + path},
		{"a path that is too deep", Rule{Match: Conditions{Path: PathCondition{Exact: []string{nine}}}}, 0, `match.path.exact: "` + nine + `" has 9 segments` + path},
		{"a segment that is too long", Rule{Match: Conditions{Path: PathCondition{Exact: []string{"/" + long}}}}, 0, `match.path.exact: "/` + long + `" has a segment of 129 bytes` + path},
		{"half a placeholder", Rule{Match: Conditions{Path: PathCondition{Templates: []string{"/a/x{id}"}}}}, 0, `match.path.template: "x{id}" in "/a/x{id}" is neither a text nor a placeholder; allowed: paths such as /users/{id}, of at most 8 segments of at most 128 bytes, without query`},
		{"two kinds of path", Rule{Match: Conditions{Path: PathCondition{Exact: []string{"/a"}, Templates: []string{"/b"}}}}, -1, `match.path.template: it goes not with match.path.exact; allowed: one of exact, prefix and template`},
		{"an extension with a dot", Rule{Match: Conditions{Extensions: []string{".css"}}}, 0, `match.extension: ".css" is no extension; allowed: 1 to 8 characters in lower case, without dot and slash`},
		{"a host in upper case", Rule{Match: Conditions{Hosts: []string{"A"}}}, 0, `match.host: "A" is no host` + host},
		{"a host with a port", Rule{Match: Conditions{Hosts: []string{"a:80"}}}, 0, `match.host: "a:80" is no host` + host},
		{"a star in the midst of a host", Rule{Match: Conditions{Hosts: []string{"a.*.b"}}}, 0, `match.host: "a.*.b" is no host` + host},
		{"an address of IPv6 that is written otherwise", Rule{Match: Conditions{Hosts: []string{"[0::1]"}}}, 0, `match.host: "[0::1]" is no host` + host},
		{"a zone", Rule{Match: Conditions{Clients: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}}}, 0, `match.client: fe80::1%eth0 is no address; allowed: IP addresses`},
		{"a status", Rule{Match: Conditions{Statuses: []string{"404"}}}, 0, `match.status: "404" is no class of statuses; allowed: none, 1xx, 2xx, 3xx, 4xx, 5xx`},
		{"any value and one", Rule{Match: Conditions{Headers: HeaderConditions{RequestID: HeaderCondition{true, []string{"a"}}}}}, -1, `match.headers.x-request-id: it is present with any value, and values are given; allowed: true, or values`},
		{"a type with parameters", Rule{Match: Conditions{Headers: HeaderConditions{ContentType: header("text/html;q=1")}}}, 0, `match.headers.content-type: "text/html;q=1" is no value to look for; allowed: media types in lower case without parameters, such as text/html`},
		{"a value in blanks", Rule{Match: Conditions{Headers: HeaderConditions{UserAgent: header(" curl")}}}, 0, `match.headers.user-agent: " curl" is no value to look for; allowed: a product such as curl, of at most 63 bytes, or a whole value such as curl/8.0`},
		{"a member without a key", Rule{Match: Conditions{Headers: HeaderConditions{Baggage: header("=1")}}}, 0, `match.headers.baggage: "=1" is no value to look for; allowed: keys, or key=value, without blanks`},
		{"a value that is too long", Rule{Match: Conditions{Headers: HeaderConditions{ForceTrace: header(long)}}}, 0, `match.headers.x-envoy-force-trace: "` + long + `" has 129 bytes, and 128 are looked at; allowed: whole values`},
		{"a call and a path", Rule{Match: Conditions{Path: PathCondition{Exact: []string{"/a"}}, GRPC: &GRPCCondition{}}}, -1, `match.grpc: it goes not with a path; allowed: one of grpc and path`},
		{"a path as a gRPC service", Rule{Match: Conditions{GRPC: &GRPCCondition{Services: []string{"a/b"}}}}, 0, `match.grpc.service: "a/b" is no name; allowed: names with their package, such as shop.v1.Cart`},
		{"drop and more", Rule{Action: RuleAction{Drop: true, Class: "normal"}}, -1, `drop: what is dropped can have no other action; allowed: drop alone`},
		{"always and a rate", Rule{Action: RuleAction{Always: true, Rate: share(1)}}, -1, `always: it is rate 1 and parent ignore, and one of them is given too; allowed: always, or rate and parent`},
		{"a rate above 1", Rule{Action: RuleAction{Rate: share(1.5)}}, -1, `rate: 1.5 is out of range; allowed: a number from 0 to 1`},
		{"a negative tail rate", Rule{Action: RuleAction{TailRate: share(-1)}}, -1, `tail_rate: -1 is out of range; allowed: a number from 0 to 1`},
		{"days", Rule{Action: RuleAction{Slow: lasting(48 * time.Hour)}}, -1, `slow_threshold: 48h0m0s is out of range; allowed: a duration up to 1h, or off`},
		{"a negative cap", Rule{Action: RuleAction{Cap: -1}}, -1, `cap: -1 is out of range; allowed: spans per second above 0 and up to 1000000`},
		{"an unknown class", Rule{Action: RuleAction{Class: "high"}}, -1, `class: "high" is unknown; allowed: critical, normal, background`},
		{"an unknown word for the parent", Rule{Action: RuleAction{Parent: "obey"}}, -1, `parent: "obey" is unknown; allowed: honour, ignore, scale`},
		{"scale by nothing", Rule{Action: RuleAction{Parent: "scale"}}, -1, `parent: there is no rate to scale by; allowed: scale with a rate`},
		{"errors off and on", Rule{Action: RuleAction{Errors: &ErrorRule{Off: true, Statuses: []string{}}}}, -1, `errors: it is off, and says what an error is; allowed: off, or some of statuses, grpc and endings`},
		{"no status", Rule{Action: RuleAction{Errors: &ErrorRule{Statuses: []string{"5xx", "5x"}}}}, 1, `errors.statuses: "5x" is no status; allowed: classes such as 5xx, and statuses from 100 to 599`},
		{"a status too many", Rule{Action: RuleAction{Errors: &ErrorRule{Statuses: []string{"400", "401", "402", "4xx", "403", "404"}}}}, 5, `errors.statuses: 404 is one status too many; allowed: at most 4, beside classes`},
		{"no code", Rule{Action: RuleAction{Errors: &ErrorRule{GRPC: []GRPCCode{17}}}}, 0, `errors.grpc: 17 is no code; allowed: ` + strings.Join(grpcCodes[:], ", ")},
		{"no ending", Rule{Action: RuleAction{Errors: &ErrorRule{Endings: []Ending{EndedByResponse}}}}, 0, `errors.endings: 0 is no ending without response; allowed: closed, reset, idle, stream_reset, refused`},
		{"a name with a blank", Rule{Name: "a b"}, -1, `name: "a b" has a character that is not allowed; allowed: 1 to 64 of a-z, A-Z, 0-9 and ._-`},
	} {
		if c.rule.Name == "" {
			c.rule.Name = "r"
		}
		err := c.rule.Validate()
		var field *FieldError
		if !errors.As(err, &field) || err.Error() != c.want || field.Item != c.item {
			t.Errorf("%s:\ngot  %v (%+v)\nwant %s, item %d", c.what, err, field, c.want, c.item)
		}
	}
}

func TestRefusedSets(t *testing.T) {
	many := func(n int, change func(int, *Rule)) []Rule {
		rules := make([]Rule, n)
		for i := range rules {
			rules[i].Name = fmt.Sprint("r", i)
			change(i, &rules[i])
		}
		return rules
	}
	for _, c := range []struct {
		what  string
		rules []Rule
		want  string
	}{
		{"a name twice", []Rule{{Name: "a"}, {Name: "b"}, {Name: "a"}}, `rule "a": name: the name is given twice; allowed: a name of its own for each rule`},
		{"the last rule's name", []Rule{{Name: "default"}}, `rule "default": name: "default" is the rule behind all others; allowed: another name`},
		{"no name", []Rule{{}}, `rule "": name: a rule needs a name; allowed: 1 to 64 of a-z, A-Z, 0-9 and ._-`},
		{"more rules than bits", many(1024, func(int, *Rule) {}), "the rules are 1025, where those with several paths count as several; allowed: 1024, with the default ones"},
		{"more paths than bits", many(520, func(i int, r *Rule) {
			r.Match.Path.Exact = []string{fmt.Sprintf("/%d/a", i), fmt.Sprintf("/%d/b/c", i)}
		}), "the rules are 1041, where those with several paths count as several; allowed: 1024, with the default ones"},
		{"more caps than budgets", many(127, func(_ int, r *Rule) { r.Action.Cap = 1 }), `rule "r126": cap: 127 rules have one; allowed: 126`},
		{"more values than rows", many(1000, func(i int, r *Rule) {
			r.Match.Path.Exact = []string{fmt.Sprintf("/a%d/b%d/c%d/d%d", i, i%500, i%333, i%271)}
		}), "the rules name too many different things: 2048 sets of rules that hold together are kept; name fewer values, or give rules the same ones"},
		{"more values than places", many(900, func(i int, r *Rule) {
			for n := range 19 {
				r.Match.Hosts = append(r.Match.Hosts, fmt.Sprintf("h%d-%d", i, n))
			}
		}), "the rules name 17100 values; allowed: 16384"},
		{"more values than buckets of four hold", many(900, func(i int, r *Rule) {
			for n := range 10 {
				r.Match.Hosts = append(r.Match.Hosts, fmt.Sprintf("h%d-%d", i, n))
			}
		}), "the rules name 9000 values, for which the kernel's table has no room; name fewer"},
	} {
		if _, err := Compile(c.rules, 1); err == nil || err.Error() != c.want {
			t.Errorf("%s:\ngot  %v\nwant %s", c.what, err, c.want)
		}
	}
}

// Everything that a rule can say at once is taken.
func TestARuleThatSaysEverything(t *testing.T) {
	r := Rule{Name: "All.of-it_1", Match: Conditions{
		Services: []string{"a", "b*", "*"}, Kinds: []Kind{Client, Server}, Methods: []string{"GET", "QUERY"},
		Path: PathCondition{Templates: []string{"/", "/users/{id}/x"}}, Extensions: []string{"css"},
		Hosts: []string{"a.b", "*.b", "[::1]", "10.0.0.1"}, Clients: []netip.Addr{netip.MustParseAddr("::1")}, Statuses: []string{"none", "5xx"},
		Headers: HeaderConditions{
			UserAgent: header("a b", "c/d"), RequestID: HeaderCondition{Present: true}, ContentType: header("a/b+c"), ForceTrace: header("true"), Baggage: header("k", "k=v=w"),
		},
	}, Action: RuleAction{
		Rate: share(0), Slow: lasting(0), TailRate: share(1), Class: "background", Cap: 0.5, Parent: "scale",
		Errors: &ErrorRule{Statuses: []string{"4xx", "100", "599"}, GRPC: []GRPCCode{0, 16}, Endings: []Ending{EndedByClose, EndedByRefusal}},
	}}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := Compile([]Rule{r}, 1); err != nil {
		t.Error(err)
	}
}

func TestWordsOfRules(t *testing.T) {
	for code := range GRPCCode(17) {
		for _, text := range []string{code.String(), fmt.Sprint(int(code))} {
			if got, err := ParseGRPCCode(text); err != nil || got != code {
				t.Errorf("%s: %v, %v", text, got, err)
			}
		}
	}
	for end := EndedByClose; end <= EndedByRefusal; end++ {
		if got, err := ParseEnding(end.String()); err != nil || got != end {
			t.Errorf("%s: %v, %v", end, got, err)
		}
	}
	for _, text := range []string{"", "17", "ok", "-1", "response"} {
		if _, err := ParseGRPCCode(text); err == nil {
			t.Errorf("code %q was taken", text)
		}
		if _, err := ParseEnding(text); err == nil {
			t.Errorf("ending %q was taken", text)
		}
		if _, err := ParseKind(text); err == nil {
			t.Errorf("kind %q was taken", text)
		}
	}
}
