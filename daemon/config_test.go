package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ambit.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	want := Config{
		SampleRate: 1,
		Sampling: SamplingConfig{
			TailBudget: 100, Defaults: []string{"on"}, Forced: ForcedConfig{Header: "off", From: []netip.Prefix{}, Budget: 10},
			Control: ControlConfig{
				Mode: "auto", Services: []named{}, Classes: []named{}, Load: "on", Marks: []loadMark{}, Anomalies: "on",
				Remote: RemoteConfig{Interval: time.Minute},
				Band:   BandConfig{Services: []string{}, High: 100 * time.Millisecond, Low: 50 * time.Millisecond, Least: 0.1},
			},
		},
		Admin:        AdminConfig{Address: "127.0.0.1:9473", Socket: "/run/ambit/ambit.sock"},
		Namespaces:   []string{"all"},
		Exclude:      ExcludeConfig{Namespaces: []string{}, Ports: []uint16{}, Cgroups: []string{}},
		Capture:      CaptureConfig{Query: "keys", GRPCMessage: true},
		IdleLimit:    time.Minute,
		Peers:        []netip.Prefix{},
		TrustContext: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		IDKey:        IDKey([]byte("ambit-public-key")), MaxConnections: 65536, MaxHTTP2Connections: 4096, RingSize: 4 << 20,
		Export:  ExportConfig{QueueBytes: 4 << 20, BatchSpans: 2048, BatchWait: time.Second, RetryFor: 5 * time.Minute, FlushTimeout: 4 * time.Second},
		Store:   StoreConfig{MaxTraces: 1000, MaxBytes: 4 << 20},
		Metrics: MetricsConfig{Routes: "all", OTLP: true},
		Log:     LogConfig{Level: slog.LevelInfo, Format: "auto"},
		Live:    "auto",
	}
	got, origins, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, s := range Settings() {
		if o := origins[s.Key]; o.Source != FromDefault {
			t.Errorf("%s comes from %s", s.Key, o)
		}
	}
	if !got.IDKey.Published() {
		t.Error("the default key is not known as the published one")
	}
}

// Every setting takes a value from each source, and the same text means the same in all of them.
func TestEverySettingFromEverySource(t *testing.T) {
	texts := map[string]string{
		"sampling.budget": "1000", "sampling.tail_budget": "7.5", "sampling.slow_p99": "2.5", "sampling.defaults": "kubelet,favicon", "sampling.forced.header": "x-envoy-force-trace",
		"sampling.control": "off", "sampling.service_budgets": "cart=5,checkout=0.5", "sampling.class_budgets": "background=1",
		"sampling.load": "off", "sampling.load_marks": "cpu=0.1:0.3,self=0.2:0.2", "sampling.anomalies": "off",
		"sampling.band.services": "cart*,checkout", "sampling.band.high": "60ms", "sampling.band.low": "20ms",
		"sampling.band.least": "0.5", "sampling.remote.endpoint": "grpc://collector:14250", "sampling.remote.interval": "5s",
		"sampling.remote.listen": "10.0.0.1:5778", "sampling.state": "/var/lib/ambit/rates.json",
		"sampling.forced.from": "10.0.0.0/8,::1", "sampling.forced.budget": "1",
		"otlp.endpoint": "http://c:4317", "sample_rate": "0.25", "admin.address": "[::1]:0", "admin.socket": "/x/y.sock",
		"namespaces": "ambient,host,blue,/run/netns/red", "exclude.namespaces": "host,green", "exclude.ports": "22,65535",
		"exclude.cgroups": "/a.slice,/b.slice/c", "capture.query": "none", "capture.grpc_message": "false", "capture.content_type": "true", "idle_limit": "90s", "peers": "10.0.0.0/8,fd00::1",
		"trust_context": "192.168.0.0/16", "id_key": "00112233445566778899aabbccddeeff", "max_connections": "1000", "max_http2_connections": "500",
		"ring_size": "1MiB", "export.queue_bytes": "1048577", "export.retry_for": "1m", "export.batch_spans": "8", "export.batch_wait": "20ms",
		"export.flush_timeout": "1s", "handover.pins": "/sys/fs/bpf/ambit", "store.max_traces": "5", "store.max_bytes": "1GiB", "metrics.routes": "rules",
		"metrics.otlp": "false", "capture.guessed_route": "true", "log.level": "debug",
		"log.format": "json", "live": "off",
	}
	for _, s := range Settings() {
		text, exists := texts[s.Key]
		if !exists {
			t.Fatalf("no text for %s", s.Key)
		}
		yaml := strings.ReplaceAll(s.Key, ".", ":\n") + ": " + text
		for i := range strings.Count(s.Key, ".") {
			yaml = strings.Replace(yaml, ":\n", ":\r"+strings.Repeat("  ", i+1), 1)
		}
		yaml = strings.ReplaceAll(yaml, "\r", "\n")
		if s.List() || strings.Contains(text, "::") { // YAML takes [ and :: for its own
			yaml = yaml[:len(yaml)-len(text)] + `"` + text + `"`
		}
		path := writeFile(t, yaml)
		line := 1 + strings.Count(yaml, "\n")
		for origin, src := range map[string]Sources{
			fmt.Sprintf("%s:%d", path, line): {File: path},
			"env " + s.Env():                 {Env: []string{s.Env() + "=" + text}},
			"flag --" + s.Flag:               {Flags: map[string]string{s.Flag: text}},
		} {
			cfg, origins, err := Load(src)
			if err != nil {
				t.Errorf("%s from %s: %v", s.Key, origin, err)
				continue
			}
			if got := origins[s.Key].String(); got != origin {
				t.Errorf("%s: origin %q, want %q", s.Key, got, origin)
			}
			want := Defaults()
			if s.Key == "otlp.endpoint" {
				want.SampleRate = 0.1
			}
			if err := s.set(&want, s.split(text)); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(cfg, want) {
				t.Errorf("%s from %s:\ngot  %+v\nwant %+v", s.Key, origin, cfg, want)
			}
			if reflect.DeepEqual(cfg, Defaults()) {
				t.Errorf("%s from %s changes nothing", s.Key, origin)
			}
		}
	}
}

func TestPrecedence(t *testing.T) {
	path := writeFile(t, "log:\n  format: json\n  level: warn\nidle_limit: 5s\nstore: {max_traces: 7}\n")
	cfg, origins, err := Load(Sources{
		Env: []string{"AMBIT_CONFIG=" + path, "AMBIT_LOG_LEVEL=error", "AMBIT_IDLE_LIMIT=6s", "AMBIT_LIVE=",
			"AMBIT_SERVICE_HOST=10.0.0.1", "AMBIT_SERVICE_PORT=1", "AMBIT_PORT=tcp://10.0.0.1:1", "AMBIT_PORT_1_TCP_ADDR=10.0.0.1"},
		Flags: map[string]string{"idle-limit": "7s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cfg.Log.Format, " ", cfg.Log.Level, " ", cfg.IdleLimit, " ", cfg.Store.MaxTraces, " ", cfg.Live)
	if want := "json ERROR 7s 7 auto"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for key, want := range map[string]string{
		"log.format": path + ":2", "log.level": "env AMBIT_LOG_LEVEL", "idle_limit": "flag --idle-limit",
		"store.max_traces": path + ":5", "live": "default", "sample_rate": "default, as no endpoint is set",
	} {
		if got := origins[key].String(); got != want {
			t.Errorf("%s comes from %q, want %q", key, got, want)
		}
	}
	other := writeFile(t, "live: on")
	if cfg, _, err = Load(Sources{File: other, Env: []string{"AMBIT_CONFIG=" + path}}); err != nil || cfg.Live != "on" || cfg.Store.MaxTraces != 1000 {
		t.Errorf("the file that a flag names must stand in for the variable's: %v %+v", err, cfg)
	}
}

func TestEndpointAndSampleRate(t *testing.T) {
	file := writeFile(t, "otlp:\n  endpoint: file:1\n")
	const traces, all = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
	for _, c := range []struct {
		src                        Sources
		endpoint, origin, variable string
		rate                       float64
		rateOrigin                 string
	}{
		{Sources{}, "", "default", "", 1, "default, as no endpoint is set"},
		{Sources{File: file}, "file:1", file + ":2", "", 0.1, "default, as an endpoint is set"},
		{Sources{File: file, Env: []string{all + "=http://all:1"}}, "http://all:1", "env " + all, all, 0.1, "default, as an endpoint is set"},
		{Sources{Env: []string{all + "=http://all:1", traces + "=http://traces:1"}}, "http://traces:1", "env " + traces, traces, 0.1, "default, as an endpoint is set"},
		{Sources{Env: []string{traces + "=http://traces:1", "AMBIT_OTLP_ENDPOINT=own:1"}}, "own:1", "env AMBIT_OTLP_ENDPOINT", "", 0.1, "default, as an endpoint is set"},
		{Sources{Env: []string{all + "=http://all:1"}, Flags: map[string]string{"otlp-endpoint": ""}}, "", "flag --otlp-endpoint", "", 1, "default, as no endpoint is set"},
		{Sources{Env: []string{all + "=dns:///all:1"}}, "dns:///all:1", "env " + all, all, 0.1, "default, as an endpoint is set"},
		{Sources{Env: []string{all + "=", traces + "= "}}, "", "default", "", 1, "default, as no endpoint is set"},
		{Sources{File: file, Env: []string{"AMBIT_SAMPLE_RATE=1"}}, "file:1", file + ":2", "", 1, "env AMBIT_SAMPLE_RATE"},
	} {
		cfg, origins, err := Load(c.src)
		if err != nil {
			t.Errorf("%+v: %v", c.src, err)
			continue
		}
		if cfg.OTLP.Endpoint != c.endpoint || origins["otlp.endpoint"].String() != c.origin || cfg.OTLP.EndpointVariable != c.variable {
			t.Errorf("%+v: endpoint %+v from %s", c.src, cfg.OTLP, origins["otlp.endpoint"])
		}
		if cfg.SampleRate != c.rate || origins["sample_rate"].String() != c.rateOrigin {
			t.Errorf("%+v: rate %v from %s", c.src, cfg.SampleRate, origins["sample_rate"])
		}
	}
}

func TestLoadSocket(t *testing.T) {
	broken := writeFile(t, "sample_rate: 7\n")
	file := writeFile(t, "admin:\n  socket: /file.sock\n")
	for _, c := range []struct {
		src       Sources
		want, err string
	}{
		{Sources{}, "/run/ambit/ambit.sock", ""},
		{Sources{File: file}, "/file.sock", ""},
		{Sources{File: file, Env: []string{"AMBIT_SOCKET=/env.sock", "AMBIT_SAMPLE_RATE=9"}}, "/env.sock", ""},
		{Sources{File: broken, Env: []string{"AMBIT_SOCKET=/env.sock"}, Flags: map[string]string{"socket": "/flag.sock"}}, "/flag.sock", ""},
		{Sources{File: broken}, "", broken + ":1: sample_rate: 7 is out of range; allowed: a number from 0 to 1 (--socket names the socket without the file)"},
		{Sources{Env: []string{"AMBIT_SOCKET=x"}}, "", `env AMBIT_SOCKET: "x" is not absolute; allowed: an absolute path of at most 107 bytes`},
		{Sources{Flags: map[string]string{"socket": ""}}, "", `flag --socket: "" is not absolute; allowed: an absolute path of at most 107 bytes`},
	} {
		got, err := LoadSocket(c.src)
		if text := fmt.Sprint(err); c.err != "" && text != c.err || c.err == "" && (err != nil || got != c.want) {
			t.Errorf("%+v: %q, %v", c.src, got, err)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"sample_rate: NaN is out of range; allowed: a number from 0 to 1":                                                                                func(c *Config) { c.SampleRate = math.NaN() },
		"ring_size: 3MiB is no power of two; allowed: a power of two of bytes from 64KiB to 256MiB, or with KiB, MiB or GiB":                             func(c *Config) { c.RingSize = 3 << 20 },
		`log.level: "info+1" is unknown (did you mean info?); allowed: debug, info, warn, error`:                                                         func(c *Config) { c.Log.Level = 1 },
		"namespaces: an empty list taps nothing; allowed: all, or any of ambient, host, names under /run/netns or /run/docker/netns, and absolute paths": func(c *Config) { c.Namespaces = nil },
		`peers: "invalid Prefix" is not a CIDR; allowed: CIDRs such as 10.0.0.0/8 and fd00::/8, or addresses`:                                            func(c *Config) { c.Peers = []netip.Prefix{{}} },
		"idle_limit: 0s is out of range; allowed: a duration from 1s to 1h, with its unit (ms, s, m, h)":                                                 func(c *Config) { c.IdleLimit = 0 },
		"store.max_bytes: 0 is out of range; allowed: bytes from 64KiB to 1GiB, or with KiB, MiB or GiB":                                                 func(c *Config) { c.Store.MaxBytes = 0 },
		"max_connections: -1 is out of range; allowed: a whole number from 64 to 1048576":                                                                func(c *Config) { c.MaxConnections = -1 },
		"exclude.ports: 0 is out of range; allowed: ports from 1 to 65535":                                                                               func(c *Config) { c.Exclude.Ports = []uint16{80, 0} },
		`live: "" is unknown; allowed: on, off, auto`:                                                                                                    func(c *Config) { c.Live = "" },
		`exclude.cgroups: "/" is every cgroup; allowed: paths below the root of cgroup v2 such as /system.slice/sshd.service`:                            func(c *Config) { c.Exclude.Cgroups = []string{"/"} },
		`admin.socket: "/a/../b" is not clean, write /b; allowed: an absolute path of at most 107 bytes`:                                                 func(c *Config) { c.Admin.Socket = "/a/../b" },
	} {
		c := Defaults()
		change(&c)
		if err := c.Validate(); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestShowLive(t *testing.T) {
	for _, c := range []struct {
		live, endpoint string
		terminal, want bool
	}{
		{"auto", "", true, true}, {"auto", "", false, false}, {"auto", "c:1", true, false},
		{"on", "c:1", false, true}, {"off", "", true, false},
	} {
		cfg := Config{Live: c.live, OTLP: OTLPConfig{Endpoint: c.endpoint}}
		if got := cfg.ShowLive(c.terminal); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestWriteYAML(t *testing.T) {
	path := writeFile(t, "sample_rate: 0.5\nexclude:\n  ports: [22, 80]\n  namespaces: ['12', \"a, b\"]\n")
	cfg, origins, err := Load(Sources{File: path, Env: []string{"AMBIT_LIVE=on"}, Flags: map[string]string{"admin": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := cfg.WriteYAML(&out, origins, nil); err != nil {
		t.Fatal(err)
	}
	squeezed := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		`otlp: endpoint: "" # default sample_rate: 0.5 # ` + path + `:1 sampling: budget: 0 # default`,
		`forced: header: off # default from: [] # default budget: 10 # default rules: [] # default admin: address: off # flag --admin socket:`,
		`ports: [22, 80] # ` + path + ":3 cgroups: [] # default",
		`namespaces: ["12", 'a, b'] # ` + path + ":4",
		"live: on # env AMBIT_LIVE",
		"id_key: 616d6269742d7075626c69632d6b6579 # default",
		"ring_size: 4MiB # default",
		"grpc_message: true # default content_type: false # default",
	} {
		if !strings.Contains(squeezed, strings.Join(strings.Fields(want), " ")) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	again, _, err := Load(Sources{File: writeFile(t, out.String())})
	if err != nil || !reflect.DeepEqual(again, cfg) {
		t.Errorf("read again: %v\ngot  %+v\nwant %+v", err, again, cfg)
	}
}

// A secret must be nowhere in what is printed, logged or complained about.
func TestSecretIsMasked(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	cfg, origins, err := Load(Sources{Env: []string{"AMBIT_ID_KEY=" + secret}})
	if err != nil {
		t.Fatal(err)
	}
	var yaml, plain, logged bytes.Buffer
	if err := cfg.WriteYAML(&yaml, origins, nil); err != nil {
		t.Fatal(err)
	}
	if err := cfg.WriteJSON(&plain, origins, nil); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	log.Info("configured", "config", cfg, "key", cfg.IDKey)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("configured", "config", cfg)
	fmt.Fprintf(&logged, "%v %+v %s", cfg, cfg, cfg.IDKey)
	for _, out := range []string{yaml.String(), plain.String(), logged.String()} {
		if strings.Contains(out, secret) || !strings.Contains(out, mask) {
			t.Errorf("not masked: %s", out)
		}
	}
	for _, bad := range []string{secret + "0", secret[1:] + "g"} {
		_, _, err := Load(Sources{Env: []string{"AMBIT_ID_KEY=" + bad}})
		if err == nil || strings.Contains(err.Error(), secret[1:]) {
			t.Errorf("key %s: %v", bad, err)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	path := writeFile(t, "peers: [10.0.0.0/8]\n")
	cfg, origins, err := Load(Sources{File: path, Flags: map[string]string{"ring-size": "1MiB"}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := cfg.WriteJSON(&out, origins, nil); err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(out.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(Settings())+1 { // and the rules
		t.Fatalf("%d rows", len(rows))
	}
	found := map[string]map[string]any{}
	for _, r := range rows {
		found[r["key"].(string)] = r
	}
	for key, want := range map[string]map[string]any{
		"peers": {"key": "peers", "value": []any{"10.0.0.0/8"}, "source": "file", "name": path, "line": 1.0,
			"flag": "--peers", "env": "AMBIT_PEERS"},
		"capture.grpc_message": {"key": "capture.grpc_message", "value": true, "source": "default",
			"flag": "--capture-grpc-message", "env": "AMBIT_CAPTURE_GRPC_MESSAGE"},
		"ring_size": {"key": "ring_size", "value": 1048576.0, "source": "flag", "name": "ring-size",
			"flag": "--ring-size", "env": "AMBIT_RING_SIZE"},
		"sample_rate": {"key": "sample_rate", "value": 1.0, "source": "default", "note": "no endpoint is set",
			"flag": "--sample-rate", "env": "AMBIT_SAMPLE_RATE"},
		"idle_limit": {"key": "idle_limit", "value": "1m", "source": "default", "flag": "--idle-limit", "env": "AMBIT_IDLE_LIMIT"},
	} {
		if !reflect.DeepEqual(found[key], want) {
			t.Errorf("%s: got %v, want %v", key, found[key], want)
		}
	}
}
