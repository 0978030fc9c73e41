package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ambit/admin"
	"ambit/daemon"
)

// stage is a daemon that answers what a test sets up.
type stage struct {
	state admin.State
	rates admin.Rates
	asked int
	top   admin.Top
	force admin.ForceRequest
	looks int // at the forcing
	ended bool
	width int
	err   error
}

func (s *stage) State() admin.State { return s.state }

func (s *stage) Status(context.Context) (admin.Status, error) {
	return admin.Status{Version: "1.2.3", State: s.state, Exchanges: admin.Exchanges{Seen: 1234}}, s.err
}

func (s *stage) Rates(admin.RatesQuery) (admin.Rates, error) { return s.rates, s.err }

func (s *stage) SetRates(_ context.Context, share float64) (admin.Rates, error) {
	s.rates.Override = &share
	return s.rates, s.err
}

func (s *stage) ClearRates(context.Context) (admin.Rates, error) {
	s.rates.Override = nil
	return s.rates, s.err
}

func (s *stage) Rules() (admin.RuleSet, error) {
	return admin.RuleSet{RulesStatus: admin.RulesStatus{Generation: 2, Count: 1}, Rules: []admin.Rule{{Name: "drop-\x1b[2J", Origin: "shipped"}}}, s.err
}

func (s *stage) Reload(context.Context) (admin.RuleSet, error) {
	r, err := s.Rules()
	r.Generation++
	return r, err
}

func (s *stage) Force(_ context.Context, r admin.ForceRequest) (admin.Forcing, error) {
	s.force = r
	return admin.Forcing{ID: "trace-1", Rule: "trace-1", Limit: 10}, s.err
}

// Forcing is over at the second look.
func (s *stage) Forcing(string) (admin.Forcing, error) {
	s.looks++
	return admin.Forcing{ID: "trace-1", Rule: "trace-1", Limit: 10, Kept: 5, Over: s.looks == 2}, s.err
}

func (s *stage) Unforce(context.Context, string) (admin.Forcing, error) {
	s.ended = true
	return admin.Forcing{ID: "trace-1", Rule: "trace-1", Limit: 10, Kept: 3, Over: true}, s.err
}

func (s *stage) Pause(context.Context) error {
	s.state = admin.Paused
	return s.err
}

func (s *stage) Resume(context.Context) error {
	s.state = admin.Tracing
	return s.err
}

func (s *stage) HandOver(context.Context) error { return s.err }

const traceID = "000102030405060708090a0b0c0d0e0f"

func (s *stage) Top(context.Context) (admin.Top, error) { return s.top, s.err }

func (s *stage) Traces(n int) ([]admin.TraceSummary, error) {
	s.asked = n
	return []admin.TraceSummary{{TraceID: traceID, Spans: 1, Name: "GET /\x1b[2J\u009b\U000e0001"}}, s.err
}

func (s *stage) Trace(id string, width int) (admin.TraceDetail, error) {
	s.width = width
	if !strings.HasPrefix(traceID, id) {
		return admin.TraceDetail{}, admin.NotFound("trace is not kept")
	}
	return admin.TraceDetail{TraceSummary: admin.TraceSummary{TraceID: traceID}, Waterfall: "trace\n  GET /\x1b[2J\n"}, s.err
}

// serve lets s answer on a socket, whose path it returns.
func serve(t *testing.T, s *stage) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ambit.sock")
	server, err := admin.Listen(admin.Config{Socket: path, Log: slog.New(slog.DiscardHandler)}, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(context.Background()) })
	return path
}

type result struct {
	code     int
	out, err string
}

// ambit runs the program with an environment of its own.
func ambit(t *testing.T, env []string, args ...string) result {
	t.Helper()
	var out, err bytes.Buffer
	p := program{out: &out, err: &err, env: env, run: func(context.Context, daemon.Config, daemon.From, *slog.Logger) error {
		t.Error("a daemon was run")
		return nil
	}}
	code := p.main(context.Background(), append([]string{"ambit"}, args...))
	if code == 0 && err.Len() > 0 || code != 0 && (code != 1 || out.Len() > 0 || strings.Count(err.String(), "\n") != 1) {
		t.Errorf("%q: code %d, out %q, err %q", args, code, out.String(), err.String())
	}
	return result{code, out.String(), err.String()}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{nil, {"help"}, {"--help"}, {"-h"}} {
		r := ambit(t, nil, args...)
		if r.code != 0 || !strings.Contains(r.out, "USAGE:") {
			t.Errorf("%q: %+v", args, r)
		}
		for _, command := range []string{"run", "config", "status", "rates", "pause", "resume", "traces", "top", "version"} {
			if !strings.Contains(r.out, "\n   "+command+" ") {
				t.Errorf("%q: no %s in\n%s", args, command, r.out)
			}
		}
	}
	help := ambit(t, nil, "run", "--help").out
	for _, s := range daemon.Settings() {
		if !strings.Contains(help, "--"+s.Flag+" value") || !strings.Contains(help, "$"+s.Env()) || !strings.Contains(help, s.Allowed()) {
			t.Errorf("the help of run lacks %s:\n%s", s.Key, help)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}} {
		if r := ambit(t, nil, args...); r.code != 0 || !strings.HasPrefix(r.out, "ambit "+daemon.Version+" (go") {
			t.Errorf("%q: %+v", args, r)
		}
	}
	var v map[string]string
	if err := json.Unmarshal([]byte(ambit(t, nil, "version", "--json").out), &v); err != nil || v["version"] != daemon.Version || len(v) != 3 {
		t.Errorf("%v %v", err, v)
	}
}

func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ambit.yaml")
	if err := os.WriteFile(file, []byte("log:\n  level: warn\n  format: json\nlive: on\nidle_limit: 9s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got daemon.Config
	var gotFrom daemon.From
	var out, stderr bytes.Buffer
	type key struct{}
	ctx := context.WithValue(context.Background(), key{}, "mine")
	p := program{out: &out, err: &stderr, env: []string{"AMBIT_LIVE=off", "AMBIT_IDLE_LIMIT=8s"}}
	p.run = func(ctx context.Context, cfg daemon.Config, from daemon.From, log *slog.Logger) error {
		gotFrom = from
		if ctx.Value(key{}) != "mine" {
			t.Error("the signals' context did not get through")
		}
		got = cfg
		log.Info("not to be seen")
		log.Warn("careful", "n", 1)
		return errors.Join(errors.New("first\x1b[2J"), errors.New("second"))
	}
	code := p.main(ctx, []string{"ambit", "run", "--config", file, "--idle-limit=7s", "--exclude-ports", "1,2", "--exclude-ports", "3"})
	if code != 1 || got.Log.Level != slog.LevelWarn || got.Live != "off" || got.IdleLimit != 7*time.Second || len(got.Exclude.Ports) != 3 {
		t.Errorf("code %d, %+v", code, got)
	}
	if src := gotFrom.Sources; src.File != file || src.Flags["idle-limit"] != "7s" || len(src.Env) != 2 || gotFrom.Origins["live"].String() != "env AMBIT_LIVE" {
		t.Errorf("what a reload reads: %+v", gotFrom)
	}
	lines := strings.SplitN(stderr.String(), "\n", 2)
	var logged map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &logged); err != nil || logged["msg"] != "careful" {
		t.Errorf("%v: log %q", err, lines[0])
	}
	if want := `ambit: first\u{001b}[2J; second` + "\n"; lines[1] != want || out.Len() > 0 {
		t.Errorf("error %q, want %q, out %q", lines[1], want, out.String())
	}
	stderr.Reset()
	p.run = func(_ context.Context, _ daemon.Config, _ daemon.From, log *slog.Logger) error {
		log.Info("tracing")
		return nil
	}
	if code := p.main(ctx, []string{"ambit", "run"}); code != 0 || !strings.Contains(stderr.String(), "level=INFO msg=tracing") {
		t.Errorf("code %d, err %q", code, stderr.String())
	}
}

func TestConfig(t *testing.T) {
	r := ambit(t, []string{"AMBIT_SAMPLE_RATE=0.5", "AMBIT_ID_KEY=00112233445566778899aabbccddeeff"}, "config", "--peers", "10.0.0.0/8")
	for _, want := range []string{"sample_rate: 0.5 ", "# env AMBIT_SAMPLE_RATE\n", "peers: [10.0.0.0/8] ", "# flag --peers\n", "id_key: '********' "} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	// OpenTelemetry's own settings too: what run would refuse, config refuses.
	r = ambit(t, []string{"OTEL_EXPORTER_OTLP_COMPRESSION=gzip", "OTEL_EXPORTER_OTLP_HEADERS=key=secret"}, "config", "--otlp-endpoint", "c:4318")
	for _, want := range []string{"#   compression: gzip ", "# env OTEL_EXPORTER_OTLP_COMPRESSION\n", "#   headers: key=********", "#   protocol: http/protobuf "} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	for _, command := range []string{"config", "run"} {
		r = ambit(t, []string{"OTEL_EXPORTER_OTLP_PROTOCOL=http/json"}, command)
		if want := `ambit: env OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" is not spoken: write grpc or http/protobuf` + "\n"; r.err != want {
			t.Errorf("%s: got %+v, want %s", command, r, want)
		}
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(ambit(t, nil, "config", "--json").out), &rows); err != nil || len(rows) != len(daemon.Settings())+1+8 {
		t.Errorf("%v: %d rows", err, len(rows))
	}
}

func TestCommandsOfARunningDaemon(t *testing.T) {
	s := &stage{state: admin.Tracing, rates: admin.Rates{Default: 0.1, Threshold: "e6666666666666", Source: "configuration"}, top: exampleTop()}
	env := []string{"AMBIT_SOCKET=" + serve(t, s)}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"status", []string{"ambit 1.2.3  tracing", "  seen       1,234\n"}},
		{"status --json", []string{`"version": "1.2.3"`, `"seen": 1234`}},
		{"rates", []string{"keeps 10% of the traces"}},
		{"rates --json", []string{`"default": 0.1`, `"threshold": "e6666666666666"`}},
		{"rates set 0.25", []string{"keeps 25%, whatever default and rules say"}},
		{"rates set 0.5 --json", []string{`"override": 0.5`}},
		{"rates set --json 1", []string{`"override": 1`}},
		{"rates --json set 0", []string{`"override": 0`}},
		{"rates clear", []string{"the rates of rules hold"}},
		{"rates clear --json", []string{`"override": null`}},
		{"rules", []string{`drop-\u{001b}[2J`, "generation  2\n"}},
		{"rules --json", []string{`"generation": 2`, `"origin": "shipped"`}},
		{"reload", []string{"generation  3\n"}},
		{"reload --json", []string{`"generation": 3`}},
		{"trace --service shop --path /a --method GET --method POST --for 90s", []string{
			"trace-1: spans of service shop, method GET or POST, path /a are kept for 1m30s, at most 10 per second; ^C ends it\n", "trace-1: 5 forced spans were kept\n",
		}},
		{"trace --path /a --json", []string{`"kept": 5`, `"over": true`}},
		{"pause", []string{`paused: nothing is attached, "ambit resume" attaches again` + "\n"}},
		{"pause --json", []string{`{` + "\n" + `  "state": "paused"` + "\n}"}},
		{"resume", []string{"tracing\n"}},
		{"resume --json", []string{`"state": "tracing"`}},
		{"top", []string{"SERVICE", `/\u{001b}[2J`}}, // no terminal: once
		{"top --once", []string{"frontend", "50.0%", "slow ones slow"}},
		{"top --json", []string{`"route": "/users/{number}"`, `"error_share": 0.5`, `/\u001b[2J\u009bx`}},
		{"traces", []string{traceID, `GET /\u{001b}[2J\u{009b}\u{e0001}`}},
		{"traces --json -n 7", []string{`"trace_id": "` + traceID + `"`, `GET /\u001b[2J\u009b\udb40\udc01`}},
		{"traces " + traceID, []string{"trace\n  GET /\\u{001b}[2J\n"}},
		{"traces " + traceID + " --json", []string{`"waterfall": "trace\n  GET /\u001b[2J\n"`}},
		{"traces -- " + traceID, []string{"trace\n"}},
		{"traces " + strings.ToUpper(traceID[:8]), []string{"trace\n"}}, // as the live view shows it
	} {
		s.looks = 0
		r := ambit(t, env, strings.Fields(c.args)...)
		for _, want := range c.want {
			if r.code != 0 || !strings.Contains(r.out, want) {
				t.Errorf("%s: no %q in %+v", c.args, want, r)
			}
		}
		if strings.Contains(c.args, "--json") && !json.Valid([]byte(r.out)) {
			t.Errorf("%s: no JSON: %s", c.args, r.out)
		}
	}
	if s.asked != 7 || s.width != 0 {
		t.Errorf("asked for %d traces, %d columns", s.asked, s.width)
	}
	s.err = errors.New("the kernel said no\nand more")
	for _, args := range []string{"status", "rates", "rates set 1", "rates clear", "rules", "reload", "trace --path /a", "pause", "resume", "top", "traces", "traces " + traceID} {
		if r := ambit(t, env, strings.Fields(args)...); r.err != "ambit: the kernel said no; and more\n" {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// A trace that is broken off takes its rule away.
func TestTraceIsBrokenOff(t *testing.T) {
	s := &stage{state: admin.Tracing, looks: 2} // it is never over by itself
	var out, stderr bytes.Buffer
	p := program{out: &out, err: &stderr, env: []string{"AMBIT_SOCKET=" + serve(t, s)}}
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if code := p.main(ctx, []string{"ambit", "trace", "--service", "shop"}); code != 0 || !s.ended || !strings.Contains(out.String(), "trace-1: 3 forced spans were kept\n") {
		t.Errorf("code %d, ended %v, out %q, err %q", code, s.ended, out.String(), stderr.String())
	}
	if want := (admin.ForceRequest{Service: "shop", Seconds: 30}); !reflect.DeepEqual(s.force, want) {
		t.Errorf("asked for %+v, want %+v", s.force, want)
	}
}

// The socket is found by flag, environment, file and default, in this order.
func TestWhichSocket(t *testing.T) {
	path := serve(t, &stage{state: admin.Tracing})
	file := filepath.Join(t.TempDir(), "ambit.yaml")
	if err := os.WriteFile(file, []byte("admin:\n  socket: "+path+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	const nowhere = "/nonexistent/ambit.sock"
	absent := `ambit: the daemon is not running: there is no socket ` + nowhere + `: start it with "ambit run", or name its socket with --socket` + "\n"
	for _, c := range []struct {
		env, args, err string
	}{
		{"", "status --socket " + path, ""},
		{"", "rates --socket " + path + " set 1", ""},
		{"", "rates set 1 --socket=" + path, ""},
		{"AMBIT_SOCKET=" + nowhere, "status --socket " + path, ""},
		{"AMBIT_SOCKET=" + path, "status", ""},
		{"AMBIT_SOCKET=" + path, "pause --config " + broken, ""},
		{"AMBIT_CONFIG=" + file, "status", ""},
		{"", "status --config " + file, ""},
		{"AMBIT_CONFIG=" + file, "status --socket " + nowhere, absent},
		{"AMBIT_SOCKET=" + nowhere, "status --config " + file, absent},
		{"", "pause --config " + broken, "ambit: " + broken + ":1: want keys and values, got text (--socket names the socket without the file)\n"},
	} {
		r := ambit(t, []string{c.env}, strings.Fields(c.args)...)
		if r.err != c.err {
			t.Errorf("%s %s: %+v", c.env, c.args, r)
		}
	}
}

func TestRefusals(t *testing.T) {
	env := []string{"AMBIT_SOCKET=" + serve(t, &stage{state: admin.Tracing})}
	for args, want := range map[string]string{
		"stauts":                    `unknown command "stauts" (did you mean status?): "ambit help" lists them`,
		"frobnicate":                `unknown command "frobnicate": "ambit help" lists them`,
		"--verbose":                 `unknown flag --verbose: "ambit --help" lists them`,
		"run --sampel-rate 1":       `unknown flag --sampel-rate (did you mean --sample-rate?): "ambit run --help" lists them`,
		"run --sample-rate":         `flag --sample-rate: a value must follow`,
		"run --sample-rate 2":       `flag --sample-rate: 2 is out of range; allowed: a number from 0 to 1`,
		"run now":                   `unexpected argument "now": "ambit run" takes none`,
		"run --config=":             `flag --config: the path is empty`,
		"run --config /none":        `read the configuration: open /none: no such file or directory`,
		"config x":                  `unexpected argument "x": "ambit config" takes none`,
		"status x":                  `unexpected argument "x": "ambit status" takes none`,
		"status --jsn":              `unknown flag --jsn (did you mean --json?): "ambit status --help" lists them`,
		"status --socket x":         `flag --socket: "x" is not absolute; allowed: an absolute path of at most 107 bytes`,
		"rates st 1":                `unexpected argument "st": "ambit rates" takes none`,
		"rates set":                 `no rate is given: "ambit rates set 0.1" keeps a tenth of the traces`,
		"rates set x":               `"x" is no rate: want a number from 0 to 1`,
		"rates set 1.5":             `"1.5" is no rate: want a number from 0 to 1`,
		"rates set NaN":             `"NaN" is no rate: want a number from 0 to 1`,
		"rates set 0.1 0.2":         `unexpected argument "0.2": "ambit rates set" takes the RATE`,
		"rates clear 1":             `unexpected argument "1": "ambit rates clear" takes none`,
		"rules x":                   `unexpected argument "x": "ambit rules" takes none`,
		"trace":                     `neither --service nor --path is given: "ambit trace --path /checkout" keeps the spans of one path`,
		"trace --path /a --for 1ms": `flag --for: 1ms is out of range; allowed: a duration from 1s to 1h`,
		"trace --path":              `flag --path: a value must follow`,
		"rates set 0.1 --jso":       `unknown flag --jso (did you mean --json?): "ambit rates set --help" lists them`,
		"rates set 0.1 --socket":    `flag --socket: a value must follow`,
		"pause x":                   `unexpected argument "x": "ambit pause" takes none`,
		"top x":                     `unexpected argument "x": "ambit top" takes none`,
		"resume x":                  `unexpected argument "x": "ambit resume" takes none`,
		"traces zz":                 `"zz" is no trace ID: want 32 hex digits, or the first 8 or more: "ambit traces" lists them`,
		"traces " + traceID + " b":  `unexpected argument "b": "ambit traces" takes the ID of one trace`,
		"traces -n 0":               `flag -n: 0 is out of range; allowed: a whole number from 1 to 1000`,
		"traces ff" + traceID[2:]:   `trace is not kept`,
		"version x":                 `unexpected argument "x": "ambit version" takes none`,
		"status --socket \x1b[2J/x": `flag --socket: "\x1b[2J/x" is not absolute; allowed: an absolute path of at most 107 bytes`,
	} {
		if r := ambit(t, env, strings.Fields(args)...); r.err != "ambit: "+want+"\n" {
			t.Errorf("%s:\ngot  %+v\nwant %s", args, r, want)
		}
	}
}
