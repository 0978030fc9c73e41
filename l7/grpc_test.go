package l7

import (
	"testing"
	"unicode/utf8"

	"ambit/bpf"
)

func TestCalls(t *testing.T) {
	for _, c := range []struct {
		what   string
		flags  uint32
		status uint16
		want   RPC
		code   GRPCCode
	}{
		{"a plain request is no call, whatever its trailers say", 0, 5, NoRPC, NoGRPCStatus},
		{"gRPC has the status that was seen", bpf.FlagGRPC, 5, GRPC, GRPCNotFound},
		{"gRPC without a status has none", bpf.FlagGRPC, bpf.GRPCStatusNone, GRPC, NoGRPCStatus},
		{"gRPC-Web may have one too", bpf.FlagGRPCWeb, 0, GRPCWeb, GRPCOK},
	} {
		r := record2(map[int]string{bpf.FieldGRPCMessage: "no"})
		r.Flags, r.GrpcStatus = c.flags, c.status
		s := assemble(t, r)[0]
		if s.RPC != c.want || s.GRPCStatus != c.code || (s.GRPCMessage == "no") != (c.want != NoRPC) {
			t.Errorf("%s: %v %v %q", c.what, s.RPC, s.GRPCStatus, s.GRPCMessage)
		}
	}
}

func TestGRPCWebOverHTTP1(t *testing.T) {
	r := record(map[int]string{bpf.FieldRequestLine: "POST /shop.Cart/Add HTTP/1.1"})
	r.Protocol, r.Flags, r.GrpcStatus = bpf.ProtocolHTTP1, bpf.FlagGRPCWeb, bpf.GRPCStatusNone
	s := assemble(t, r)[0]
	if method, _ := s.RPCMethod(); method != "shop.Cart/Add" || s.RPC != GRPCWeb || s.Version != "1.1" {
		t.Errorf("it is %+v", s)
	}
}

func TestRPCMethod(t *testing.T) {
	for _, c := range []struct {
		what, path       string
		cut              Cut
		method, original string
	}{
		{"service and method", "/shop.v1.Cart/Add", 0, "shop.v1.Cart/Add", ""},
		{"a service without a package", "/Cart/Add", 0, "Cart/Add", ""},
		{"a service below a prefix", "/api/shop.Cart/Add", 0, "api/shop.Cart/Add", ""},
		{"an unknown path is an unknown method", "", 0, "", ""},
		{"a path of one part is no method's", "/Add", 0, "_OTHER", "/Add"},
		{"the root is none", "/", 0, "_OTHER", "/"},
		{"nor is a method without a service", "//Add", 0, "_OTHER", "//Add"},
		{"nor is a service without a method", "/shop.Cart/", 0, "_OTHER", "/shop.Cart/"},
		{"nor is what does not begin with a slash", "shop.Cart/Add", 0, "_OTHER", "shop.Cart/Add"},
		{"the beginning of a method's name may be another method's", "/shop.Cart/Add", CutPath, "_OTHER", "/shop.Cart/Add"},
	} {
		s := Span{Path: c.path, Cut: c.cut}
		if method, original := s.RPCMethod(); method != c.method || original != c.original {
			t.Errorf("%s: %q, %q, not %q, %q", c.what, method, original, c.method, c.original)
		}
	}
}

func TestGRPCMessage(t *testing.T) {
	for _, c := range []struct {
		what, sent string
		cut        bool
		want       string
		repaired   uint64
	}{
		{"plain text stays", "no such item: 4711", false, "no such item: 4711", 0},
		{"what is encoded is decoded", "a%20b%25%0Ac", false, "a b%\nc", 0},
		{"small hex digits are taken too", "%c3%a4", false, "ä", 0},
		{"UTF-8 comes in pieces", "%E2%82%AC 5", false, "€ 5", 0},
		{"what is no encoding stays as it is", "100% %zz %4", false, "100% %zz %4", 0},
		{"an encoded percent sign begins nothing", "%2541", false, "%41", 0},
		{"what decodes to no UTF-8 is repaired", "a%FFb", false, "a\uFFFDb", 1},
		{"so is what was sent as none", "a\xffb", false, "a\uFFFDb", 1},
		{"an encoding that the cut broke goes", "abc%E", true, "abc", 0},
		{"so does a percent sign that it left", "abc%", true, "abc", 0},
		{"and a character of which it left a byte", "abc%E2%82", true, "abc", 0},
		{"nothing else goes", "abc", true, "abc", 0},
	} {
		r := record2(map[int]string{bpf.FieldPath: "/a%20b/c", bpf.FieldGRPCMessage: c.sent, bpf.FieldResponseType: "x%20y"})
		r.Flags, r.GrpcStatus = bpf.FlagGRPC, 2
		if c.cut {
			r.Cut = 1 << bpf.FieldGRPCMessage
		}
		a := NewAssembler()
		var out [bpf.Sides]Span
		a.Assemble(r, 0, &out)
		s := &out[1]
		if s.GRPCMessage != c.want || a.Repaired != c.repaired {
			t.Errorf("%s: %q is %q, %d repaired", c.what, c.sent, s.GRPCMessage, a.Repaired)
		}
		if s.Path != "/a%20b/c" || s.ResponseType != "x%20y" {
			t.Errorf("%s: something else is decoded: %q, %q", c.what, s.Path, s.ResponseType)
		}
	}
}

func TestPlacesOutsideOfTheTextAreAbsent(t *testing.T) {
	r := record2(map[int]string{bpf.FieldGRPCMessage: "%20"})
	r.Flags = bpf.FlagGRPC
	for _, place := range []struct{ off, len uint16 }{{1, 3}, {4, 1}, {0, 0xffff}, {0xffff, 0xffff}} {
		r.Fields[bpf.FieldGRPCMessage].Off, r.Fields[bpf.FieldGRPCMessage].Len = place.off, place.len
		if s := assemble(t, r)[0]; s.GRPCMessage != "" {
			t.Errorf("at %v stands %q", place, s.GRPCMessage)
		}
	}
}

func TestGRPCCodes(t *testing.T) {
	for code, want := range map[GRPCCode]string{0: "OK", 1: "CANCELLED", 4: "DEADLINE_EXCEEDED", 16: "UNAUTHENTICATED", 17: "17", 4711: "4711"} {
		if got := code.String(); got != want {
			t.Errorf("code %d is %s, not %s", uint16(code), got, want)
		}
	}
	for status, want := range map[int]GRPCCode{
		200: GRPCUnknown, 302: GRPCUnknown, 400: GRPCInternal, 401: GRPCUnauthenticated, 403: GRPCPermissionDenied,
		404: GRPCUnimplemented, 415: GRPCUnknown, 429: GRPCUnavailable, 431: GRPCInternal, 500: GRPCUnknown,
		502: GRPCUnavailable, 503: GRPCUnavailable, 504: GRPCUnavailable,
	} {
		if got := GRPCOfHTTP(status); got != want {
			t.Errorf("a response of %d means %v, not %v", status, got, want)
		}
	}
	for code, want := range map[ErrorCode]GRPCCode{
		0: GRPCInternal, 1: GRPCInternal, 2: GRPCInternal, 3: GRPCInternal, 4: GRPCInternal, 5: GRPCUnknown, 6: GRPCInternal,
		7: GRPCUnavailable, 8: GRPCCancelled, 9: GRPCInternal, 10: GRPCInternal, 11: GRPCResourceExhausted,
		12: GRPCPermissionDenied, 13: GRPCUnknown, 99: GRPCUnknown,
	} {
		if got := code.GRPC(); got != want {
			t.Errorf("a reset with %v means %v, not %v", code, got, want)
		}
	}
}

func FuzzGRPCMessage(f *testing.F) {
	f.Add([]byte("a%20b"), false)
	f.Add([]byte("%E2%8"), true)
	f.Fuzz(func(t *testing.T, sent []byte, cut bool) {
		r := record2(map[int]string{bpf.FieldGRPCMessage: string(sent[:min(len(sent), 700)])})
		r.Flags = bpf.FlagGRPC
		if cut {
			r.Cut = 1 << bpf.FieldGRPCMessage
		}
		if s := assemble(t, r)[0]; !utf8.ValidString(s.GRPCMessage) {
			t.Fatalf("%q is %q", sent, s.GRPCMessage)
		}
	})
}
