package daemon

import (
	"math"

	"ambit/bpf"
	"ambit/l7"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	redDuration = prometheus.NewDesc("ambit_request_duration_seconds",
		"Duration of every exchange side, kept or not, from the first byte of the request to the last of the response.",
		[]string{"service", "kind", "status_class"}, nil)
	redErrors = prometheus.NewDesc("ambit_request_errors_total",
		"Of them, errors by the semantic conventions: 5xx, 4xx on the client's side, and no whole response.",
		[]string{"service", "kind", "status_class"}, nil)
)

// redCollector makes metrics of the kernel's RED counters.
type redCollector struct{ d *Daemon }

func (redCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- redDuration
	descs <- redErrors
}

var statusClasses = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

type redLabels struct {
	service string
	kind    string
	class   string
}

// Collect sums up by name: two cgroups of one service are one series.
func (c redCollector) Collect(out chan<- prometheus.Metric) {
	if c.d.State() == "starting" {
		return
	}
	list, err := c.d.kernel.REDs()
	if err != nil {
		out <- prometheus.NewInvalidMetric(redDuration, err)
		return
	}
	sums := make(map[redLabels]*bpf.RED)
	for _, r := range list {
		labels := redLabels{
			service: "other",
			kind:    l7.Kind(r.Kind).String(),
			class:   statusClasses[r.Class],
		}
		if r.Service != (bpf.Service{}) {
			labels.service = c.d.serviceOf(r.Service)
		}
		if sum, ok := sums[labels]; ok {
			sum.Count += r.Count
			sum.Errors += r.Errors
			sum.Sum += r.Sum
			for i, n := range r.Octaves {
				sum.Octaves[i] += n
			}
		} else {
			sums[labels] = &r
		}
	}
	for labels, sum := range sums {
		values := []string{labels.service, labels.kind, labels.class}
		buckets := make(map[float64]uint64, bpf.REDOctaves)
		var below, total uint64
		for i, n := range sum.Octaves {
			total += n
			if i < bpf.REDOctaves-1 {
				below += n
				buckets[math.Ldexp(1e-6, i)] = below
			}
		}
		out <- prometheus.MustNewConstHistogram(redDuration, total, sum.Sum.Seconds(), buckets, values...)
		out <- prometheus.MustNewConstMetric(redErrors, prometheus.CounterValue, float64(sum.Errors), values...)
	}
}
