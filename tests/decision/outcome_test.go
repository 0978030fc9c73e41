package decision

import (
	"math"
	"slices"
	"strconv"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

// slowOf is what takes longer than this is slow.
func slowOf(a *l7.RuleAction) time.Duration {
	switch {
	case a.Slow == nil:
		return time.Second
	case *a.Slow == 0:
		return math.MaxInt64
	}
	return *a.Slow
}

// failed tells whether it failed in a way that its rule counts.
func (s *situation) failed(side int, a *l7.RuleAction) bool {
	e := l7.ErrorRule{}
	if a.Errors != nil {
		e = *a.Errors
	}
	switch {
	case e.Off:
		return false
	case s.ending != l7.EndedByResponse && (e.Endings == nil || slices.Contains(e.Endings, s.ending)):
		return true
	case s.isCall() && s.ending != l7.EndedByResponse:
		return false
	case s.isCall() && e.GRPC != nil:
		return slices.Contains(e.GRPC, s.code)
	case s.isCall():
		return s.isError(side)
	case e.Statuses == nil:
		return s.status/100 == 5
	}
	return slices.Contains(e.Statuses, strconv.Itoa(s.status)) || slices.Contains(e.Statuses, strconv.Itoa(s.status/100)+"xx")
}

// isCall tells whether its status is gRPC's.
func (s *situation) isCall() bool { return s.request.GRPC || s.web && s.code != l7.NoGRPCStatus }

// isError is the table of docs/spans.md.
func (s *situation) isError(side int) bool {
	client := side == bpf.SideOpener
	if !s.isCall() {
		return s.ending != l7.EndedByResponse || s.status >= 500 || s.status > 0 && s.status < 100 || client && s.status >= 400
	}
	if s.code != l7.NoGRPCStatus {
		return client && s.code != l7.GRPCOK || !s.code.Known() || slices.Contains([]l7.GRPCCode{
			l7.GRPCUnknown, l7.GRPCDeadlineExceeded, l7.GRPCUnimplemented, l7.GRPCInternal, l7.GRPCUnavailable, l7.GRPCDataLoss,
		}, s.code)
	}
	if !s.responseUnknown && s.status != 0 && s.status != 200 && (client || s.status >= 500 || s.status < 100) {
		return true
	}
	switch s.ending {
	case l7.EndedByResponse:
		return client && !s.responseUnknown
	case l7.EndedByStreamReset:
		const cancel, enhanceYourCalm, inadequateSecurity = 0x8, 0xb, 0xc
		return client || !slices.Contains([]uint32{cancel, enhanceYourCalm, inadequateSecurity}, s.errorCode)
	}
	return true
}

// outcome is what it counts as: 1000 and more is no status of HTTP.
func (s *situation) outcome() bpf.Outcome {
	ending := bpf.Outcome(s.ending)
	switch {
	case s.isCall() && s.code != l7.NoGRPCStatus:
		return bpf.OutcomeGRPC + bpf.Outcome(min(s.code, l7.GRPCUnauthenticated+1))
	case s.isCall() && (s.ending != l7.EndedByResponse || s.responseUnknown):
		return bpf.OutcomeGRPCEnding + ending
	case s.isCall():
		return bpf.OutcomeGRPCHTTP + bpf.Outcome(s.status)
	case s.ending != l7.EndedByResponse:
		return bpf.OutcomeEnding + ending
	}
	return bpf.Outcome(s.status)
}

// isFound tells an answer from which a route is learned.
func (s *situation) isFound() bool {
	return !s.unknown && s.status != 0 && s.status != 404 && !(s.isCall() && s.code == l7.GRPCUnimplemented)
}
