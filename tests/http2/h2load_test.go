package http2

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
)

// h2load sends so many requests, in turn for each target, and returns how many of which class were answered.
func (s *webServer) h2load(t *testing.T, n *network, requests, streams int, targets []string) map[string]int {
	t.Helper()
	_, _, target := n.addresses(s.port)
	args := []string{
		"--requests", fmt.Sprint(requests), "--clients", fmt.Sprint(max(2, 10/streams)), "--threads", "1", "--max-concurrent-streams", fmt.Sprint(streams),
		"--no-tls-proto", "h2c",
	}
	for _, path := range targets {
		args = append(args, fmt.Sprintf("http://%v%s", target, path))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := n.clientNS.Run(ctx, "h2load", args...)
	stage.Must(t, err)
	told := map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		var total, started, done, succeeded, failed, errored, late int
		if _, err := fmt.Sscanf(lines.Text(), "requests: %d total, %d started, %d done, %d succeeded, %d failed, %d errored, %d timeout",
			&total, &started, &done, &succeeded, &failed, &errored, &late); err == nil {
			if done != requests || errored+late > 0 {
				t.Fatalf("h2load says: %s", out)
			}
		}
		var ok, redirected, missing, broken int
		if _, err := fmt.Sscanf(lines.Text(), "status codes: %d 2xx, %d 3xx, %d 4xx, %d 5xx", &ok, &redirected, &missing, &broken); err == nil {
			for class, n := range map[string]int{"2": ok, "3": redirected, "4": missing, "5": broken} {
				if n > 0 {
					told[class] = n
				}
			}
		}
	}
	if len(told) == 0 {
		t.Fatalf("h2load says: %s", out)
	}
	return told
}

var streams = []int{1, 2, 10, 100}

// Of a hundred thousand requests each is counted on each side, whatever is kept of them.
func TestH2loadCounts(t *testing.T) {
	n := cable(t)
	st := n.stage(t, "--sample-rate", "0.01")
	for _, c := range []struct {
		server  *webServer
		streams []int
		targets []string
	}{
		{newGoServer(t, n, false), streams, []string{"/told/200/a", "/told/404/b"}},
		{newNghttpd(t, n), []int{10, 100}, []string{"/file.txt", "/missing"}},
		{newNginx(t, n), []int{100}, []string{"/file.txt", "/missing"}},
	} {
		for _, each := range c.streams {
			t.Run(fmt.Sprintf("%s, %d streams", c.server.name, each), func(t *testing.T) {
				const requests = 100_000
				c.server.h2load(t, n, requests, each, c.targets)
				spans, counts := st.Settled(t)
				if counts.Seen != 2*requests || counts.DroppedTotal() > 0 || counts.InFlight > 0 || counts.Exported != uint64(len(spans)) {
					t.Errorf("%v", counts)
				}
				// Each side is kept with its trace: about a hundredth of them, five deviations off at most.
				if len(spans)%2 != 0 || len(spans) < 2*(requests/100-160) || len(spans) > 2*(requests/100+160) {
					t.Errorf("%d spans were kept", len(spans))
				}
				for event := range counts.Events {
					if !ordinary[event] {
						t.Errorf("event %s was counted: %v", event, counts)
					}
				}
			})
		}
	}
}

// Each target has as many spans as it was asked for, over whatever number of streams.
func TestH2loadTargets(t *testing.T) {
	for name, place := range map[string]func(testing.TB) *network{"two namespaces": cable, "ambient": ambient} {
		t.Run(name, func(t *testing.T) {
			n := place(t)
			st := n.stage(t)
			s := newGoServer(t, n, false)
			targets := []string{"/told/200/" + strings.Repeat("long/", 60), "/told/404/missing?a=b", "/told/503", "/told/302/x", "/%C3%BC/~:@!$&'()*+,;="}
			for _, each := range streams {
				t.Run(fmt.Sprintf("%d streams", each), func(t *testing.T) {
					const requests = 2000
					told := s.h2load(t, n, requests, each, targets)
					spans, counts := st.Spans(t, 2*requests)
					if counts.DroppedTotal() > 0 {
						t.Errorf("exchanges were dropped: %v", counts)
					}
					compareVolume(t, spans, targets, requests, told)
				})
			}
		})
	}
}

// compareVolume holds spans of h2load's requests to the targets: it takes them in turn on each connection.
func compareVolume(t *testing.T, spans []stage.Span, targets []string, requests int, told map[string]int) {
	t.Helper()
	type group struct {
		client bool
		target string
		status int64
	}
	wrong := complaints{t: t}
	defer wrong.done()
	got, classes := map[group]int{}, map[string]int{}
	for i := range spans {
		s := &spans[i]
		target := fmt.Sprint(s.Attributes["url.path"])
		if query, ok := s.Attributes["url.query"]; ok {
			target += "?" + fmt.Sprint(query)
		}
		status, _ := s.Attributes["http.response.status_code"].(int64)
		got[group{s.Client(), target, status}]++
		if s.Client() {
			classes[fmt.Sprint(status/100)]++
		}
		agent := fmt.Sprint(s.Attributes["user_agent.original"])
		if s.Attributes["http.request.method"] != "GET" || !strings.HasPrefix(agent, "h2load ") || s.End.Before(s.Start) ||
			s.Attributes["http.response.body.size"] != int64(5) || s.Attributes["network.protocol.version"] != "2" {
			wrong.add("a span is %+v", s)
		}
	}
	want := map[group]int{}
	for _, target := range targets {
		status := int64(200)
		_, _ = fmt.Sscanf(target, "/told/%d", &status) // else it stays
		for _, client := range []bool{true, false} {
			want[group{client, target, status}] = requests / len(targets)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the spans are %v, want %v", got, want)
	}
	if !maps.Equal(classes, told) {
		t.Errorf("the spans' statuses are %v, h2load got %v", classes, told)
	}
}
