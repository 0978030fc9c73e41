package l7

import (
	"testing"

	"ambit/bpf"
)

// record2 is record for HTTP/2.
func record2(fields map[int]string) *bpf.Record {
	r := record(fields)
	r.Protocol = bpf.ProtocolHTTP2
	r.GrpcStatus = bpf.GRPCStatusNone
	return r
}

func TestPseudoHeaders(t *testing.T) {
	type fields = map[int]string
	for _, c := range []struct {
		what   string
		fields fields
		cut    Cut
		flags  uint32
		want   Span
	}{
		{"a request has its path, its query and its authority",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/a/b?x=1&y", bpf.FieldScheme: "http", bpf.FieldHost: "example.org:8080"}, 0, 0,
			Span{Method: "GET", Path: "/a/b", Query: "x=1&y", HasQuery: true, Scheme: "http", Host: "example.org", Port: 8080}},
		{"an authority without a port has the scheme's",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/", bpf.FieldScheme: "https", bpf.FieldHost: "example.org"}, 0, 0,
			Span{Method: "GET", Path: "/", Scheme: "https", Host: "example.org", Port: 443}},
		{"port 80 of https is port 80",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/", bpf.FieldScheme: "https", bpf.FieldHost: "example.org:80"}, 0, 0,
			Span{Method: "GET", Path: "/", Scheme: "https", Host: "example.org", Port: 80}},
		{"a scheme is lower case",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/", bpf.FieldScheme: "HTTPS"}, 0, 0,
			Span{Method: "GET", Path: "/", Scheme: "https"}},
		{"what can be no scheme is none",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/", bpf.FieldScheme: "ht tp", bpf.FieldHost: "example.org"}, 0, 0,
			Span{Method: "GET", Path: "/", Host: "example.org"}},
		{"asterisk form is a path of its own",
			fields{bpf.FieldMethod: "OPTIONS", bpf.FieldPath: "*", bpf.FieldScheme: "http"}, 0, 0,
			Span{Method: "OPTIONS", Path: "*", Scheme: "http"}},
		{"CONNECT has an authority alone",
			fields{bpf.FieldMethod: "CONNECT", bpf.FieldHost: "other.org:443"}, 0, 0,
			Span{Method: "CONNECT", Host: "other.org", Port: 443}},
		{"extended CONNECT has a path and a scheme (RFC 8441)",
			fields{bpf.FieldMethod: "CONNECT", bpf.FieldPath: "/chat", bpf.FieldScheme: "https", bpf.FieldHost: "other.org"}, 0, 0,
			Span{Method: "CONNECT", Path: "/chat", Scheme: "https", Host: "other.org", Port: 443}},
		{"a fragment, which no client should send, goes",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/a#b", bpf.FieldScheme: "http"}, 0, 0,
			Span{Method: "GET", Path: "/a", Scheme: "http"}},
		{"a URL in place of a path names no other host",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "http://evil.example/x", bpf.FieldScheme: "http", bpf.FieldHost: "example.org"}, 0, 0,
			Span{Method: "GET", Path: "http://evil.example/x", Scheme: "http", Host: "example.org", Port: 80}},
		{"an unknown method is kept beside its stand-in",
			fields{bpf.FieldMethod: "PURGE", bpf.FieldPath: "/", bpf.FieldScheme: "http"}, 0, 0,
			Span{Method: "_OTHER", MethodOriginal: "PURGE", Path: "/", Scheme: "http"}},
		{"the beginning of a method is not that method",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/", bpf.FieldScheme: "http"}, CutMethod, 0,
			Span{Method: "_OTHER", MethodOriginal: "GET", Path: "/", Scheme: "http", Cut: CutMethod}},
		{"the beginning of a scheme is none",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/", bpf.FieldScheme: "http"}, CutScheme, 0,
			Span{Method: "GET", Path: "/", Cut: CutScheme}},
		{"a path keeps what there is of it, without half a character",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/a\xc3", bpf.FieldScheme: "http"}, CutPath, 0,
			Span{Method: "GET", Path: "/a", Scheme: "http", Cut: CutPath}},
		{"of a head that is unknown nothing is invented",
			nil, 0, bpf.FlagRequestUnknown, Span{RequestUnknown: true}},
		{"of a head that is unknown in part that part is absent",
			fields{bpf.FieldMethod: "POST", bpf.FieldScheme: "http"}, 0, bpf.FlagRequestUnknown,
			Span{Method: "POST", Scheme: "http", RequestUnknown: true}},
		{"a response of which a part is unknown says so",
			fields{bpf.FieldMethod: "GET", bpf.FieldPath: "/", bpf.FieldScheme: "http"}, 0, bpf.FlagResponseUnknown,
			Span{Method: "GET", Path: "/", Scheme: "http", ResponseUnknown: true}},
	} {
		r := record2(c.fields)
		r.Cut, r.Flags = uint16(c.cut), c.flags
		got := assemble(t, r)[0]
		have := Span{Method: got.Method, MethodOriginal: got.MethodOriginal, Path: got.Path, Query: got.Query,
			HasQuery: got.HasQuery, Scheme: got.Scheme, Host: got.Host, Port: got.Port, Cut: got.Cut,
			RequestUnknown: got.RequestUnknown, ResponseUnknown: got.ResponseUnknown}
		if have != c.want || got.Version != "2" {
			t.Errorf("%s:\n got %+v of version %q\nwant %+v", c.what, have, got.Version, c.want)
		}
	}
}

func TestStreamAndItsEnd(t *testing.T) {
	r := record2(map[int]string{bpf.FieldContentType: "text/plain", bpf.FieldResponseType: "text/html"})
	r.Stream, r.ErrorCode, r.Ending, r.Flags = 7, 8, bpf.EndingStreamReset, bpf.FlagResetByOpener
	s := assemble(t, r)[0]
	if s.Stream != 7 || s.ErrorCode.String() != "CANCEL" || s.Ending != EndedByStreamReset || !s.ResetByClient {
		t.Errorf("a stream that its client cancelled is %+v", s)
	}
	if s.RequestType != "text/plain" || s.ResponseType != "text/html" {
		t.Errorf("content types are %q and %q", s.RequestType, s.ResponseType)
	}
	r.Ending, r.Flags = bpf.EndingRefused, 0
	if s := assemble(t, r)[0]; s.Ending != EndedByRefusal || s.ResetByClient {
		t.Errorf("a stream that GOAWAY gave back is %+v", s)
	}
	if s := assemble(t, r)[1]; s.Kind != Server || s.Stream != 7 {
		t.Errorf("the other side is %+v", s)
	}
	for code, want := range map[ErrorCode]string{
		0: "NO_ERROR", 1: "PROTOCOL_ERROR", 7: "REFUSED_STREAM", 0xd: "HTTP_1_1_REQUIRED", 0xe: "0xe", 1<<32 - 1: "0xffffffff",
	} {
		if got := code.String(); got != want {
			t.Errorf("error code %d is %s, not %s", uint32(code), got, want)
		}
	}
}

// The bits of what HTTP/2 has alone are the kernel's, the second tracestate's is told as the first's.
func TestCutBits(t *testing.T) {
	for field := range bpf.FieldBaggage {
		want := Cut(1) << field
		if field == bpf.FieldTraceMore {
			want = CutTraceState
		}
		r := record2(nil)
		r.Cut = 1<<field | 1<<15
		if s := assemble(t, r)[0]; s.Cut != want {
			t.Errorf("field %d cut is %b, not %b", field, s.Cut, want)
		}
	}
}

func TestOneAllocationPerRecordOfHTTP2(t *testing.T) {
	r := record2(map[int]string{
		bpf.FieldMethod: "POST", bpf.FieldPath: "/shop.Cart/Add", bpf.FieldScheme: "http", bpf.FieldHost: "cart:50051",
		bpf.FieldContentType: "application/grpc", bpf.FieldGRPCMessage: "not%20found: %E2%82%AC",
	})
	r.Flags, r.GrpcStatus = bpf.FlagGRPC, 5
	withThreshold(r)
	a := NewAssembler()
	var out [bpf.Sides]Span
	a.Assemble(r, 0, &out)
	if n := testing.AllocsPerRun(100, func() { a.Assemble(r, 0, &out) }); n > 1 {
		t.Errorf("%v allocations for a record of two spans, want 1", n)
	}
	if out[0].GRPCMessage != "not found: €" || out[0].Path != "/shop.Cart/Add" {
		t.Errorf("decoding changes the record: %+v", out[0])
	}
}
