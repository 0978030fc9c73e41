package exporter

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// The values of OTEL_EXPORTER_OTLP_PROTOCOL that are spoken here.
const (
	protocolGRPC         = "grpc"
	protocolHTTPProtobuf = "http/protobuf"
)

var defaultHosts = map[string]string{protocolGRPC: "localhost:4317", protocolHTTPProtobuf: "localhost:4318"}

const defaultTimeout = 10 * time.Second

// settings is where and how to send. The OTLP clients read the environment themselves, except for the
// protocol, and pass over what they cannot use; here it is read first, so that a mistake is told at the
// start instead of being a connection that never works.
type settings struct {
	protocol string
	endpoint *url.URL // from OTLPConfig; nil leaves it to the client and the environment
	shown    string
	timeout  time.Duration // of one attempt, 0 is none
	tls      *tls.Config   // from the certificate variables, nil where none is set
}

// environment is OpenTelemetry's variables for one signal.
type environment struct {
	signal string                   // as it is in the names of its own variables
	get    func(name string) string // looks a variable up, as os.Getenv does
}

func forTraces(get func(string) string) environment  { return environment{"TRACES", get} }
func forMetrics(get func(string) string) environment { return environment{"METRICS", get} }

// prefixes are what the names of variables begin with, the signal's own first.
func (env environment) prefixes() [2]string {
	return [2]string{"OTEL_EXPORTER_OTLP_" + env.signal + "_", "OTEL_EXPORTER_OTLP_"}
}

// variable returns the value of OTEL_EXPORTER_OTLP_signal_suffix, or else of OTEL_EXPORTER_OTLP_suffix, and
// which of them it is; an empty one is as good as none.
func (env environment) variable(suffix string) (name, value string) {
	for _, prefix := range env.prefixes() {
		name := prefix + suffix
		if v := strings.TrimSpace(env.get(name)); v != "" {
			return name, v
		}
	}
	return "", ""
}

// EndpointVariable is the name of the environment variable that says where to send spans, "" if none does.
func EndpointVariable() string {
	name, _ := forTraces(os.Getenv).variable("ENDPOINT")
	return name
}

// Setting is one of OpenTelemetry's settings as it holds.
type Setting struct {
	Name     string // as the variables have it, in lower case; "metrics_" before those of metrics
	Value    string // "" is nothing; of headers the names alone
	Variable string // that set it, "" where it is the default
	Env      string // a variable that sets it
}

// Settings tells how spans are sent to an endpoint, which is as in OTLPConfig, where getenv returns the variables.
// Its error is the one that NewOTLP would have.
func Settings(endpoint string, getenv func(name string) string) ([]Setting, error) {
	env := forTraces(getenv)
	set, err := env.resolve(&OTLPConfig{Endpoint: endpoint})
	if err != nil {
		return nil, err
	}
	return env.settings(set), nil
}

// settings are what holds of the way to the collector.
func (env environment) settings(set settings) []Setting {
	list := make([]Setting, 0, 12)
	for _, s := range []struct {
		name, fallback string
		show           func(string) string
	}{
		{"protocol", set.protocol, nil},
		{"headers", "", maskHeaders},
		{"insecure", "false", strings.ToLower},
		{"certificate", "", nil},
		{"client_certificate", "", nil},
		{"client_key", "", nil},
		{"timeout", "", func(string) string { return set.timeout.String() }},
		{"compression", "none", nil},
	} {
		variable, value := env.variable(strings.ToUpper(s.name))
		if variable == "" {
			value = s.fallback
		}
		if s.show != nil {
			value = s.show(value)
		}
		list = append(list, Setting{
			Name: s.name, Value: value, Variable: variable, Env: env.prefixes()[1] + strings.ToUpper(s.name),
		})
	}
	return list
}

// maskHeaders leaves the names of headers that checkHeaders has taken.
func maskHeaders(v string) string {
	if v == "" {
		return ""
	}
	pairs := strings.Split(v, ",")
	for i, pair := range pairs {
		key, _, _ := strings.Cut(pair, "=")
		pairs[i] = strings.TrimSpace(key) + "=********"
	}
	return strings.Join(pairs, ",")
}

// resolve reads the environment and what cfg overrides of it.
func resolve(cfg *OTLPConfig) (settings, error) { return forTraces(os.Getenv).resolve(cfg) }

func (env environment) resolve(cfg *OTLPConfig) (settings, error) {
	insecure, err := env.readInsecure()
	if err != nil {
		return settings{}, err
	}
	var set settings
	var named *url.URL // of either source
	if cfg.Endpoint != "" {
		set.endpoint, err = parseEndpoint(cfg.Endpoint, insecure)
		named = set.endpoint
	} else {
		named, err = env.readEndpoint()
	}
	if err != nil {
		return settings{}, err
	}
	if set.protocol, err = env.readProtocol(cfg.Protocol, named); err != nil {
		return settings{}, err
	}
	if named == nil {
		// Neither source names one, so the client takes its default.
		named = &url.URL{Scheme: schemeFor(insecure), Host: defaultHosts[set.protocol]}
	}
	set.shown = named.Redacted()
	if set.protocol == protocolHTTPProtobuf && (named.Host == "" || named.Scheme != "http" && named.Scheme != "https") {
		name, value := env.variable("ENDPOINT")
		return settings{}, fmt.Errorf("%s: %q is no URL that http/protobuf can be sent to: write http://HOST:PORT or https://HOST:PORT", name, value)
	}
	if set.timeout, err = env.readTimeout(cfg.Timeout); err != nil {
		return settings{}, err
	}
	if err := env.checkCompression(); err != nil {
		return settings{}, err
	}
	if err := env.checkHeaders(); err != nil {
		return settings{}, err
	}
	set.tls, err = env.readTLS()
	return set, err
}

func (env environment) readInsecure() (bool, error) {
	name, v := env.variable("INSECURE")
	switch strings.ToLower(v) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, fmt.Errorf("%s: %q is neither true nor false", name, v)
}

// parseEndpoint reads an endpoint given as an option: a URL, or HOST:PORT, which is TLS unless the
// environment says insecure, as the OTLP specification has it.
func parseEndpoint(s string, insecure bool) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		if _, err := splitHostPort(s); err != nil {
			return nil, fmt.Errorf("otlp endpoint %q: %w: write http://HOST:PORT, https://HOST:PORT or HOST:PORT", s, err)
		}
		return &url.URL{Scheme: schemeFor(insecure), Host: s}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		// url.Error repeats the URL, which may hold a password.
		return nil, fmt.Errorf("otlp endpoint: %w: write http://HOST:PORT or https://HOST:PORT", errors.Unwrap(err))
	}
	if u.User != nil {
		return nil, fmt.Errorf("otlp endpoint %q: has a user or password: set OTEL_EXPORTER_OTLP_HEADERS instead", u.Redacted())
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("otlp endpoint %q: write http://HOST:PORT or https://HOST:PORT", s)
	}
	if u.Port() == "" {
		// gRPC would take 443 for both.
		u.Host = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	} else if _, err := splitHostPort(u.Host); err != nil {
		return nil, fmt.Errorf("otlp endpoint %q: %w", s, err)
	}
	return u, nil
}

func splitHostPort(s string) (port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return 0, errors.New("host or port is missing")
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 {
		return 0, fmt.Errorf("port %q is not between 1 and 65535", p)
	}
	return port, nil
}

func schemeFor(insecure bool) string {
	if insecure {
		return "http"
	}
	return "https"
}

// readEndpoint reads the endpoint as the clients do: a URL, or for gRPC any target of its own; nil is none.
func (env environment) readEndpoint() (*url.URL, error) {
	name, v := env.variable("ENDPOINT")
	if v == "" {
		return nil, nil
	}
	u, err := url.Parse(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: write http://HOST:PORT or https://HOST:PORT", name, errors.Unwrap(err))
	}
	if (u.Scheme == "http" || u.Scheme == "https") && u.Host == "" {
		return nil, fmt.Errorf("%s: %q names no host: write %s://HOST:PORT", name, v, u.Scheme)
	}
	return u, nil
}

// readProtocol returns the protocol that is set, else what the endpoint suggests: port 4318 is registered
// for OTLP over HTTP, and gRPC knows no paths.
func (env environment) readProtocol(option string, endpoint *url.URL) (string, error) {
	name, v := "otlp protocol", option
	if v == "" {
		name, v = env.variable("PROTOCOL")
	}
	switch v {
	case protocolGRPC, protocolHTTPProtobuf:
		return v, nil
	case "":
		if endpoint != nil && endpoint.Host != "" && (endpoint.Port() == "4318" || strings.Trim(endpoint.Path, "/") != "") {
			return protocolHTTPProtobuf, nil
		}
		return protocolGRPC, nil
	}
	return "", fmt.Errorf("%s: %q is not spoken: write grpc or http/protobuf", name, v)
}

func (env environment) readTimeout(option time.Duration) (time.Duration, error) {
	if option > 0 {
		return option, nil
	}
	name, v := env.variable("TIMEOUT")
	if v == "" {
		return defaultTimeout, nil
	}
	ms, err := strconv.Atoi(v)
	if err != nil || ms < 0 || time.Duration(ms) > time.Hour/time.Millisecond {
		return 0, fmt.Errorf("%s: %q is no number of milliseconds between 0 and 3600000", name, v)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func (env environment) checkCompression() error {
	name, v := env.variable("COMPRESSION")
	if v != "" && v != "gzip" && v != "none" {
		return fmt.Errorf("%s: %q is neither gzip nor none", name, v)
	}
	return nil
}

// checkHeaders tells of headers that the clients would leave out. Values are secrets and not repeated.
func (env environment) checkHeaders() error {
	name, v := env.variable("HEADERS")
	if v == "" {
		return nil
	}
	for i, pair := range strings.Split(v, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%s: entry %d has no \"=\": write KEY=VALUE,KEY=VALUE", name, i+1)
		}
		if key = strings.TrimSpace(key); key == "" || strings.ContainsFunc(key, func(r rune) bool { return !isTokenChar(r) }) {
			return fmt.Errorf("%s: entry %d has no valid header name", name, i+1)
		}
		if _, err := url.PathUnescape(value); err != nil {
			return fmt.Errorf("%s: the value of %s has a %% that is no escape: write it as %%25", name, key)
		}
	}
	return nil
}

func isTokenChar(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
		r < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// readTLS loads the certificates that the environment names.
func (env environment) readTLS() (*tls.Config, error) {
	var cfg tls.Config
	if name, file := env.variable("CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: name a readable PEM file or unset it", name, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no certificate in PEM", name, file)
		}
	}
	// The two make a pair within one prefix, as the clients have it.
	prefixes := env.prefixes()
	for _, prefix := range []string{prefixes[1], prefixes[0]} {
		cert := strings.TrimSpace(env.get(prefix + "CLIENT_CERTIFICATE"))
		key := strings.TrimSpace(env.get(prefix + "CLIENT_KEY"))
		if cert == "" && key == "" {
			continue
		}
		if cert == "" || key == "" {
			return nil, fmt.Errorf("%sCLIENT_CERTIFICATE, %sCLIENT_KEY: one is set without the other: set both or none", prefix, prefix)
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%sCLIENT_CERTIFICATE, %sCLIENT_KEY: %w", prefix, prefix, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if cfg.RootCAs == nil && cfg.Certificates == nil {
		return nil, nil
	}
	return &cfg, nil
}

// Paths of the signals below a base URL.
const (
	tracesSuffix  = "/v1/traces"
	metricsSuffix = "/v1/metrics"
)

// tracesPath is the path for spans below a base URL, as OTEL_EXPORTER_OTLP_ENDPOINT has it.
func tracesPath(base string) string {
	if base = path.Clean("/" + base); strings.HasSuffix(base, tracesSuffix) {
		return base
	}
	return path.Join(base, tracesSuffix)
}

// metricsPath is the same for metrics, also where the path of spans is given.
func metricsPath(base string) string {
	if base = path.Clean("/" + base); strings.HasSuffix(base, metricsSuffix) {
		return base
	}
	return path.Join("/", strings.TrimSuffix(base, tracesSuffix), metricsSuffix)
}
