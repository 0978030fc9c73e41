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
	FieldRequestLine = int(ambitFieldFIELD_REQUEST_LINE)
	FieldHost        = int(ambitFieldFIELD_HOST)
	FieldUserAgent   = int(ambitFieldFIELD_USER_AGENT)
	FieldRequestID   = int(ambitFieldFIELD_REQUEST_ID)
	FieldTraceState  = int(ambitFieldFIELD_TRACESTATE)
	FieldTraceMore   = int(ambitFieldFIELD_TRACESTATE_MORE)
	Fields           = int(ambitFieldFIELDS)
)

// Values of Record.Ending and Record.Reason.
const (
	EndingResponse = uint8(ambitEndingENDING_RESPONSE)
	EndingClosed   = uint8(ambitEndingENDING_CLOSED)
	EndingReset    = uint8(ambitEndingENDING_RESET)
	EndingIdle     = uint8(ambitEndingENDING_IDLE)
	ReasonHead     = uint8(ambitReasonREASON_HEAD)
	ReasonParent   = uint8(ambitReasonREASON_PARENT)
)

// Bits of Record.Flags that userspace reads.
const (
	FlagTraceHeader    = uint32(ambitExchangeFlagsEXCHANGE_TRACE_HEADER)
	FlagParentHeader   = uint32(ambitExchangeFlagsEXCHANGE_PARENT_HEADER)
	FlagOpenerTraced   = uint32(ambitExchangeFlagsEXCHANGE_OPENER_TRACED)
	FlagHasThreshold   = uint32(ambitExchangeFlagsEXCHANGE_HAS_THRESHOLD)
	FlagJoined         = uint32(ambitExchangeFlagsEXCHANGE_JOINED)
	FlagRandomness     = uint32(ambitExchangeFlagsEXCHANGE_RANDOMNESS)
	FlagTraceparent    = uint32(ambitExchangeFlagsEXCHANGE_TRACEPARENT)
	FlagTraceRequestID = uint32(ambitExchangeFlagsEXCHANGE_TRACE_REQUEST_ID)
)

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
