package parser

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/net/http2/hpack"

	"ambit/bpf"
)

// h2Flags are the flags of a record that the reference knows of.
const h2Flags = bpf.FlagGRPC | bpf.FlagGRPCWeb | bpf.FlagResetByOpener

// compare holds a record against an exchange of which everything was seen.
func (e *h2Exchange) compare(r *bpf.Record) error {
	if r.Protocol != bpf.ProtocolHTTP2 || r.Stream != e.stream {
		return fmt.Errorf("protocol %d, stream %d", r.Protocol, r.Stream)
	}
	if unknown := r.Flags & (bpf.FlagRequestUnknown | bpf.FlagResponseUnknown); unknown != 0 {
		return fmt.Errorf("flags %#x: nothing is unknown", unknown)
	}
	if e.odd {
		return e.compareHeaders(r)
	}
	if (r.Ending != e.ending || r.ErrorCode != e.errorCode) &&
		!(e.unpadded && r.Ending == bpf.EndingResponse) {
		return fmt.Errorf("ending %d, error %d, want %d, %d", r.Ending, r.ErrorCode, e.ending, e.errorCode)
	}
	for side, got := range [2]uint64{r.RequestBody, r.ResponseBody} {
		if got != uint64(e.sent[side]) {
			return fmt.Errorf("side %d sent %d bytes, want %d", side, int64(got), e.sent[side])
		}
	}
	if r.StartNs > r.EndNs || r.FirstNs != 0 && (r.FirstNs < r.StartNs || r.FirstNs > r.EndNs) {
		return fmt.Errorf("times %d, %d, %d", r.StartNs, r.FirstNs, r.EndNs)
	}
	if !e.torn && (r.FirstNs != 0) != (e.response != nil) {
		return fmt.Errorf("first byte at %d, a response: %t", r.FirstNs, e.response != nil)
	}
	return e.compareHeaders(r)
}

// compareHeaders holds what is read of header blocks against the exchange's; a flag of unknown excuses what is absent.
func (e *h2Exchange) compareHeaders(r *bpf.Record) error {
	if err := e.compareText(r); err != nil {
		return err
	}
	request, response := r.Flags&bpf.FlagRequestUnknown != 0, r.Flags&bpf.FlagResponseUnknown != 0
	if got, want := r.Flags&h2Flags, e.flags(); got != want && !e.odd && !e.torn && !((request || response) && got&^want == 0) {
		return fmt.Errorf("flags %#x, want %#x", got, want)
	}
	if got, want := int(r.Status), statusOf(e.response); got != want && !e.odd && !e.torn && !(response && got == 0) {
		return fmt.Errorf("status %d, want %d", got, want)
	}
	want, ok := e.grpcStatus()
	if ok && r.GrpcStatus != want && !e.odd && !e.torn && !(response && r.GrpcStatus == bpf.GRPCStatusNone) {
		return fmt.Errorf("grpc-status %d, want %d", r.GrpcStatus, want)
	}
	if want, ok := e.context(); ok {
		if got := contextOf(r); got != want && !(request && got.within(want)) {
			return fmt.Errorf("context %+v, want %+v", got, want)
		}
	}
	return nil
}

// within tells whether c is a part of d.
func (c context) within(d context) bool {
	return (c.trace == "" || c.trace == d.trace) && (c.parent == "" || c.parent == d.parent) &&
		(c.flags == 0 || c.flags == d.flags) && (!c.decided || d.decided && c.sampled == d.sampled)
}

// compareSeen holds a record against an exchange of which bytes were lost before the tap: what it says is true.
func (e *h2Exchange) compareSeen(r *bpf.Record) error {
	if r.Protocol != bpf.ProtocolHTTP2 {
		return fmt.Errorf("protocol %d", r.Protocol)
	}
	atEnd := r.Ending == bpf.EndingClosed || r.Ending == bpf.EndingReset
	if !atEnd && (r.Ending != e.ending || r.ErrorCode != e.errorCode) {
		return fmt.Errorf("ending %d, error %d, want %d, %d", r.Ending, r.ErrorCode, e.ending, e.errorCode)
	}
	for side, got := range [2]uint64{r.RequestBody, r.ResponseBody} {
		sent := uint64(e.sent[side])
		if got != sent && got != ^uint64(0) && !(atEnd && got < sent) {
			return fmt.Errorf("side %d sent %d bytes, want %d", side, int64(got), sent)
		}
	}
	seen := *r
	if atEnd && r.Ending != e.ending {
		// What comes last of a response may be missing without a word, and so may its beginning.
		seen.Flags |= bpf.FlagResponseUnknown
	}
	if atEnd && r.Flags&flagHeadDone == 0 {
		// Nor was all of the request's head.
		seen.Flags |= bpf.FlagRequestUnknown
	}
	if e.byOpener {
		seen.Flags |= bpf.FlagResetByOpener
	}
	return e.compareHeaders(&seen)
}

// compare holds all that came of a connection against the reference.
func (r *h2Reference) compare(o *outcome) error {
	if o.counters["hpack_limit"] > 0 {
		return r.compareSeen(o) // a block was too long to be read
	}
	if err := o.check(); err != nil {
		return err
	}
	records := make(map[uint32]*bpf.Record)
	for i := range o.records {
		got := &o.records[i]
		if records[got.Stream] != nil {
			return fmt.Errorf("stream %d has two records", got.Stream)
		}
		records[got.Stream] = got
	}
	for _, e := range r.done {
		got := records[e.stream]
		delete(records, e.stream)
		switch {
		case got != nil:
			if err := e.compare(got); err != nil {
				return fmt.Errorf("stream %d: %w", e.stream, err)
			}
		case e.unsampled() && o.counters["unsampled"] > 0:
		case r.doubtful(e) || e.odd:
		default:
			return fmt.Errorf("stream %d has no record: %v, %v", e.stream, o.counters, r.broken)
		}
	}
	delete(records, r.torn)
	if errors.Is(r.broken, hpack.ErrInvalidHuffman) {
		// In a string that nobody needs it goes unnoticed, and the connection goes on.
		return nil
	}
	for stream, got := range records {
		return fmt.Errorf("stream %d has a record, ending %d: %v", stream, got.Ending, r.broken)
	}
	if r.since == 0 || r.broken != nil && !slices.ContainsFunc(r.done, func(e *h2Exchange) bool { return e.odd || r.doubtful(e) }) {
		// The broken block may have begun one more.
		want := uint64(2 * len(r.lost))
		if got := o.counters["drop_malformed"]; got != want && (r.broken == nil || got != want+2) {
			return fmt.Errorf("%d sides dropped as malformed, want %d: %v", got, want, r.broken)
		}
	}
	return nil
}

// doubtful tells whether the exchange ended when a frame or block was on its way that breaks the connection: whoever
// reads byte by byte may have noticed before the exchange's end.
func (r *h2Reference) doubtful(e *h2Exchange) bool {
	return r.since > 0 && e.ended >= r.since
}

// compareSeen holds what came of a connection of which bytes were lost, or the beginning, against all that was sent.
func (r *h2Reference) compareSeen(o *outcome) error {
	if err := o.check(); err != nil {
		return err
	}
	for i := range o.records {
		got := &o.records[i]
		if got.Stream == r.torn {
			continue
		}
		at := slices.IndexFunc(r.done, func(e *h2Exchange) bool { return e.stream == got.Stream })
		if at < 0 && r.broken != nil && o.counters["hpack_limit"] > 0 {
			continue // the block that breaks the connection was not read
		}
		if at < 0 {
			return fmt.Errorf("nobody began stream %d", got.Stream)
		}
		if err := r.done[at].compareSeen(got); err != nil {
			return fmt.Errorf("stream %d: %w", got.Stream, err)
		}
	}
	return nil
}
