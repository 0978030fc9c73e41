package e2e

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"ambit/l7"
	"ambit/tests/e2e/stage"
)

// series is a metric of request counters with its labels as Prometheus writes them.
func series(name string, s *stage.Span, more string) string {
	kind := "SERVER"
	if s.Client() {
		kind = "CLIENT"
	}
	class := "none"
	status, ok := s.Attributes["http.response.status_code"].(int64)
	// A response that did not come whole counts as how it ended.
	if failure := s.Attributes["error.type"]; ok && (failure == nil || failure == strconv.FormatInt(status, 10)) {
		class = fmt.Sprintf("%dxx", status/100)
	}
	route := l7.Template(fmt.Sprint(s.Attributes["url.path"]), false)
	return fmt.Sprintf(`ambit_request_%s{grpc_code="",kind="%s",method="%v",route="%s",service="%v",status_class="%s"%s}`,
		name, kind, s.Attributes["http.request.method"], route, s.Resource["service.name"], class, more)
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
		want[series("kept_total", s, "")]++
		for octave := -17; octave <= 8; octave++ {
			le := fmt.Sprintf(`,le="%v"`, math.Ldexp(1, octave))
			if octave == 8 {
				le = `,le="+Inf"`
			}
			if took.Seconds() <= math.Ldexp(1, octave) || octave == 8 {
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
		if _, wanted := want[name]; !wanted && value != 0 && strings.HasPrefix(name, "ambit_request_") && !strings.HasPrefix(name, "ambit_request_body") {
			t.Errorf("%s is %v", name, value)
		}
	}

	st.Rate(t, 0)
	say()
	// What failed is kept at any rate.
	if spans, counts := st.Settled(t); counts.Unsampled+uint64(len(spans)) != 2*exchanges {
		t.Errorf("%d spans, %v", len(spans), counts)
	}
	var rows float64
	for _, r := range st.Top(t).Rows {
		rows += float64(r.Count)
	}
	if rows != 4*exchanges {
		t.Errorf("top tells of %v exchange sides", rows)
	}
	later := st.Metrics(t)
	for name, value := range got {
		if strings.HasPrefix(name, "ambit_request_duration_seconds_count") && later[name] != 2*value {
			t.Errorf("%s is %v after as many unsampled requests, before it was %v", name, later[name], value)
		}
	}
}
