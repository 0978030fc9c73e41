package daemon

import (
	"fmt"
	"io"
	"strings"

	"ambit/exporter"
)

// Standard tells what OpenTelemetry's variables in the environment say of the way to the collector. The error is
// the one that the exporter would start with; without an endpoint a wrong value is refused all the same, as
// everywhere else.
func (c Config) Standard(env []string) ([]exporter.Setting, error) {
	endpoint := c.OTLP.Endpoint
	switch {
	case endpoint == "":
		endpoint = "localhost:4317" // of which nothing is shown: the variable, if any, has been overruled
	case c.OTLP.EndpointVariable != "":
		endpoint = "" // read from there
	}
	known := environment(env)
	get := func(name string) string { return known[name] }
	settings, err := exporter.Settings(endpoint, get)
	if err != nil {
		return nil, fmt.Errorf("env %w", err)
	}
	if !c.Metrics.OTLP {
		return settings, nil
	}
	metrics, err := exporter.MetricsSettings(c.OTLP.Endpoint, c.OTLP.EndpointVariable, get)
	if err != nil {
		return nil, fmt.Errorf("env %w", err)
	}
	return append(settings, metrics...), nil
}

// writeStandard adds them to the configuration file as comments: a file cannot set them.
func (c Config) writeStandard(w io.Writer, standard []exporter.Setting) error {
	use := ""
	if c.OTLP.Endpoint == "" {
		use = ", without use as long as no endpoint is set"
	}
	if _, err := fmt.Fprintf(w, "# OpenTelemetry's settings, by variables alone%s:\n", use); err != nil {
		return err
	}
	width := 0
	lines := make([]string, len(standard))
	for i, s := range standard {
		value := `""`
		if s.Value != "" {
			value = printable(s.Value)
		}
		lines[i] = fmt.Sprintf("#   %s: %s", s.Name, value)
		width = max(width, min(len(lines[i]), 60))
	}
	for i, s := range standard {
		if _, err := fmt.Fprintf(w, "%-*s  # %s\n", width, lines[i], standardOrigin(s)); err != nil {
			return err
		}
	}
	return nil
}

func standardOrigin(s exporter.Setting) Origin {
	switch {
	case s.Variable != "":
		return Origin{Source: FromEnv, Name: s.Variable}
	case s.Name == "metrics_endpoint":
		return Origin{Note: keyEndpoint + " says"}
	case strings.HasSuffix(s.Name, "protocol"):
		return Origin{Note: "the endpoint suggests"}
	}
	return Origin{}
}

// standardRow is one of them as `ambit config --json` prints it.
func standardRow(s exporter.Setting) shown {
	o := standardOrigin(s)
	return shown{
		Key: "otel." + s.Name, Value: s.Value, Source: o.Source.String(), Name: o.Name, Note: o.Note,
		Env: s.Env,
	}
}
