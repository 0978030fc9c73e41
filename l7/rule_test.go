package l7

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"ambit/bpf"
)

// What everybody drops is dropped, and nothing that only looks like it.
func TestDefaultRules(t *testing.T) {
	rules := DefaultRules()
	for _, c := range []struct {
		what string
		r    Request
		want string
	}{
		{"a liveness probe", Request{Method: "GET", Target: "/healthz"}, "health-paths"},
		{"with a query", Request{Method: "GET", Target: "/readyz?verbose"}, "health-paths"},
		{"of a framework", Request{Method: "GET", Target: "/actuator/health/liveness"}, "health-paths"},
		{"a page below", Request{Method: "GET", Target: "/health/insurance"}, ""},
		{"somebody writes there", Request{Method: "POST", Target: "/health"}, ""},
		{"kubelet by its agent", Request{Method: "GET", Target: "/my/probe", UserAgent: "kube-probe/1.31+"}, "health-agents"},
		{"a load balancer", Request{Method: "GET", Target: "/", UserAgent: "GoogleHC/1.0"}, "health-agents"},
		{"another one", Request{Method: "GET", Target: "/", UserAgent: "ELB-HealthChecker/2.0"}, "health-agents"},
		{"Envoy", Request{Method: "GET", Target: "/", UserAgent: "Envoy/HC"}, "health-agents"},
		{"another Envoy", Request{Method: "GET", Target: "/", UserAgent: "Envoy/1.30"}, ""},
		{"kubelet by its address", Request{Method: "GET", Target: "/x", Client: netip.MustParseAddr("169.254.7.127")}, "kubelet"},
		{"a neighbour of it", Request{Method: "GET", Target: "/x", Client: netip.MustParseAddr("169.254.7.128")}, ""},
		{"the check of gRPC", Request{Method: "POST", Target: "/grpc.health.v1.Health/Check", GRPC: true}, "grpc-health"},
		{"its watch", Request{Method: "POST", Target: "/grpc.health.v1.Health/Watch", GRPC: true}, "grpc-health"},
		{"another service of gRPC", Request{Method: "POST", Target: "/grpc.health.v2.Health/Check", GRPC: true}, ""},
		{"a scrape", Request{Method: "GET", Target: "/metrics"}, "metrics-paths"},
		{"a scrape of Envoy", Request{Method: "GET", Target: "/stats/prometheus?usedonly"}, "metrics-paths"},
		{"a scrape by its agent", Request{Method: "GET", Target: "/probe", UserAgent: "Prometheus/2.53.0"}, "metrics-agents"},
		{"a picture of the site", Request{Method: "GET", Target: "/favicon.ico"}, "favicon"},
		{"a style", Request{Method: "GET", Target: "/static/app.3f2a.CSS?v=1"}, "static-files"},
		{"an upload", Request{Method: "PUT", Target: "/photos/1.jpg"}, ""},
		{"an API", Request{Method: "GET", Target: "/api/v1.css/users"}, ""},
		{"a file of data", Request{Method: "GET", Target: "/export.json"}, ""},
	} {
		got := ""
		if i := Match(rules, &c.r); i >= 0 {
			got = rules[i].Name
			if rules[i].Action != (RuleAction{Drop: true}) {
				t.Errorf("rule %s does %+v", got, rules[i].Action)
			}
		}
		if got != c.want {
			t.Errorf("%s: rule %q, want %q", c.what, got, c.want)
		}
	}
}

// What a rule says becomes what the kernel does.
func TestActions(t *testing.T) {
	const allEndings = 1<<EndedByClose | 1<<EndedByReset | 1<<EndedByIdle | 1<<EndedByStreamReset | 1<<EndedByRefusal
	plain := func(change func(*bpf.Action)) bpf.Action {
		a := bpf.Action{
			Class: bpf.ClassNormal, SlowNs: uint64(time.Second), TailThreshold: 0, StatusClasses: 1 << 5, Endings: allEndings,
		}
		if change != nil {
			change(&a)
		}
		return a
	}
	for _, c := range []struct {
		what   string
		action RuleAction
		want   bpf.Action
	}{
		{"nothing", RuleAction{}, plain(nil)},
		{"drop", RuleAction{Drop: true}, bpf.Action{Flags: bpf.ActionDrop, Class: bpf.ClassNormal, SlowNs: uint64(time.Second), TailThreshold: bpf.ThresholdNever}},
		{"a rate", RuleAction{Rate: share(0.25)}, plain(func(a *bpf.Action) { a.Flags, a.Threshold = bpf.ActionRate, 3<<54 })},
		{"rate 0", RuleAction{Rate: share(0)}, plain(func(a *bpf.Action) { a.Flags, a.Threshold = bpf.ActionRate, 1<<56 })},
		{"always", RuleAction{Always: true}, plain(func(a *bpf.Action) { a.Flags, a.Parent = bpf.ActionRate, bpf.ParentIgnore })},
		{"force", RuleAction{Force: true}, plain(func(a *bpf.Action) { a.Flags = bpf.ActionForce })},
		{"slow", RuleAction{Slow: lasting(20 * time.Millisecond)}, plain(func(a *bpf.Action) { a.SlowNs = 20_000_000 })},
		{"nothing is slow", RuleAction{Slow: lasting(0)}, plain(func(a *bpf.Action) { a.SlowNs = ^uint64(0) })},
		{"half of the tail", RuleAction{TailRate: share(0.5)}, plain(func(a *bpf.Action) { a.TailThreshold = 1 << 55 })},
		{"no tail", RuleAction{TailRate: share(0)}, plain(func(a *bpf.Action) { a.TailThreshold = bpf.ThresholdNever })},
		{"critical", RuleAction{Class: "critical"}, plain(func(a *bpf.Action) { a.Class = bpf.ClassCritical })},
		{"background", RuleAction{Class: "background"}, plain(func(a *bpf.Action) { a.Class = bpf.ClassBackground })},
		{"scale", RuleAction{Rate: share(0.5), Parent: "scale"}, plain(func(a *bpf.Action) {
			a.Flags, a.Threshold, a.Parent = bpf.ActionRate, 1<<55, bpf.ParentScale
		})},
		{"ignore", RuleAction{Parent: "ignore"}, plain(func(a *bpf.Action) { a.Parent = bpf.ParentIgnore })},
		{"no errors", RuleAction{Errors: &ErrorRule{Off: true}}, plain(func(a *bpf.Action) {
			a.Flags, a.StatusClasses, a.Endings = bpf.ActionGRPCCodes, 0, 0
		})},
		{"some statuses, and the rest as always", RuleAction{Errors: &ErrorRule{Statuses: []string{"429", "5xx", "404"}}}, plain(func(a *bpf.Action) {
			a.Statuses = [4]uint16{429, 404}
		})},
		{"no status", RuleAction{Errors: &ErrorRule{Statuses: []string{}}}, plain(func(a *bpf.Action) { a.StatusClasses = 0 })},
		{"codes", RuleAction{Errors: &ErrorRule{GRPC: []GRPCCode{GRPCUnavailable, GRPCInternal}}}, plain(func(a *bpf.Action) {
			a.Flags, a.GrpcCodes = bpf.ActionGRPCCodes, 1<<14|1<<13
		})},
		{"endings", RuleAction{Errors: &ErrorRule{Endings: []Ending{EndedByReset}}}, plain(func(a *bpf.Action) { a.Endings = 1 << 2 })},
	} {
		compiled, err := Compile([]Rule{{Name: "r", Action: c.action}}, 7)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if got := compiled.Actions[0]; got != c.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.what, got, c.want)
		}
		if last := compiled.Actions[1]; last != plain(func(a *bpf.Action) { a.Rule = 1 }) {
			t.Errorf("%s: the last rule does %+v", c.what, last)
		}
	}
}

// A rule with paths of several forms is several lines of the table, which know whose they are.
func TestLinesOfARule(t *testing.T) {
	c, err := Compile([]Rule{
		{Name: "exact", Match: Conditions{Path: PathCondition{Exact: []string{"/a", "/b", "/c/d", "/c/e", "/", "/x/d"}}}, Action: RuleAction{Cap: 5}},
		{Name: "templates", Match: Conditions{Path: PathCondition{Templates: []string{"/users/{id}", "/users/{id}/x"}}}},
	}, 9)
	if err != nil {
		t.Fatal(err)
	}
	var rules []int
	var templates []string
	for i, a := range c.Actions {
		rules = append(rules, int(a.Rule))
		templates = append(templates, c.Template(i))
	}
	if want := []int{0, 0, 0, 0, 1, 1, 2}; !slices.Equal(rules, want) || c.Table.Count != 7 || c.Table.Words != 1 {
		t.Errorf("lines of the rules %v, want %v", rules, want)
	}
	if want := []string{"", "", "", "", "/users/{id}", "/users/{id}/x", ""}; !slices.Equal(templates, want) || c.Template(-1) != "" || c.Template(7) != "" {
		t.Errorf("templates %q, want %q", templates, want)
	}
	if c.Table.Templates != 1 || c.Table.TemplateRules[0] != 0b110000 || c.Table.Segments != 3 || c.Table.Fields != 0 || c.Table.Statuses != 0 {
		t.Errorf("templates %b, %d segments", c.Table.TemplateRules[0], c.Table.Segments)
	}
	if a, b := c.Actions[4], c.Actions[5]; a.Route != hashText(9, "/users/{id}") || b.Route != hashText(9, "/users/{id}/x") || a.Flags != bpf.ActionHTTPRoute {
		t.Errorf("routes %x, %x", a.Route, b.Route)
	}
	c.SetCap(0, 77)
	for i, a := range c.Actions {
		want := uint32(0)
		if i < 4 {
			want = 77
		}
		if a.Cap != want {
			t.Errorf("line %d: budget %d, want %d", i, a.Cap, want)
		}
	}
}

// A service that comes later gets the rules that name it, and one without a name those that name none.
func TestServiceRows(t *testing.T) {
	c, err := Compile([]Rule{
		{Name: "exact", Match: Conditions{Services: []string{"cart"}}},
		{Name: "begin", Match: Conditions{Services: []string{"ca*", "x"}}},
		{Name: "all", Match: Conditions{Services: []string{"*"}}},
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{"": 0b1000, "cart": 0b1111, "car": 0b1110, "x": 0b1110, "y": 0b1100} {
		row, err := c.ServiceRow(name)
		if err != nil || c.Table.Rows[row] != (ruleBits{want}) {
			t.Errorf("%q: row %b, want %b, %v", name, c.Table.Rows[row][0], want, err)
		}
		again, _ := c.ServiceRow(name)
		if again != row {
			t.Errorf("%q has rows %d and %d", name, row, again)
		}
	}
	for i, row := range c.Table.ServiceRow {
		if c.Table.Rows[row] != (ruleBits{0b1000}) {
			t.Errorf("service %d begins with the rules %b", i, c.Table.Rows[row][0])
		}
	}
}

// The same rules and seed give the same table, and another seed other keys.
func TestCompilingIsRepeatable(t *testing.T) {
	one, err := Compile(DefaultRules(), 5)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Compile(DefaultRules(), 5)
	if err != nil {
		t.Fatal(err)
	}
	if *one.Table != *two.Table || !reflect.DeepEqual(one.Actions, two.Actions) {
		t.Error("the same rules gave another table")
	}
	other, err := Compile(DefaultRules(), 6)
	if err != nil {
		t.Fatal(err)
	}
	if one.Table.Table == other.Table.Table || one.Table.Rows != other.Table.Rows {
		t.Error("another seed changes the rows, or not the keys")
	}
}

func TestReasons(t *testing.T) {
	want := []string{"none", "head", "parent", "slow", "error", "forced", "floor", "anomaly", "none"}
	for i, w := range want {
		if got := Reason(i).String(); got != w {
			t.Errorf("reason %d is %q, want %q", i, got, w)
		}
	}
	if ReasonAnomaly != Reason(bpf.ReasonAnomaly) || ReasonHead != Reason(bpf.ReasonHead) {
		t.Error("the kernel's reasons have other numbers")
	}
}
