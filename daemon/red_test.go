package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"

	"github.com/prometheus/client_golang/prometheus"
)

// counted makes a series of so many exchange sides of one latency.
func counted(key bpf.SeriesKey, n uint64, took time.Duration) *bpf.Series {
	s := &bpf.Series{SeriesKey: key, Sum: time.Duration(n) * took}
	if b := bpf.LatencyBucket(uint64(took)); b >= 0 {
		s.Latency[b] = n
	} else {
		s.Below = n
	}
	return s
}

// always names every route.
func always(uint64) bool { return true }

// thirdRules are rules of generation 3.
type thirdRules struct{}

func (thirdRules) rule(generation uint32, place uint16) string {
	if generation != 3 {
		return ""
	}
	return fmt.Sprintf("rule-%d", place)
}

func (thirdRules) template(generation uint32, action uint16) string {
	if generation != 3 {
		return ""
	}
	return map[uint16]string{4: "/buy/{what}", 5: "/a/{id}"}[action]
}

// learn is an announcement of a route that no rule names.
func learn(r *Routes, a l7.Announcement) {
	a.Rule = bpf.NoRule
	r.Learn(&a)
}

// shop is a snapshot with two services, one of them in two cgroups, and the names of its routes.
func shop() (*bpf.Snapshot, *Routes) {
	names := newRoutes(always, thirdRules{})
	learn(names, l7.Announcement{Key: 1, Kind: l7.Server, Method: "GET", Path: "/users/42?token=secret"})
	names.Learn(&l7.Announcement{Key: 2, Kind: l7.Server, Method: "GET", Path: "/buy/teapot", Rule: 4, Generation: 3})
	learn(names, l7.Announcement{Key: 3, Kind: l7.Server, Method: "POST", Path: "/shop.v1.Stock/Get", GRPC: true})
	learn(names, l7.Announcement{Key: 4, Kind: l7.Client, Method: "brew", Path: "/pot", Host: "tea:8080"})
	const server, client = uint8(l7.Server), uint8(l7.Client)
	get := func(route uint64, service uint16, outcome bpf.Outcome) bpf.SeriesKey {
		return bpf.SeriesKey{Route: route, Service: service, Kind: server, Outcome: outcome}
	}
	broken := get(1, 1, 500)
	broken.Error = true
	lost := bpf.SeriesKey{Route: 4, Service: 3, Kind: client, Outcome: bpf.OutcomeEnding + bpf.Outcome(bpf.EndingReset), Error: true}
	refused := get(3, 1, bpf.OutcomeGRPC+14)
	refused.Error = true
	list := []*bpf.Series{
		counted(get(1, 1, 200), 10, time.Millisecond),
		counted(get(1, 2, 204), 5, 3*time.Millisecond), // the same route in the other cgroup
		counted(broken, 2, time.Second),
		counted(get(2, 1, 200), 3, 500*time.Nanosecond),
		counted(get(3, 1, bpf.OutcomeGRPC), 7, 20*time.Minute),
		counted(refused, 1, time.Millisecond),
		counted(lost, 4, time.Millisecond),
		counted(bpf.SeriesKey{Service: 1, Kind: server, Outcome: 404}, 100, time.Millisecond), // "other"
		counted(get(99, 1, 200), 1000, time.Millisecond),                                      // without a name
	}
	list[0].Kept = 6
	list[0].Bodies[bpf.ResponseBody] = bpf.Sizes{Unknown: 1, Empty: 2, Bytes: 4096 + 6*100, Buckets: [bpf.SizeBuckets]uint64{3: 6, 5: 1}}
	return &bpf.Snapshot{
		At: time.Now(), Series: list, Refused: [2]uint64{0, 12},
		Routes: []bpf.Route{
			{Key: 1, Service: 1, Kind: 1, State: bpf.RouteNamed}, {Key: 2, Service: 1, Kind: 1, State: bpf.RouteNamed},
			{Key: 3, Service: 1, Kind: 1, State: bpf.RouteClosing}, {Key: 4, Service: 3, State: bpf.RouteNamed}, {Key: 99, Service: 1, Kind: 1},
		},
		Services: map[uint16]bpf.Service{0: {}, 1: {Cgroup: 1}, 2: {Cgroup: 2}, 3: {Cgroup: 3}},
	}, names
}

func shopName(s bpf.Service) string {
	return map[uint64]string{0: "other", 1: "frontend", 2: "frontend", 3: "client"}[s.Cgroup]
}

type fixedMetrics func(chan<- prometheus.Metric)

func (fixedMetrics) Describe(descs chan<- *prometheus.Desc) { redCollector{}.Describe(descs) }
func (f fixedMetrics) Collect(out chan<- prometheus.Metric) { f(out) }

// samples are what a scrape would have, by name and labels.
func samples(t *testing.T, setting string) map[string]float64 {
	t.Helper()
	snap, names := shop()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(fixedMetrics(func(out chan<- prometheus.Metric) {
		collectRED(snap, redRows(snap, names, shopName, setting), out)
	}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				if l.GetValue() != "" {
					labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			sort.Strings(labels)
			at := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.Histogram != nil:
				got[at+" count"] = float64(m.Histogram.GetSampleCount())
				got[at+" sum"] = m.Histogram.GetSampleSum()
				for _, b := range m.Histogram.Bucket {
					got[fmt.Sprintf("%s %v", at, b.GetUpperBound())] = float64(b.GetCumulativeCount())
				}
			case m.Counter != nil:
				got[at] = m.Counter.GetValue()
			default:
				got[at] = m.Gauge.GetValue()
			}
		}
	}
	return got
}

func TestRequestMetrics(t *testing.T) {
	got := samples(t, "all")
	const users = `{kind="SERVER",method="GET",route="/users/{number}",service="frontend",status_class="2xx"}`
	const call = `{grpc_code="OK",kind="SERVER",method="POST",route="/shop.v1.Stock/Get",service="frontend"}`
	for at, want := range map[string]float64{
		`ambit_request_duration_seconds` + users + ` count`:                                                                                      15,
		`ambit_request_duration_seconds` + users + ` sum`:                                                                                        0.025,
		`ambit_request_duration_seconds` + users + ` 0.0009765625`:                                                                               0,
		`ambit_request_duration_seconds` + users + ` 0.001953125`:                                                                                10,
		`ambit_request_duration_seconds` + users + ` 0.00390625`:                                                                                 15,
		`ambit_request_duration_seconds` + users + ` 128`:                                                                                        15,
		`ambit_request_errors_total` + users:                                                                                                     0,
		`ambit_request_kept_total` + users:                                                                                                       6,
		`ambit_response_body_bytes` + users + ` count`:                                                                                           9,
		`ambit_response_body_bytes` + users + ` sum`:                                                                                             4696,
		`ambit_response_body_bytes` + users + ` 64`:                                                                                              2,
		`ambit_response_body_bytes` + users + ` 1024`:                                                                                            8,
		`ambit_response_body_bytes` + users + ` 16384`:                                                                                           9,
		`ambit_body_unknown_total{body="response",kind="SERVER",service="frontend"}`:                                                             1,
		`ambit_request_errors_total{kind="SERVER",method="GET",route="/users/{number}",service="frontend",status_class="5xx"}`:                   2,
		`ambit_request_duration_seconds{kind="SERVER",method="GET",route="/users/{number}",service="frontend",status_class="5xx"} 1`:             2,
		`ambit_request_duration_seconds{kind="SERVER",method="GET",route="/users/{number}",service="frontend",status_class="5xx"} 0.5`:           0,
		`ambit_request_duration_seconds{kind="SERVER",method="GET",route="/buy/{what}",service="frontend",status_class="2xx"} 7.62939453125e-06`: 3,
		`ambit_request_duration_seconds` + call + ` 128`:                                                                                         0,
		`ambit_request_duration_seconds` + call + ` count`:                                                                                       7,
		`ambit_request_errors_total{grpc_code="UNAVAILABLE",kind="SERVER",method="POST",route="/shop.v1.Stock/Get",service="frontend"}`:          1,
		`ambit_request_errors_total{kind="CLIENT",method="_OTHER",route="/pot",service="client",status_class="none"}`:                            4,
		`ambit_request_duration_seconds{kind="SERVER",method="_OTHER",service="frontend",status_class="4xx"} count`:                              100,
		`ambit_routes{kind="SERVER",state="named"}`:                                                                                              2,
		`ambit_routes{kind="SERVER",state="new"}`:                                                                                                1,
		`ambit_routes{kind="SERVER",state="closing"}`:                                                                                            1,
		`ambit_routes{kind="CLIENT",state="closing"}`:                                                                                            0,
		`ambit_routes_refused_total{kind="SERVER"}`:                                                                                              12,
	} {
		if value, ok := got[at]; !ok || value < want-1e-9 || value > want+1e-9 {
			t.Errorf("%s is %v, want %v", at, value, want)
		}
	}
	var count float64
	for at, value := range got {
		if strings.HasPrefix(at, "ambit_request_duration_seconds{") && strings.HasSuffix(at, " count") {
			count += value
		}
		if strings.Contains(at, "secret") || strings.Contains(at, "42") && strings.Contains(at, "users") || strings.Contains(at, "teapot") {
			t.Errorf("%s shows what a request carried", at)
		}
	}
	if count != 132 {
		t.Errorf("%v exchange sides, want all 132 of named routes and of other", count)
	}
}

func TestWhichRoutesAreLabels(t *testing.T) {
	for setting, want := range map[string]string{
		"all": "/buy/{what} /pot /shop.v1.Stock/Get /users/{number}", "rules": "/buy/{what}", "none": "",
	} {
		found := map[string]bool{}
		var count float64
		for at, value := range samples(t, setting) {
			if m := regexp.MustCompile(`route="([^"]*)"`).FindStringSubmatch(at); m != nil {
				found[m[1]] = true
			}
			if strings.HasPrefix(at, "ambit_request_duration_seconds{") && strings.HasSuffix(at, " count") {
				count += value
			}
		}
		var list []string
		for route := range found {
			list = append(list, route)
		}
		sort.Strings(list)
		if got := strings.Join(list, " "); got != want || count != 132 {
			t.Errorf("%s: routes %q that count %v", setting, got, count)
		}
	}
}

func TestLearningRoutes(t *testing.T) {
	var there bool
	r := newRoutes(func(uint64) bool { return there }, thirdRules{})
	learn(r, l7.Announcement{Key: 1, Kind: l7.Client, Method: "GET", Path: "/x"})
	if _, ok := r.Of(1); ok {
		t.Error("a route that had gone has a name")
	}
	there = true
	remote := netip.MustParseAddrPort("10.0.0.1:8080")
	for _, c := range []struct {
		what string
		a    l7.Announcement
		want l7.Route
	}{
		{"a client's route says what it called",
			l7.Announcement{Rule: bpf.NoRule, Kind: l7.Client, Method: "GET", Path: "/a/1", Host: "shop:81", Remote: remote},
			l7.Route{Kind: l7.Client, Method: "GET", Template: "/a/{number}", Host: "shop", Port: 81}},
		{"by its address where it named no host",
			l7.Announcement{Rule: bpf.NoRule, Kind: l7.Client, Method: "GET", Path: "/a/1", Remote: remote},
			l7.Route{Kind: l7.Client, Method: "GET", Template: "/a/{number}", Host: "10.0.0.1", Port: 8080}},
		{"a server's does not",
			l7.Announcement{Rule: bpf.NoRule, Kind: l7.Server, Method: "get", Path: "/a/1", Host: "shop:81", Remote: remote},
			l7.Route{Kind: l7.Server, Method: "_OTHER", Template: "/a/{number}"}},
		{"a rule's template comes before a guess",
			l7.Announcement{Rule: 5, Generation: 3, Kind: l7.Server, Method: "GET", Path: "/a/1"},
			l7.Route{Kind: l7.Server, Method: "GET", Template: "/a/{id}", FromRule: true}},
		{"unless the rules are too old to be known",
			l7.Announcement{Rule: 5, Generation: 2, Kind: l7.Server, Method: "GET", Path: "/a/1"},
			l7.Route{Kind: l7.Server, Method: "GET", Template: "/a/{number}"}},
		{"bytes that are no UTF-8 are replaced",
			l7.Announcement{Rule: bpf.NoRule, Kind: l7.Server, Method: "GET", Path: "/a\xff"},
			l7.Route{Kind: l7.Server, Method: "GET", Template: "/a\uFFFD"}},
		{"and long text is cut",
			l7.Announcement{Rule: bpf.NoRule, Kind: l7.Server, Method: "GET", Path: "/" + strings.Repeat("a", 500)},
			l7.Route{Kind: l7.Server, Method: "GET", Template: "/" + strings.Repeat("a", 252) + "…"}},
	} {
		c.a.Key = 2
		r.Learn(&c.a)
		if got, ok := r.Of(2); !ok || *got != c.want {
			t.Errorf("%s: %+v", c.what, got)
		}
	}
	// What goes while a name is learned keeps the name that it had.
	there = false
	learn(r, l7.Announcement{Key: 2, Path: "/new"})
	if got, _ := r.Of(2); !strings.HasPrefix(got.Template, "/aaa") {
		t.Errorf("%+v", got)
	}
	r.Decide(2, Decided{Rule: "slow ones", Reason: l7.ReasonSlow})
	r.Decide(3, Decided{Reason: l7.ReasonHead})
	if r.Decided(2) != (Decided{"slow ones", l7.ReasonSlow}) || r.Decided(3) != (Decided{}) {
		t.Error("what decided is not noted")
	}

	r.Forget(&bpf.Snapshot{At: time.Now()})
	if _, ok := r.Of(2); !ok {
		t.Error("a name was forgotten that came with the snapshot")
	}
	later := time.Now().Add(time.Minute)
	r.Forget(&bpf.Snapshot{At: later, Routes: []bpf.Route{{Key: 2}}})
	if _, ok := r.Of(2); !ok {
		t.Error("a name was forgotten whose route is there")
	}
	r.Forget(&bpf.Snapshot{At: later})
	if _, ok := r.Of(2); ok {
		t.Error("a name was kept whose route has gone")
	}
}

// Every metric of requests has its definition.
func TestRequestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`fqName: "([^"]+)"`)
	for _, d := range redDescs {
		if name := named.FindStringSubmatch(d.String())[1]; !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/metrics.md does not define %s", name)
		}
	}
	for _, name := range redNames {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/metrics.md does not define the label %s", name)
		}
	}
}

func TestSeriesBelongToTheirServices(t *testing.T) {
	snap, names := shop()
	made := 0
	list := metricSeries(snap, names, func(s bpf.Service) *l7.Resource {
		made++
		return &l7.Resource{ServiceName: shopName(s)}
	})
	if len(list) != len(snap.Series) || made != 3 {
		t.Errorf("%d series, %d resources", len(list), made)
	}
	for _, s := range list {
		named := s.Series.Route != 0 && s.Series.Route != 99
		if want := shopName(snap.Services[s.Service]); s.Resource.ServiceName != want || (s.Route != nil) != named {
			t.Errorf("%+v belongs to %s, route %v", s.SeriesKey, s.Resource.ServiceName, s.Route)
		}
	}
}
