package http2

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// A joined flow is one that an ambit joined in the middle.
type joined struct {
	spans  []stage.Span
	counts stage.Counts
	begun  time.Time // the ambit traced all
	ended  time.Time // the flow did
}

// join lets a program run over connections that are open, starts an ambit meanwhile, and ends the program when it has made
// ten thousand requests more.
func join(t *testing.T, n *network, p harness.Program) (log []byte, j joined) {
	t.Helper()
	process, written, end := hold(t, n.clientNS, p)
	stage.Wait(t, "the flow flows", func() error {
		if len(written.whole()) < 100_000 {
			return fmt.Errorf("%s", process.Log())
		}
		return nil
	})
	st := n.stage(t)
	j.begun = time.Now()
	done := func() int { return bytes.Count(written.whole(), []byte{'\n'}) }
	enough := done() + 10_500 // some began before
	for deadline := time.Now().Add(30 * time.Second); done() < enough && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	end()
	j.ended = time.Now()
	j.spans, j.counts = st.Settled(t)
	if j.counts.DroppedTotal() > 0 {
		t.Errorf("exchanges were dropped: %v", j.counts)
	}
	return written.whole(), j
}

// absent tells whether one of the two heads of a span's exchange is unknown in part.
func absent(s *stage.Span, head string) bool {
	list, _ := s.Attributes["ambit.unknown"].([]any)
	return slices.Contains(list, any(head))
}

// check holds what a span says to what it should: equal, or absent and said to be unknown.
func check(wrong *complaints, s *stage.Span, head, attribute string, want any, missing map[string]int) {
	got, ok := s.Attributes[attribute]
	switch {
	case !ok && want == nil:
	case !ok && absent(s, head):
		missing[attribute]++
	case got != want:
		wrong.add("%s is %v, want %v: %v", attribute, got, want, s.Attributes)
	}
}

// counted holds the number of spans to that of the requests: those that were wholly behind the start have both.
func (j *joined) counted(t *testing.T, what string, begun []float64) {
	t.Helper()
	whole := 0
	for _, at := range begun {
		if time.UnixMicro(int64(at * 1e3)).After(j.begun) {
			whole++
		}
	}
	t.Logf("%d %s began behind the start, %d spans came, %v", whole, what, len(j.spans), j.counts)
	// Others began while the ambit was starting.
	if len(j.spans) < 2*whole || whole < 10_000 {
		t.Errorf("%d spans are of %d %s", len(j.spans), whole, what)
	}
}

// logged is what a client logged, by what tells one from another, and when each began.
func logged[L any](t *testing.T, text []byte, key func(*L) (string, float64)) (map[string]*L, []float64) {
	t.Helper()
	lines, err := readLog[L](text)
	stage.Must(t, err)
	begun := make([]float64, len(lines))
	byKey := map[string]*L{}
	for i := range lines {
		var name string
		name, begun[i] = key(&lines[i])
		byKey[name] = &lines[i]
	}
	return byKey, begun
}

// On connections that were open before no span says anything that its request did not.
func TestJoined(t *testing.T) {
	for name, place := range map[string]func(testing.TB) *network{"two namespaces": cable, "ambient": ambient} {
		t.Run("Go over "+name, func(t *testing.T) {
			n := place(t)
			s := newGoServer(t, n, false)
			_, _, target := n.addresses(s.port)
			text, j := join(t, n, role(t, "flow", target.String(), "4"))
			byTarget, begun := logged(t, text, func(l *line) (string, float64) { return l.Target, l.Begun })
			j.counted(t, "requests", begun)
			j.verify(t, byTarget)
		})
		t.Run("gRPC over "+name, func(t *testing.T) {
			n := place(t)
			s := newRPCServer(t, n)
			_, _, target := n.addresses(s.port)
			text, j := join(t, n, role(t, "rpc-flow", target.String(), "4"))
			byMethod, begun := logged(t, text, func(l *rpcLine) (string, float64) { return l.Method, l.Begun })
			j.counted(t, "calls", begun)
			j.verifyCalls(t, byMethod)
		})
	}
}

func (j *joined) verify(t *testing.T, lines map[string]*line) {
	t.Helper()
	wrong := complaints{t: t}
	defer wrong.done()
	missing := map[string]int{}
	found := map[string]int{}
	for i := range j.spans {
		s := &j.spans[i]
		path, ok := s.Attributes["url.path"].(string)
		if !ok {
			missing["url.path"]++
			if !absent(s, "request") {
				wrong.add("without a path: %v", s.Attributes)
			}
			continue
		}
		query, _ := s.Attributes["url.query"].(string)
		l := lines[path+"?"+query]
		if l == nil {
			if path != "/told/200/0" {
				wrong.add("nobody asked for %s?%s: %v", path, query, s.Attributes)
			}
			continue
		}
		if found[s.Kind.String()+l.Target]++; found[s.Kind.String()+l.Target] > 1 {
			wrong.add("twice: %v", s.Attributes)
		}
		method, original := any(l.Method), any(nil)
		if !methods[l.Method] {
			method, original = "_OTHER", l.Method
		}
		check(&wrong, s, "request", "http.request.method", method, missing)
		check(&wrong, s, "request", "http.request.method_original", original, missing)
		check(&wrong, s, "request", "user_agent.original", l.Agent, missing)
		check(&wrong, s, "request", "url.scheme", "http", missing)
		if host := s.Attributes["server.address"]; host != flowAuthority {
			missing["server.address"]++
			if !absent(s, "request") || host != s.Attributes["network.peer.address"] && host != s.Attributes["network.local.address"] {
				wrong.add("another authority: %v", s.Attributes)
			}
		}
		status := l.Status
		check(&wrong, s, "response", "http.response.status_code", int64(status), missing)
		if s.Attributes["http.response.status_code"] != nil {
			failure := any(nil)
			if status >= 500 || status >= 400 && s.Client() {
				failure = fmt.Sprint(status)
			}
			check(&wrong, s, "", "error.type", failure, missing)
		}
		sizes(&wrong, s, l.Sent, l.Received)
	}
	t.Logf("absent: %v", missing)
}

// sizes holds the sizes of the bodies to what was sent.
func sizes(wrong *complaints, s *stage.Span, request, response int64) {
	for attribute, want := range map[string]int64{"http.request.body.size": request, "http.response.body.size": response} {
		if got, _ := s.Attributes[attribute].(int64); got != want {
			wrong.add("%s is %v, want %d: %v", attribute, got, want, s.Attributes)
		}
	}
}

func (j *joined) verifyCalls(t *testing.T, lines map[string]*rpcLine) {
	t.Helper()
	wrong := complaints{t: t}
	defer wrong.done()
	missing := map[string]int{}
	found := map[string]int{}
	for i := range j.spans {
		s := &j.spans[i]
		if s.Attributes["rpc.system.name"] == nil {
			// Where the content type is unknown it looks like a request.
			missing["rpc.system.name"]++
			if !absent(s, "request") {
				wrong.add("no call: %v", s.Attributes)
			}
			if path, ok := s.Attributes["url.path"].(string); ok && lines[strings.TrimPrefix(path, "/")] == nil {
				wrong.add("nobody called %s", path)
			}
			continue
		}
		method, ok := s.Attributes["rpc.method"].(string)
		if !ok {
			missing["rpc.method"]++
			if !absent(s, "request") {
				wrong.add("without a method: %v", s.Attributes)
			}
			continue
		}
		l := lines[method]
		if l == nil {
			wrong.add("nobody called %s: %v", method, s.Attributes)
			continue
		}
		if found[s.Kind.String()+method]++; found[s.Kind.String()+method] > 1 {
			wrong.add("twice: %v", s.Attributes)
		}
		agent, _ := s.Attributes["user_agent.original"].(string)
		if agent == "" && absent(s, "request") {
			missing["user_agent.original"]++
		} else if !strings.HasPrefix(agent, "rpc-flow/1 grpc-go/") {
			wrong.add("another user agent: %v", s.Attributes)
		}
		if host := s.Attributes["server.address"]; host != flowAuthority {
			missing["server.address"]++
			if !absent(s, "request") || host != s.Attributes["network.peer.address"] && host != s.Attributes["network.local.address"] {
				wrong.add("another authority: %v", s.Attributes)
			}
		}
		code := codeNames[l.Code]
		check(&wrong, s, "response", "rpc.response.status_code", code, missing)
		if s.Attributes["rpc.response.status_code"] != nil {
			failure := any(nil)
			if serverErrors[code] || s.Client() && codes.Code(l.Code) != codes.OK {
				failure = code
			}
			check(&wrong, s, "", "error.type", failure, missing)
		}
		if id, ok := s.Attributes["rpc.request.metadata.x-request-id"].([]any); ok && (len(id) != 1 || id[0] != l.RequestID) {
			wrong.add("the request ID is %v, want %s", id, l.RequestID)
		} else if !ok && l.RequestID != "" {
			missing["x-request-id"]++
			if !absent(s, "request") {
				wrong.add("the request ID is absent, want %s", l.RequestID)
			}
		}
		sizes(&wrong, s, l.Sent, l.Received)
	}
	t.Logf("absent: %v", missing)
}

// So with h2load, whose few requests are all in the tables of the connection.
func TestJoinedH2load(t *testing.T) {
	n := cable(t)
	s := newNghttpd(t, n)
	_, _, target := n.addresses(s.port)
	targets := []string{"/file.txt?one", "/file.txt?two", "/missing?" + strings.Repeat("x", 100)}
	args := []string{
		"--duration", "5", "--clients", "2", "--threads", "1", "--max-concurrent-streams", "10", "--rps", "1500", "--no-tls-proto", "h2c",
	}
	for _, path := range targets {
		args = append(args, fmt.Sprintf("http://%v%s", target, path))
	}
	process, err := n.clientNS.Start(harness.Program{Path: "h2load", Args: args})
	stage.Must(t, err)
	time.Sleep(time.Second)
	st := n.stage(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	select {
	case <-process.Done():
	case <-ctx.Done():
		t.Fatal("h2load does not end")
	}
	if err := process.Wait(); err != nil {
		t.Fatalf("%v: %s", err, process.Log())
	}
	spans, counts := st.Settled(t)
	t.Logf("%v", counts)
	if counts.DroppedTotal() > 0 || len(spans) < 10_000 {
		t.Errorf("%d spans came, %v", len(spans), counts)
	}
	wrong := complaints{t: t}
	defer wrong.done()
	missing := map[string]int{}
	for i := range spans {
		s := &spans[i]
		status := any(nil)
		if path, ok := s.Attributes["url.path"]; ok {
			at := fmt.Sprintf("%v?%v", path, s.Attributes["url.query"])
			if !slices.Contains(targets, at) {
				wrong.add("nobody asked for %s", at)
			}
			status = int64(200)
			if path == "/missing" {
				status = int64(404)
			}
		} else {
			missing["url.path"]++
			if !absent(s, "request") {
				wrong.add("without a path: %v", s.Attributes)
			}
		}
		if got, ok := s.Attributes["http.response.status_code"]; !ok {
			missing["status"]++
			if !absent(s, "response") && s.Attributes["error.type"] == nil {
				wrong.add("without a status: %v", s.Attributes)
			}
		} else if status != nil && got != status {
			wrong.add("the status is %v, want %v: %v", got, status, s.Attributes)
		}
		check(&wrong, s, "request", "http.request.method", "GET", missing)
	}
	t.Logf("absent: %v", missing)
}
