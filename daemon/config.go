package daemon

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"ambit/l7"
)

// Config is everything that can be set. Its keys, ranges and defaults are in one table, Settings; make
// one with Defaults or Load.
type Config struct {
	OTLP OTLPConfig
	// SampleRate is the head rate where no rule says another, from 0 (keep nothing) to 1 (keep everything).
	SampleRate float64
	Sampling   SamplingConfig
	Admin      AdminConfig
	// Namespaces says which network namespaces are tapped: "all" alone, or any of "ambient", "host",
	// the name of one under /run/netns or /run/docker/netns, and the absolute path of one. At least one.
	Namespaces []string
	Exclude    ExcludeConfig
	Capture    CaptureConfig
	// IdleLimit is the longest that an exchange waits for its next byte.
	IdleLimit time.Duration
	// Peers are the addresses of nodes that run ambit with the same IDKey.
	Peers []netip.Prefix
	// TrustContext are the sources whose tracing headers are believed; empty believes nobody.
	TrustContext []netip.Prefix
	IDKey        IDKey
	// MaxConnections is how many connections are followed at once.
	MaxConnections int
	// MaxHTTP2Connections is how many of them may speak HTTP/2.
	MaxHTTP2Connections int
	// RingSize is the ring buffer between kernel and userspace in bytes, a power of two.
	RingSize int64
	Export   ExportConfig
	Handover HandoverConfig
	Store    StoreConfig
	Metrics  MetricsConfig
	Log      LogConfig
	// Live is "on", "off" or "auto": see ShowLive.
	Live string
}

// OTLPConfig says where spans go.
type OTLPConfig struct {
	// Endpoint is empty (spans stay in memory), HOST:PORT or an http or https URL.
	Endpoint string
	// EndpointVariable names the standard OTEL_ variable that Endpoint came from, whose own rules on
	// paths and schemes then hold: the exporter reads it itself. Empty where Endpoint is ambit's own setting.
	EndpointVariable string
}

// SamplingConfig says what is kept. It can change while the daemon runs: see reload.go.
type SamplingConfig struct {
	// Budget is the most spans per second of the node, 0 is no limit.
	Budget float64
	// TailBudget is the most spans per second that the tail keeps, 0 is no limit.
	TailBudget float64
	// SlowP99 is the multiple of a route's own p99 above which the tail takes a request for slow, 0 is none.
	SlowP99 float64
	// Defaults is "on" or "off" alone, or the names of the shipped rules that hold.
	Defaults []string
	Forced   ForcedConfig
	// Rules are the user's, in the order in which they are asked.
	Rules   []l7.Rule
	Control ControlConfig
}

// ForcedConfig says who may force spans.
type ForcedConfig struct {
	// Header is "off" or "x-envoy-force-trace".
	Header string
	// From are the sources whose header is believed.
	From []netip.Prefix
	// Budget is the most forced spans per second, 0 is no limit.
	Budget float64
}

// AdminConfig says where the local API listens.
type AdminConfig struct {
	// Address is HOST:PORT for reads; empty opens no TCP port.
	Address string
	// Socket is the absolute path of the unix socket for everything.
	Socket string
}

// HandoverConfig says how programs, maps and links outlive the daemon for the next one, where systemd does not keep them.
type HandoverConfig struct {
	// Pins is a directory of a BPF file system, "" is none.
	Pins string
}

// ExcludeConfig says what is left alone.
type ExcludeConfig struct {
	// Namespaces are names under /run/netns or /run/docker/netns, absolute paths, or "host".
	Namespaces []string
	// Ports exclude a connection when either end has one.
	Ports []uint16
	// Cgroups are paths below the root of cgroup v2, from "/"; what is below them is excluded too.
	Cgroups []string
}

// CaptureConfig says what of an exchange is kept.
type CaptureConfig struct {
	// Query is "values", "keys" or "none".
	Query string
	// GRPCMessage sends the grpc-message of a failed call.
	GRPCMessage bool
	// ContentType sends content types.
	ContentType bool
	// GuessedRoute sends a guessed template as http.route too, on spans and in metrics.
	GuessedRoute bool
}

// ExportConfig bounds and paces what waits for the collector.
type ExportConfig struct {
	// QueueBytes is the most that waits, encoded.
	QueueBytes int64
	// BatchSpans is the most spans of one request to the collector.
	BatchSpans int
	// BatchWait is the longest that a span waits for its batch to fill.
	BatchWait time.Duration
	// RetryFor is the longest that a batch is tried again.
	RetryFor time.Duration
	// FlushTimeout is the longest that stopping waits for the collector.
	FlushTimeout time.Duration
}

// StoreConfig bounds the traces that are kept in memory where no endpoint is set.
type StoreConfig struct {
	MaxTraces int
	MaxBytes  int64
}

// MetricsConfig says what is told of every request, kept or not.
type MetricsConfig struct {
	// Routes is "all", "rules" or "none": which templates are the label route of /metrics.
	Routes string
	// OTLP sends metrics to the collector that spans are sent to.
	OTLP bool
}

// LogConfig says what is logged, and how.
type LogConfig struct {
	Level slog.Level
	// Format is "auto", "text" or "json".
	Format string
}

// IDKey keys the hashes that IDs are derived from. It prints masked.
type IDKey [16]byte

// mask stands for a secret wherever one would be shown.
const mask = "********"

func (IDKey) String() string { return mask }

// LogValue keeps the key out of logs.
func (IDKey) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText keeps the key out of every encoder.
func (IDKey) MarshalText() ([]byte, error) { return []byte(mask), nil }

// Published reports whether k is the published default, which everybody knows.
func (k IDKey) Published() bool { return hex.EncodeToString(k[:]) == publishedKey }

// Defaults returns the configuration of a daemon that is told nothing.
func Defaults() Config {
	var c Config
	for _, s := range table {
		if err := s.set(&c, s.split(s.Default)); err != nil {
			panic(fmt.Sprintf("default of %s: %v", s.Key, err))
		}
	}
	return c
}

// Validate checks every value against the table, an endpoint by a standard variable excepted, and the rules. The error
// names the key, what is wrong and what is allowed.
func (c Config) Validate() error {
	scratch := c
	for _, s := range table {
		if s.Key == keyEndpoint && c.OTLP.EndpointVariable != "" {
			continue
		}
		if err := s.set(&scratch, s.get(&c)); err != nil {
			return fmt.Errorf("%s: %w", s.Key, err)
		}
	}
	return c.Sampling.validate()
}

// ShowLive reports whether spans are shown on standard output as they come; terminal says whether that
// is one. "auto" shows them on a terminal when they go nowhere else.
func (c Config) ShowLive(terminal bool) bool {
	switch c.Live {
	case "on":
		return true
	case "off":
		return false
	}
	return terminal && c.OTLP.Endpoint == ""
}
