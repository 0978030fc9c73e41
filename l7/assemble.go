package l7

import (
	"strings"
	"unicode/utf8"

	"ambit/bpf"
)

// Assembler turns records into spans. It is used by one goroutine.
type Assembler struct {
	comms     map[[16]int8]string
	threshold thresholdText
	decoded   []byte // a record's text, reused
	states    string // of the record that is read
	// Repaired counts values that were not valid UTF-8; their bad bytes became U+FFFD.
	Repaired uint64
}

// commsMax bounds Assembler.comms: process names of 16 bytes.
const commsMax = 4096

// NewAssembler makes an Assembler.
func NewAssembler() *Assembler {
	return &Assembler{comms: make(map[[16]int8]string)}
}

// Assemble fills out with the spans of the record, one for each side that was kept, and returns their number.
// clock is what to add to CLOCK_MONOTONIC for nanoseconds since the Unix epoch.
func (a *Assembler) Assemble(rec *bpf.Record, clock int64, out *[bpf.Sides]Span) int {
	a.read(rec, clock, &out[0])
	n := 0
	for side := range bpf.Sides {
		if rec.Kept&(1<<side) == 0 {
			continue
		}
		s := &out[n]
		if n > 0 {
			// What the sides do not share is set below.
			*s = out[0]
		}
		s.Kind = Kind(side)
		a.readDecision(rec, side, s)
		s.SpanID = rec.SpanId[side]
		switch {
		case side == bpf.SideAcceptor && rec.Flags&bpf.FlagOpenerTraced != 0:
			s.ParentID = rec.SpanId[bpf.SideOpener]
		case rec.Flags&bpf.FlagParentHeader != 0:
			s.ParentID = rec.HeaderParent
		default:
			s.ParentID = [8]byte{}
		}
		s.Local = rec.Ends.Local[side].AddrPort()
		s.Remote = rec.Ends.Remote[side].AddrPort()
		party := &rec.Ends.Party[side]
		s.Owner = Owner{
			Cookie:    party.Cookie,
			Cgroup:    party.Cgroup,
			NetNS:     party.Netns,
			StartedNS: party.StartedNs,
			PID:       party.Tgid,
			UID:       party.Uid,
			Comm:      a.comm(party),
		}
		n++
	}
	return n
}

// read fills in what both sides share, and clears the rest.
func (a *Assembler) read(rec *bpf.Record, clock int64, s *Span) {
	*s = Span{}
	s.TraceID = rec.TraceId
	s.Start = int64(rec.StartNs) + clock
	if rec.FirstNs != 0 {
		s.FirstByte = int64(rec.FirstNs) + clock
	}
	s.End = int64(rec.EndNs) + clock
	s.Status = int(rec.Status)
	s.RequestBody = int64(rec.RequestBody)
	s.ResponseBody = int64(rec.ResponseBody)
	s.Ending = Ending(rec.Ending)
	s.Cut = Cut(rec.Cut) & cutAll &^ cutTraceMore
	moreCut := Cut(rec.Cut)&cutTraceMore != 0
	firstCut := s.Cut&CutTraceState != 0
	if moreCut {
		s.Cut |= CutTraceState
	}
	s.Joined = rec.Flags&bpf.FlagJoined != 0
	s.RequestUnknown = rec.Flags&bpf.FlagRequestUnknown != 0
	s.ResponseUnknown = rec.Flags&bpf.FlagResponseUnknown != 0
	// The sampled bit says that the span was kept. An ID that ambit derived is random, by W3C's level 2; of one from
	// b3 nobody says so.
	switch {
	case rec.Flags&bpf.FlagTraceparent != 0:
		s.TraceFlags = rec.TraceFlags | 1
	case rec.Flags&bpf.FlagTraceHeader != 0:
		s.TraceFlags = 1
	default:
		s.TraceFlags = 3
	}

	var fields [bpf.Fields]string
	a.texts(rec, &fields)
	if rec.Protocol == bpf.ProtocolHTTP2 {
		readPseudoHeaders(rec, &fields, s)
	} else {
		s.Scheme = "http"
		readRequestLine(fields[bpf.FieldRequestLine], s)
		if s.Host == "" {
			s.Host, s.Port = splitHost(fields[bpf.FieldHost])
		}
	}
	readGRPC(rec, fields[bpf.FieldGRPCMessage], s)
	s.RequestType = fields[bpf.FieldContentType]
	s.ResponseType = fields[bpf.FieldResponseType]
	s.UserAgent = fields[bpf.FieldUserAgent]
	s.RequestID = fields[bpf.FieldRequestID]
	a.states = joinStates(fields[bpf.FieldTraceState], firstCut, fields[bpf.FieldTraceMore], moreCut)
}

// readDecision fills in why a side was kept, and writes its threshold into the caller's tracestate. The names of rule and
// route are not in the record.
func (a *Assembler) readDecision(rec *bpf.Record, side int, s *Span) {
	d := &rec.Decision[side]
	s.Reason, s.Class, s.Generation = Reason(d.Reason), Class(d.Class), rec.Generation
	s.Threshold = d.Threshold
	s.HasThreshold = d.Flags&bpf.DecisionThreshold != 0
	s.TraceState = a.traceState(a.states, s)
}

// texts cuts the record's text into its fields, valid UTF-8 each and grpc-message decoded, with one allocation where
// all of it is UTF-8.
func (a *Assembler) texts(rec *bpf.Record, fields *[bpf.Fields]string) {
	used := min(int(rec.Used), len(rec.Text))
	places, kept := rec.Fields, rec.Text[:used]
	if m := &places[bpf.FieldGRPCMessage]; m.Len > 0 && int(m.Off)+int(m.Len) <= used {
		// The record stays as it is: a copy is decoded.
		kept = append(a.decoded[:0], kept...)
		a.decoded = kept
		m.Len = uint16(len(decodeMessage(kept[m.Off:][:m.Len], rec.Cut&(1<<bpf.FieldGRPCMessage) != 0)))
	}
	text := string(kept)
	for i := range fields {
		from := int(places[i].Off)
		to := from + int(places[i].Len)
		if from >= to || to > used {
			continue
		}
		fields[i] = text[from:to]
		if !utf8.ValidString(fields[i]) {
			fields[i] = strings.ToValidUTF8(fields[i], "\uFFFD")
			// A character that the cut broke is no fault of the sender.
			if rec.Cut&(1<<i) == 0 {
				a.Repaired++
			}
		}
	}
}

func (a *Assembler) comm(p *bpf.Party) string {
	if name, ok := a.comms[p.Comm]; ok {
		return name
	}
	name := strings.ToValidUTF8(p.Command(), "\uFFFD")
	if len(a.comms) >= commsMax {
		clear(a.comms)
	}
	a.comms[p.Comm] = name
	return name
}
