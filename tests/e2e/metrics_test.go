package e2e

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

// series is a metric of request counters with its labels as Prometheus writes them.
func series(name string, s *stage.Span, more string) string {
	kind := "SERVER"
	if s.Client() {
		kind = "CLIENT"
	}
	class := "none"
	if status, ok := s.Attributes["http.response.status_code"].(int64); ok {
		class = fmt.Sprintf("%dxx", status/100)
	}
	return fmt.Sprintf(`ambit_request_%s{kind="%s",service="%v",status_class="%s"%s}`, name, kind, s.Resource["service.name"], class, more)
}

// The request counters tell of every exchange side what the spans tell: how many, how long, and how many failed; and they
// go on while nothing is kept.
func TestMetrics(t *testing.T) {
	n := newNetwork(t)
	st := n.stage(t)
	p := n.cable()
	say := func() {
		for _, turns := range []script{
			{ask(1, plain), tell(1, okay), ask(1, plain), tell(1, response(404, "no")), pause(3 * time.Millisecond), ask(1, plain), tell(1, response(503, "no"))},
			{ask(1, plain), tell(1, response(302, "")), ask(1, plain), pause(20 * time.Millisecond), tell(1, okay), ask(1, plain), tell(1, okay)},
			{ask(1, plain), closes(server).finishes(1)},
			{ask(1, plain), head("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), closes(server).finishes(1)},
		} {
			c := connect(t, p, netip.AddrPort{})
			stage.Must(t, c.play(turns))
			c.close()
		}
	}
	const exchanges = 8
	say()
	spans, _ := st.Spans(t, 2*exchanges)
	want := map[string]float64{}
	for i := range spans {
		s := &spans[i]
		took := s.End.Sub(s.Start)
		want[series("duration_seconds_count", s, "")]++
		want[series("duration_seconds_sum", s, "")] += took.Seconds()
		for octave := range 27 {
			le := fmt.Sprintf(`,le="%v"`, math.Ldexp(1e-6, octave))
			if octave == 26 {
				le = `,le="+Inf"`
			}
			if took.Microseconds() < 1<<octave || octave == 26 {
				want[series("duration_seconds_bucket", s, le)]++
			}
		}
		if s.Failed {
			want[series("errors_total", s, "")]++
		}
	}
	want["ambit_exchanges_seen_total"], want["ambit_exchanges_exported_total"] = 2*exchanges, 2*exchanges
	want["ambit_exchanges_unsampled_total"], want["ambit_exchanges_in_flight"] = 0, 0
	want[`ambit_state{state="tracing"}`] = 1
	got := st.Metrics(t)
	for name, value := range want {
		if math.Abs(got[name]-value) > 1e-8 { // nanoseconds, as floating-point numbers
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	for name, value := range got {
		if _, wanted := want[name]; !wanted && value != 0 && strings.HasPrefix(name, "ambit_request_") {
			t.Errorf("%s is %v", name, value)
		}
	}

	st.Rate(t, 0)
	say()
	if _, counts := st.Spans(t, 0); counts.Unsampled != 2*exchanges {
		t.Errorf("%v", counts)
	}
	later := st.Metrics(t)
	for name, value := range got {
		if strings.HasPrefix(name, "ambit_request_duration_seconds_count") && later[name] != 2*value {
			t.Errorf("%s is %v after as many unsampled requests, before it was %v", name, later[name], value)
		}
	}
}
