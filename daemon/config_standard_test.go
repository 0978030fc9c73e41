package daemon

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// OpenTelemetry's own settings are shown with the variable that each came from, and what they keep secret is not.
func TestStandardSettingsAreShown(t *testing.T) {
	env := []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer secret, x-tenant = secret",
		"OTEL_EXPORTER_OTLP_TIMEOUT=1000", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=2500", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip",
		"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta", "OTEL_METRIC_EXPORT_INTERVAL=5000",
	}
	cfg, origins, err := Load(Sources{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	standard, err := cfg.Standard(env)
	if err != nil {
		t.Fatal(err)
	}
	var yaml, plain bytes.Buffer
	if err := cfg.WriteYAML(&yaml, origins, standard); err != nil {
		t.Fatal(err)
	}
	if err := cfg.WriteJSON(&plain, origins, standard); err != nil {
		t.Fatal(err)
	}
	want := `# OpenTelemetry's settings, by variables alone:
#   protocol: http/protobuf                         # default, as the endpoint suggests
#   headers: authorization=********,x-tenant=********  # env OTEL_EXPORTER_OTLP_HEADERS
#   insecure: false                                 # default
#   certificate: ""                                 # default
#   client_certificate: ""                          # default
#   client_key: ""                                  # default
#   timeout: 2.5s                                   # env OTEL_EXPORTER_OTLP_TRACES_TIMEOUT
#   compression: gzip                               # env OTEL_EXPORTER_OTLP_COMPRESSION
#   metrics_endpoint: http://collector:4318 # env OTEL_EXPORTER_OTLP_ENDPOINT
#   metrics_protocol: http/protobuf # default, as the endpoint suggests
#   metrics_headers: authorization=********,x-tenant=******** # env OTEL_EXPORTER_OTLP_HEADERS
#   metrics_insecure: false # default
#   metrics_certificate: "" # default
#   metrics_client_certificate: "" # default
#   metrics_client_key: "" # default
#   metrics_timeout: 1s # env OTEL_EXPORTER_OTLP_TIMEOUT
#   metrics_compression: gzip # env OTEL_EXPORTER_OTLP_COMPRESSION
#   metrics_temporality_preference: delta # env OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE
#   metric_export_interval: 5s # env OTEL_METRIC_EXPORT_INTERVAL
#   metric_export_timeout: 30s # default
`
	squeeze := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	if _, got, _ := strings.Cut(yaml.String(), "live: auto"); !strings.HasSuffix(squeeze(got), squeeze(want)) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.Contains(yaml.String()+plain.String(), "secret") {
		t.Errorf("a header's value is shown:\n%s\n%s", yaml.String(), plain.String())
	}
	if again, _, err := Load(Sources{File: writeFile(t, yaml.String())}); err != nil || again.OTLP.Endpoint != "http://collector:4318" {
		t.Errorf("it is no configuration file any more: %v", err)
	}
	var rows []shown
	if err := json.Unmarshal(plain.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	rows = rows[len(Settings())+1:] // behind the rules
	if len(rows) != len(standard) || rows[1].Key != "otel.headers" || rows[1].Name != "OTEL_EXPORTER_OTLP_HEADERS" || rows[1].Source != "env" {
		t.Errorf("%+v", rows)
	}
}

// Where no metrics are sent nothing of them is shown or judged; where they are, a wrong variable is refused at the start.
func TestStandardSettingsOfMetrics(t *testing.T) {
	count := func(more ...string) (n int, err error) {
		cfg, _, err := Load(Sources{Env: more})
		if err != nil {
			return 0, err
		}
		standard, err := cfg.Standard(more)
		for _, s := range standard {
			if strings.HasPrefix(s.Name, "metric") {
				n++
			}
		}
		return n, err
	}
	const endpoint, wrong = "AMBIT_OTLP_ENDPOINT=c:4317", "OTEL_METRIC_EXPORT_INTERVAL=1s"
	if n, err := count(wrong); n != 0 || err != nil {
		t.Errorf("without an endpoint: %d, %v", n, err)
	}
	if n, err := count(endpoint, wrong, "AMBIT_METRICS_OTLP=false"); n != 0 || err != nil {
		t.Errorf("without metrics: %d, %v", n, err)
	}
	if n, err := count("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:4317", wrong); n != 0 || err != nil {
		t.Errorf("with an endpoint for spans alone: %d, %v", n, err)
	}
	if n, err := count(endpoint); n != 12 || err != nil {
		t.Errorf("with an endpoint: %d, %v", n, err)
	}
	want := `env OTEL_METRIC_EXPORT_INTERVAL: "1s" is no number of milliseconds between 100 and 86400000`
	if _, err := count(endpoint, wrong); err == nil || err.Error() != want {
		t.Errorf("a wrong interval: %v", err)
	}
}

// What the exporter would refuse, the configuration is refused for, in one line that names the variable; also where
// nothing is sent for now.
func TestStandardSettingsAreRefused(t *testing.T) {
	for _, c := range []struct{ variable, want string }{
		{"OTEL_EXPORTER_OTLP_PROTOCOL=http/json", `env OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" is not spoken: write grpc or http/protobuf`},
		{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=10s", `env OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: "10s" is no number of milliseconds between 0 and 3600000`},
		{"OTEL_EXPORTER_OTLP_COMPRESSION=zstd", `env OTEL_EXPORTER_OTLP_COMPRESSION: "zstd" is neither gzip nor none`},
		{"OTEL_EXPORTER_OTLP_HEADERS=secret", `env OTEL_EXPORTER_OTLP_HEADERS: entry 1 has no "=": write KEY=VALUE,KEY=VALUE`},
		{"OTEL_EXPORTER_OTLP_INSECURE=yes", `env OTEL_EXPORTER_OTLP_INSECURE: "yes" is neither true nor false`},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE=/none.pem", `env OTEL_EXPORTER_OTLP_CERTIFICATE: open /none.pem: no such file or directory: name a readable PEM file or unset it`},
	} {
		for _, more := range []string{"", "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4317", "AMBIT_OTLP_ENDPOINT=c:4317"} {
			_, _, err := Load(Sources{Env: []string{c.variable, more}})
			if err == nil || err.Error() != c.want {
				t.Errorf("%s %s:\ngot  %v\nwant %s", more, c.variable, err, c.want)
			}
		}
	}
	// An endpoint that a stronger source overrules is not used, and not judged.
	broken := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=127.0.0.1:4317"}
	if _, _, err := Load(Sources{Env: broken}); err == nil || !strings.HasPrefix(err.Error(), "env OTEL_EXPORTER_OTLP_ENDPOINT: ") {
		t.Errorf("a broken endpoint: %v", err)
	}
	if _, _, err := Load(Sources{Env: broken, Flags: map[string]string{"otlp-endpoint": ""}}); err != nil {
		t.Errorf("a broken endpoint that is turned off: %v", err)
	}
}
