package exporter

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	colmetricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// metricsCollector is a real OTLP receiver of metrics, over gRPC and HTTP.
type metricsCollector struct {
	colmetricspb.UnimplementedMetricsServiceServer

	grpc, http string // addresses

	mu       sync.Mutex
	fail     error // of the answer
	rejected int64 // and what it says of a part
	requests []*colmetricspb.ExportMetricsServiceRequest
	paths    []string
}

func startMetricsCollector(t *testing.T) *metricsCollector {
	t.Helper()
	c := new(metricsCollector)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	colmetricspb.RegisterMetricsServiceServer(server, c)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	c.grpc = "http://" + listener.Addr().String()
	web := httptest.NewServer(http.HandlerFunc(c.post))
	t.Cleanup(web.Close)
	c.http = web.URL
	return c
}

func (c *metricsCollector) Export(_ context.Context, r *colmetricspb.ExportMetricsServiceRequest) (*colmetricspb.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return nil, c.fail
	}
	c.requests = append(c.requests, r)
	answer := &colmetricspb.ExportMetricsServiceResponse{}
	if c.rejected > 0 {
		answer.PartialSuccess = &colmetricspb.ExportMetricsPartialSuccess{RejectedDataPoints: c.rejected, ErrorMessage: "too old"}
	}
	return answer, nil
}

func (c *metricsCollector) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request colmetricspb.ExportMetricsServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, err := c.Export(r.Context(), &request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	c.mu.Lock()
	c.paths = append(c.paths, r.URL.Path)
	c.mu.Unlock()
	out, err := proto.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Write(out)
}

// received is a data point with the name of its metric and its resource's service.
type received struct {
	*metricspb.ExponentialHistogramDataPoint
	metric, unit, service string
	delta                 bool
	attributes            map[string]any
}

// take returns what was received since it was called last.
func (c *metricsCollector) take(t *testing.T) (points []received) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.requests {
		for _, rm := range r.ResourceMetrics {
			service := attributesOf(t, rm.Resource.Attributes)["service.name"]
			if rm.SchemaUrl != SchemaURL {
				t.Errorf("schema %q", rm.SchemaUrl)
			}
			for _, sm := range rm.ScopeMetrics {
				if sm.Scope.Name != ScopeName || sm.Scope.Version != "1.2.3" {
					t.Errorf("scope %v", sm.Scope)
				}
				for _, m := range sm.Metrics {
					h := m.GetExponentialHistogram()
					for _, p := range h.DataPoints {
						points = append(points, received{
							p, m.Name, m.Unit, fmt.Sprint(service),
							h.AggregationTemporality == metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA, attributesOf(t, p.Attributes),
						})
					}
				}
			}
		}
	}
	c.requests = nil
	return points
}

// counters stands for the kernel's.
type counters struct {
	mu   sync.Mutex
	list []MetricSeries
	err  error
}

func (c *counters) collect() ([]MetricSeries, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list), c.err
}

func (c *counters) set(list ...MetricSeries) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = list
}

// startMetrics makes an exporter that exports when the test says so. Variables are set before.
func startMetrics(t *testing.T, endpoint string, c *counters) *Metrics {
	t.Helper()
	m, err := NewMetrics(t.Context(), MetricsConfig{
		Endpoint: endpoint, Version: "1.2.3", Collect: c.collect, Exemplars: NewExemplars(), Log: testLogger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(context.Background()) })
	return m
}

var startOfCounting = time.Unix(1_790_000_000, 0)

// seriesOf makes a series of these latencies, in nanoseconds.
func seriesOf(key bpf.SeriesKey, latencies ...uint64) *bpf.Series {
	s := &bpf.Series{SeriesKey: key, Begun: startOfCounting}
	for _, ns := range latencies {
		s.Sum += time.Duration(ns)
		if b := bpf.LatencyBucket(ns); b >= 0 {
			s.Latency[b]++
		} else {
			s.Below++
		}
	}
	return s
}

func serverKey(route uint64, outcome bpf.Outcome) bpf.SeriesKey {
	return bpf.SeriesKey{Route: route, Service: 1, Kind: uint8(l7.Server), Outcome: outcome}
}

var usersRoute = &l7.Route{Kind: l7.Server, Method: "GET", Template: "/users/{number}"}

func TestMetricsOfRequests(t *testing.T) {
	failed := func(k bpf.SeriesKey) bpf.SeriesKey { k.Error = true; return k }
	client := func(k bpf.SeriesKey) bpf.SeriesKey { k.Kind = uint8(l7.Client); return k }
	called := &l7.Route{Kind: l7.Client, Method: "GET", Template: "/users/{number}", Host: "shop", Port: 81}
	get := &l7.Route{Kind: l7.Server, Method: "POST", Template: "/shop.v1.Stock/Get", GRPC: true}
	for _, c := range []struct {
		what    string
		guessed bool
		key     bpf.SeriesKey
		route   *l7.Route
		metric  string
		want    map[string]any
	}{
		{"a guess of a server's route is ambit's own", false, serverKey(1, 200), usersRoute, "http.server.request.duration", map[string]any{
			"http.request.method": "GET", "http.response.status_code": int64(200), "ambit.route": "/users/{number}",
			"url.scheme": "http", "network.protocol.name": "http",
		}},
		{"unless the switch is on", true, serverKey(1, 200), usersRoute, "http.server.request.duration", map[string]any{
			"http.request.method": "GET", "http.response.status_code": int64(200), "http.route": "/users/{number}",
			"url.scheme": "http", "network.protocol.name": "http",
		}},
		{"a rule's template is the route", false, failed(serverKey(1, 503)), &l7.Route{Method: "GET", Template: "/users/{id}", FromRule: true},
			"http.server.request.duration", map[string]any{
				"http.request.method": "GET", "http.response.status_code": int64(503), "error.type": "503", "http.route": "/users/{id}",
				"url.scheme": "http", "network.protocol.name": "http",
			}},
		{"a client's template is the URL's, and it says what it called", true, failed(client(serverKey(1, 404))), called,
			"http.client.request.duration", map[string]any{
				"http.request.method": "GET", "http.response.status_code": int64(404), "error.type": "404", "url.template": "/users/{number}",
				"url.scheme": "http", "network.protocol.name": "http", "server.address": "shop", "server.port": int64(81),
			}},
		{"without a whole response there is no status", false, failed(serverKey(1, bpf.OutcomeEnding+bpf.Outcome(bpf.EndingIdle))), usersRoute,
			"http.server.request.duration", map[string]any{
				"http.request.method": "GET", "error.type": "timeout", "ambit.route": "/users/{number}", "url.scheme": "http", "network.protocol.name": "http",
			}},
		{"of a reset stream the code is not counted", false, failed(serverKey(1, bpf.OutcomeEnding+bpf.Outcome(bpf.EndingStreamReset))), usersRoute,
			"http.server.request.duration", map[string]any{
				"http.request.method": "GET", "error.type": "stream_reset", "ambit.route": "/users/{number}", "url.scheme": "http", "network.protocol.name": "http",
			}},
		{"other has no method and no route", false, serverKey(0, 404), nil, "http.server.request.duration", map[string]any{
			"http.request.method": "_OTHER", "http.response.status_code": int64(404), "ambit.route": "_OTHER", "url.scheme": "http", "network.protocol.name": "http",
		}},
		{"of many outcomes the class is known, which is no attribute", false, failed(serverKey(0, bpf.OutcomeClass+5)), nil,
			"http.server.request.duration", map[string]any{
				"http.request.method": "_OTHER", "error.type": "_OTHER", "ambit.route": "_OTHER", "url.scheme": "http", "network.protocol.name": "http",
			}},
		{"a call counts as one", false, serverKey(1, bpf.OutcomeGRPC), get, "rpc.server.call.duration", map[string]any{
			"rpc.system.name": "grpc", "rpc.method": "shop.v1.Stock/Get", "rpc.response.status_code": "OK",
		}},
		{"with its code", false, failed(serverKey(1, bpf.OutcomeGRPC+14)), get, "rpc.server.call.duration", map[string]any{
			"rpc.system.name": "grpc", "rpc.method": "shop.v1.Stock/Get", "rpc.response.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE",
		}},
		{"which may be no error", false, serverKey(1, bpf.OutcomeGRPC+5), get, "rpc.server.call.duration", map[string]any{
			"rpc.system.name": "grpc", "rpc.method": "shop.v1.Stock/Get", "rpc.response.status_code": "NOT_FOUND",
		}},
		{"a client makes a code of the status of HTTP", false, failed(client(serverKey(1, bpf.OutcomeGRPCHTTP+503))),
			&l7.Route{Kind: l7.Client, Template: "/shop.v1.Stock/Get", GRPC: true, Host: "shop", Port: 81}, "rpc.client.call.duration", map[string]any{
				"rpc.system.name": "grpc", "rpc.method": "shop.v1.Stock/Get", "rpc.response.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE",
				"server.address": "shop", "server.port": int64(81),
			}},
		{"a server does not", false, failed(serverKey(1, bpf.OutcomeGRPCHTTP+503)), get, "rpc.server.call.duration", map[string]any{
			"rpc.system.name": "grpc", "rpc.method": "shop.v1.Stock/Get", "error.type": "503",
		}},
		{"a call that was reset", false, failed(serverKey(1, bpf.OutcomeGRPCEnding+bpf.Outcome(bpf.EndingReset))), get, "rpc.server.call.duration", map[string]any{
			"rpc.system.name": "grpc", "rpc.method": "shop.v1.Stock/Get", "error.type": "connection_reset",
		}},
		{"a call of other", false, serverKey(0, bpf.OutcomeGRPC), nil, "rpc.server.call.duration", map[string]any{
			"rpc.system.name": "grpc", "rpc.method": "_OTHER", "rpc.response.status_code": "OK", "ambit.route": "_OTHER",
		}},
	} {
		s := seriesOf(c.key, 1e6)
		s.Bodies[bpf.ResponseBody].Empty = 1
		maker := pointMaker{guessed: c.guessed}
		requests := maker.requests([]duePoint{{MetricSeries{s, frontend, c.route}, s, s.Begun}}, nil)
		message, points := requests[0].build(1, time.Now(), "1.2.3")
		if want := 2 - strings.Count(c.metric, "rpc"); points != max(want, 1) {
			t.Errorf("%s: %d data points", c.what, points)
		}
		found := false
		for _, m := range message.ScopeMetrics[0].Metrics {
			if m.Name != c.metric {
				if strings.HasPrefix(c.metric, "rpc") || !strings.HasSuffix(m.Name, ".response.body.size") {
					t.Errorf("%s: there is %s", c.what, m.Name)
				}
				continue
			}
			found = true
		}
		got := make(map[string]any)
		for _, a := range requests[0].points[0].attributes.ToSlice() {
			got[string(a.Key)] = a.Value.AsInterface()
		}
		if !found || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: found %v\ngot  %v\nwant %v", c.what, found, got, c.want)
		}
	}
}

// quantile is that of an exponential histogram as a backend reckons it: the geometric middle of the bucket.
func quantile(p *metricspb.ExponentialHistogramDataPoint, q float64) float64 {
	rank := uint64(math.Ceil(q * float64(p.Count)))
	sum := p.ZeroCount
	base := math.Exp2(math.Exp2(-float64(p.Scale)))
	for i, n := range p.Positive.BucketCounts {
		if sum += n; sum >= rank {
			index := float64(p.Positive.Offset) + float64(i)
			return math.Sqrt(math.Pow(base, index) * math.Pow(base, index+1))
		}
	}
	return math.NaN()
}

func TestMetricsReachACollector(t *testing.T) {
	for _, c := range []struct {
		protocol string
		endpoint func(*metricsCollector) string
		path     string
	}{
		{"grpc", func(c *metricsCollector) string { return c.grpc }, ""},
		{"http/protobuf", func(c *metricsCollector) string { return c.http }, "/v1/metrics"},
		{"http/protobuf", func(c *metricsCollector) string { return c.http + "/otlp/v1/traces" }, "/otlp/v1/metrics"},
	} {
		t.Run(c.protocol+c.path, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", c.protocol)
			to := startMetricsCollector(t)
			r := rand.New(rand.NewPCG(1, 2))
			latencies := make([]uint64, 5000)
			for i := range latencies {
				latencies[i] = max(uint64(math.Exp(r.NormFloat64()*2)*5e6), 1000)
			}
			s := seriesOf(serverKey(1, 200), latencies...)
			s.Below = 3
			s.Bodies[bpf.RequestBody] = bpf.Sizes{Unknown: 7, Empty: 2, Bytes: 1000, Buckets: [bpf.SizeBuckets]uint64{2: 4, 4: 1}}
			late := seriesOf(serverKey(9, 200), 1)
			from := &counters{list: []MetricSeries{{s, frontend, usersRoute}, {seriesOf(serverKey(0, 404), 1e6), backend, nil}, {late, frontend, nil}}}
			m := startMetrics(t, c.endpoint(to), from)
			span := exampleSpan()
			m.cfg.Exemplars.Note(1, 200, exampleCall())
			m.cfg.Exemplars.Note(1, 200, span)
			m.cfg.Exemplars.Note(1, 500, exampleCall())
			if err := m.export(t.Context()); err != nil {
				t.Fatal(err)
			}
			points := to.take(t)
			if len(points) != 3 {
				t.Fatalf("%d data points, want a duration and a size of the route, and a duration of other", len(points))
			}
			if c.path != "" && (len(to.paths) != 2 || to.paths[0] != c.path) {
				t.Errorf("posted to %v", to.paths)
			}
			for _, p := range points {
				if p.delta || p.StartTimeUnixNano != uint64(startOfCounting.UnixNano()) {
					t.Errorf("%s: delta %v, from %d", p.metric, p.delta, p.StartTimeUnixNano)
				}
				switch {
				case p.metric == "http.server.request.body.size":
					if p.unit != "By" || p.Count != 7 || p.GetSum() != 1000 || p.Scale != -1 || p.ZeroCount != 2 || p.ZeroThreshold != 1 ||
						p.Positive.Offset != 2 || !slices.Equal(p.Positive.BucketCounts, []uint64{4, 0, 1}) {
						t.Errorf("size %v", p)
					}
				case p.service == "backend":
					if p.Count != 1 || p.attributes["ambit.route"] != "_OTHER" {
						t.Errorf("other %v", p)
					}
				default:
					if p.unit != "s" || p.Count != 5003 || p.Scale != 3 || p.ZeroCount != 3 || p.ZeroThreshold != math.Exp2(-20) ||
						math.Abs(p.GetSum()-s.Sum.Seconds()) > 1e-9 {
						t.Errorf("duration %v %v", p.unit, p)
					}
					if len(p.Exemplars) != 1 || string(p.Exemplars[0].TraceId) != string(span.TraceID[:]) ||
						string(p.Exemplars[0].SpanId) != string(span.SpanID[:]) || p.Exemplars[0].GetAsDouble() != 0.002 ||
						p.Exemplars[0].TimeUnixNano != uint64(span.End) {
						t.Errorf("exemplars %v", p.Exemplars)
					}
					all := append([]uint64{0, 0, 0}, latencies...)
					slices.Sort(all)
					for _, q := range []float64{0.01, 0.1, 0.5, 0.9, 0.99, 0.999} {
						exact := float64(all[int(math.Ceil(q*float64(len(all))))-1]) / 1e9
						if got := quantile(p.ExponentialHistogramDataPoint, q); !(math.Abs(got/exact-1) <= 0.045) {
							t.Errorf("the %v-quantile is %v s, exactly %v s", q, got, exact)
						}
					}
				}
			}
			if got := m.Stats(); got.Exported != 3 || got.Failed != 0 || got.Rejected != 0 || got.LastError != "" {
				t.Errorf("%+v", got)
			}
			// An exemplar goes out once.
			m.export(t.Context())
			for _, p := range to.take(t) {
				if len(p.Exemplars) > 0 {
					t.Error("an exemplar came twice")
				}
			}
		})
	}
}

func TestMetricsThatFailComeAgain(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta")
	to := startMetricsCollector(t)
	key := serverKey(1, 200)
	from := &counters{list: []MetricSeries{{seriesOf(key, 1e6, 2e6), frontend, usersRoute}}}
	m := startMetrics(t, to.grpc, from)
	if err := m.export(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := to.take(t)
	if len(first) != 1 || first[0].Count != 2 || !first[0].delta {
		t.Fatalf("%v", first)
	}
	if m.export(t.Context()); len(to.take(t)) != 0 {
		t.Error("a delta of nothing was sent")
	}

	to.fail = status.Error(codes.Unavailable, "not now\x1b[2J")
	from.set(MetricSeries{seriesOf(key, 1e6, 2e6, 3e6), frontend, usersRoute})
	if err := m.export(t.Context()); err == nil {
		t.Error("a refused export is no error")
	}
	if got := m.Stats(); got.Exported != 1 || got.Failed != 1 || !strings.Contains(got.LastError, `not now\x1b`) {
		t.Errorf("%+v", got)
	}
	to.fail, to.rejected = nil, 1
	from.set(MetricSeries{seriesOf(key, 1e6, 2e6, 3e6, 4e6, 5e6), frontend, usersRoute})
	if err := m.export(t.Context()); err != nil {
		t.Error(err)
	}
	again := to.take(t)
	if len(again) != 1 || again[0].Count != 3 || math.Abs(again[0].GetSum()-0.012) > 1e-12 || again[0].StartTimeUnixNano != first[0].TimeUnixNano {
		t.Errorf("%v", again)
	}
	if got := m.Stats(); got.Exported != 1 || got.Rejected != 1 || got.LastError != "" {
		t.Errorf("%+v", got)
	}
	// What the collector rejected it does not want: it is not sent again.
	if m.export(t.Context()); len(to.take(t)) != 0 {
		t.Error("what was rejected came again")
	}
	from.mu.Lock()
	from.err = io.ErrUnexpectedEOF
	from.mu.Unlock()
	if err := m.export(t.Context()); err == nil || !strings.Contains(m.Stats().LastError, "read the counters") {
		t.Errorf("%v, %+v", err, m.Stats())
	}
}

// Whatever goes and comes again, the deltas add up to what was counted.
func TestDeltasAddUp(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
	to := startMetricsCollector(t)
	route, other := serverKey(1, 200), serverKey(0, 200)
	begun := func(s *bpf.Series, after time.Duration) *bpf.Series {
		s.Begun = s.Begun.Add(after)
		return s
	}
	from := new(counters)
	m := startMetrics(t, to.grpc, from)
	type counts map[string]uint64 // by ambit.route
	for _, step := range []struct {
		what string
		list []MetricSeries
		want counts
	}{
		{"a route and other", []MetricSeries{{seriesOf(route, 1e6, 2e6), frontend, usersRoute}, {seriesOf(other, 5e6), frontend, nil}},
			counts{"/users/{number}": 2, "_OTHER": 1}},
		{"the route has counted one more, and ends after that",
			[]MetricSeries{{seriesOf(route, 1e6, 2e6, 7e6), frontend, usersRoute}, {seriesOf(other, 5e6), frontend, nil}}, counts{"/users/{number}": 1}},
		{"it ends", []MetricSeries{{seriesOf(other, 5e6, 1e6), frontend, nil}}, counts{"_OTHER": 1}},
		{"it comes again, and counts less than before, elsewhere",
			[]MetricSeries{{begun(seriesOf(route, 9e9), time.Hour), frontend, usersRoute}, {seriesOf(other, 5e6, 1e6), frontend, nil}},
			counts{"/users/{number}": 1}},
		{"it goes and comes between two exports",
			[]MetricSeries{{begun(seriesOf(route, 1e3, 1e3), 2*time.Hour), frontend, usersRoute}, {seriesOf(other, 5e6, 1e6, 3e6), frontend, nil}},
			counts{"/users/{number}": 2, "_OTHER": 1}},
		{"its name gets lost, and nothing is sent",
			[]MetricSeries{{begun(seriesOf(route, 1e3, 1e3, 1e3), 2*time.Hour), frontend, nil}, {seriesOf(other, 5e6, 1e6, 3e6), frontend, nil}}, counts{}},
		{"until it is known again",
			[]MetricSeries{{begun(seriesOf(route, 1e3, 1e3, 1e3), 2*time.Hour), frontend, usersRoute}, {seriesOf(other, 5e6, 1e6, 3e6), frontend, nil}},
			counts{"/users/{number}": 1}},
		{"and other alone goes on", []MetricSeries{{seriesOf(other, 5e6, 1e6, 3e6, 3e6), frontend, nil}}, counts{"_OTHER": 1}},
	} {
		from.set(step.list...)
		if err := m.export(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := counts{}
		for _, p := range to.take(t) {
			got[p.attributes["ambit.route"].(string)] += p.Count
		}
		if fmt.Sprint(got) != fmt.Sprint(step.want) {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
}

func TestSeriesOfTheSameAttributesAreOnePoint(t *testing.T) {
	a, b := seriesOf(serverKey(1, bpf.OutcomeGRPCHTTP+502), 1e6), seriesOf(serverKey(1, bpf.OutcomeGRPCHTTP+503), 2e6, 3e6)
	for _, s := range []*bpf.Series{a, b} {
		s.Kind, s.Error = uint8(l7.Client), true
	}
	call := &l7.Route{Kind: l7.Client, Template: "/a.B/C", GRPC: true}
	var maker pointMaker
	requests := maker.requests([]duePoint{{MetricSeries{a, frontend, call}, a, a.Begun}, {MetricSeries{b, frontend, call}, b, b.Begun.Add(-time.Second)}}, nil)
	if len(requests) != 1 || len(requests[0].points) != 1 {
		t.Fatalf("%v", requests)
	}
	if p := requests[0].points[0]; p.counted.Count() != 3 || p.counted.Sum != 6*time.Millisecond || len(p.members) != 2 || !p.since.Equal(startOfCounting.Add(-time.Second)) {
		t.Errorf("%+v", p)
	}
}

// No request gets too large for a collector, whatever a service has.
func TestManySeriesAreSeveralRequests(t *testing.T) {
	var due []duePoint
	for i := range 2*requestPoints + 1 {
		s := seriesOf(serverKey(uint64(i+1), 200))
		for b := range s.Latency {
			s.Latency[b] = 1 << 20
		}
		due = append(due, duePoint{MetricSeries{s, frontend, &l7.Route{Method: "GET", Template: fmt.Sprintf("/%d%s", i, strings.Repeat("x", 250))}}, s, s.Begun})
	}
	var maker pointMaker
	requests := maker.requests(due, nil)
	if len(requests) != 3 {
		t.Fatalf("%d requests", len(requests))
	}
	to := startMetricsCollector(t)
	from := new(counters)
	for _, d := range due {
		from.list = append(from.list, d.MetricSeries)
	}
	if err := startMetrics(t, to.grpc, from).export(t.Context()); err != nil {
		t.Error(err)
	}
	largest := 0
	for _, r := range to.requests {
		largest = max(largest, proto.Size(r))
	}
	if points := len(to.take(t)); points != len(due) || largest > 3<<20 {
		t.Errorf("%d points, the largest request has %d bytes", points, largest)
	}
}

func TestMetricsAreSentAtTheInterval(t *testing.T) {
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
	to := startMetricsCollector(t)
	from := &counters{list: []MetricSeries{{seriesOf(serverKey(1, 200), 1e6), frontend, usersRoute}}}
	m := startMetrics(t, to.grpc, from)
	eventually(t, "three exports came", func() bool { return m.Stats().Exported >= 3 })
	from.set(MetricSeries{seriesOf(serverKey(1, 200), 1e6, 1e6), frontend, usersRoute})
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	points := to.take(t)
	if last := points[len(points)-1]; last.Count != 2 {
		t.Errorf("what was counted last was not sent: %v", last)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

func TestWhereMetricsGo(t *testing.T) {
	const metrics, traces, both = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
	for _, c := range []struct {
		what          string
		own, variable string
		env           map[string]string
		endpoint      string
		ok            bool
	}{
		{"without an endpoint nowhere", "", "", nil, "", false},
		{"with ambit's own there", "http://c:4317", "", map[string]string{both: "http://d:4317"}, "http://c:4317", true},
		{"the variable of metrics comes first", "http://c:4317", "", map[string]string{metrics: "http://d:4317"}, "", true},
		{"also where spans stay", "", "", map[string]string{metrics: "http://d:4317"}, "", true},
		{"the shared variable is for both", "http://d:4317", both, map[string]string{both: "http://d:4317"}, "", true},
		{"that of spans is not", "http://d:4317", traces, map[string]string{traces: "http://d:4317"}, "", false},
		{"unless there is the shared one beside it", "http://d:4317", traces, map[string]string{traces: "http://d:4317", both: "http://e:4317"}, "", true},
		{"an endpoint that was emptied stays empty", "", "", map[string]string{both: "http://d:4317"}, "", false},
	} {
		endpoint, ok := forMetrics(func(name string) string { return c.env[name] }).metricsEndpoint(c.own, c.variable)
		if endpoint != c.endpoint || ok != c.ok {
			t.Errorf("%s: %q %v", c.what, endpoint, ok)
		}
	}
}

func TestRefusedVariablesOfMetrics(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "sometimes", "OTEL_METRIC_EXPORT_INTERVAL": "1s",
		"OTEL_METRIC_EXPORT_TIMEOUT": "-1", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, err := NewMetrics(t.Context(), MetricsConfig{Exemplars: NewExemplars(), Log: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.HasPrefix(err.Error(), name+": ") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestExemplarsAreBounded(t *testing.T) {
	e := NewExemplars()
	for i := range exemplarsMax + 5 {
		e.Note(uint64(i+1), 200, exampleSpan())
	}
	if n := len(e.take()); n != exemplarsMax {
		t.Errorf("%d exemplars", n)
	}
	if n := len(e.take()); n != 0 {
		t.Errorf("%d exemplars were taken twice", n)
	}
}

// The conventions' names that docs/metrics.md has are those of the version that spans follow.
func TestNamesOfMetrics(t *testing.T) {
	for _, c := range []struct {
		i    instrument
		want string
	}{
		{httpDuration[l7.Server], "http.server.request.duration s"}, {httpDuration[l7.Client], "http.client.request.duration s"},
		{rpcDuration[l7.Server], "rpc.server.call.duration s"}, {rpcDuration[l7.Client], "rpc.client.call.duration s"},
		{httpSize[bpf.RequestBody][l7.Server], "http.server.request.body.size By"}, {httpSize[bpf.RequestBody][l7.Client], "http.client.request.body.size By"},
		{httpSize[bpf.ResponseBody][l7.Server], "http.server.response.body.size By"}, {httpSize[bpf.ResponseBody][l7.Client], "http.client.response.body.size By"},
	} {
		if got := c.i.Name() + " " + c.i.Unit(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	if got := attribute.Key(semconv.HTTPRouteKey); got != "http.route" {
		t.Error(got)
	}
}
