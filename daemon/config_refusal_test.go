package daemon

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// The file's refusals, with FILE for its path.
func TestFileRefusals(t *testing.T) {
	const (
		rate   = "; allowed: a number from 0 to 1"
		size   = "; allowed: a power of two of bytes from 64KiB to 256MiB, or with KiB, MiB or GiB"
		idle   = "; allowed: a duration from 1s to 1h, with its unit (ms, s, m, h)"
		count  = "; allowed: a whole number from 64 to 1048576"
		cidrs  = "; allowed: CIDRs such as 10.0.0.0/8 and fd00::/8, or addresses"
		spaces = "; allowed: all, or any of ambient, host, names under /run/netns or /run/docker/netns, and absolute paths"
		left   = "; allowed: host, names under /run/netns or /run/docker/netns, and absolute paths"
		groups = "; allowed: paths below the root of cgroup v2 such as /system.slice/sshd.service"
		otlp   = "; allowed: HOST:PORT, an http:// or https:// URL, or empty"
		listen = "; allowed: ADDRESS:PORT with an IP address or localhost and a port from 0 (any free one) to 65535, or off"
		socket = "; allowed: an absolute path of at most 107 bytes"
	)
	for _, c := range []struct{ yaml, want string }{
		// Keys.
		{"sample_rat: 1", `FILE:1: unknown key "sample_rat", did you mean "sample_rate"?`},
		{"\n\nsmaple_rate: 1", `FILE:3: unknown key "smaple_rate", did you mean "sample_rate"?`},
		{"log:\n  levl: info", `FILE:2: unknown key "log.levl", did you mean "log.level"?`},
		{"endpoint: c:1", `FILE:1: unknown key "endpoint", did you mean "endpoint" in the section "otlp"?`},
		{"otlp.endpoint: c:1", `FILE:1: unknown key "otlp.endpoint", did you mean "endpoint" in the section "otlp"?`},
		{"sample-rate: 1", `FILE:1: unknown key "sample-rate", did you mean "sample_rate"?`},
		{"otlp-endpoint: c:1", `FILE:1: unknown key "otlp-endpoint", did you mean "endpoint" in the section "otlp"?`},
		{"log:\n  colour: red", `FILE:2: unknown key "log.colour"; allowed: level, format`},
		{"tracing: 1", `FILE:1: unknown key "tracing"; allowed: otlp, sample_rate, sampling, admin, namespaces, exclude, capture, idle_limit, peers, trust_context, id_key, max_connections, max_http2_connections, ring_size, export, handover, store, metrics, log, live`},
		{"live: on\nlog: {level: info}\nlive: off", `FILE:3: live: given twice, first in line 1`},
		{"log:\n  level: info\nlog:\n  format: json", `FILE:3: log: given twice, first in line 1`},
		{"? [a, b]\n: 1", `FILE:1: a key must be a word, got a list`},
		{"? {a: b}\n: 1", `FILE:1: a key must be a word, got keys and values`},
		// Shape.
		{"- live", `FILE:1: want keys and values, got a list`},
		{"hello", `FILE:1: want keys and values, got text`},
		{"log: info", `FILE:1: log: want keys and values, got text`},
		{"live: on\n---\nlive: off", `FILE:2: a second document; allowed: one`},
		{"live: [on", `FILE:1: no valid YAML: did not find expected ',' or ']'`},
		{"\tlive: on", `FILE:1: no valid YAML: found character that cannot start any token`},
		{"live: @on", `FILE:1: no valid YAML: found character that cannot start any token`},
		{"a: b: c", `FILE:1: no valid YAML: mapping values are not allowed in this context`},
		{"live: 'on", `FILE:1: no valid YAML: found unexpected end of stream`},
		{"}", `FILE:1: no valid YAML: did not find expected node content`},
		{"live: on\n\nlog: [a", `FILE:3: no valid YAML: did not find expected ',' or ']'`},
		{"log: {\na: b\n\n", `FILE:1: no valid YAML: did not find expected ',' or '}'`},
		{"live: on\n\n}", `FILE:3: no valid YAML: did not find expected key`},
		{"- a\nb: c", `FILE:2: no valid YAML: did not find expected '-' indicator`},
		{"live: on\n---\n\tx: y", `FILE:3: no valid YAML: found character that cannot start any token`},
		{"live: on\n\nlog: \x01", `FILE:3: no valid YAML: control characters are not allowed`},
		{"live: on\nlog: \xff\n", `FILE:2: no valid YAML: invalid leading UTF-8 octet`},
		{"\xff", `FILE:1: no valid YAML: invalid leading UTF-8 octet`},
		{"live: on\nlog: *a", `FILE:2: no valid YAML: unknown anchor 'a' referenced`},
		{"live: on\n\tlog: x", `FILE:2: no valid YAML: found a tab character that violates indentation`},
		// Types.
		{"sample_rate: \"0.5\"", `FILE:1: sample_rate: want a number, got text` + rate},
		{"sample_rate: half", `FILE:1: sample_rate: want a number, got text` + rate},
		{"sample_rate: true", `FILE:1: sample_rate: want a number, got true or false` + rate},
		{"sample_rate: [0.5]", `FILE:1: sample_rate: want a number, got a list` + rate},
		{"sample_rate: {a: 1}", `FILE:1: sample_rate: want a number, got keys and values` + rate},
		{"sample_rate:", `FILE:1: sample_rate: want a number, got nothing` + rate},
		{"live: &a on\nsample_rate: *a", `FILE:2: sample_rate: want a number, got an alias` + rate},
		{"live:", `FILE:1: live: want a word, got nothing; allowed: on, off, auto`},
		{"live: maybe", `FILE:1: live: "maybe" is unknown; allowed: on, off, auto`},
		{"capture:\n  query: value", `FILE:2: capture.query: "value" is unknown (did you mean values?); allowed: values, keys, none`},
		{"capture:\n  grpc_message: \"true\"", `FILE:2: capture.grpc_message: want a truth value, got text; allowed: true, false`},
		{"capture:\n  grpc_message: 1", `FILE:2: capture.grpc_message: want a truth value, got a number; allowed: true, false`},
		{"capture:\n  content_type: True", `FILE:2: capture.content_type: "True" is unknown (did you mean true?); allowed: true, false`},
		{"capture:\n  content_type: on", `FILE:2: capture.content_type: want a truth value, got text; allowed: true, false`},
		{"max_connections: 1.5", `FILE:1: max_connections: "1.5" is not a whole number` + count},
		{"max_connections: many", `FILE:1: max_connections: want a whole number, got text` + count},
		{"peers: {a: b}", `FILE:1: peers: want a list of CIDRs, got keys and values` + cidrs},
		{"peers:\n  - 10.0.0.0/8\n  - [x]", `FILE:3: peers: want a CIDR, got a list` + cidrs},
		{"namespaces:\n- all\n-\n", `FILE:3: namespaces: want a namespace, got nothing` + spaces},
		// Values.
		{"sample_rate: 1.5", `FILE:1: sample_rate: 1.5 is out of range` + rate},
		{"sampling: {slow_p99: 0.5}", `FILE:1: sampling.slow_p99: 0.5 is out of range; allowed: 0, or a number from 1 to 1000`},
		{"sample_rate: -0.1", `FILE:1: sample_rate: -0.1 is out of range` + rate},
		{"sample_rate: .nan", `FILE:1: sample_rate: ".nan" is not a number` + rate},
		{"sample_rate: 1e999", `FILE:1: sample_rate: want a number, got text` + rate},
		{"max_connections: 63", `FILE:1: max_connections: 63 is out of range` + count},
		{"max_connections: 99999999999999999999", `FILE:1: max_connections: 99999999999999999999 is out of range` + count},
		{"ring_size: 3MiB", `FILE:1: ring_size: 3MiB is no power of two` + size},
		{"ring_size: 32KiB", `FILE:1: ring_size: 32KiB is out of range` + size},
		{"ring_size: 4MB", `FILE:1: ring_size: "4MB" is not a size` + size},
		{"ring_size: 9999999999GiB", `FILE:1: ring_size: 9999999999GiB is out of range` + size},
		{"ring_size: -1", `FILE:1: ring_size: -1 is out of range` + size},
		{"idle_limit: 60", `FILE:1: idle_limit: 60 has no unit` + idle},
		{"idle_limit: 1d", `FILE:1: idle_limit: "1d" is not a duration` + idle},
		{"idle_limit: 2h", `FILE:1: idle_limit: 2h is out of range` + idle},
		{"id_key: abc", `FILE:1: id_key: the key has 3 characters; allowed: 32 hex digits`},
		{"id_key: 0123456789abcdef0123456789abcdex", `FILE:1: id_key: the key has characters that are no hex digits; allowed: 32 hex digits`},
		{"peers: 10.0.0.1/8", `FILE:1: peers: 10.0.0.1/8 has bits set behind its prefix (did you mean 10.0.0.0/8?)` + cidrs},
		{"peers:\n  - 10.0.0.0/8\n  - node7", `FILE:3: peers: "node7" is not a CIDR` + cidrs},
		{"trust_context: ['::ffff:10.0.0.0/104']", `FILE:1: trust_context: ::ffff:10.0.0.0/104 is v4-mapped, write it as IPv4` + cidrs},
		{"trust_context: ['fe80::1%eth0']", `FILE:1: trust_context: "fe80::1%eth0" is not a CIDR` + cidrs},
		{"namespaces: []", `FILE:1: namespaces: an empty list taps nothing` + spaces},
		{"namespaces: [host, all]", `FILE:1: namespaces: "all" stands alone` + spaces},
		{"namespaces: run/netns/x", `FILE:1: namespaces: "run/netns/x" is neither a name nor an absolute path` + spaces},
		{"namespaces: /run//netns/x", `FILE:1: namespaces: "/run//netns/x" is not clean, write /run/netns/x` + spaces},
		{"namespaces: \"a,,b\"", `FILE:1: namespaces: an item is empty` + spaces},
		{"namespaces: ['a ']", `FILE:1: namespaces: "a " has blanks around it` + spaces},
		{"namespaces: [\"a\\nb\"]", `FILE:1: namespaces: "a\nb" has control characters` + spaces},
		{"exclude:\n  namespaces: all", `FILE:2: exclude.namespaces: "all" cannot be excluded` + left},
		{"exclude:\n  ports: [80, http]", `FILE:2: exclude.ports: want a port, got text; allowed: ports from 1 to 65535`},
		{"exclude:\n  ports: 80,http", `FILE:2: exclude.ports: "http" is not a whole number; allowed: ports from 1 to 65535`},
		{"exclude:\n  ports: true", `FILE:2: exclude.ports: want a list of ports, got true or false; allowed: ports from 1 to 65535`},
		{"exclude:\n  ports:\n  - 80\n  - 65536", `FILE:4: exclude.ports: 65536 is out of range; allowed: ports from 1 to 65535`},
		{"exclude:\n  ports: [" + strings.Repeat("1,", 257) + "]", `FILE:2: exclude.ports: 257 items are too many; allowed: at most 256`},
		{"exclude:\n  cgroups: system.slice", `FILE:2: exclude.cgroups: "system.slice" is not absolute` + groups},
		{"exclude:\n  cgroups: [/]", `FILE:2: exclude.cgroups: "/" is every cgroup` + groups},
		{"otlp:\n  endpoint: collector", `FILE:2: otlp.endpoint: "collector" is not HOST:PORT` + otlp},
		{"otlp:\n  endpoint: ':4317'", `FILE:2: otlp.endpoint: ":4317" names no host` + otlp},
		{"otlp:\n  endpoint: c:0", `FILE:2: otlp.endpoint: "c:0" has no port from 1 to 65535` + otlp},
		{"otlp:\n  endpoint: ftp://c", `FILE:2: otlp.endpoint: "ftp://c" has the scheme "ftp"` + otlp},
		{"otlp:\n  endpoint: http://", `FILE:2: otlp.endpoint: "http://" names no host` + otlp},
		{"otlp:\n  endpoint: http://c:99999", `FILE:2: otlp.endpoint: "c:99999" has no port from 1 to 65535` + otlp},
		{"otlp:\n  endpoint: http://u:secret@c", `FILE:2: otlp.endpoint: the URL holds a user or password: credentials belong into OTEL_EXPORTER_OTLP_HEADERS` + otlp},
		{"otlp:\n  endpoint: http://u:sec%ret@c", `FILE:2: otlp.endpoint: this is not a URL` + otlp},
		{"otlp:\n  endpoint: http://c/?a=b", `FILE:2: otlp.endpoint: "http://c/?a=b" has a query or fragment` + otlp},
		{"otlp:\n  endpoint: 'c d:1'", `FILE:2: otlp.endpoint: "c d:1" has blanks or control characters` + otlp},
		{"admin:\n  address: '9473'", `FILE:2: admin.address: "9473" is not HOST:PORT` + listen},
		{"admin:\n  address: myhost:9473", `FILE:2: admin.address: "myhost" is no IP address` + listen},
		{"admin:\n  address: 127.0.0.1:http", `FILE:2: admin.address: "127.0.0.1:http" has no port from 0 to 65535` + listen},
		{"admin:\n  socket: ambit.sock", `FILE:2: admin.socket: "ambit.sock" is not absolute` + socket},
		{"admin:\n  socket: /" + strings.Repeat("x", 107), `FILE:2: admin.socket: the path has 108 bytes` + socket},
		{"log:\n  level: warning", `FILE:2: log.level: "warning" is unknown; allowed: debug, info, warn, error`},
	} {
		path := writeFile(t, c.yaml)
		_, _, err := Load(Sources{File: path})
		if err == nil {
			t.Errorf("%q is taken", c.yaml)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), path, "FILE"); got != c.want {
			t.Errorf("%q:\ngot  %s\nwant %s", c.yaml, got, c.want)
		}
	}
}

func TestFileThatIsTaken(t *testing.T) {
	for _, yaml := range []string{
		"", "# nothing\n", "---\n", "log:\n", "log:\n  # level: debug\n", "{}", "namespaces: ambient,host",
		"id_key: 00000000000000000000000000000000", "id_key: 12345678901234567890123456789012",
		"id_key: 1234567890123456789012345678e012", "ring_size: 4194304", "ring_size: 4 MiB", "peers: []",
		"admin:\n  address: :9473", "sample_rate: 0", "sample_rate: 1e-3", "sample_rate: 1",
	} {
		if _, _, err := Load(Sources{File: writeFile(t, yaml)}); err != nil {
			t.Errorf("%q: %v", yaml, err)
		}
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	large := writeFile(t, strings.Repeat("# filling\n", maxFile/10+1))
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir + "/absent.yaml": "read the configuration: open " + dir + "/absent.yaml: no such file or directory",
		dir:                  "read the configuration: read " + dir + ": is a directory",
		large:                "read the configuration: " + large + " has more than 1MiB",
	} {
		for _, src := range []Sources{{File: path}, {Env: []string{"AMBIT_CONFIG=" + path}}} {
			if _, _, err := Load(src); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		}
	}
}

func TestFlagAndEnvRefusals(t *testing.T) {
	for _, c := range []struct {
		src  Sources
		want string
	}{
		{Sources{Flags: map[string]string{"sample-rate": "2"}}, "flag --sample-rate: 2 is out of range; allowed: a number from 0 to 1"},
		{Sources{Flags: map[string]string{"sample-rate": ""}}, `flag --sample-rate: "" is not a number; allowed: a number from 0 to 1`},
		{Sources{Flags: map[string]string{"namespaces": ""}}, "flag --namespaces: an empty list taps nothing; allowed: all, or any of ambient, host, names under /run/netns or /run/docker/netns, and absolute paths"},
		{Sources{Flags: map[string]string{"colour": "red"}}, "flag --colour: unknown"},
		{Sources{Env: []string{"AMBIT_SAMPLE_RATE=x"}}, `env AMBIT_SAMPLE_RATE: "x" is not a number; allowed: a number from 0 to 1`},
		{Sources{Env: []string{"AMBIT_SAMPLE_RATE=1e999"}}, "env AMBIT_SAMPLE_RATE: 1e999 is out of range; allowed: a number from 0 to 1"},
		{Sources{Env: []string{"AMBIT_SAMPLERATE=1"}}, "env AMBIT_SAMPLERATE: unknown, did you mean AMBIT_SAMPLE_RATE?"},
		{Sources{Env: []string{"AMBIT_CONIFG=/x"}}, "env AMBIT_CONIFG: unknown, did you mean AMBIT_CONFIG?"},
		{Sources{Env: []string{"AMBIT_EXCLUDE_PORTS=80, x"}}, `env AMBIT_EXCLUDE_PORTS: "x" is not a whole number; allowed: ports from 1 to 65535`},
		{Sources{Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c d"}}, `env OTEL_EXPORTER_OTLP_ENDPOINT: "http://c d" has blanks or control characters; allowed: a URL such as http://HOST:4317`},
		{Sources{Env: []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://u:secret@c"}}, `env OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: the URL holds a user or password: credentials belong into OTEL_EXPORTER_OTLP_HEADERS; allowed: a URL such as http://HOST:4317`},
		{Sources{Env: []string{"AMBIT_OTLP_ENDPOINT=dns:///c:1"}}, `env AMBIT_OTLP_ENDPOINT: "dns:///c:1" has the scheme "dns"; allowed: HOST:PORT, an http:// or https:// URL, or empty`},
		// A wrong value is refused even where a stronger source overrides it.
		{Sources{Env: []string{"AMBIT_LIVE=x"}, Flags: map[string]string{"live": "on"}}, `env AMBIT_LIVE: "x" is unknown; allowed: on, off, auto`},
	} {
		if _, _, err := Load(c.src); err == nil || err.Error() != c.want {
			t.Errorf("%+v:\ngot  %v\nwant %s", c.src, err, c.want)
		}
	}
}

func TestClosest(t *testing.T) {
	known := []string{"sample_rate", "live", "log", "peers"}
	for word, want := range map[string]string{
		"sample_rate": "sample_rate", "samplerate": "sample_rate", "smaple_raet": "sample_rate", "lvie": "live", "lg": "log",
		"": "", "zzz": "", "peer": "peers", "tracing": "", "l": "", strings.Repeat("x", 1000): "",
	} {
		if got := Closest(word, known); got != want {
			t.Errorf("Closest(%q) = %q, want %q", word, got, want)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add("otlp:\n  endpoint: c:1\nexclude: {ports: [1]}\n")
	f.Add("a: &a [*a]\n")
	f.Add("<<: {live: on}")
	path := f.TempDir() + "/ambit.yaml"
	breaks := strings.NewReplacer("\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n") // that YAML knows
	f.Fuzz(func(t *testing.T, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := Load(Sources{File: path})
		if err == nil {
			err = cfg.Validate()
			if err != nil {
				t.Errorf("%q is taken but not valid: %v", content, err)
			}
		} else if strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q: more than a clear line: %v", content, err)
		} else if digits, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), path+":"), ":"); len(content) <= maxFile {
			if line, err := strconv.Atoi(digits); err != nil || line < 1 || line > strings.Count(breaks.Replace(content), "\n")+2 {
				t.Errorf("%q: refused in line %q", content, digits)
			}
		}
	})
}
