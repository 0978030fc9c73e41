package parser

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"ambit/bpf"
)

// keptText is one text of a record: its header, and how much of it is kept.
type keptText struct {
	field    int
	name     string
	max      int
	response bool
}

var h2Text = []keptText{
	{bpf.FieldMethod, ":method", 32, false},
	{bpf.FieldPath, ":path", 640, false},
	{bpf.FieldScheme, ":scheme", 16, false},
	{bpf.FieldHost, ":authority", 256, false},
	{bpf.FieldUserAgent, "user-agent", 192, false},
	{bpf.FieldRequestID, "x-request-id", 128, false},
	{bpf.FieldTraceState, "tracestate", 512, false},
	{bpf.FieldTraceMore, "tracestate", 512, false},
	{bpf.FieldContentType, "content-type", 64, false},
	{bpf.FieldResponseType, "content-type", 64, true},
	{bpf.FieldGRPCMessage, "grpc-message", 128, true},
}

// textMax is how much text a record has in all.
const textMax = 1024

// valuesOf are all values of one header.
func valuesOf(fields []hpack.HeaderField, name string) []string {
	var out []string
	for _, f := range fields {
		if f.Name == name {
			out = append(out, f.Value)
		}
	}
	return out
}

// valueOf is the first of them that is not empty.
func valueOf(fields []hpack.HeaderField, name string) string {
	for _, v := range valuesOf(fields, name) {
		if v != "" {
			return v
		}
	}
	return ""
}

// statusOf is 0 where there is none, or none of three digits.
func statusOf(fields []hpack.HeaderField) int {
	v := valueOf(fields, ":status")
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || len(v) != 3 || n < 100 {
		return 0
	}
	return int(n)
}

// text is what a field of the record is to say.
func (e *h2Exchange) text(i int) string {
	t := h2Text[i]
	switch {
	case t.field == bpf.FieldHost:
		// Whichever comes first, and in what is legal that is :authority.
		for _, f := range e.request {
			if (f.Name == t.name || f.Name == "host") && f.Value != "" {
				return f.Value
			}
		}
		return ""
	case t.field == bpf.FieldTraceMore:
		more := slices.DeleteFunc(valuesOf(e.request, t.name), func(v string) bool { return v == "" })
		if len(more) > 1 {
			return more[1]
		}
		return ""
	case !t.response:
		return valueOf(e.request, t.name)
	case t.field == bpf.FieldGRPCMessage:
		return valueOf(slices.Concat(e.response, e.trailers), t.name)
	}
	return valueOf(e.response, t.name)
}

// grpcStatus is bpf.GRPCStatusNone where there is none; ok: it is a number that gRPC has.
func (e *h2Exchange) grpcStatus() (status uint16, ok bool) {
	v := valueOf(slices.Concat(e.response, e.trailers), "grpc-status")
	if v == "" {
		return bpf.GRPCStatusNone, true
	}
	n, err := strconv.ParseUint(v, 10, 16)
	return uint16(n), err == nil && n <= 16 && v == strconv.FormatUint(n, 10)
}

// flags are those of the record that content types and the ending decide.
func (e *h2Exchange) flags() uint32 {
	var flags uint32
	for _, fields := range [][]hpack.HeaderField{e.request, e.response} {
		rest, ok := strings.CutPrefix(strings.ToLower(valueOf(fields, "content-type")), "application/grpc")
		switch {
		case !ok:
		case rest == "" || strings.ContainsRune("+; ", rune(rest[0])):
			flags |= bpf.FlagGRPC
		case strings.HasPrefix(rest, "-web"):
			flags |= bpf.FlagGRPCWeb
		}
	}
	if e.byOpener {
		flags |= bpf.FlagResetByOpener
	}
	return flags
}

// contextHeaders are those that may say which trace a request is of.
var contextHeaders = []string{"traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"}

// context is what the request says of its trace; ok: it says it once, in one way.
func (e *h2Exchange) context() (c context, ok bool) {
	given := make(map[string]string)
	for _, f := range e.request {
		if !slices.Contains(contextHeaders, f.Name) {
			continue
		}
		if _, twice := given[f.Name]; twice {
			return c, false
		}
		given[f.Name] = f.Value
	}
	if v, yes := given["traceparent"]; yes {
		c, ok = parseTraceparent(v)
		return c, ok && len(given) == 1
	}
	if v, yes := given["b3"]; yes {
		c, ok = parseB3(strings.Split(v, "-"))
		return c, ok && len(given) == 1
	}
	if len(given) == 0 {
		return c, true
	}
	if slices.Sorted(maps.Keys(given))[0] == "x-b3-flags" {
		return c, false
	}
	return parseB3([]string{given["x-b3-traceid"], given["x-b3-spanid"], given["x-b3-sampled"]})
}

// digits tells whether s has n lower-case hex digits that are not all zero.
func digits(s string, n int) bool {
	_, err := hex.DecodeString(s)
	return len(s) == n && err == nil && strings.Trim(s, "0") != "" && s == strings.ToLower(s)
}

// parseTraceparent is not ok about what no version 00 may send.
func parseTraceparent(v string) (context, bool) {
	p := strings.Split(v, "-")
	if len(p) != 4 || p[0] != "00" || !digits(p[1], 32) || !digits(p[2], 16) || len(p[3]) != 2 {
		return context{}, false
	}
	flags, err := strconv.ParseUint(p[3], 16, 8)
	return context{trace: p[1], parent: p[2], flags: uint8(flags), decided: true, sampled: flags&1 != 0}, err == nil && p[3] == strings.ToLower(p[3])
}

// parseB3 reads trace, span and decision, of which some may be missing.
func parseB3(p []string) (c context, ok bool) {
	ok = len(p) >= 2
	if !ok {
		return c, false
	}
	switch {
	case digits(p[0], 32):
		c.trace = p[0]
	case digits(p[0], 16):
		c.trace = strings.Repeat("0", 16) + p[0]
	default:
		ok = false
	}
	ok = ok && digits(p[1], 16)
	c.parent = p[1]
	if len(p) > 2 && p[2] != "" {
		c.decided, c.sampled = true, p[2] == "1" || p[2] == "d"
		ok = ok && (p[2] == "0" || c.sampled)
	}
	return c, ok && len(p) < 5
}

// unsampled tells whether no record may come of the exchange, because its caller decided so, or may have.
func (e *h2Exchange) unsampled() bool {
	c, ok := e.context()
	return !ok || c.decided && !c.sampled || strings.Contains(e.text(6), "ot=") || strings.Contains(e.text(7), "ot=")
}

// compareText holds the texts of a record against the exchange's; a flag of unknown excuses what is absent.
func (e *h2Exchange) compareText(r *bpf.Record) error {
	all := 0
	for i, t := range h2Text {
		all += min(t.max, len(e.text(i)))
	}
	for i, t := range h2Text {
		want := e.text(i)
		got, cut := field(r, t.field)
		kept := want[:min(t.max, len(want))]
		unknown := r.Flags & (bpf.FlagRequestUnknown)
		if t.response {
			unknown = r.Flags & (bpf.FlagResponseUnknown)
		}
		switch {
		case t.response && (e.odd || e.torn):
		case got == kept && cut == (len(kept) < len(want)):
		case got == kept && t.field == bpf.FieldTraceMore && len(valuesOf(e.request, t.name)) > 2:
			// There were more than two.
		case got == "" && unknown != 0:
		case cut && all > textMax-t.max && strings.HasPrefix(kept, got):
			// No room was left.
		default:
			return fmt.Errorf("%s is %.700q (cut: %t), want %.700q", t.name, got, cut, want)
		}
	}
	for i := range bpf.Fields {
		known := slices.ContainsFunc(h2Text, func(t keptText) bool { return t.field == i })
		if got, _ := field(r, i); !known && got != "" {
			return fmt.Errorf("field %d is %q", i, got)
		}
	}
	return nil
}
