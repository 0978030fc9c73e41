package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ambit/tests/e2e/stage"
)

// Volume by wrk, over loopback and between namespaces: as many spans of each status as wrk counts, and the server.
func TestWrk(t *testing.T) {
	const threads, each = 3, 400
	n := newNetwork(t)
	st := n.stage(t)
	upstream := newGoServer(t, n.server, upstreamPort)
	_, proxy := newNginx(t, n.server, upstream)
	for _, test := range []struct {
		name  string
		place place
		s     *webServer
		sides int
	}{
		{"loopback, Go", n.loopback(), upstream, 2},
		{"two namespaces, Go", n.cable(), upstream, 2},
		{"two namespaces, nginx as a proxy", n.cable(), proxy, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := runWrk(t, test.place, test.s, threads, each)
			var total, ok, missing, broken, failed int
			_, result, _ := strings.Cut(out, "told ")
			if _, err := fmt.Sscan(result, &total, &ok, &missing, &broken, &failed); err != nil {
				t.Fatalf("wrk said %q: %v", out, err)
			}
			if total != threads*each || failed > 0 || ok+missing+broken != total {
				t.Fatalf("wrk said %q", out)
			}
			told := map[int64]int{200: ok, 404: missing, 503: broken}

			served := map[int64]int{}
			for _, l := range test.s.all(t, total) {
				served[int64(l.Status)]++
			}
			if test.s.app != nil {
				test.s.app.all(t, total)
			}
			if !maps.Equal(served, told) {
				t.Errorf("the server answered %v, wrk got %v", served, told)
			}
			spans, counts := st.Spans(t, test.sides*total)
			if counts.DroppedTotal() > 0 {
				t.Errorf("exchanges were dropped: %v", counts)
			}
			compareVolume(t, spans, test.s, told)
		})
	}
}

// runWrk lets each of wrk's threads send its requests over one connection, and returns what wrk says.
func runWrk(t *testing.T, p place, s *webServer, threads, each int) string {
	t.Helper()
	wrk := program(t, "wrk", "-t", fmt.Sprint(threads), "-c", fmt.Sprint(threads), "-d", "60s", "-s", "count.lua",
		fmt.Sprintf("http://%v:%d", p.to, s.port), "--", fmt.Sprint(each))
	said := new(output)
	wrk.Stdout = said
	process, err := p.clientNS.Start(wrk)
	stage.Must(t, err)
	stage.Wait(t, "wrk's threads are done", func() error {
		if n := strings.Count(said.String(), "a thread is done\n"); n < threads {
			return fmt.Errorf("%d are: %s", n, process.Log())
		}
		return nil
	})
	stage.Must(t, process.Signal(unix.SIGINT), process.Wait())
	return said.String()
}

// compareVolume holds the number of spans by process, kind and status to what was counted, and each SERVER span to its
// CLIENT span.
func compareVolume(t *testing.T, spans []stage.Span, s *webServer, told map[int64]int) {
	t.Helper()
	type group struct {
		service string
		client  bool
		status  int64
	}
	got, want := map[group]int{}, map[group]int{}
	for status, n := range told {
		want[group{"wrk", true, status}], want[group{s.name, false, status}] = n, n
		if s.app != nil {
			want[group{s.name, true, status}], want[group{s.app.name, false, status}] = n, n
		}
	}
	parents := map[string]string{}
	for _, span := range spans {
		status, _ := span.Attributes["http.response.status_code"].(int64)
		got[group{fmt.Sprint(span.Resource["service.name"]), span.Client(), status}]++
		if span.Client() {
			parents[span.SpanID] = span.TraceID
		}
		a := span.Attributes
		if a["url.path"] != fmt.Sprintf("/%d", status) || a["user_agent.original"] != "wrk" || a["http.response.body.size"] != int64(64) ||
			span.End.Before(span.Start) {
			t.Errorf("a span is %+v", span)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the spans are %v, want %v", got, want)
	}
	for _, span := range spans {
		if span.Client() {
			continue
		}
		if trace, ok := parents[span.ParentID]; !ok || trace != span.TraceID {
			t.Errorf("a SERVER span has no CLIENT span: %+v", span)
		}
		delete(parents, span.ParentID)
	}
}
