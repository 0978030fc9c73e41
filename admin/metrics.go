package admin

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ambit_"+name, help, labels, nil)
}

// What statusCollector sends; docs/operations.md has the same list.
var (
	buildInfo         = describe("build_info", "Always 1.", "version", "kernel")
	stateInfo         = describe("state", "1 for the state that the daemon is in.", "state")
	attachments       = describe("attachments", "Programs at hooks.", "hook", "method")
	untapped          = describe("untapped", "Namespaces, interfaces and selectors that are selected and not tapped.", "what")
	exchangesSeen     = describe("exchanges_seen_total", "Exchange sides begun.")
	exchangesNotKept  = describe("exchanges_unsampled_total", "Exchange sides that ended and were not kept.")
	exchangesHanded   = describe("exchanges_submitted_total", "Exchange sides that the kernel handed to userspace.")
	exchangesExported = describe("exchanges_exported_total", "Exchange sides that the exporter delivered.")
	exchangesDropped  = describe("exchanges_dropped_total", "Exchange sides that were lost.", "reason")
	exchangesInFlight = describe("exchanges_in_flight", "Exchange sides begun and not ended.")
	exchangesQueued   = describe("exchanges_queued", "Exchange sides on their way through userspace.")
	events            = describe("events_total", "What happened beside exchanges.", "event")
	programRuns       = describe("program_runs_total", "Runs of a kernel program.", "program")
	programSeconds    = describe("program_run_seconds_total", "Time in a kernel program.", "program")
	mapMemory         = describe("map_memory_bytes", "Kernel memory of a map.", "map")
	socketStorage     = describe("socket_storage_bytes", "Kernel memory kept at sockets.")
	exporterFailing   = describe("exporter_failing", "1 while the collector does not take spans.")
	exporterQueue     = describe("exporter_queued_bytes", "Encoded spans that wait.")
	sampleRate        = describe("sample_rate", "Share of the traces that are kept.")
	rateChanges       = describe("rate_changes_total", "Changes of the rates.")
	budgetLimit       = describe("budget_spans_per_second", "Most spans per second of a budget; 0 is no limit.", "budget")
	budgetSpans       = describe("budget_spans_total", "Spans that a budget was asked for.", "budget", "result")
	controlOn         = describe("control", "1 while rates are moved.")
	controlOffered    = describe("control_offered_per_second", "Exchange sides per second of routes whose rates are moved.")
	controlAsked      = describe("control_asked_per_second", "Spans per second that these rates should keep.")
	controlOthers     = describe("control_others_per_second", "Spans per second that are kept by rules, callers and the tail.")
	controlSteps      = describe("control_steps_total", "Steps of the controller of rates.")
	controlSeconds    = describe("control_seconds_total", "Time that they took.")
	controlChanges    = describe("control_changes_total", "Changes of rates of routes.", "reason")
	controlFloors     = describe("control_floors_total", "Routes that had no span for a minute.", "result")
	controlFalls      = describe("control_falls_total", "Times that rates were lowered for load.")
	loadFactor        = describe("load_factor", "What load of the node leaves of rates, 0 to 1.")
	loadState         = describe("load_state", "1 for the state of the load factor.", "state")
	anomaliesTotal    = describe("anomalies_total", "Routes that began to behave unlike themselves.", "kind")
)

// statusCollector makes metrics of Status, so that both tell the same.
type statusCollector struct{ backend Backend }

func (statusCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, stateInfo, attachments, untapped, exchangesSeen, exchangesNotKept, exchangesHanded, exchangesExported,
		exchangesDropped, exchangesInFlight, exchangesQueued, events, programRuns, programSeconds, mapMemory,
		socketStorage, exporterFailing, exporterQueue, sampleRate, rateChanges,
		budgetLimit, budgetSpans, controlOn, controlOffered, controlAsked, controlOthers, controlSteps, controlSeconds,
		controlChanges, controlFloors, controlFalls, loadFactor, loadState, anomaliesTotal,
	} {
		descs <- d
	}
}

func (c statusCollector) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	s, err := c.backend.Status(ctx)
	if err != nil {
		metrics <- prometheus.NewInvalidMetric(exchangesSeen, fmt.Errorf("read the status: %w", err))
		return
	}
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue

	send(buildInfo, gauge, 1, s.Version, s.Kernel)
	for _, state := range []State{Starting, Tracing, Paused, HandedOver} {
		send(stateInfo, gauge, flag(s.State == state), string(state))
	}
	if s.State == Starting || s.State == HandedOver { // there is nothing to count yet, or another daemon counts
		return
	}
	rates, err := c.backend.Rates(RatesQuery{})
	if err != nil {
		metrics <- prometheus.NewInvalidMetric(sampleRate, fmt.Errorf("read the rates: %w", err))
		return
	}
	places := map[[2]string]int{}
	for _, a := range s.Attachments {
		places[[2]string{a.Hook, a.Method}]++
	}
	for place, n := range places {
		send(attachments, gauge, float64(n), place[0], place[1])
	}

	missing := map[string]int{"namespace": 0, "interface": 0, "selector": len(s.Unmatched)}
	for _, u := range s.Untapped {
		if u.Interface == "" {
			missing["namespace"]++
		} else {
			missing["interface"]++
		}
	}
	for what, n := range missing {
		send(untapped, gauge, float64(n), what)
	}

	send(exchangesSeen, counter, float64(s.Exchanges.Seen))
	send(exchangesNotKept, counter, float64(s.Exchanges.Unsampled))
	send(exchangesHanded, counter, float64(s.Exchanges.Submitted))
	send(exchangesExported, counter, float64(s.Exchanges.Exported))
	send(exchangesInFlight, gauge, float64(s.Exchanges.InFlight))
	send(exchangesQueued, gauge, float64(s.Exchanges.Queued))
	for reason, n := range s.Exchanges.Dropped {
		send(exchangesDropped, counter, float64(n), reason)
	}
	for event, n := range s.Events {
		send(events, counter, float64(n), event)
	}

	// One name may belong to several programs, and a set of labels may be sent once only.
	programs := map[string]Program{}
	for _, p := range s.Programs {
		if !s.RunStats { // all zeros would look like programs that never run
			break
		}
		sum := programs[p.Name]
		sum.RunCount += p.RunCount
		sum.RunTimeNS += p.RunTimeNS
		programs[p.Name] = sum
	}
	for name, p := range programs {
		send(programRuns, counter, float64(p.RunCount), name)
		send(programSeconds, counter, float64(p.RunTimeNS)/1e9, name)
	}
	maps := map[string]uint64{}
	for _, m := range s.Memory.Maps {
		maps[m.Name] += m.Bytes
	}
	for name, n := range maps {
		send(mapMemory, gauge, float64(n), name)
	}
	send(socketStorage, gauge, float64(s.Memory.SocketStorage))

	send(exporterFailing, gauge, flag(s.Exporter.State == ExporterFailing))
	send(exporterQueue, gauge, float64(s.Exporter.QueuedBytes))
	send(sampleRate, gauge, rates.Default)
	send(rateChanges, counter, float64(rates.Generation))
	for _, b := range rates.Budgets {
		send(budgetLimit, gauge, b.Limit, b.Name)
		send(budgetSpans, counter, float64(b.Kept), b.Name, "kept")
		send(budgetSpans, counter, float64(b.Refused), b.Name, "refused")
		send(budgetSpans, counter, float64(b.Stopped), b.Name, "stopped")
	}
	send(controlOn, gauge, flag(rates.Control != nil))
	if rates.Control != nil {
		rates.Control.collect(send)
	}
}

func (k *Control) collect(send func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string)) {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	send(controlOffered, gauge, k.Offered)
	send(controlAsked, gauge, k.Asked)
	send(controlOthers, gauge, k.Others)
	send(controlSteps, counter, float64(k.Steps))
	send(controlSeconds, counter, k.ControlSeconds)
	for reason, n := range k.Changes {
		send(controlChanges, counter, float64(n), reason)
	}
	send(controlFloors, counter, float64(k.FloorsGranted), "granted")
	send(controlFloors, counter, float64(k.FloorsDeferred), "deferred")
	send(controlFalls, counter, float64(k.Falls))
	send(loadFactor, gauge, k.Load.Factor)
	for _, state := range LoadStates {
		send(loadState, gauge, flag(state == k.Load.State), state)
	}
	for kind, n := range k.AnomaliesFound {
		send(anomaliesTotal, counter, float64(n), kind)
	}
}

// LoadStates are the words of Load.State.
var LoadStates = []string{"steady", "falling", "holding", "rising"}

func flag(set bool) float64 {
	if set {
		return 1
	}
	return 0
}

// metricsHandler serves the status, the Go runtime, the process and more as Prometheus metrics.
func metricsHandler(backend Backend, more []prometheus.Collector) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	all := append([]prometheus.Collector{
		statusCollector{backend},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, more...)
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		Timeout:             writeTimeout,
	}), nil
}
