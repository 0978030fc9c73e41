package exporter

import (
	"strconv"

	"ambit/l7"
)

// What is an error, and what error.type says of it. The kernel counts errors by the same rule (l7/outcome.h), and
// docs/spans.md has it as a table: the three change together.

// failureOf is the value of error.type, "" for an exchange that did not fail.
func failureOf(s *l7.Span) string {
	_, failure := outcomeOf(s)
	return failure
}

// outcomeOf gives the value of rpc.response.status_code, "" where there is none, and that of error.type.
func outcomeOf(s *l7.Span) (rpcStatus, failure string) {
	if s.RPC == l7.NoRPC || s.RPC == l7.GRPCWeb && s.GRPCStatus == l7.NoGRPCStatus {
		// The status of gRPC-Web is most often in the body: HTTP's is all that is known.
		if failure = statusFailure(s); failure == "" {
			failure = endingFailure(s)
		}
		return "", failure
	}
	code := s.GRPCStatus
	if code == l7.NoGRPCStatus {
		if code, failure = missingStatus(s); code == l7.NoGRPCStatus {
			return "", failure
		}
	}
	rpcStatus = code.String()
	if isRPCError(s.Kind, code) {
		failure = rpcStatus
	}
	return rpcStatus, failure
}

// missingStatus is the status of a call of which no grpc-status was seen: the one that gRPC's client makes, that of a
// stream's reset; or none, and the value of error.type.
func missingStatus(s *l7.Span) (l7.GRPCCode, string) {
	// A head that is unknown in part may have had a status.
	if !s.ResponseUnknown && s.Status != 0 && s.Status != 200 {
		if s.Kind == l7.Client {
			return l7.GRPCOfHTTP(s.Status), ""
		}
		if failure := statusFailure(s); failure != "" {
			return l7.NoGRPCStatus, failure
		}
	}
	switch s.Ending {
	case l7.EndedByStreamReset:
		return s.ErrorCode.GRPC(), ""
	case l7.EndedByRefusal:
		return l7.GRPCUnavailable, ""
	case l7.EndedByResponse:
		if s.Kind == l7.Client && !s.ResponseUnknown {
			return l7.GRPCUnknown, ""
		}
	}
	return l7.NoGRPCStatus, endingFailure(s)
}

// isRPCError is the conventions' table for gRPC. A code that gRPC does not define counts as UNKNOWN does, which is
// how gRPC has it read.
func isRPCError(kind l7.Kind, code l7.GRPCCode) bool {
	if kind == l7.Client {
		return code != l7.GRPCOK
	}
	switch code {
	case l7.GRPCUnknown, l7.GRPCDeadlineExceeded, l7.GRPCUnimplemented, l7.GRPCInternal, l7.GRPCUnavailable, l7.GRPCDataLoss:
		return true
	}
	return !code.Known()
}

// statusFailure is HTTP's status where that is an error.
func statusFailure(s *l7.Span) string {
	switch st := s.Status; {
	case st == 0:
	case st < 100, st >= 500, st >= 400 && s.Kind == l7.Client:
		return statusText(st)
	}
	return ""
}

// The values of error.type for an end that is not the response's.
const (
	failureClosed = "connection_closed"
	failureReset  = "connection_reset"
	failureIdle   = "timeout"
)

// endingFailure is how an exchange ended without a whole response. A stream that GOAWAY gave back is one that was
// refused: RFC 9113 has both mean that the server never looked at it.
func endingFailure(s *l7.Span) string {
	switch s.Ending {
	case l7.EndedByClose:
		return failureClosed
	case l7.EndedByReset:
		return failureReset
	case l7.EndedByIdle:
		return failureIdle
	case l7.EndedByStreamReset:
		return s.ErrorCode.String()
	case l7.EndedByRefusal:
		return l7.RefusedStream.String()
	}
	return ""
}

// errorStatuses saves an allocation for each failed request.
var errorStatuses = func() (t [200]string) {
	for i := range t {
		t[i] = strconv.Itoa(400 + i)
	}
	return t
}()

func statusText(status int) string {
	if status >= 400 && status < 600 {
		return errorStatuses[status-400]
	}
	return strconv.Itoa(status)
}
