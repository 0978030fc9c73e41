package bpf

import (
	"net/netip"
	"unsafe"
)

// Record is one exchange as the kernel hands it over: one or both of its sides are to become spans.
// The layout is struct exchange in abi.h.
type Record = ambitExchange

// Party is who a socket belongs to: struct party in abi.h.
type Party = ambitParty

// Endpoint is an address and a port: struct endpoint in abi.h.
type Endpoint = ambitEndpoint

// Sides of an exchange, the index of every array of two in a Record.
const (
	SideOpener   = int(ambitSideIndexSIDE_OPENER)
	SideAcceptor = int(ambitSideIndexSIDE_ACCEPTOR)
	Sides        = int(ambitSideIndexSIDES)
)

// Fields of a Record's text.
const (
	FieldRequestLine  = int(ambitFieldFIELD_REQUEST_LINE)
	FieldHost         = int(ambitFieldFIELD_HOST)
	FieldUserAgent    = int(ambitFieldFIELD_USER_AGENT)
	FieldRequestID    = int(ambitFieldFIELD_REQUEST_ID)
	FieldTraceState   = int(ambitFieldFIELD_TRACESTATE)
	FieldTraceMore    = int(ambitFieldFIELD_TRACESTATE_MORE)
	FieldMethod       = int(ambitFieldFIELD_METHOD)
	FieldPath         = int(ambitFieldFIELD_PATH)
	FieldScheme       = int(ambitFieldFIELD_SCHEME)
	FieldContentType  = int(ambitFieldFIELD_CONTENT_TYPE)
	FieldResponseType = int(ambitFieldFIELD_RESPONSE_TYPE)
	FieldGRPCMessage  = int(ambitFieldFIELD_GRPC_MESSAGE)
	FieldBaggage      = int(ambitFieldFIELD_BAGGAGE)
	FieldForceTrace   = int(ambitFieldFIELD_FORCE_TRACE)
	Fields            = int(ambitFieldFIELDS)
)

// Decision is what became of one side of an exchange, and why: struct decision in sampling_abi.h.
type Decision = ambitDecision

// Bits of Decision.Flags.
const (
	DecisionThreshold = uint8(ambitDecisionFlagsDECISION_THRESHOLD)
	DecisionDropped   = uint8(ambitDecisionFlagsDECISION_DROPPED)
	DecisionAnnounce  = uint8(ambitDecisionFlagsDECISION_ANNOUNCE)
)

// NoRule is the place of a rule that there is not.
const NoRule = 0xffff

// Values of Record.Protocol, Record.Ending and Decision.Reason.
const (
	ProtocolHTTP1     = uint8(ambitProtocolPROTOCOL_HTTP1)
	ProtocolHTTP2     = uint8(ambitProtocolPROTOCOL_HTTP2)
	EndingResponse    = uint8(ambitEndingENDING_RESPONSE)
	EndingClosed      = uint8(ambitEndingENDING_CLOSED)
	EndingReset       = uint8(ambitEndingENDING_RESET)
	EndingIdle        = uint8(ambitEndingENDING_IDLE)
	EndingStreamReset = uint8(ambitEndingENDING_STREAM_RESET)
	EndingRefused     = uint8(ambitEndingENDING_REFUSED)
	ReasonHead        = uint8(ambitReasonREASON_HEAD)
	ReasonParent      = uint8(ambitReasonREASON_PARENT)
	ReasonSlow        = uint8(ambitReasonREASON_SLOW)
	ReasonError       = uint8(ambitReasonREASON_ERROR)
	ReasonForced      = uint8(ambitReasonREASON_FORCED)
	ReasonFloor       = uint8(ambitReasonREASON_FLOOR)
	ReasonAnomaly     = uint8(ambitReasonREASON_ANOMALY)
)

// Press leaves a share of the probability of each side that has one, of Full, by raising its threshold. So what is lost
// for want of room is lost as if by a lower rate, and what remains tells how many it stands for. It returns how many
// sides are not kept any more.
func (r *Record) Press(share uint32) (lost int) {
	if share >= Full {
		return 0
	}
	for side := range r.Decision {
		d := &r.Decision[side]
		if r.Kept>>side&1 == 0 || d.Flags&DecisionThreshold == 0 {
			continue
		}
		if d.Threshold = shrink(d.Threshold, share); r.Randomness < d.Threshold {
			r.Kept &^= 1 << side
			lost++
		}
	}
	return lost
}

// Bits of Record.Flags that userspace reads.
const (
	FlagTraceHeader     = uint32(ambitExchangeFlagsEXCHANGE_TRACE_HEADER)
	FlagParentHeader    = uint32(ambitExchangeFlagsEXCHANGE_PARENT_HEADER)
	FlagOpenerTraced    = uint32(ambitExchangeFlagsEXCHANGE_OPENER_TRACED)
	FlagJoined          = uint32(ambitExchangeFlagsEXCHANGE_JOINED)
	FlagRandomness      = uint32(ambitExchangeFlagsEXCHANGE_RANDOMNESS)
	FlagTraceparent     = uint32(ambitExchangeFlagsEXCHANGE_TRACEPARENT)
	FlagTraceRequestID  = uint32(ambitExchangeFlagsEXCHANGE_TRACE_REQUEST_ID)
	FlagGRPC            = uint32(ambitExchangeFlagsEXCHANGE_GRPC)
	FlagGRPCWeb         = uint32(ambitExchangeFlagsEXCHANGE_GRPC_WEB)
	FlagRequestUnknown  = uint32(ambitExchangeFlagsEXCHANGE_REQUEST_UNKNOWN)
	FlagResponseUnknown = uint32(ambitExchangeFlagsEXCHANGE_RESPONSE_UNKNOWN)
	FlagResetByOpener   = uint32(ambitExchangeFlagsEXCHANGE_RESET_BY_OPENER)
)

// GRPCStatusNone is Record.GrpcStatus where no grpc-status was seen.
const GRPCStatusNone = 0xffff

const (
	recordSize = int(unsafe.Sizeof(Record{}))
	headSize   = int(unsafe.Offsetof(Record{}.Text))
)

// room is the memory of r, empty, for a sample of the ring buffer.
func (r *Record) room() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(r)), recordSize)[:0]
}

// complete tells whether a sample of size bytes in room is a record: it ends behind the used part of the text.
func (r *Record) complete(size int) bool {
	return size >= headSize && size <= recordSize && int(r.Used) <= size-headSize
}

// AddrPort gives the address, as IPv4 where it is v4-mapped; the zero AddrPort where it is unknown.
func (e *Endpoint) AddrPort() netip.AddrPort {
	if e.Port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(e.Addr).Unmap(), e.Port)
}

// Command is comm without its padding.
func (p *Party) Command() string {
	return commString(&p.Comm)
}

func commString(comm *[16]int8) string {
	b := unsafe.Slice((*byte)(unsafe.Pointer(comm)), len(comm))
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
