package exporter

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clearEnvironment unsets what this machine may have set, for the time of the test.
func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
}

func TestEnvironmentIsReadAsOtherProgramsDo(t *testing.T) {
	cases := []struct {
		what     string
		env      map[string]string
		cfg      OTLPConfig
		protocol string
		shown    string
		timeout  time.Duration // 0 is the default
	}{
		{what: "nothing is set", protocol: "grpc", shown: "https://localhost:4317"},
		{
			what: "nothing but the protocol is set", env: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
			protocol: "http/protobuf", shown: "https://localhost:4318",
		},
		{
			what: "insecure stands for a URL's scheme", env: map[string]string{"OTEL_EXPORTER_OTLP_INSECURE": "TRUE"},
			protocol: "grpc", shown: "http://localhost:4317",
		},
		{
			what: "an endpoint", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": " http://collector:4317 "},
			protocol: "grpc", shown: "http://collector:4317",
		},
		{
			what: "the variable for traces goes before the general one",
			env: map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:4317",
				"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
				"OTEL_EXPORTER_OTLP_TIMEOUT": "1000", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2500",
			},
			protocol: "grpc", shown: "http://b:4317", timeout: 2500 * time.Millisecond,
		},
		{
			what: "port 4318 suggests HTTP", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
			protocol: "http/protobuf", shown: "http://collector:4318",
		},
		{
			what: "so does a path", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otlp.example/otlp"},
			protocol: "http/protobuf", shown: "https://otlp.example/otlp",
		},
		{
			what:     "a protocol goes before what the endpoint suggests",
			env:      map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
			protocol: "grpc", shown: "http://collector:4318",
		},
		{
			what: "a password in an endpoint is not shown", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:secret@collector:4317"},
			protocol: "grpc", shown: "http://u:xxxxx@collector:4317",
		},
		{
			what: "gRPC's own names for a target", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "unix:///run/otel.sock"},
			protocol: "grpc", shown: "unix:///run/otel.sock",
		},
		{
			what: "the option goes before the environment", env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:4318"},
			cfg: OTLPConfig{Endpoint: "https://c:4317"}, protocol: "grpc", shown: "https://c:4317",
		},
		{
			what: "a broken endpoint in the environment does no harm to the option", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4317"},
			cfg: OTLPConfig{Endpoint: "http://127.0.0.1:4317"}, protocol: "grpc", shown: "http://127.0.0.1:4317",
		},
		{what: "host and port alone mean TLS", cfg: OTLPConfig{Endpoint: "collector:4317"}, protocol: "grpc", shown: "https://collector:4317"},
		{
			what: "unless the environment says insecure", env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_INSECURE": "true"},
			cfg: OTLPConfig{Endpoint: "[::1]:4317"}, protocol: "grpc", shown: "http://[::1]:4317",
		},
		{what: "an option without a port has the scheme's", cfg: OTLPConfig{Endpoint: "http://collector"}, protocol: "grpc", shown: "http://collector:80"},
		{what: "an option with a path is HTTP", cfg: OTLPConfig{Endpoint: "https://x/v1/traces"}, protocol: "http/protobuf", shown: "https://x:443/v1/traces"},
		{
			what: "the protocol may be an option", env: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
			cfg: OTLPConfig{Protocol: "http/protobuf", Endpoint: "http://x:1"}, protocol: "http/protobuf", shown: "http://x:1",
		},
		{what: "so may the timeout", env: map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "7"}, cfg: OTLPConfig{Timeout: time.Minute}, protocol: "grpc", shown: "https://localhost:4317", timeout: time.Minute},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			clearEnvironment(t)
			for name, v := range c.env {
				t.Setenv(name, v)
			}
			set, err := resolve(&c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if c.timeout == 0 {
				c.timeout = defaultTimeout
			}
			if set.protocol != c.protocol || set.shown != c.shown || set.timeout != c.timeout {
				t.Errorf("it is %s to %s within %v, not %s to %s within %v", set.protocol, set.shown, set.timeout, c.protocol, c.shown, c.timeout)
			}
		})
	}
}

func TestEnvironmentThatCannotBeUsedIsRefused(t *testing.T) {
	dir := t.TempDir()
	noPEM := filepath.Join(dir, "no.pem")
	if err := os.WriteFile(noPEM, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		what, name, value string
		says              string // the error names it, beside the variable
	}{
		{"JSON is not spoken", "OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", `"http/json" is not spoken: write grpc or http/protobuf`},
		{"a protocol that nobody knows", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift", "thrift"},
		{"an address without a scheme", "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317", "write http://HOST:PORT"},
		{"a scheme without a host", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "names no host"},
		{"a timeout with a unit", "OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"},
		{"a timeout below zero", "OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "milliseconds"},
		{"a timeout beyond all reason", "OTEL_EXPORTER_OTLP_TIMEOUT", "999999999999999", "milliseconds"},
		{"a compression that is not built in", "OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip"},
		{"insecure with a word", "OTEL_EXPORTER_OTLP_INSECURE", "yes", "neither true nor false"},
		{"a header without a value", "OTEL_EXPORTER_OTLP_HEADERS", "a=1,secret", "entry 2"},
		{"a header without a name", "OTEL_EXPORTER_OTLP_HEADERS", "=secret", "entry 1"},
		{"a header with a bad name", "OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", "entry 1"},
		{"a header with a bad escape", "OTEL_EXPORTER_OTLP_HEADERS", "key=%zzsecret", "the value of key"},
		{"a certificate that is not there", "OTEL_EXPORTER_OTLP_CERTIFICATE", filepath.Join(dir, "none.pem"), "no such file"},
		{"a file that is no certificate", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", noPEM, "no certificate"},
		{"a client certificate without its key", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", noPEM, "set both or none"},
		{"a key without its certificate", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", noPEM, "set both or none"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			clearEnvironment(t)
			t.Setenv(c.name, c.value)
			_, err := NewOTLP(context.Background(), OTLPConfig{})
			refusedWith(t, err, c.name, c.says)
		})
	}
	t.Run("HTTP needs a URL", func(t *testing.T) {
		clearEnvironment(t)
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")
		_, err := NewOTLP(context.Background(), OTLPConfig{})
		refusedWith(t, err, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://HOST:PORT")
	})
}

// refusedWith wants an error of one line that says both, and no secret.
func refusedWith(t *testing.T, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("it is accepted")
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error does not say %q: %v", s, err)
		}
	}
	if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error tells a secret or has more than one line: %v", err)
	}
}

func TestConfigThatCannotBeUsedIsRefused(t *testing.T) {
	clearEnvironment(t)
	cases := []struct {
		what string
		cfg  OTLPConfig
		says string
	}{
		{"an endpoint without a port", OTLPConfig{Endpoint: "collector"}, "host or port is missing"},
		{"an endpoint without a host", OTLPConfig{Endpoint: ":4317"}, "host or port is missing"},
		{"a port out of range", OTLPConfig{Endpoint: "collector:70000"}, "70000"},
		{"a port out of range in a URL", OTLPConfig{Endpoint: "http://collector:70000"}, "70000"},
		{"a port that is a word", OTLPConfig{Endpoint: "collector:otlp"}, "otlp"},
		{"another scheme", OTLPConfig{Endpoint: "ftp://collector:21"}, "http://HOST:PORT"},
		{"a URL without a host", OTLPConfig{Endpoint: "http://:4317"}, "http://HOST:PORT"},
		{"a URL with a query", OTLPConfig{Endpoint: "http://c:4317/?a=b"}, "http://HOST:PORT"},
		{"a password", OTLPConfig{Endpoint: "http://u:secret@c:4317"}, "OTEL_EXPORTER_OTLP_HEADERS"},
		{"a URL that is none, with a password", OTLPConfig{Endpoint: "http://u:secret@c:%zz"}, "http://HOST:PORT"},
		{"a protocol that is not spoken", OTLPConfig{Endpoint: "c:1", Protocol: "http/json"}, "http/json"},
		{"a batch that holds no span", OTLPConfig{BatchBytes: 100}, "100 bytes"},
		{"a queue of one batch", OTLPConfig{QueueBytes: 512 << 10, BatchBytes: 512 << 10}, "two batches"},
		{"a batch of less than one span", OTLPConfig{BatchSpans: -1}, "-1"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			_, err := NewOTLP(context.Background(), c.cfg)
			refusedWith(t, err, c.says)
		})
	}
}

func TestEndpointVariable(t *testing.T) {
	clearEnvironment(t)
	if got := EndpointVariable(); got != "" {
		t.Errorf("with nothing set it is %q", got)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")
	if got := EndpointVariable(); got != "OTEL_EXPORTER_OTLP_ENDPOINT" {
		t.Errorf("it is %q", got)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:4317")
	if got := EndpointVariable(); got != "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" {
		t.Errorf("it is %q", got)
	}
}

func TestTracesPath(t *testing.T) {
	for base, want := range map[string]string{
		"": "/v1/traces", "/": "/v1/traces", "/otlp": "/otlp/v1/traces", "/otlp/": "/otlp/v1/traces",
		"/v1/traces": "/v1/traces", "/otlp/v1/traces": "/otlp/v1/traces",
	} {
		if got := tracesPath(base); got != want {
			t.Errorf("below %q spans go to %q, not %q", base, got, want)
		}
	}
}
