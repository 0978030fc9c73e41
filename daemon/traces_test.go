package daemon

import (
	"fmt"
	"net/http"
	"testing"

	"ambit/admin"
	"ambit/exporter"
	"ambit/l7"
)

// The live view shows eight digits: they find the trace, where they are one trace's alone.
func TestTraceByItsFirstDigits(t *testing.T) {
	d := &Daemon{cfg: Defaults(), out: output{store: exporter.NewStore(10, 1<<20)}}
	d.state.Store(admin.Tracing)
	ids := [][16]byte{{0x74, 0x01, 0xdd, 0xda, 1}, {0x74, 0x01, 0xdd, 0xda, 2}, {0xab, 0xcd, 0xef, 0x01, 3}}
	for _, id := range ids {
		d.out.store.Add(&l7.Span{TraceID: id, Method: "GET", Path: "/"})
	}
	for _, c := range []struct {
		digits string
		want   string // the message of the error, "" for none
		status int
		found  [16]byte
	}{
		{"abcdef01", "", 0, ids[2]},
		{"7401ddda02", "", 0, ids[1]},
		{fmt.Sprintf("%x", ids[0]), "", 0, ids[0]},
		{"7401ddda", "2 traces begin with 7401ddda: give more digits of one", http.StatusConflict, [16]byte{}},
		{"7401dddb", "no trace that is kept begins with 7401dddb", http.StatusNotFound, [16]byte{}},
		{"00000000000000000000000000000007", "trace 00000000000000000000000000000007 is not kept, or was never seen", http.StatusNotFound, [16]byte{}},
	} {
		got, err := d.Trace(c.digits, 0)
		if c.want == "" {
			if err != nil || got.TraceID != fmt.Sprintf("%x", c.found) {
				t.Errorf("%s: %s, %v", c.digits, got.TraceID, err)
			}
			continue
		}
		answer, ok := err.(*admin.Error)
		if !ok || answer.Message != c.want || answer.Status != c.status {
			t.Errorf("%s: got %v, want %d %s", c.digits, err, c.status, c.want)
		}
	}
}

// In a list a trace is named by what it began with: for people, with the path.
func TestTitles(t *testing.T) {
	for _, c := range []struct {
		what string
		span l7.Span
		want string
	}{
		{"a request", l7.Span{Method: "GET", Path: "/a"}, "GET /a"},
		{"a method that no standard knows is shown as it was sent", l7.Span{Method: "_OTHER", MethodOriginal: "BREW", Path: "/a"}, "BREW /a"},
		{"CONNECT has no path", l7.Span{Method: "CONNECT"}, "CONNECT"},
		{"an unknown method", l7.Span{Path: "/a"}, "HTTP /a"},
		{"an unknown request", l7.Span{RequestUnknown: true}, "HTTP"},
		{"a call", l7.Span{RPC: l7.GRPC, Method: "POST", Path: "/shop.Cart/Add"}, "shop.Cart/Add"},
		{"a call by gRPC-Web", l7.Span{RPC: l7.GRPCWeb, Method: "POST", Path: "/shop.Cart/Add"}, "shop.Cart/Add"},
		{"a call of what is no method", l7.Span{RPC: l7.GRPC, Method: "POST", Path: "/health"}, "/health"},
		{"an unknown call", l7.Span{RPC: l7.GRPC, RequestUnknown: true}, "gRPC"},
	} {
		if got := spanTitle(&c.span); got != c.want {
			t.Errorf("%s is %q, not %q", c.what, got, c.want)
		}
	}
}
