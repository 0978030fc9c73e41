package l7

import (
	"net/netip"
	"testing"
	"unicode/utf8"

	"ambit/bpf"
)

func TestDecisionOfEachSide(t *testing.T) {
	r := record(map[int]string{bpf.FieldRequestLine: "GET /a HTTP/1.1", bpf.FieldTraceState: "v=1,ot=th:c"})
	r.Generation = 9
	r.Decision = [bpf.Sides]bpf.Decision{
		{Reason: bpf.ReasonSlow, Class: bpf.ClassBackground, Threshold: 1 << 55, Flags: bpf.DecisionThreshold},
		{Reason: bpf.ReasonForced, Class: bpf.ClassCritical},
	}
	spans := assemble(t, r)
	client, server := spans[0], spans[1]
	if client.Reason != ReasonSlow || client.Class != ClassBackground || client.Threshold != 1<<55 || !client.HasThreshold ||
		client.Generation != 9 || client.TraceState != "ot=th:8,v=1" {
		t.Errorf("client: %+v", client)
	}
	if server.Reason != ReasonForced || server.Class != ClassCritical || server.HasThreshold || server.Generation != 9 || server.TraceState != "v=1" {
		t.Errorf("server: %+v", server)
	}
}

// record builds a record of one text per field, both sides kept.
func record(fields map[int]string) *bpf.Record {
	r := &bpf.Record{StartNs: 1_000, FirstNs: 2_000, EndNs: 3_000, Status: 200, Kept: 3}
	r.Decision = [bpf.Sides]bpf.Decision{{Reason: bpf.ReasonHead}, {Reason: bpf.ReasonHead}}
	for field, text := range fields {
		r.Fields[field].Off = r.Used
		r.Fields[field].Len = uint16(len(text))
		r.Used += uint16(copy(r.Text[r.Used:], text))
	}
	return r
}

func assemble(t *testing.T, r *bpf.Record) []Span {
	t.Helper()
	var out [bpf.Sides]Span
	n := NewAssembler().Assemble(r, 0, &out)
	return out[:n]
}

func TestTargetForms(t *testing.T) {
	for _, c := range []struct {
		what, line, host string
		want             Span
	}{
		{"origin form takes its host from the header", "GET /a/b?x=1&y HTTP/1.1", "example.org:8080",
			Span{Method: "GET", Path: "/a/b", Query: "x=1&y", HasQuery: true, Host: "example.org", Port: 8080, Version: "1.1"}},
		{"a host without port has the scheme's", "GET / HTTP/1.0", "example.org",
			Span{Method: "GET", Path: "/", Host: "example.org", Port: 80, Version: "1.0"}},
		{"absolute form goes before the header", "GET http://other.org:81/x?q HTTP/1.1", "example.org",
			Span{Method: "GET", Path: "/x", Query: "q", HasQuery: true, Host: "other.org", Port: 81, Version: "1.1"}},
		{"absolute form loses its password", "GET http://user:secret@other.org/x HTTP/1.1", "",
			Span{Method: "GET", Path: "/x", Host: "other.org", Port: 80, Version: "1.1"}},
		{"absolute form without a path asks for the root", "GET http://other.org?q HTTP/1.1", "",
			Span{Method: "GET", Path: "/", Query: "q", HasQuery: true, Host: "other.org", Port: 80, Version: "1.1"}},
		{"authority form has no path", "CONNECT other.org:443 HTTP/1.1", "example.org",
			Span{Method: "CONNECT", Host: "other.org", Port: 443, Version: "1.1"}},
		{"asterisk form is a path of its own", "OPTIONS * HTTP/1.1", "example.org",
			Span{Method: "OPTIONS", Path: "*", Host: "example.org", Port: 80, Version: "1.1"}},
		{"a fragment, which no client should send, goes", "GET /a#b HTTP/1.1", "",
			Span{Method: "GET", Path: "/a", Version: "1.1"}},
		{"an IPv6 host loses its brackets", "GET / HTTP/1.1", "[::1]:81",
			Span{Method: "GET", Path: "/", Host: "::1", Port: 81, Version: "1.1"}},
		{"a host loses its password", "GET / HTTP/1.1", "user:secret@example.org:81",
			Span{Method: "GET", Path: "/", Host: "example.org", Port: 81, Version: "1.1"}},
		{"a host with a space is none", "GET / HTTP/1.1", "two words", Span{Method: "GET", Path: "/", Version: "1.1"}},
		{"a URL in a query makes no absolute form", "GET foo?secret=tok://x/y HTTP/1.1", "example.org",
			Span{Method: "GET", Path: "foo", Query: "secret=tok://x/y", HasQuery: true, Host: "example.org", Port: 80, Version: "1.1"}},
		{"a host that is none is unknown", "GET / HTTP/1.1", "[::1", Span{Method: "GET", Path: "/", Version: "1.1"}},
		{"a port that is none is unknown", "GET / HTTP/1.1", "a:b", Span{Method: "GET", Path: "/", Host: "a", Version: "1.1"}},
		{"an unknown method is kept beside its stand-in", "PURGE / HTTP/1.1", "",
			Span{Method: "_OTHER", MethodOriginal: "PURGE", Path: "/", Version: "1.1"}},
		{"an empty query is one", "GET /? HTTP/1.1", "", Span{Method: "GET", Path: "/", HasQuery: true, Version: "1.1"}},
		{"a space in the target stays in it", "GET /a b HTTP/1.1", "", Span{Method: "GET", Path: "/a b", Version: "1.1"}},
	} {
		got := assemble(t, record(map[int]string{bpf.FieldRequestLine: c.line, bpf.FieldHost: c.host}))[0]
		have := Span{Method: got.Method, MethodOriginal: got.MethodOriginal, Path: got.Path, Query: got.Query,
			HasQuery: got.HasQuery, Host: got.Host, Port: got.Port, Version: got.Version}
		if have != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.what, have, c.want)
		}
	}
}

func TestCutRequestLineHasNoVersion(t *testing.T) {
	r := record(map[int]string{bpf.FieldRequestLine: "GET /aaaa bbbb"})
	r.Cut = 1 << bpf.FieldRequestLine
	s := assemble(t, r)[0]
	if s.Path != "/aaaa bbbb" || s.Version != "" || s.Cut != CutRequestLine {
		t.Errorf("a cut target keeps what there is: %+v", s)
	}
}

func TestSides(t *testing.T) {
	r := record(map[int]string{bpf.FieldRequestLine: "GET / HTTP/1.1"})
	r.SpanId = [2][8]uint8{{1}, {2}}
	r.HeaderParent = [8]uint8{9}
	endpoint := func(addr string, port uint16) bpf.Endpoint {
		return bpf.Endpoint{Addr: netip.MustParseAddr(addr).As16(), Port: port}
	}
	r.Ends.Remote[bpf.SideOpener] = endpoint("10.96.0.10", 80)
	r.Ends.Remote[bpf.SideAcceptor] = endpoint("fd00::2", 4000)
	for _, c := range []struct {
		what    string
		flags   uint32
		kept    uint8
		parents []string
	}{
		{"without a header the client's span is a root, and the server's without it too", 0, 3, []string{"0", "0"}},
		{"a header names both parents where the client is not traced", bpf.FlagParentHeader, 3, []string{"9", "9"}},
		{"a traced client's span is the server's parent", bpf.FlagParentHeader | bpf.FlagOpenerTraced, 3, []string{"9", "1"}},
		{"one side alone", bpf.FlagOpenerTraced, 2, []string{"1"}},
	} {
		r.Flags, r.Kept = c.flags, c.kept
		spans := assemble(t, r)
		if len(spans) != len(c.parents) {
			t.Fatalf("%s: %d spans", c.what, len(spans))
		}
		for i, s := range spans {
			if got := string('0' + rune(s.ParentID[0])); got != c.parents[i] {
				t.Errorf("%s: span %d has parent %s, want %s", c.what, i, got, c.parents[i])
			}
		}
	}
	r.Kept = 3
	spans := assemble(t, r)
	if spans[0].Remote != netip.MustParseAddrPort("10.96.0.10:80") || spans[1].Remote != netip.MustParseAddrPort("[fd00::2]:4000") {
		t.Errorf("each side has its own peer: %v, %v", spans[0].Remote, spans[1].Remote)
	}
}

func TestEveryByteBecomesValidUTF8(t *testing.T) {
	for b := range 256 {
		for field := range bpf.FieldTraceState + 1 {
			text := "GET /" + string([]byte{byte(b)}) + " HTTP/1.1"
			if field != bpf.FieldRequestLine {
				text = "a" + string([]byte{byte(b)})
			}
			a := NewAssembler()
			var out [bpf.Sides]Span
			a.Assemble(record(map[int]string{field: text}), 0, &out)
			s := out[0]
			for _, v := range []string{s.Method, s.MethodOriginal, s.Path, s.Query, s.Host, s.UserAgent, s.RequestID, s.TraceState, s.Version} {
				if !utf8.ValidString(v) {
					t.Fatalf("byte %#x in field %d gives %q", b, field, v)
				}
			}
			if want := uint64(b >> 7); a.Repaired != want {
				t.Errorf("byte %#x in field %d: %d repairs counted, want %d", b, field, a.Repaired, want)
			}
		}
	}
}

func withThreshold(r *bpf.Record) {
	for side := range r.Decision {
		r.Decision[side].Flags |= bpf.DecisionThreshold
	}
}

func TestOneAllocationPerRecord(t *testing.T) {
	r := record(map[int]string{bpf.FieldRequestLine: "GET /a HTTP/1.1", bpf.FieldHost: "h", bpf.FieldUserAgent: "curl/8"})
	withThreshold(r)
	a := NewAssembler()
	var out [bpf.Sides]Span
	a.Assemble(r, 0, &out)
	if n := testing.AllocsPerRun(100, func() { a.Assemble(r, 0, &out) }); n > 1 {
		t.Errorf("%v allocations for a record of two spans, want 1", n)
	}
}
