package decision

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"ambit/bpf"
	"ambit/l7"
)

// Where the parser ends, here a situation becomes an exchange.

const app = uint32(decisionPartyFlagsPARTY_APP)

// texts are the fields of the request, in the order in which they may be in its text: what has to be first is.
func (s *situation) texts(layout *chance) (order []int, text [bpf.Fields]string) {
	r := &s.request
	if s.http2 {
		text[bpf.FieldMethod], text[bpf.FieldPath], text[bpf.FieldHost] = r.Method, r.Target, r.Host
		order = []int{bpf.FieldMethod, bpf.FieldPath, bpf.FieldHost}
		if layout != nil {
			layout.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
	} else {
		text[bpf.FieldRequestLine], text[bpf.FieldHost] = r.Method+" "+r.Target+" HTTP/1.1", r.Host
		order = []int{bpf.FieldRequestLine, bpf.FieldHost}
	}
	text[bpf.FieldUserAgent], text[bpf.FieldRequestID], text[bpf.FieldContentType] = r.UserAgent, r.RequestID, r.ContentType
	text[bpf.FieldForceTrace], text[bpf.FieldBaggage] = r.ForceTrace, r.Baggage
	rest := []int{bpf.FieldUserAgent, bpf.FieldRequestID, bpf.FieldContentType, bpf.FieldForceTrace, bpf.FieldBaggage}
	if layout != nil {
		text[bpf.FieldTraceState] = layout.garbage(layout.IntN(20))
		rest = append(rest, bpf.FieldTraceState)
		layout.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	}
	return append(order, rest...), text
}

// putRequest makes the exchange what it is when the head of its request is whole.
func (k *kernel) putRequest(s *situation, layout *chance) {
	ex := bpf.Record{
		StartNs: 1, Randomness: s.r, Flags: uint32(decisionExchangeFlagsEXCHANGE_RANDOMNESS), GrpcStatus: bpf.GRPCStatusNone,
		TemplateRule: bpf.NoRule, Protocol: bpf.ProtocolHTTP1,
	}
	flag := func(on bool, f decisionExchangeFlags) {
		if on {
			ex.Flags |= uint32(f)
		}
	}
	flag(s.request.GRPC, decisionExchangeFlagsEXCHANGE_GRPC)
	flag(s.web, decisionExchangeFlagsEXCHANGE_GRPC_WEB)
	flag(s.unknown, decisionExchangeFlagsEXCHANGE_REQUEST_UNKNOWN)
	flag(s.forced, decisionExchangeFlagsEXCHANGE_FORCE)
	flag(s.parent.decided, decisionExchangeFlagsEXCHANGE_PARENT_DECIDED)
	flag(s.parent.sampled, decisionExchangeFlagsEXCHANGE_PARENT_SAMPLED)
	if s.parent.threshold != none {
		ex.Flags |= uint32(decisionExchangeFlagsEXCHANGE_PARENT_THRESHOLD)
		ex.ParentThreshold = s.parent.threshold
	}
	if layout != nil {
		k.putTraceID(&ex, layout)
		// What is behind the text is of an exchange before it.
		copy(ex.Text[:], layout.garbage(len(ex.Text)))
	}
	if s.http2 {
		ex.Protocol, ex.Stream = bpf.ProtocolHTTP2, 1
	}
	order, text := s.texts(layout)
	for _, f := range order {
		if text[f] == "" {
			continue
		}
		if int(ex.Used)+len(text[f]) > textMax {
			k.t.Fatalf("%d bytes of text, %d are kept", int(ex.Used)+len(text[f]), textMax)
		}
		ex.Fields[f].Off, ex.Fields[f].Len = ex.Used, uint16(len(text[f]))
		ex.Used += uint16(copy(ex.Text[ex.Used:], text[f]))
	}
	ex.Ends.Local[bpf.SideOpener] = endpoint(netip.AddrPortFrom(s.client[bpf.SideOpener], 40000))
	ex.Ends.Remote[bpf.SideOpener] = endpoint(s.remote)
	ex.Ends.Remote[bpf.SideAcceptor] = endpoint(netip.AddrPortFrom(s.client[bpf.SideAcceptor], 41000))
	*k.exchange = ex
	for side := range bpf.Sides {
		k.putParty(s, side, s.app[side] && !s.late[side])
	}
}

// textMax is so much of the text that no word of 8 bytes reaches behind it.
const textMax = len(bpf.Record{}.Text) - 8

// putTraceID has the randomness come from where it comes from most often, or from the place of the request in its
// connection: then it is the kernel's to choose.
func (k *kernel) putTraceID(ex *bpf.Record, c *chance) {
	if c.IntN(3) == 0 {
		return
	}
	ex.Flags &^= uint32(decisionExchangeFlagsEXCHANGE_RANDOMNESS)
	ex.Flags |= uint32(c.either(decisionExchangeFlagsEXCHANGE_TRACE_HEADER, decisionExchangeFlagsEXCHANGE_TRACE_REQUEST_ID))
	binary.BigEndian.PutUint64(ex.TraceId[:8], c.Uint64())
	binary.BigEndian.PutUint64(ex.TraceId[8:], ex.Randomness|c.Uint64()<<56)
	ex.Randomness = 0
}

func (k *kernel) putParty(s *situation, side int, known bool) {
	p := &k.exchange.Ends.Party[side]
	*p = bpf.Party{}
	if known {
		p.Flags, p.Service = app, uint32(slices.Index(services[:], s.service[side]))
	}
}

// putResponse makes it what it is when it has ended.
func (k *kernel) putResponse(s *situation) {
	ex := k.exchange
	for side := range bpf.Sides {
		k.putParty(s, side, s.app[side])
	}
	ex.Status, ex.GrpcStatus, ex.Ending, ex.ErrorCode = uint16(s.status), uint16(s.code), uint8(s.ending), s.errorCode
	if s.responseUnknown {
		ex.Flags |= uint32(decisionExchangeFlagsEXCHANGE_RESPONSE_UNKNOWN)
	}
	ex.StartNs = uint64(started)
	ex.EndNs = uint64(started + s.took)
}

// started is when all exchanges begin, CLOCK_MONOTONIC: long enough after the start for a new route to be told.
const started = 1 << 40

func endpoint(a netip.AddrPort) bpf.Endpoint {
	if !a.Addr().IsValid() {
		return bpf.Endpoint{}
	}
	return bpf.Endpoint{Addr: a.Addr().As16(), Port: a.Port()}
}

// plain is a situation in which nothing asks for anything: GET / is answered 200, and both sides are applications'.
func plain(rules []l7.Rule, caps map[int]int) *situation {
	nothing := route{threshold: none, anomaly: none, slow: none}
	return &situation{
		rules: rules, caps: caps, base: never, set: none, safety: [3]uint32{whole, whole, whole},
		request: l7.Request{Method: "GET", Target: "/", Host: "example.com"}, service: [2]string{"checkout", "cart"},
		client: [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1")},
		remote: netip.MustParseAddrPort("10.0.0.2:80"), app: [2]bool{true, true}, r: never / 2,
		parent: parent{threshold: none}, route: [2]route{nothing, nothing},
		status: 200, code: l7.NoGRPCStatus,
	}
}
