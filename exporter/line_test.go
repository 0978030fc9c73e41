package exporter

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"ambit/l7"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // lines show local time
	m.Run()
}

// columnsOf is how many columns a terminal gives s.
func columnsOf(s string) int {
	n := 0
	for _, r := range s {
		n += cells(r)
	}
	return n
}

func TestLine(t *testing.T) {
	cases := []struct {
		what   string
		width  int
		query  QueryCapture
		change func(*l7.Span)
		want   string
	}{
		{
			"to a file everything is there, and aligned", 0, QueryKeys, func(*l7.Span) {},
			"12:30:15.250 CLIENT frontend         GET     /api/v1/items/4711?user=REDACTED&page=REDACTED 200      2.00ms 10.244.1.17 -> 10.96.12.7:80           4bf92f35 head",
		},
		{
			"on a wide terminal the path takes what is left", 150, QueryValues, func(*l7.Span) {},
			"12:30:15.250 CLIENT frontend         GET     /api/v1/items/4711?user=bob&page=2 200      2.00ms 10.244.1.17 -> 10.96.12.7:80           4bf92f35 head",
		},
		{
			"a SERVER span reads from its client to itself", 150, QueryNone, func(s *l7.Span) { s.Kind, s.Status = l7.Server, 503 },
			"12:30:15.250 SERVER frontend         GET     /api/v1/items/4711                 503      2.00ms 10.96.12.7 -> 10.244.1.17:41234        4bf92f35 head",
		},
		{
			"who goes first on a narrower one", 110, QueryNone, func(*l7.Span) {},
			"12:30:15.250 CLIENT frontend         GET     /api/v1/items/4711                200      2.00ms 4bf92f35 head",
		},
		{
			"then why", 95, QueryNone, func(*l7.Span) {},
			"12:30:15.250 CLIENT frontend         GET     /api/v1/items/4711        200      2.00ms 4bf92f35",
		},
		{
			"then the trace", 80, QueryNone, func(*l7.Span) {},
			"12:30:15.250 CLIENT frontend         GET     /api/v1/items/4711  200      2.00ms",
		},
		{
			"what is unknown is a question mark", 80, QueryKeys, func(s *l7.Span) { *s = l7.Span{Start: startOfTest, End: startOfTest} },
			"12:30:15.250 CLIENT ?                ?                           -           0µs",
		},
		{
			"a service without a resource is its command", 80, QueryNone,
			func(s *l7.Span) { s.Resource, s.Owner.Comm, s.Status, s.Ending = nil, "nginx", 0, l7.EndedByReset },
			"12:30:15.250 CLIENT nginx            GET     /api/v1/items/4711  reset    2.00ms",
		},
		{
			"an unknown method is shown as it was sent, CONNECT's path is its host", 80, QueryKeys,
			func(s *l7.Span) {
				s.Method, s.MethodOriginal, s.Path, s.HasQuery, s.Ending = "_OTHER", "BREW", "", false, l7.EndedByIdle
			},
			"12:30:15.250 CLIENT frontend         BREW    backend.demo.svc.c… timeout  2.00ms",
		},
		{
			"wide characters take two columns", 80, QueryNone, func(s *l7.Span) { s.Path, s.Ending = "/日本語日本語日本語日", l7.EndedByClose },
			"12:30:15.250 CLIENT frontend         GET     /日本語日本語日本…  closed   2.00ms",
		},
		{
			"IPv6 has brackets before a port", 160, QueryNone,
			func(s *l7.Span) {
				s.Local, s.Remote = netip.MustParseAddrPort("[fd00::1]:5"), netip.MustParseAddrPort("[fd00::2]:80")
			},
			"12:30:15.250 CLIENT frontend         GET     /api/v1/items/4711                           200      2.00ms fd00::1 -> [fd00::2]:80                4bf92f35 head",
		},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			s := exampleSpan()
			c.change(s)
			got := Line(s, Style{Width: c.width, Query: c.query})
			if strings.TrimRight(got, " ") != c.want {
				t.Errorf("\n%q is not\n%q", got, c.want)
			}
			if n := columnsOf(got); c.width > 0 && n > c.width {
				t.Errorf("%d columns on a terminal of %d", n, c.width)
			}
		})
	}
}

func TestLineOfACall(t *testing.T) {
	cases := []struct {
		what   string
		width  int
		change func(*l7.Span)
		want   string
	}{
		{
			"to a file everything is there, and the duration stands where it always does", 0, func(*l7.Span) {},
			"12:30:15.250 CLIENT frontend         gRPC    shop.v1.Cart/AddItem                   NOT_FOUND  2.00ms 10.244.1.17 -> 10.96.12.7:80           4bf92f35 head",
		},
		{
			"OK takes no more than 200", 0, func(s *l7.Span) { s.GRPCStatus = l7.GRPCOK },
			"12:30:15.250 CLIENT frontend         gRPC    shop.v1.Cart/AddItem                     OK       2.00ms 10.244.1.17 -> 10.96.12.7:80           4bf92f35 head",
		},
		{
			"without room a method has no package", 80, func(*l7.Span) {},
			"12:30:15.250 CLIENT frontend         gRPC    Cart/AddItem      NOT_FOUND  2.00ms",
		},
		{
			"what has no room even so is cut", 80, func(s *l7.Span) { s.GRPCStatus = l7.GRPCFailedPrecondition },
			"12:30:15.250 CLIENT frontend         gRPC    Cart/Ad… FAILED_PRECONDITI…  2.00ms",
		},
		{
			"an unknown method is a question mark", 80, func(s *l7.Span) { s.Path, s.RequestUnknown = "", true },
			"12:30:15.250 CLIENT frontend         gRPC    ?                 NOT_FOUND  2.00ms",
		},
		{
			"what is no method is shown as it was sent", 80, func(s *l7.Span) { s.Path, s.GRPCStatus, s.Status = "/health", l7.NoGRPCStatus, 503 },
			"12:30:15.250 CLIENT frontend         gRPC    /health         UNAVAILABLE  2.00ms",
		},
		{
			"no status is a dash, as 200 would say that it went well", 80, func(s *l7.Span) { s.GRPCStatus, s.ResponseUnknown = l7.NoGRPCStatus, true },
			"12:30:15.250 CLIENT frontend         gRPC    Cart/AddItem        -        2.00ms",
		},
		{
			"a status of HTTP stands in where the server gave no other", 80, func(s *l7.Span) { s.Kind, s.GRPCStatus, s.Status = l7.Server, l7.NoGRPCStatus, 404 },
			"12:30:15.250 SERVER frontend         gRPC    Cart/AddItem        404      2.00ms",
		},
		{
			"a connection ends as it does for a request", 80, func(s *l7.Span) { s.GRPCStatus, s.Ending = l7.NoGRPCStatus, l7.EndedByClose },
			"12:30:15.250 CLIENT frontend         gRPC    Cart/AddItem        closed   2.00ms",
		},
		{
			"gRPC-Web says that its status may be out of sight", 80, func(s *l7.Span) { s.RPC, s.GRPCStatus = l7.GRPCWeb, l7.NoGRPCStatus },
			"12:30:15.250 CLIENT frontend         gRPCweb Cart/AddItem        200      2.00ms",
		},
		{
			"a request's stream ends with its code", 80, func(s *l7.Span) {
				s.RPC, s.Method, s.Path, s.Ending, s.ErrorCode = l7.NoRPC, "GET", "/a", l7.EndedByStreamReset, l7.EnhanceYourCalm
			},
			"12:30:15.250 CLIENT frontend         GET     /a        ENHANCE_YOUR_CALM  2.00ms",
		},
		{
			"one that GOAWAY gave back was refused", 80, func(s *l7.Span) {
				s.RPC, s.Method, s.Path, s.Status, s.Ending = l7.NoRPC, "GET", "/a", 0, l7.EndedByRefusal
			},
			"12:30:15.250 CLIENT frontend         GET     /a           REFUSED_STREAM  2.00ms",
		},
		{
			"an unknown path of a request is a question mark too", 80, func(s *l7.Span) { s.RPC, s.Method, s.Path, s.RequestUnknown = l7.NoRPC, "", "", true },
			"12:30:15.250 CLIENT frontend         ?       ?                   200      2.00ms",
		},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			s := exampleCall()
			c.change(s)
			got := Line(s, Style{Width: c.width})
			if strings.TrimRight(got, " ") != c.want {
				t.Errorf("\n%q is not\n%q", got, c.want)
			}
			if n := columnsOf(got); c.width > 0 && n > c.width {
				t.Errorf("%d columns on a terminal of %d", n, c.width)
			}
		})
	}
	for code, color := range map[l7.GRPCCode]string{l7.GRPCInternal: colorError, l7.GRPCNotFound: colorWarn} {
		s := exampleCall()
		s.Kind, s.GRPCStatus = l7.Server, code
		if got := Line(s, Style{Color: true}); !strings.Contains(got, "\x1b["+color+"m"+code.String()) {
			t.Errorf("%v has not the colour %s in %q", code, color, got)
		}
	}
}

func TestLinesFitEveryWidth(t *testing.T) {
	s, call := exampleSpan(), exampleCall()
	s.Path = "/" + strings.Repeat("日x\x00", 50)
	call.Path, call.GRPCStatus = "/"+strings.Repeat("日.x\x00", 50)+"/m", l7.GRPCFailedPrecondition
	for width := columnsAlways + minPath; width < 250; width++ {
		for _, line := range []string{Line(s, Style{Width: width}), Line(call, Style{Width: width}), Header(Style{Width: width})} {
			if n := columnsOf(line); n > width {
				t.Errorf("%d columns on a terminal of %d: %q", n, width, line)
			}
		}
	}
}

func TestHeaderStandsAboveTheColumns(t *testing.T) {
	for _, width := range []int{0, 80, 100, 160} {
		header, line := Header(Style{Width: width}), Line(exampleSpan(), Style{Width: width, Query: QueryNone})
		for name, text := range map[string]string{"KIND": "CLIENT", "SERVICE": "frontend", "METHOD": "GET", "PATH": "/api", "STATUS": "200"} {
			if strings.Index(header, name) != strings.Index(line, text) {
				t.Errorf("at width %d %s is not above %s:\n%s\n%s", width, name, text, header, line)
			}
		}
	}
}

// visible fails the test if s holds anything that could steer a terminal.
func visible(t *testing.T, what, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%s: %q is not UTF-8", what, s)
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs, unicode.M) {
			t.Errorf("%s: %q holds %U", what, s, r)
		}
	}
}

func TestNothingFromTheNetworkSteersATerminal(t *testing.T) {
	var values []string
	for b := range 256 {
		values = append(values, string([]byte{'a', byte(b), 'z'}), string([]byte{byte(b)}), string([]byte{0xc2, byte(b)}))
	}
	for _, r := range []rune{0x85, 0x9b, 0xad, 0x300, 0x200b, 0x200e, 0x202e, 0x2028, 0x2066, 0xfeff, 0xfffd, 0xe000, 0xe0001, 0x1f600, 0x10ffff} {
		values = append(values, "a"+string(r)+"z")
	}
	values = append(values, "\x1b]0;title\a", "\x1b[2J\x1b[31m", "\r\n", strings.Repeat("\xff", 300))
	fields := slices.Sorted(maps.Keys(textFields(&l7.Span{})))
	for _, field := range append(fields, "service") {
		for _, v := range values {
			s := exampleSpan()
			if field == "service" {
				s.Resource = &l7.Resource{ServiceName: v}
			} else {
				if field == "command" {
					s.Resource = nil
				}
				*textFields(s)[field] = v
			}
			for _, q := range []QueryCapture{QueryKeys, QueryValues, QueryNone} {
				visible(t, field, Line(s, Style{Query: q}))
				visible(t, field, Line(s, Style{Width: 80, Query: q}))
			}
			st := NewStore(1, 1<<20)
			st.Add(s)
			tr, _ := st.Trace(s.TraceID)
			for line := range strings.Lines(Waterfall(&tr, Style{Query: QueryValues})) {
				visible(t, field, strings.TrimSuffix(line, "\n"))
			}
		}
	}
}

func TestAppendSafe(t *testing.T) {
	cases := []struct {
		what, in string
		limit    int
		want     string
		columns  int
	}{
		{"text stays", "abc", 5, "abc", 3},
		{"text that just fits stays", "abcde", 5, "abcde", 5},
		{"longer text is cut", "abcdef", 5, "abcd…", 5},
		{"an escape is cut whole", "abc\x00z", 5, "abc…", 4},
		{"an escape that fits stays", "\x1bz", 5, `\x1bz`, 5},
		{"a byte that is not UTF-8", "\xff", 9, `\xff`, 4},
		{"a control character of two bytes", "\u009b", 9, `\u{9b}`, 6},
		{"a replacement character is visible", "\uFFFD", 9, "\uFFFD", 1},
		{"a wide character that does not fit is cut whole", "日本語", 5, "日本…", 5},
		{"a wide character at the edge", "日本語", 4, "日…", 3},
		{"one column", "ab", 1, "…", 1},
		{"no column", "ab", 0, "", 0},
		{"no limit", strings.Repeat("x", 100), -1, strings.Repeat("x", 100), 100},
		{"a direction override", "a\u202eb", -1, `a\u{202e}b`, 10},
		{"a mark", "e\u0301", -1, `e\u{301}`, 8},
		{"nothing", "", 3, "", 0},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			got, n := appendSafe([]byte("kept "), c.in, c.limit)
			if string(got) != "kept "+c.want || n != c.columns {
				t.Errorf("%q of %d columns, not %q of %d", got, n, c.want, c.columns)
			}
		})
	}
}

func TestDurations(t *testing.T) {
	for ns, want := range map[int64]string{
		0: "0µs", 999: "0µs", 1500: "1µs", 999_999: "999µs", 1_000_000: "1.00ms", 12_340_000: "12.3ms", 123_400_000: "123ms",
		1_000_000_000: "1.00s", 67_000_000_000: "67.0s", 3_600_000_000_000: "3600s", -5_000_000: "-5.00ms",
	} {
		if got := durationText(ns); got != want || columnsOf(got) > columnDuration {
			t.Errorf("%d ns is %q, not %q", ns, got, want)
		}
	}
}

func TestColour(t *testing.T) {
	s := exampleSpan()
	plain, colored := Line(s, Style{Width: 120}), Line(s, Style{Width: 120, Color: true})
	if strings.Contains(plain, "\x1b") {
		t.Errorf("there is an escape in %q", plain)
	}
	if !strings.Contains(colored, "\x1b[36mCLIENT\x1b[0m") {
		t.Errorf("there is no colour in %q", colored)
	}
	bare := colored
	for _, code := range []string{"0", colorError, colorWarn, colorClient, colorServer, colorDim} {
		bare = strings.ReplaceAll(bare, "\x1b["+code+"m", "")
	}
	if bare != plain {
		t.Errorf("without its colours\n%q is not\n%q", bare, plain)
	}
	s.Status = 500
	if got := Line(s, Style{Color: true}); !strings.Contains(got, "\x1b[31m500") {
		t.Errorf("an error has no colour in %q", got)
	}
}
