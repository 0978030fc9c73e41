package daemon

import (
	"math"

	"ambit/bpf"
	"ambit/exporter"
	"ambit/l7"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	redNames = []string{"service", "kind", "status_class", "method", "route", "grpc_code"}

	redDuration = prometheus.NewDesc("ambit_request_duration_seconds",
		"Duration of every exchange side, kept or not, from the first byte of the request to the last of the response.", redNames, nil)
	redErrors = prometheus.NewDesc("ambit_request_errors_total",
		"Of them, errors by the semantic conventions: 5xx, 4xx on the client's side, codes of gRPC, and no whole response.", redNames, nil)
	redKept = prometheus.NewDesc("ambit_request_kept_total", "Of them, those that became spans.", redNames, nil)
	redBody = [2]*prometheus.Desc{
		bpf.RequestBody:  prometheus.NewDesc("ambit_request_body_bytes", "Sizes of request bodies that were seen whole.", redNames, nil),
		bpf.ResponseBody: prometheus.NewDesc("ambit_response_body_bytes", "Sizes of response bodies that were seen whole.", redNames, nil),
	}
	redBodyUnknown = prometheus.NewDesc("ambit_body_unknown_total", "Bodies of which bytes were never seen.",
		[]string{"service", "kind", "body"}, nil)
	redRoutes = prometheus.NewDesc("ambit_routes", "Routes that are told apart.", []string{"kind", "state"}, nil)
	redGone   = prometheus.NewDesc("ambit_routes_gone_requests",
		"Exchange sides of series that ended, as their route was not used for long: in no row any more, unless the row goes on.", []string{"kind"}, nil)
	redOther = prometheus.NewDesc("ambit_routes_refused_total",
		"Exchange sides that count for no route of their own, as a quota or the table was full.", []string{"kind"}, nil)
)

var redDescs = []*prometheus.Desc{
	redDuration, redErrors, redKept, redBody[0], redBody[1], redBodyUnknown, redRoutes, redGone, redOther,
}

// Bounds of /metrics' buckets: one for each doubling of seconds, 7.6 us to 128 s, and one for each 16-fold of bytes.
// They are bounds of the kernel's buckets too, so that no count is on the wrong side of one.
const (
	redFirstOctave, redLastOctave = -17, 7
	redFirstSize, redLastSize     = 3, 13 // powers of 4
	redSizeStep                   = 2
)

// redCollector makes metrics of the kernel's counters.
type redCollector struct {
	d     *Daemon
	ended *redEnded
}

func (redCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range redDescs {
		descs <- d
	}
}

type redLabels struct {
	service, kind, class, method, route, code string
}

// redRow is what bears the same labels.
type redRow struct {
	*bpf.Series
	errors uint64
}

func (r redRow) plus(s *bpf.Series) redRow {
	if s.Error {
		r.errors += s.Count()
	}
	if r.Series != nil {
		s = r.Series.Plus(s)
	}
	r.Series = s
	return r
}

func (l *redLabels) values() []string {
	return []string{l.service, l.kind, l.class, l.method, l.route, l.code}
}

// Collect reads the counters anew, so that it tells of what has just ended too.
func (c redCollector) Collect(out chan<- prometheus.Metric) {
	if c.d.ready() != nil {
		return
	}
	if err := c.d.series.Read(); err != nil {
		out <- prometheus.NewInvalidMetric(redDuration, err)
		return
	}
	c.ended.mu.Lock()
	defer c.ended.mu.Unlock()
	snap := c.d.series.Snapshot()
	rows, labels := redRows(snap, c.d.routes, c.d.serviceName, c.d.cfg.Metrics.Routes)
	c.ended.keep(snap, rows, labels)
	collectRED(snap, rows, out)
}

// serviceName is what a service is called in metrics; "other" is what the kernel's table had no room for.
func (d *Daemon) serviceName(s bpf.Service) string {
	if s == (bpf.Service{}) {
		return "other"
	}
	return d.serviceOf(s)
}

// redRows sums up by labels: two cgroups of one service are one row. Routes that have no name yet are left out until they
// have one: elsewhere their counters would go down then. routes is the setting metrics.routes.
// The labels are those of each series that is in a row.
func redRows(snap *bpf.Snapshot, names *Routes, serviceName func(bpf.Service) string, routes string) (map[redLabels]redRow, map[bpf.SeriesKey]redLabels) {
	services := make(map[uint16]string, len(snap.Services))
	rows, all := make(map[redLabels]redRow), make(map[bpf.SeriesKey]redLabels, len(snap.Series))
	for _, s := range snap.Series {
		labels, ok := redLabelsOf(s, names, routes)
		if !ok {
			continue
		}
		name, ok := services[s.Service]
		if !ok {
			name = serviceName(snap.Services[s.Service])
			services[s.Service] = name
		}
		labels.service = name
		all[s.SeriesKey] = labels
		rows[labels] = rows[labels].plus(s)
	}
	return rows, all
}

// redLabelsOf gives the labels of a series without the service; false where its route has no name.
func redLabelsOf(s *bpf.Series, names *Routes, routes string) (redLabels, bool) {
	outcome := exporter.OutcomeOf(&s.SeriesKey)
	labels := redLabels{kind: l7.Kind(s.Kind).String(), method: "_OTHER", code: outcome.RPCStatus}
	if !outcome.RPC || outcome.Class != 0 || outcome.RPCStatus == "" {
		labels.class = statusClass(outcome.Class)
	}
	if s.Route == 0 {
		return labels, true
	}
	route, ok := names.Of(s.Route)
	if !ok {
		return labels, false
	}
	labels.method = route.Method
	if routes == "all" || routes == "rules" && route.FromRule {
		labels.route = route.Template
		if name := route.RPCMethodName(); route.GRPC && !route.FromRule && name == "_OTHER" {
			labels.route = name // a path that is no method's need not be a template
		}
	}
	return labels, true
}

func statusClass(class int) string {
	if class >= 1 && class <= 5 {
		return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[class-1]
	}
	return "none"
}

func collectRED(snap *bpf.Snapshot, rows map[redLabels]redRow, out chan<- prometheus.Metric) {
	const counter = prometheus.CounterValue
	unknown := make(map[[3]string]uint64)
	for labels, s := range rows {
		values := labels.values()
		out <- prometheus.MustNewConstHistogram(redDuration, s.Count(), s.Sum.Seconds(), octaves(s.Series), values...)
		out <- prometheus.MustNewConstMetric(redErrors, counter, float64(s.errors), values...)
		out <- prometheus.MustNewConstMetric(redKept, counter, float64(s.Kept), values...)
		for b, name := range [2]string{"request", "response"} {
			body := &s.Bodies[b]
			buckets, count := sizes(body)
			out <- prometheus.MustNewConstHistogram(redBody[b], count, float64(body.Bytes), buckets, values...)
			unknown[[3]string{labels.service, labels.kind, name}] += body.Unknown
		}
	}
	for at, n := range unknown {
		out <- prometheus.MustNewConstMetric(redBodyUnknown, counter, float64(n), at[:]...)
	}
	states := make(map[[2]string]int)
	for kind := range bpf.Sides {
		for _, state := range routeStates {
			states[[2]string{l7.Kind(kind).String(), state}] = 0
		}
	}
	for _, r := range snap.Routes {
		states[[2]string{l7.Kind(r.Kind).String(), routeStates[min(int(r.State), len(routeStates)-1)]}]++
	}
	for at, n := range states {
		out <- prometheus.MustNewConstMetric(redRoutes, prometheus.GaugeValue, float64(n), at[:]...)
	}
	for kind, n := range snap.Gone {
		out <- prometheus.MustNewConstMetric(redGone, prometheus.GaugeValue, float64(n), l7.Kind(kind).String())
	}
	for kind, n := range snap.Refused {
		out <- prometheus.MustNewConstMetric(redOther, counter, float64(n), l7.Kind(kind).String())
	}
}

var routeStates = [...]string{bpf.RouteNew: "new", bpf.RouteNamed: "named", bpf.RouteClosing: "closing"}

// octaves counts what is at most as long as each bound, in seconds.
func octaves(s *bpf.Series) map[float64]uint64 {
	buckets := make(map[float64]uint64, redLastOctave-redFirstOctave+1)
	sum, next := s.Below, 0
	for octave := redFirstOctave; octave <= redLastOctave; octave++ {
		// Buckets up to the one that ends at 2^octave s.
		for end := octave<<bpf.LatencyScale - bpf.LatencyOffset; next < end; next++ {
			sum += s.Latency[next]
		}
		buckets[math.Ldexp(1, octave)] = sum
	}
	return buckets
}

// sizes counts what is at most as large as each bound, in bytes, and all.
func sizes(body *bpf.Sizes) (buckets map[float64]uint64, count uint64) {
	buckets = make(map[float64]uint64)
	count = body.Empty
	for i, n := range body.Buckets {
		count += n
		if power := i + 1; power >= redFirstSize && power <= redLastSize && (power-redFirstSize)%redSizeStep == 0 {
			buckets[math.Ldexp(1, 2*power)] = count
		}
	}
	return buckets, count
}
