package admin

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestWriteStatus(t *testing.T) {
	var out strings.Builder
	if err := WriteStatus(&out, fullStatus()); err != nil {
		t.Fatal(err)
	}
	want := `ambit 1.2.3  tracing  up 1d2h3m0s  pid 4242  kernel 6.18.0  abi 1

EXCHANGES  one request and response, as one socket saw it
  seen          1,234,567
  unsampled     1,111,111
  submitted       123,444
  exported        123,400
  in flight             3
  queued               40
  dropped              13
    queue_full          4
    ring_full           9

RULES  12, the first that accepts a request holds
  generation  7
  loaded      2026-03-01T00:00:01.000Z
  not taken   2026-03-02T00:00:00.000Z  /etc/ambit.yaml:3: live: given twice

EXPORTER  otlp to http://collector:4317
  state         failing
  exported      123,400 spans
  queued        40 spans, 20.0 KiB
  dropped       4 spans
    queue_full  4 spans
  last error    2026-03-02T02:03:04.500Z  connection refused

ATTACHED  3 programs
  NAMESPACE  COOKIE       INODE  INTERFACE  INDEX  HOOK     METHOD  PROGRAM
  host            1  4026531840  lo             1  egress   tcx     ambit_lo
  pod-a          12  4026532001  eth0          14  ingress  clsact  ambit_ingress
  -               -           -  -              -  sockops  link    ambit_sockops

NOT TAPPED  selected, and waited for
  NAMESPACE  INTERFACE  REASON
  pod-b      -          tapped by another daemon, pid 77
  pod-a      eth1       attach to egress: no memory
  pod-c      -          no such file

PROGRAMS
  PROGRAM             RUNS  TIME  AVERAGE
  ambit_lo       2,000,000  1.6s   800 ns
  ambit_sockops          0  0 ns     0 ns

MEMORY
  all                36.0 MiB
  process, resident  31.0 MiB
    of it, Go heap    9.3 MiB
  sockets             2.0 KiB
  maps                5.0 MiB
    flows             1.0 MiB
    ring              4.0 MiB

HANDOVER
  kept for the next daemon  37 maps and links
  from an earlier one       taken over

EVENTS
  flows     1,000
  not_http     12
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// squeeze makes every run of blanks within a line one, so that a wider table is no other text.
func squeeze(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	return strings.Join(lines, "\n")
}

func TestTablesAreAligned(t *testing.T) {
	var p page
	p.table([][]string{{"NAME", "COUNT", "END"}, {"a", "1", "x"}, {"längere", "1,000,000", "y"}}, 1)
	var out strings.Builder
	if err := p.writeTo(&out); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"  NAME         COUNT  END\n" +
		"  a                1  x\n" +
		"  längere  1,000,000  y\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestWriteStatusOfAPausedDaemon(t *testing.T) {
	var out strings.Builder
	if err := WriteStatus(&out, Status{Version: "dev", State: Paused, Exporter: Exporter{Kind: "memory", State: ExporterOK}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"ambit dev  paused  up 0s",
		`ATTACHED  nothing: paused, "ambit resume" attaches again`,
		`PROGRAMS  run times are not kept; "sysctl kernel.bpf_stats_enabled=1" keeps them, at a small cost`,
		"EXPORTER  memory\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "EVENTS") || strings.Contains(out.String(), "NOT TAPPED") || strings.Contains(out.String(), "last error") {
		t.Errorf("says what is not:\n%s", out.String())
	}
}

func TestWriteRates(t *testing.T) {
	rates := Rates{
		Default: 0.1, Threshold: "e6666666666666", Source: "configuration", Generation: 2, Changed: at("2026-03-01T12:00:00Z"),
		Budgets: []Budget{{Name: "node"}, {Name: "rule x", Limit: 0.5, Kept: 1234, Refused: 20, Stopped: 3}},
	}
	share := 0.25
	for _, c := range []struct {
		override *float64
		want     string
	}{
		{nil, "override none the rates of rules hold\n"},
		{&share, "override 0.25 keeps 25%, whatever default and rules say; \"ambit rates clear\" ends it\n"},
	} {
		var out strings.Builder
		rates.Override = c.override
		err := WriteRates(&out, rates)
		want := `default 0.1 keeps 10% of the traces that nobody decided on
threshold e6666666666666 of 56 bits: a trace is kept when its randomness is at least this
` + c.want + `set by configuration
changed 2026-03-01T12:00:00.000Z generation 2

BUDGETS spans
BUDGET PER SECOND KEPT REFUSED OF THEM STOPPED
node no limit 0 0 0
rule x 0.5 1,234 20 3
`
		if err != nil || squeeze(out.String()) != want {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}

func TestWriteRules(t *testing.T) {
	var out strings.Builder
	err := WriteRules(&out, RuleSet{
		RulesStatus: RulesStatus{Generation: 3, Count: 2, Loaded: at("2026-03-01T12:00:00Z")},
		Rules: []Rule{
			{Place: 0, Name: "health", Origin: "/etc/a.yaml:4", Text: "match: {path: {exact: [/health]}}, drop: true"},
			{Place: 1, Name: "default", Origin: "behind all"},
		},
	})
	want := `RULES 2, the first that accepts a request holds
generation 3
loaded 2026-03-01T12:00:00.000Z
PLACE NAME FROM RULE
0 health /etc/a.yaml:4 match: {path: {exact: [/health]}}, drop: true
1 default behind all -
`
	if err != nil || squeeze(out.String()) != want {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	if err := WriteForcing(&out, Forcing{Rule: "trace-1", Kept: 1234}); err != nil || out.String() != "trace-1: 1,234 forced spans were kept\n" {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestWriteTraces(t *testing.T) {
	var out strings.Builder
	if err := WriteTraces(&out, nil); err != nil || out.String() != "no traces yet\n" {
		t.Errorf("%v %q", err, out.String())
	}
	out.Reset()
	err := WriteTraces(&out, []TraceSummary{
		{TraceID: strings.Repeat("0a", 16), Start: at("2026-03-01T12:00:00.0015Z"), DurationNS: 1234567, Spans: 4, Errors: 1, Service: "shop", Name: "GET"},
		{TraceID: strings.Repeat("0b", 16), Start: at("2026-03-01T11:00:00Z"), DurationNS: 65e9, Spans: 1},
	})
	want := `TRACE START DURATION SPANS ERRORS SERVICE NAME
0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a 2026-03-01T12:00:00.001Z 1.23 ms 4 1 shop GET
0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b 2026-03-01T11:00:00.000Z 1m5s 1 0 - -
`
	if err != nil || squeeze(out.String()) != want {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestWriteTrace(t *testing.T) {
	var out strings.Builder
	err := WriteTrace(&out, TraceDetail{Waterfall: "trace x\n  ├ shop \x1b[31mGET\n\tlast"})
	if want := "trace x\n  ├ shop \\u{001b}[31mGET\n\\u{0009}last\n"; err != nil || out.String() != want {
		t.Errorf("%v\ngot  %q\nwant %q", err, out.String(), want)
	}
}

// Every byte and every odd character, in every text that can be shown: a terminal must see none of them.
func TestNothingSteersTheTerminal(t *testing.T) {
	var hostile []string
	for b := range 256 {
		hostile = append(hostile, "a"+string([]byte{byte(b)})+"b")
	}
	hostile = append(hostile, "a\u0085b", "a\u009b31mb", "a\u202eb", "a\u2066b", "a\u2028b", "a\u200bb", "a\ufeffb", "a\xc3", "\xed\xa0\x80", "a\U000e0001b")
	for _, text := range hostile {
		var out strings.Builder
		status := fullStatus()
		fill(reflect.ValueOf(&status).Elem(), text)
		rates, trace, rules := Rates{}, TraceDetail{}, RuleSet{RulesStatus: RulesStatus{Generation: 1}, Rules: []Rule{{}}}
		fill(reflect.ValueOf(&rates).Elem(), text)
		fill(reflect.ValueOf(&trace).Elem(), text)
		fill(reflect.ValueOf(&rules).Elem(), text)
		for _, err := range []error{WriteStatus(&out, status), WriteRates(&out, rates), WriteRules(&out, rules), WriteForcing(&out, Forcing{Rule: text}), WriteTraces(&out, []TraceSummary{trace.TraceSummary}), WriteTrace(&out, trace)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		shown := out.String()
		if !utf8.ValidString(shown) {
			t.Errorf("%q: what is shown is no UTF-8", text)
		}
		for _, r := range shown {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%q: %U reaches the terminal", text, r)
				break
			}
		}
		// The waterfall may have lines of its own.
		lines, plain := strings.Count(shown, "\n"), strings.Count(text, "\n")
		if want := strings.Count(showAll(t, "ab"), "\n") + plain; lines != want {
			t.Errorf("%q: %d lines, want %d", text, lines, want)
		}
	}
}

func showAll(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	status, rates, trace, rules := fullStatus(), Rates{}, TraceDetail{}, RuleSet{RulesStatus: RulesStatus{Generation: 1}, Rules: []Rule{{}}}
	fill(reflect.ValueOf(&status).Elem(), text)
	fill(reflect.ValueOf(&rates).Elem(), text)
	fill(reflect.ValueOf(&trace).Elem(), text)
	fill(reflect.ValueOf(&rules).Elem(), text)
	for _, err := range []error{WriteStatus(&out, status), WriteRates(&out, rates), WriteRules(&out, rules), WriteForcing(&out, Forcing{Rule: text}), WriteTraces(&out, []TraceSummary{trace.TraceSummary}), WriteTrace(&out, trace)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// fill puts text into every string of v.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), text)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), text)
		}
	case reflect.Map:
		if v.Type() == reflect.TypeFor[map[string]uint64]() && v.Len() > 0 {
			v.Set(reflect.ValueOf(map[string]uint64{text: 1}))
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":              "",
		"GET /a b":      "GET /a b",
		"grüße 日本":      "grüße 日本",
		"a\x1b[2Jb":     `a\u{001b}[2Jb`,
		"\x00\x7f":      `\u{0000}\u{007f}`,
		"\xff\xc3(":     `\xff\xc3(`,
		"a\nb":          `a\u{000a}b`,
		"\u202egnp.exe": `\u{202e}gnp.exe`,
		"\ufffd":        "\ufffd",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestUnits(t *testing.T) {
	for got, want := range map[string]string{
		number(0): "0", number(999): "999", number(1000): "1,000", number(1234567890): "1,234,567,890",
		size(0): "0 B", size(1023): "1023 B", size(1024): "1.0 KiB", size(1<<20 - 1): "1.0 MiB", size(1 << 40): "1.0 TiB", size(1 << 50): "1024.0 TiB",
		span(999): "999 ns", span(1500): "1.5 us", span(12345678): "12.3 ms", span(1234567890): "1.23s", span(90e9): "1m30s",
		uptime(59.9): "59s", uptime(3601): "1h0m1s", uptime(90061): "1d1h1m0s",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if fmt.Sprint(dash(""), dash("x"), ordinal(0), ordinal(1234)) != "-x-1234" {
		t.Error("names")
	}
}
