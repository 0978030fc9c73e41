package http2

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// rpcServer is grpc-go's interop server that runs, and its log.
type rpcServer struct {
	port    uint16
	process *harness.Process
	log     *log[rpcLine]
}

func newRPCServer(t testing.TB, n *network) *rpcServer {
	s := &rpcServer{port: n.port(rpcPort), log: &log[rpcLine]{path: filepath.Join(t.TempDir(), "log")}}
	s.process = start(t, n.server, s.port, role(t, "rpc-serve", fmt.Sprint(s.port), s.log.path))
	return s
}

// rpcClients are implementations of gRPC, each by a program that does the interop cases and checks what it gets.
var rpcClients = []struct {
	name    string // of its service
	program func(t *testing.T, target string) harness.Program
}{
	{"go-rpc-call", func(t *testing.T, target string) harness.Program { return role(t, "rpc-call", target) }},
	{"rpc.py", func(t *testing.T, target string) harness.Program {
		return program(t, installed(t, "python/bin/python"), "rpc.py", target, strings.Join(interopCases, ","))
	}},
	{"rpc.js", func(t *testing.T, target string) harness.Program {
		p := program(t, "node", "rpc.js", target, strings.Join(interopCases, ","))
		p.Env = []string{"NODE_PATH=" + installed(t, "node/node_modules")}
		return p
	}},
}

// Each call is one span on each side, and says how it ended as both ends logged it.
func TestInterop(t *testing.T) {
	for name, place := range map[string]func(testing.TB) *network{"two namespaces": cable, "ambient": ambient} {
		t.Run(name, func(t *testing.T) {
			n := place(t)
			st := n.stage(t, "--capture-grpc-message", "true")
			s := newRPCServer(t, n)
			for _, c := range rpcClients {
				t.Run(c.name, func(t *testing.T) {
					_, _, target := n.addresses(s.port)
					process, written, end := hold(t, n.clientNS, c.program(t, target.String()))
					calls := wholeLog[rpcLine](t, process, written, interopCalls)
					spans, counts := st.Settled(t)
					end()
					if counts.DroppedTotal() > 0 || counts.InFlight > 0 {
						t.Errorf("%v", counts)
					}
					served := s.log.rest(t)
					verifyCalls(t, n, s, spans, calls, served, c.name)
				})
			}
		})
	}
}

// interopCalls is how many calls the cases make: two of them make two.
const interopCalls = 16

// verifyCalls holds the spans of calls that were made one after the other to the logs.
func verifyCalls(t *testing.T, n *network, s *rpcServer, spans []stage.Span, calls, served []rpcLine, service string) {
	t.Helper()
	wrong := complaints{t: t}
	defer wrong.done()
	byStart := func(a, b rpcLine) int { return int((a.Begun - b.Begun) * 1e3) }
	slices.SortStableFunc(calls, byStart)
	slices.SortStableFunc(served, byStart)
	var sides [2][]stage.Span
	for _, span := range spans {
		if span.Client() {
			sides[0] = append(sides[0], span)
		} else {
			sides[1] = append(sides[1], span)
		}
	}
	// A deadline of a millisecond, the last call's, may be over before anything was sent.
	if last := interopCalls - 1; len(sides[0]) == last {
		calls = calls[:last]
	}
	if len(sides[0]) != len(calls) || len(sides[1]) != len(calls) || len(served) > len(calls) {
		t.Errorf("%d CLIENT and %d SERVER spans are of %d calls, of which the server has logged %d", len(sides[0]), len(sides[1]), len(calls), len(served))
		return
	}
	source, local, target := n.addresses(s.port)
	for i := range calls {
		c := call{client: calls[i], services: [2]string{service, "go-rpc-serve"}, source: source, local: local, target: target, whole: !n.mesh}
		c.deadline = i == interopCalls-1
		if len(served) > 0 && served[0].Method == c.client.Method {
			c.server, served = served[0], served[1:]
		} else if !givenUp[codes.Code(c.client.Code)] {
			t.Fatalf("the server has not logged %+v", c.client)
		}
		for side := range sides {
			c.compare(&wrong, &sides[side][i])
		}
		client, server := sides[0][i], sides[1][i]
		if c.whole && (server.TraceID != client.TraceID || server.ParentID != client.SpanID ||
			client.Attributes["ambit.http2.stream"] != server.Attributes["ambit.http2.stream"]) {
			wrong.add("%s: the SERVER span is no child of the CLIENT span", c.client.Method)
		}
	}
}

// givenUp are the codes that a client makes itself.
var givenUp = map[codes.Code]bool{codes.Canceled: true, codes.DeadlineExceeded: true}

// call is one call by the logs of its two ends.
type call struct {
	client, server rpcLine // the server may have seen nothing of it
	services       [2]string
	source         netip.Addr
	local, target  netip.AddrPort
	whole          bool
	deadline       bool // it had one that passed
}

// serverErrors are the codes that are errors of a server, by the conventions; to a client all but OK are.
var serverErrors = map[string]bool{
	"UNKNOWN": true, "DEADLINE_EXCEEDED": true, "UNIMPLEMENTED": true, "INTERNAL": true, "UNAVAILABLE": true, "DATA_LOSS": true,
}

// codeNames are gRPC's own.
var codeNames = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

func (c *call) compare(wrong *complaints, s *stage.Span) {
	got := maps.Clone(s.Attributes)
	complain := func(format string, args ...any) {
		wrong.t.Helper()
		wrong.add("%s, %s, %v: %s", c.client.Method, codeNames[c.client.Code], s.Kind, fmt.Sprintf(format, args...))
	}
	code, message := codeNames[c.client.Code], c.client.Message
	a := map[string]any{
		"network.transport": "tcp", "network.type": "ipv4", "network.protocol.name": "http", "network.protocol.version": "2",
		"ambit.sampling.reason": "head", "rpc.system.name": "grpc", "rpc.method": c.client.Method,
		"server.address": c.target.Addr().String(), "server.port": int64(c.target.Port()),
		"user_agent.original": known(c.server.Agent, anything),
	}
	if c.client.RequestID != "" {
		a["rpc.request.metadata.x-request-id"] = []any{c.client.RequestID}
	}
	// A call that its client gave up ends with a reset of its stream, unless the server's status was faster. The deadline
	// is known to the server, too.
	if givenUp[codes.Code(c.client.Code)] {
		if by := got["ambit.reset_by"]; by == nil {
			code, message = codeNames[c.server.Code], c.server.Message
			if c.deadline && c.server.Method == "" {
				// It passed before the call's handler, which logs, began: the server answers for it.
				code, message = "DEADLINE_EXCEEDED", "context deadline exceeded"
			}
		} else {
			code, message = "CANCELLED", ""
			a["ambit.reset_by"], a["ambit.http2.error_code"] = "client", "CANCEL"
			if by == "server" && c.deadline {
				a["ambit.reset_by"] = by
			}
		}
		// Bytes may have been on the way, or not even there.
		for _, key := range []string{"http.request.body.size", "http.response.body.size", "ambit.time_to_first_byte"} {
			delete(got, key)
		}
	} else {
		if c.client.Sent > 0 {
			a["http.request.body.size"] = c.client.Sent
		}
		if n := max(c.client.Received, c.server.Sent); n > 0 {
			a["http.response.body.size"] = n
		}
		if first, _ := got["ambit.time_to_first_byte"].(float64); first <= 0 || s.Start.Add(time.Duration(first*1e9)).After(s.End) {
			complain("it lasts from %v to %v, the first byte after %v s", s.Start, s.End, first)
		}
		delete(got, "ambit.time_to_first_byte")
	}
	a["rpc.response.status_code"] = code
	failed := code != "OK" && s.Client() || serverErrors[code]
	if failed {
		a["error.type"] = code
	} else {
		message = ""
	}
	h := hop{source: c.source, local: c.local, target: c.target, whole: c.whole}
	h.client.Local, h.server.Peer = c.client.Local, c.server.Peer
	h.ends(wrong.t, s.Client(), a)
	if stream, ok := got["ambit.http2.stream"].(int64); !ok || stream%2 != 1 {
		complain("it is stream %v", got["ambit.http2.stream"])
	}
	delete(got, "ambit.http2.stream")
	if d := append(stage.TakeSampling(s, got, false), differences(got, a)...); d != nil {
		complain("%s", strings.Join(d, "; "))
	}
	service := c.services[1]
	if s.Client() {
		service = c.services[0]
	}
	if s.Name != c.client.Method || s.Failed != failed || s.Message != message || s.Resource["service.name"] != service {
		complain("it is %s of %v, failed %v, %q; want %s of %s, failed %v, %q", s.Name, s.Resource["service.name"], s.Failed, s.Message,
			c.client.Method, service, failed, message)
	}
	at := func(ms float64) time.Time { return time.UnixMicro(int64(ms * 1e3)) }
	late := s.End.After(at(c.client.Ended).Add(slack)) && !givenUp[codes.Code(c.client.Code)] // the reset follows
	if s.Start.Before(at(c.client.Begun).Add(-slack)) || late {
		complain("it lasts from %v to %v, by the client from %v to %v", s.Start, s.End, at(c.client.Begun), at(c.client.Ended))
	}
}
