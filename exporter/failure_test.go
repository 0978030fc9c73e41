package exporter

import (
	"testing"

	"ambit/l7"
)

// The rule of docs/spans.md, row by row: what is told of a call's status and error on each kind.
func TestCallsThatFail(t *testing.T) {
	type told struct{ status, failure string }
	of := func(status string) told { return told{status, status} }
	cases := []struct {
		what           string
		change         func(*l7.Span)
		client, server told
	}{
		{"OK is no error", func(s *l7.Span) { s.GRPCStatus = l7.GRPCOK }, told{"OK", ""}, told{"OK", ""}},
		{"what the caller did wrong is an error of the client's", func(s *l7.Span) { s.GRPCStatus = l7.GRPCInvalidArgument },
			of("INVALID_ARGUMENT"), told{"INVALID_ARGUMENT", ""}},
		{"what the server did wrong is one of both", func(s *l7.Span) { s.GRPCStatus = l7.GRPCInternal }, of("INTERNAL"), of("INTERNAL")},
		{"a code that gRPC does not define is read as UNKNOWN, and shown as its number", func(s *l7.Span) { s.GRPCStatus = 42 }, of("42"), of("42")},
		{"grpc-status goes before HTTP's status", func(s *l7.Span) { s.GRPCStatus, s.Status = l7.GRPCOK, 503 }, told{"OK", ""}, told{"OK", ""}},
		{"and before the end of the stream", func(s *l7.Span) { s.GRPCStatus, s.Ending = l7.GRPCOK, l7.EndedByStreamReset }, told{"OK", ""}, told{"OK", ""}},
		{"without it the client makes one of HTTP's status, the server has that", func(s *l7.Span) { s.Status = 503 },
			of("UNAVAILABLE"), told{"", "503"}},
		{"a client error of HTTP is none of the server's", func(s *l7.Span) { s.Status = 404 }, of("UNIMPLEMENTED"), told{}},
		{"HTTP's status goes before the end of the stream", func(s *l7.Span) { s.Status, s.Ending = 502, l7.EndedByStreamReset },
			of("UNAVAILABLE"), told{"", "502"}},
		{"one that is none of the server's errors does not, there", func(s *l7.Span) { s.Status, s.Ending = 403, l7.EndedByReset },
			of("PERMISSION_DENIED"), told{"", "connection_reset"}},
		{"a whole response of 200 without one is the client's UNKNOWN", func(*l7.Span) {}, of("UNKNOWN"), told{}},
		{"unless it may have been in what is unknown", func(s *l7.Span) { s.ResponseUnknown = true }, told{}, told{}},
		{"as it may beside any status of HTTP", func(s *l7.Span) { s.ResponseUnknown, s.Status = true, 503 }, told{}, told{}},
		{"a cancelled stream is no error of the server's", func(s *l7.Span) { s.Ending, s.ErrorCode = l7.EndedByStreamReset, l7.CancelStream },
			of("CANCELLED"), told{"CANCELLED", ""}},
		{"a stream reset with NO_ERROR lacks its status", func(s *l7.Span) { s.Ending = l7.EndedByStreamReset }, of("INTERNAL"), of("INTERNAL")},
		{"a stream that is too much is the client's", func(s *l7.Span) { s.Ending, s.ErrorCode = l7.EndedByStreamReset, l7.EnhanceYourCalm },
			of("RESOURCE_EXHAUSTED"), told{"RESOURCE_EXHAUSTED", ""}},
		{"a reset is seen, whatever of the heads is not", func(s *l7.Span) {
			s.Ending, s.ErrorCode, s.ResponseUnknown = l7.EndedByStreamReset, l7.RefusedStream, true
		}, of("UNAVAILABLE"), of("UNAVAILABLE")},
		{"a stream that GOAWAY gave back is for another server", func(s *l7.Span) { s.Status, s.Ending = 0, l7.EndedByRefusal },
			of("UNAVAILABLE"), of("UNAVAILABLE")},
		{"a closed connection has no status", func(s *l7.Span) { s.Ending = l7.EndedByClose }, told{"", "connection_closed"}, told{"", "connection_closed"}},
		{"nor has one that was reset", func(s *l7.Span) { s.Ending = l7.EndedByReset }, told{"", "connection_reset"}, told{"", "connection_reset"}},
		{"nor has one that is idle, with all it may have said", func(s *l7.Span) { s.Ending, s.ResponseUnknown = l7.EndedByIdle, true },
			told{"", "timeout"}, told{"", "timeout"}},
		{"gRPC-Web without grpc-status is judged as a request", func(s *l7.Span) { s.RPC, s.Status = l7.GRPCWeb, 404 }, told{"", "404"}, told{}},
		{"gRPC-Web that went well as a request did not fail", func(s *l7.Span) { s.RPC = l7.GRPCWeb }, told{}, told{}},
		{"gRPC-Web with grpc-status is judged as a call", func(s *l7.Span) { s.RPC, s.GRPCStatus = l7.GRPCWeb, l7.GRPCAborted },
			of("ABORTED"), told{"ABORTED", ""}},
		{"a request's reset is an error of both", func(s *l7.Span) {
			s.RPC, s.Ending, s.ErrorCode = l7.NoRPC, l7.EndedByStreamReset, l7.CancelStream
		}, told{"", "CANCEL"}, told{"", "CANCEL"}},
		{"so is one that GOAWAY gave back", func(s *l7.Span) { s.RPC, s.Status, s.Ending = l7.NoRPC, 0, l7.EndedByRefusal },
			told{"", "REFUSED_STREAM"}, told{"", "REFUSED_STREAM"}},
		{"a request's status that is an error goes before both", func(s *l7.Span) {
			s.RPC, s.Status, s.Ending = l7.NoRPC, 500, l7.EndedByStreamReset
		}, told{"", "500"}, told{"", "500"}},
		{"a request of whose response nothing is known did not fail", func(s *l7.Span) { s.RPC, s.Status, s.ResponseUnknown = l7.NoRPC, 0, true }, told{}, told{}},
	}
	for _, c := range cases {
		for kind, want := range map[l7.Kind]told{l7.Client: c.client, l7.Server: c.server} {
			s := exampleCall()
			s.Kind, s.GRPCStatus = kind, l7.NoGRPCStatus
			c.change(s)
			if status, failure := outcomeOf(s); status != want.status || failure != want.failure {
				t.Errorf("%s: on %v status %q and error %q, not %q and %q", c.what, kind, status, failure, want.status, want.failure)
			}
		}
	}
}

// On SERVER the conventions name the codes that are errors; on CLIENT there is one that is none.
func TestErrorCodesOfEachKind(t *testing.T) {
	server := map[string]bool{
		"UNKNOWN": true, "DEADLINE_EXCEEDED": true, "UNIMPLEMENTED": true, "INTERNAL": true, "UNAVAILABLE": true, "DATA_LOSS": true,
	}
	for code := l7.GRPCOK; code.Known(); code++ {
		if got := isRPCError(l7.Client, code); got != (code != l7.GRPCOK) {
			t.Errorf("%v on CLIENT: %v", code, got)
		}
		if got := isRPCError(l7.Server, code); got != server[code.String()] {
			t.Errorf("%v on SERVER: %v", code, got)
		}
	}
}
