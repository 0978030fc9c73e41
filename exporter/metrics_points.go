package exporter

import (
	"time"

	"ambit/bpf"
	"ambit/l7"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"
)

// attributeRoute is a route that may not be http.route: a guess, or "other".
const attributeRoute = attribute.Key("ambit.route")

// requestPoints bounds the series of one request, so that it stays below the 4 MiB that collectors take by gRPC.
const requestPoints = 1000

// pointMaker makes data points of series.
type pointMaker struct {
	guessed bool // MetricsConfig.GuessedRoute
}

// metricsRequest is what goes out at once: points of one resource.
type metricsRequest struct {
	resource *l7.Resource
	points   []*metricPoint
}

// metricPoint is the counters of one set of attributes.
type metricPoint struct {
	kind       l7.Kind
	rpc        bool
	attributes attribute.Set
	counted    *bpf.Series
	since      time.Time
	members    []*bpf.Series // totals of those that are in it
	exemplar   *exemplar
}

// requests puts what is due into points, by resource. Series that have the same attributes are one point.
func (m *pointMaker) requests(due []duePoint, exemplars map[exemplarKey]exemplar) []*metricsRequest {
	type identity struct {
		resource   *l7.Resource
		kind       l7.Kind
		rpc        bool
		attributes attribute.Distinct
	}
	points := make(map[identity]*metricPoint)
	open := make(map[*l7.Resource]*metricsRequest)
	var all []*metricsRequest
	for _, d := range due {
		outcome := OutcomeOf(&d.SeriesKey)
		p := &metricPoint{kind: l7.Kind(d.Kind), rpc: outcome.RPC || d.Route != nil && d.Route.GRPC, counted: d.counted, since: d.since}
		if p.rpc {
			p.attributes = rpcAttributes(d.Route, p.kind, &outcome)
		} else {
			p.attributes = m.httpAttributes(d.Route, p.kind, &outcome)
		}
		if e, ok := exemplars[exemplarKey{d.SeriesKey.Route, d.Outcome}]; ok {
			p.exemplar = &e
		}
		id := identity{d.Resource, p.kind, p.rpc, p.attributes.Equivalent()}
		if same := points[id]; same != nil {
			same.counted = same.counted.Plus(d.counted)
			same.members = append(same.members, d.Series)
			if d.since.Before(same.since) {
				same.since = d.since
			}
			if same.exemplar == nil {
				same.exemplar = p.exemplar
			}
			continue
		}
		p.members = []*bpf.Series{d.Series}
		points[id] = p
		r := open[d.Resource]
		if r == nil || len(r.points) >= requestPoints {
			r = &metricsRequest{resource: d.Resource}
			open[d.Resource] = r
			all = append(all, r)
		}
		r.points = append(r.points, p)
	}
	return all
}

func (m *pointMaker) httpAttributes(route *l7.Route, kind l7.Kind, o *Outcome) attribute.Set {
	list := []attribute.KeyValue{
		semconv.URLScheme("http"), semconv.NetworkProtocolName("http"),
	}
	method := "_OTHER"
	switch {
	case route == nil:
		list = append(list, attributeRoute.String("_OTHER"))
	case route.Method != "":
		method = route.Method
	}
	list = append(list, semconv.HTTPRequestMethodKey.String(method))
	if o.Status != 0 {
		list = append(list, semconv.HTTPResponseStatusCode(o.Status))
	}
	if route != nil && route.Template != "" {
		switch {
		case kind == l7.Client:
			list = append(list, semconv.URLTemplate(route.Template))
		case route.FromRule || m.guessed:
			list = append(list, semconv.HTTPRoute(route.Template))
		default:
			list = append(list, attributeRoute.String(route.Template))
		}
	}
	return attribute.NewSet(append(list, commonAttributes(route, kind, o)...)...)
}

func rpcAttributes(route *l7.Route, kind l7.Kind, o *Outcome) attribute.Set {
	list := []attribute.KeyValue{semconv.RPCSystemNameGRPC}
	method := "_OTHER"
	if route == nil {
		list = append(list, attributeRoute.String("_OTHER"))
	} else {
		method = route.RPCMethodName()
	}
	if method != "" {
		list = append(list, semconv.RPCMethod(method))
	}
	if o.RPCStatus != "" {
		list = append(list, semconv.RPCResponseStatusCode(o.RPCStatus))
	}
	return attribute.NewSet(append(list, commonAttributes(route, kind, o)...)...)
}

// commonAttributes are those of requests and calls.
func commonAttributes(route *l7.Route, kind l7.Kind, o *Outcome) (list []attribute.KeyValue) {
	if o.Failure != "" {
		list = append(list, semconv.ErrorTypeKey.String(o.Failure))
	}
	if kind == l7.Client && route != nil && route.Host != "" {
		list = append(list, semconv.ServerAddress(route.Host))
		if route.Port != 0 {
			list = append(list, semconv.ServerPort(int(route.Port)))
		}
	}
	return list
}

// instrument is a metric as the conventions have it.
type instrument interface {
	Name() string
	Unit() string
	Description() string
}

// The metrics by kind.
var (
	rpcDuration  = [2]instrument{l7.Client: rpcconv.ClientCallDuration{}, l7.Server: rpcconv.ServerCallDuration{}}
	httpDuration = [2]instrument{l7.Client: httpconv.ClientRequestDuration{}, l7.Server: httpconv.ServerRequestDuration{}}
	httpSize     = [2][2]instrument{
		bpf.RequestBody:  {l7.Client: httpconv.ClientRequestBodySize{}, l7.Server: httpconv.ServerRequestBodySize{}},
		bpf.ResponseBody: {l7.Client: httpconv.ClientResponseBodySize{}, l7.Server: httpconv.ServerResponseBodySize{}},
	}
)

// zeroThreshold is the upper end of the zero bucket of latency, in seconds.
var zeroThreshold = bpf.LatencyBound(0)

// build makes the request's message, and counts its data points.
func (r *metricsRequest) build(temporality metricdata.Temporality, now time.Time, version string) (*metricdata.ResourceMetrics, int) {
	durations := make(map[instrument][]metricdata.ExponentialHistogramDataPoint[float64])
	sizes := make(map[instrument][]metricdata.ExponentialHistogramDataPoint[int64])
	n := 0
	for _, p := range r.points {
		name := httpDuration[p.kind]
		if p.rpc {
			name = rpcDuration[p.kind]
		}
		durations[name] = append(durations[name], p.duration(now))
		n++
		for b := range p.counted.Bodies {
			if size, any := p.size(b, now); any && !p.rpc {
				sizes[httpSize[b][p.kind]] = append(sizes[httpSize[b][p.kind]], size)
				n++
			}
		}
	}
	var metrics []metricdata.Metrics
	for i, points := range durations {
		metrics = append(metrics, metricdata.Metrics{
			Name: i.Name(), Description: i.Description(), Unit: i.Unit(),
			Data: metricdata.ExponentialHistogram[float64]{Temporality: temporality, DataPoints: points},
		})
	}
	for i, points := range sizes {
		metrics = append(metrics, metricdata.Metrics{
			Name: i.Name(), Description: i.Description(), Unit: i.Unit(),
			Data: metricdata.ExponentialHistogram[int64]{Temporality: temporality, DataPoints: points},
		})
	}
	return &metricdata.ResourceMetrics{
		Resource: resource.NewWithAttributes(SchemaURL, resourceAttributes(r.resource)...),
		ScopeMetrics: []metricdata.ScopeMetrics{{
			Scope:   instrumentation.Scope{Name: ScopeName, Version: version, SchemaURL: SchemaURL},
			Metrics: metrics,
		}},
	}, n
}

func resourceAttributes(r *l7.Resource) []attribute.KeyValue {
	list := make([]attribute.KeyValue, 0, len(r.Attributes))
	for _, a := range r.Attributes {
		if a.IsInt {
			list = append(list, attribute.Int64(a.Key, a.Int))
		} else {
			list = append(list, attribute.String(a.Key, a.Str))
		}
	}
	return list
}

func (p *metricPoint) duration(now time.Time) metricdata.ExponentialHistogramDataPoint[float64] {
	point := metricdata.ExponentialHistogramDataPoint[float64]{
		Attributes: p.attributes, StartTime: p.since, Time: now,
		Count: p.counted.Count(), Sum: p.counted.Sum.Seconds(),
		Scale: bpf.LatencyScale, ZeroCount: p.counted.Below, ZeroThreshold: zeroThreshold,
		PositiveBucket: buckets(p.counted.Latency[:], bpf.LatencyOffset),
	}
	if e := p.exemplar; e != nil {
		point.Exemplars = []metricdata.Exemplar[float64]{{Time: e.at, Value: e.took, SpanID: e.span[:], TraceID: e.trace[:]}}
	}
	return point
}

// size is the point of one kind of body; false where no size is known.
func (p *metricPoint) size(body int, now time.Time) (point metricdata.ExponentialHistogramDataPoint[int64], any bool) {
	s := &p.counted.Bodies[body]
	count := s.Empty
	for _, n := range s.Buckets {
		count += n
	}
	return metricdata.ExponentialHistogramDataPoint[int64]{
		Attributes: p.attributes, StartTime: p.since, Time: now,
		Count: count, Sum: int64(s.Bytes), Scale: bpf.SizeScale, ZeroCount: s.Empty, ZeroThreshold: 1,
		PositiveBucket: buckets(s.Buckets[:], 0),
	}, count > 0
}

// buckets leaves out the empty ones at both ends. offset is OpenTelemetry's index of the first one.
func buckets(counts []uint64, offset int32) metricdata.ExponentialBucket {
	for len(counts) > 0 && counts[len(counts)-1] == 0 {
		counts = counts[:len(counts)-1]
	}
	for len(counts) > 0 && counts[0] == 0 {
		counts, offset = counts[1:], offset+1
	}
	if len(counts) == 0 {
		offset = 0
	}
	return metricdata.ExponentialBucket{Offset: offset, Counts: counts}
}
