package l7

import (
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	hex128 := strings.Repeat("0a", 64)
	token128 := strings.Repeat("aB3-", 32)
	for _, c := range []struct {
		what, target, want string
	}{
		{"words stay", "/api/v1/items", "/api/v1/items"},
		{"the root", "/", "/"},
		{"query and fragment are left out", "/a?b=/c/1#d", "/a"},
		{"a fragment alone too", "/a#b?c", "/a"},
		{"empty segments too", "//a///b/", "/a/b"},
		{"of the absolute form scheme and authority", "http://host:80/users/7?x", "/users/{number}"},
		{"which need not have a path", "HTTPS://host?x", "/"},
		{"the authority of CONNECT has none", "host:443", ""},
		{"and an empty target none either", "", ""},
		{"what is no scheme makes no absolute form", "1x://host/a", ""},
		{"a URL in a path is part of it", "/go/http://host/1", "/go/http:/host/{number}"},
		{"the server itself", "*", "*"},

		{"digits", "/users/42", "/users/{number}"},
		{"a date", "/on/2024-01-02", "/on/{number}"},
		{"a version", "/1.2", "/{number}"},
		{"a coordinate", "/at/-5,3.25", "/at/{number}"},
		{"signs without a digit are none", "/a/-/..", "/a/-/.."},
		{"a unit is none either", "/a/5px", "/a/5px"},

		{"a UUID of either case", "/u/8d1f9c1e-0A3A-4b8e-9a53-6f6f5a1c2b3d", "/u/{uuid}"},
		{"dashes elsewhere make none", "/u/8d1f9c1e0-a3a-4b8e-9a53-6f6f5a1c2b3d", "/u/8d1f9c1e0-a3a-4b8e-9a53-6f6f5a1c2b3d"},
		{"but numbers are numbers first", "/u/12345678-1234-1234-1234-123456789012", "/u/{number}"},

		{"16 hex digits", "/t/0123456789abcdef", "/t/{hex}"},
		{"15 are a word", "/t/0123456789abcde", "/t/0123456789abcde"},
		{"128 are the most", "/t/" + hex128, "/t/{hex}"},
		{"129 are a word", "/t/" + hex128 + "a", "/t/" + hex128 + "a"},
		{"letters alone may be a word", "/t/deadbeefdeadbeef", "/t/deadbeefdeadbeef"},

		{"a token of 20", "/s/abcdefghijABCDEFGH1-", "/s/{token}"},
		{"19 are a word", "/s/abcdefghijABCDEFG1-", "/s/abcdefghijABCDEFG1-"},
		{"128 are the most of these too", "/s/" + token128, "/s/{token}"},
		{"129 are a word again", "/s/" + token128 + "a", "/s/" + token128 + "a"},
		{"without upper case it may be words", "/s/a-post-about-7-things", "/s/a-post-about-7-things"},
		{"without lower case too", "/s/ABCDEFGHIJKLMNOPQRST9", "/s/ABCDEFGHIJKLMNOPQRST9"},
		{"without a digit too", "/s/AbcdefghijklmnopqrsT", "/s/AbcdefghijklmnopqrsT"},
		{"other bytes are no token's", "/s/abcdefghijABCDEFGH1~", "/s/abcdefghijABCDEFGH1~"},
		{"bytes above 127 are no placeholder's", "/s/abcdefghijABCDEFGH1é/٤٢", "/s/abcdefghijABCDEFGH1é/٤٢"},

		{"24 segments", strings.Repeat("/a", 24), strings.Repeat("/a", 24)},
		{"what is behind them is told at once", strings.Repeat("/a", 30), strings.Repeat("/a", 24) + "/…"},
		{"and so it stays", strings.Repeat("/a", 24) + "/…", strings.Repeat("/a", 24) + "/…"},
	} {
		if got := Template(c.target, false); got != c.want {
			t.Errorf("%s: %q gives %q, not %q", c.what, c.target, got, c.want)
		}
	}
	if got := Template("/shop.v1.Stock/123", true); got != "/shop.v1.Stock/123" {
		t.Errorf("a call of gRPC is %q", got)
	}
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"/a/1?x", "http://h/0123456789abcdef0", "*", "h:1", "/8d1f9c1e-0a3a-4b8e-9a53-6f6f5a1c2b3d//", strings.Repeat("/a", 30), "/{number}/…"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got := Template(target, false)
		if again := Template(got, false); again != got {
			t.Errorf("%q becomes %q, and that %q", target, got, again)
		}
		if got == "" || got == "*" {
			return
		}
		segments := strings.Split(got, "/")[1:]
		if got[0] != '/' || strings.ContainsAny(got, "?#") || len(segments) > maxSegments+1 {
			t.Errorf("%q becomes %q", target, got)
		}
		for _, s := range segments {
			if s == "" && got != "/" || placeholder(s) != s {
				t.Errorf("%q becomes %q, of which %q is no segment of a template", target, got, s)
			}
		}
	})
}

func TestRoutesOfCalls(t *testing.T) {
	for path, want := range map[string]string{
		"/shop.v1.Stock/Get": "shop.v1.Stock/Get", "/Get": "_OTHER", "/a/": "_OTHER", "": "",
	} {
		if got := (&Route{Template: path, GRPC: true}).RPCMethodName(); got != want {
			t.Errorf("%q is called %q, not %q", path, got, want)
		}
	}
	for method, want := range map[string]string{"GET": "GET", "get": "_OTHER", "": ""} {
		if got := MethodName(method); got != want {
			t.Errorf("%q is called %q, not %q", method, got, want)
		}
	}
}
