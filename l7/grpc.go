package l7

import (
	"strconv"
	"strings"

	"ambit/bpf"
)

// RPC tells a call from a plain request.
type RPC uint8

const (
	// NoRPC is a request of plain HTTP.
	NoRPC RPC = iota
	// GRPC has its status in a header or trailer.
	GRPC
	// GRPCWeb has it there too where there is no body, and else in the body, which ambit does not read.
	GRPCWeb
)

// GRPCCode is a status of gRPC.
type GRPCCode uint16

// The codes, as gRPC's statuscodes.md has them.
const (
	GRPCOK GRPCCode = iota
	GRPCCancelled
	GRPCUnknown
	GRPCInvalidArgument
	GRPCDeadlineExceeded
	GRPCNotFound
	GRPCAlreadyExists
	GRPCPermissionDenied
	GRPCResourceExhausted
	GRPCFailedPrecondition
	GRPCAborted
	GRPCOutOfRange
	GRPCUnimplemented
	GRPCInternal
	GRPCUnavailable
	GRPCDataLoss
	GRPCUnauthenticated

	// NoGRPCStatus means that none was seen.
	NoGRPCStatus GRPCCode = bpf.GRPCStatusNone
)

// grpcCodes are the names of the codes.
var grpcCodes = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// Known tells whether gRPC defines the code.
func (c GRPCCode) Known() bool {
	return int(c) < len(grpcCodes)
}

// String is the code's name, or its number where gRPC defines none.
func (c GRPCCode) String() string {
	if c.Known() {
		return grpcCodes[c]
	}
	return strconv.Itoa(int(c))
}

// GRPCOfHTTP is the status that a client makes of a response without grpc-status: gRPC's
// http-grpc-status-mapping.md, which is for clients alone.
func GRPCOfHTTP(status int) GRPCCode {
	switch status {
	case 400, 431:
		return GRPCInternal
	case 401:
		return GRPCUnauthenticated
	case 403:
		return GRPCPermissionDenied
	case 404:
		return GRPCUnimplemented
	case 429, 502, 503, 504:
		return GRPCUnavailable
	}
	return GRPCUnknown
}

// GRPC is the status that a stream reset with this code means: gRPC's PROTOCOL-HTTP2.md, errors. Codes that it does
// not map, STREAM_CLOSED among them, mean UNKNOWN.
func (c ErrorCode) GRPC() GRPCCode {
	switch c {
	case RefusedStream:
		return GRPCUnavailable
	case CancelStream:
		return GRPCCancelled
	case EnhanceYourCalm:
		return GRPCResourceExhausted
	case InadequateSecurity:
		return GRPCPermissionDenied
	case StreamClosed:
		return GRPCUnknown
	}
	if c <= ConnectError {
		return GRPCInternal
	}
	return GRPCUnknown
}

// RPCMethod is the call's full name, package.Service/Method; "_OTHER" and the path as it was sent where that is no
// such name, or was cut; and nothing where the path is unknown.
func (s *Span) RPCMethod() (method, original string) {
	name := strings.TrimPrefix(s.Path, "/")
	// What stands before the last slash is the service.
	slash := strings.LastIndexByte(name, '/')
	switch {
	case s.Path == "":
		return "", ""
	case len(name) == len(s.Path), slash <= 0, slash == len(name)-1, s.Cut&(CutPath|CutRequestLine) != 0:
		return methodOther, s.Path
	}
	return name, ""
}

// readGRPC fills in what makes a request a call.
func readGRPC(rec *bpf.Record, message string, s *Span) {
	s.GRPCStatus = NoGRPCStatus
	switch {
	case rec.Flags&bpf.FlagGRPC != 0:
		s.RPC = GRPC
	case rec.Flags&bpf.FlagGRPCWeb != 0:
		s.RPC = GRPCWeb
	default:
		return
	}
	s.GRPCStatus = GRPCCode(rec.GrpcStatus)
	if s.Cut&CutGRPCMessage != 0 {
		message = wholeText(message)
	}
	s.GRPCMessage = message
}

// decodeMessage decodes a grpc-message in place and returns what it became. What is no percent-encoding stays as it
// is, as gRPC demands; of a message that was cut half a one at the end goes.
func decodeMessage(b []byte, cut bool) []byte {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '%' {
			if i+2 < len(b) {
				high, low := hexValue(b[i+1]), hexValue(b[i+2])
				if high < 16 && low < 16 {
					c = high<<4 | low
					i += 2
				}
			} else if cut {
				break
			}
		}
		b[n] = c
		n++
	}
	return b[:n]
}

// hexValue is 16 for what is no hex digit.
func hexValue(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 16
}
