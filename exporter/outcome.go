package exporter

import (
	"ambit/bpf"
	"ambit/l7"
)

// These are values of error.type that spans don't need: they know the stream's error code.
const (
	failureStreamReset = "stream_reset"
	failureOther       = "_OTHER"
)

// Outcome is what exchange sides came to, in the words of the conventions.
type Outcome struct {
	RPC       bool   // a call of gRPC
	Status    int    // of HTTP; 0 is none, or that it is not told
	Class     int    // its first digit, which may be known alone; 0 is none
	RPCStatus string // "" is none
	Failure   string // error.type, "" where they did not fail
}

// OutcomeOf reads an outcome as the kernel counts it. It says the same as a span's attributes, with one difference:
// the error code of a stream's reset is not counted, so that error.type is "stream_reset".
func OutcomeOf(k *bpf.SeriesKey) Outcome {
	var out Outcome
	kind, failure := l7.Kind(k.Kind), ""
	switch o := k.Outcome; {
	case o >= bpf.OutcomeClass:
		out.Class, failure = int(o-bpf.OutcomeClass), failureOther
	case o >= bpf.OutcomeGRPCHTTP:
		out.RPC, out.Status = true, int(o-bpf.OutcomeGRPCHTTP)
		if kind == l7.Client {
			out.RPCStatus = l7.GRPCOfHTTP(out.Status).String()
			failure = out.RPCStatus
		} else {
			failure = statusText(out.Status)
		}
	case o >= bpf.OutcomeGRPCEnding:
		out.RPC = true
		switch ending := l7.Ending(o - bpf.OutcomeGRPCEnding); {
		case ending == l7.EndedByRefusal:
			out.RPCStatus = l7.GRPCUnavailable.String()
			failure = out.RPCStatus
		case ending == l7.EndedByResponse && kind == l7.Client:
			out.RPCStatus = l7.GRPCUnknown.String()
			failure = out.RPCStatus
		default:
			failure = countedEnding(ending)
		}
	case o >= bpf.OutcomeGRPC:
		code := l7.GRPCCode(o - bpf.OutcomeGRPC)
		if !code.Known() {
			code = l7.GRPCUnknown // as gRPC has it read
		}
		out.RPC, out.RPCStatus = true, code.String()
		failure = out.RPCStatus
	case o >= bpf.OutcomeEnding:
		failure = countedEnding(l7.Ending(o - bpf.OutcomeEnding))
	default:
		out.Status = int(o)
		failure = statusText(out.Status)
	}
	if out.Status != 0 {
		out.Class = out.Status / 100
	}
	if k.Error {
		out.Failure = failure
	}
	return out
}

func countedEnding(e l7.Ending) string {
	if e == l7.EndedByStreamReset {
		return failureStreamReset
	}
	if failure := endingFailure(&l7.Span{Ending: e}); failure != "" {
		return failure
	}
	return failureOther
}
