package admin

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	status := fullStatus()
	// There is a stub for each namespace, all of one name.
	status.Programs = append(status.Programs, Program{Name: "ambit_lo", RunCount: 1, RunTimeNS: 500000000})
	status.Memory.Maps = append(status.Memory.Maps, MapMemory{"flows", 1})
	status.Attachments = append(status.Attachments, status.Attachments[0])
	more := prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_more_total", Help: "More."})
	b := &stage{state: Tracing, status: status, rates: Rates{
		Default: 0.1, Generation: 3, Budgets: []Budget{{Name: "node", Limit: 100, Kept: 900, Refused: 80, Stopped: 7}},
		Control: &Control{
			Offered: 4000, Asked: 118, Others: -2.5, Load: Load{Factor: 0.5, State: "falling"}, Steps: 60, ControlSeconds: 0.25,
			Changes: map[string]uint64{"budget": 12}, FloorsGranted: 3, FloorsDeferred: 1, Falls: 2,
			AnomaliesFound: map[string]uint64{"error_rate": 1},
		},
	}}
	s, err := Listen(Config{Address: "127.0.0.1:0", Socket: filepath.Join(t.TempDir(), "s"), Log: quiet(), Collectors: []prometheus.Collector{more}}, b)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	want := []string{
		`ambit_anomalies_total{kind="error_rate"} 1`,
		`ambit_attachments{hook="egress",method="tcx"} 2`,
		`ambit_attachments{hook="ingress",method="clsact"} 1`,
		`ambit_attachments{hook="sockops",method="link"} 1`,
		`ambit_budget_spans_per_second{budget="node"} 100`,
		`ambit_budget_spans_total{budget="node",result="kept"} 900`,
		`ambit_budget_spans_total{budget="node",result="refused"} 80`,
		`ambit_budget_spans_total{budget="node",result="stopped"} 7`,
		`ambit_build_info{kernel="6.18.0",version="1.2.3"} 1`,
		`ambit_control 1`,
		`ambit_control_asked_per_second 118`,
		`ambit_control_changes_total{reason="budget"} 12`,
		`ambit_control_falls_total 2`,
		`ambit_control_floors_total{result="deferred"} 1`,
		`ambit_control_floors_total{result="granted"} 3`,
		`ambit_control_offered_per_second 4000`,
		`ambit_control_others_per_second -2.5`,
		`ambit_control_seconds_total 0.25`,
		`ambit_control_steps_total 60`,
		`ambit_events_total{event="desync"} 0`,
		`ambit_events_total{event="flows"} 1000`,
		`ambit_events_total{event="not_http"} 12`,
		`ambit_exchanges_dropped_total{reason="gap"} 0`,
		`ambit_exchanges_dropped_total{reason="queue_full"} 4`,
		`ambit_exchanges_dropped_total{reason="ring_full"} 9`,
		`ambit_exchanges_exported_total 123400`,
		`ambit_exchanges_in_flight 3`,
		`ambit_exchanges_queued 40`,
		`ambit_exchanges_seen_total 1.234567e+06`,
		`ambit_exchanges_submitted_total 123444`,
		`ambit_exchanges_unsampled_total 1.111111e+06`,
		`ambit_exporter_failing 1`,
		`ambit_exporter_queued_bytes 20480`,
		`ambit_load_factor 0.5`,
		`ambit_load_state{state="falling"} 1`,
		`ambit_load_state{state="holding"} 0`,
		`ambit_load_state{state="rising"} 0`,
		`ambit_load_state{state="steady"} 0`,
		`ambit_map_memory_bytes{map="flows"} 1.048577e+06`,
		`ambit_map_memory_bytes{map="ring"} 4.194304e+06`,
		`ambit_more_total 0`,
		`ambit_program_run_seconds_total{program="ambit_lo"} 2.1`,
		`ambit_program_run_seconds_total{program="ambit_sockops"} 0`,
		`ambit_program_runs_total{program="ambit_lo"} 2.000001e+06`,
		`ambit_program_runs_total{program="ambit_sockops"} 0`,
		`ambit_rate_changes_total 3`,
		`ambit_sample_rate 0.1`,
		`ambit_socket_storage_bytes 2000`,
		`ambit_state{state="handed_over"} 0`,
		`ambit_state{state="paused"} 0`,
		`ambit_state{state="starting"} 0`,
		`ambit_state{state="tracing"} 1`,
		`ambit_untapped{what="interface"} 1`,
		`ambit_untapped{what="namespace"} 1`,
		`ambit_untapped{what="selector"} 1`,
	}
	got := ambitLines(t, s)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// Without run times there are none, instead of zeros.
	b.status.RunStats = false
	for _, line := range ambitLines(t, s) {
		if strings.HasPrefix(line, "ambit_program") {
			t.Error(line)
		}
	}
}

func TestMetricsWhileStarting(t *testing.T) {
	s, _ := serve(t, &stage{status: Status{State: Starting, Version: "dev"}})
	got := strings.Join(ambitLines(t, s), "\n")
	want := `ambit_build_info{kernel="",version="dev"} 1
ambit_state{state="handed_over"} 0
ambit_state{state="paused"} 0
ambit_state{state="starting"} 1
ambit_state{state="tracing"} 0`
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

// Every metric has its definition.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 100)
	statusCollector{}.Describe(descs)
	close(descs)
	named := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range descs {
		name := named.FindStringSubmatch(d.String())[1]
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/operations.md does not define %s", name)
		}
	}
}

// Every field of the status has its definition, by its JSON name.
func TestStatusIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []reflect.Type{
		reflect.TypeFor[Status](), reflect.TypeFor[Attachment](), reflect.TypeFor[Untapped](), reflect.TypeFor[Unmatched](), reflect.TypeFor[Exchanges](), reflect.TypeFor[Program](),
		reflect.TypeFor[Memory](), reflect.TypeFor[Exporter](), reflect.TypeFor[Rates](), reflect.TypeFor[TraceSummary](),
		reflect.TypeFor[TraceDetail](), reflect.TypeFor[Span](),
	} {
		for i := range shown.NumField() {
			name, _, _ := strings.Cut(shown.Field(i).Tag.Get("json"), ",")
			if name != "" && !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("docs/operations.md does not define %s of %s", name, shown.Name())
			}
		}
	}
}

// ambitLines are the samples of ambit's own metrics; those of the process and of Go must be there as well.
func ambitLines(t *testing.T, s *Server) (lines []string) {
	t.Helper()
	status, _, text := ask(t, over("tcp", s.Addr().String()), "GET", "/metrics", "")
	if status != 200 || !strings.Contains(text, "\nprocess_resident_memory_bytes ") || !strings.Contains(text, "\ngo_goroutines ") {
		t.Fatalf("%d %s", status, text)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "ambit_") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestMetricsOfOneNameAreRefused(t *testing.T) {
	same := prometheus.NewGauge(prometheus.GaugeOpts{Name: "ambit_sample_rate", Help: "Share of the traces that are kept."})
	_, err := Listen(Config{Socket: filepath.Join(t.TempDir(), "s"), Log: quiet(), Collectors: []prometheus.Collector{same}}, &stage{})
	if err == nil || !strings.HasPrefix(err.Error(), "register metrics: ") {
		t.Error(err)
	}
}
