package daemon

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// configVariable names the file where no flag does.
const configVariable = "AMBIT_CONFIG"

// environment indexes "NAME=value" pairs. An empty value counts as unset, as OpenTelemetry has it.
func environment(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		if value = strings.TrimSpace(value); value != "" {
			env[name] = value
		}
	}
	return env
}

func loadEnv(env map[string]string, cfg *Config, origins Origins) error {
	if err := refuseMisspelt(env); err != nil {
		return err
	}
	for _, s := range table {
		name, value := s.variable(env)
		if name == "" {
			continue
		}
		set := s.set
		if name != s.Env() {
			set = setStandardEndpoint
			cfg.OTLP.EndpointVariable = name
		}
		if err := set(cfg, s.split(value)); err != nil {
			return fmt.Errorf("env %s: %w", name, err)
		}
		origins[s.Key] = Origin{Source: FromEnv, Name: name}
	}
	return nil
}

// setStandardEndpoint takes what OpenTelemetry's variables may hold, which for gRPC is any target such as
// dns:///collector:4317. The exporter judges the rest.
func setStandardEndpoint(cfg *Config, texts []string) error {
	if strings.ContainsFunc(texts[0], func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return refused(fmt.Errorf("%q has blanks or control characters", texts[0]), "a URL such as http://HOST:4317")
	}
	if strings.Contains(texts[0], "@") {
		return refused(errCredentials, "a URL such as http://HOST:4317")
	}
	cfg.OTLP.Endpoint = texts[0]
	return nil
}

// variable returns the strongest variable that sets s: ambit's own before the standard ones.
func (s Setting) variable(env map[string]string) (name, value string) {
	for _, name := range append([]string{s.Env()}, s.Standard...) {
		if value := env[name]; value != "" {
			return name, value
		}
	}
	return "", ""
}

// refuseMisspelt refuses variables that are nearly one of ambit's. Others with its prefix are left alone:
// Kubernetes makes AMBIT_SERVICE_HOST and the like for a service that is named ambit.
func refuseMisspelt(env map[string]string) error {
	known := []string{configVariable}
	for _, s := range table {
		known = append(known, s.Env())
	}
	var unknown []string
	for name := range env {
		if strings.HasPrefix(name, "AMBIT_") && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		bare := make([]string, len(known))
		for i := range known {
			bare[i] = strings.TrimPrefix(known[i], "AMBIT_")
		}
		if near := Closest(strings.TrimPrefix(name, "AMBIT_"), bare); near != "" {
			return fmt.Errorf("env %s: unknown, did you mean AMBIT_%s?", name, near)
		}
	}
	return nil
}
