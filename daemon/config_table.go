package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// publishedKey is the default of id_key. It is public on purpose: nodes that are told nothing agree.
const publishedKey = "616d6269742d7075626c69632d6b6579"

// Keys that code refers to. sample_rate and sampling.tail_budget are those whose defaults depend on another.
const (
	keySampleRate    = "sample_rate"
	keySocket        = "admin.socket"
	keyEndpoint      = "otlp.endpoint"
	keyTailBudget    = "sampling.tail_budget"
	keyForcedFrom    = "sampling.forced.from"
	keyState         = "sampling.state"
	keyRemote        = "sampling.remote." // all of them wait for a restart
	keyRules         = "sampling.rules"   // in the file alone, and no row of the table
	exportedRate     = 0.1                // default of sample_rate where an endpoint is set
	exportedRateNote = "an endpoint is set"
	storedRateNote   = "no endpoint is set"
)

// Setting is one row of the table that flags, environment, file, documentation and `ambit config` are
// made from.
type Setting struct {
	// Key is its path in the file, sections joined by dots.
	Key string
	// Flag is its name on the command line, without dashes; the variable's is made from it.
	Flag string
	// Standard are OpenTelemetry's variables that set it too, the strongest first.
	Standard []string
	// Default as it would be written on the command line.
	Default string
	// Usage says what it does, in one line.
	Usage string
	// Memory is what it bounds, "" where it bounds none.
	Memory string
	// Secret values are shown masked, except for the default.
	Secret bool

	binding
}

// Settings returns the table, in the order of the documentation.
func Settings() []Setting { return slices.Clone(table) }

// Env is the name of the setting's variable.
func (s Setting) Env() string {
	return "AMBIT_" + strings.ToUpper(strings.ReplaceAll(s.Flag, "-", "_"))
}

// Type names the type of the value.
func (s Setting) Type() string { return s.noun }

// Allowed says which values are taken.
func (s Setting) Allowed() string { return s.allowed }

// List reports whether the setting takes several values, comma separated in flags and variables.
func (s Setting) List() bool { return s.list }

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

var table = []Setting{
	{
		Key: keyEndpoint, Flag: "otlp-endpoint", Default: "",
		Standard: []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		Usage:    "OTLP collector that spans are sent to; without one they stay in memory",
		binding:  one(func(c *Config) *string { return &c.OTLP.Endpoint }, endpoint),
	},
	{
		Key: keySampleRate, Flag: "sample-rate", Default: "1",
		Usage:   "share of the traces that are kept; the default is 0.1 where " + exportedRateNote,
		binding: one(func(c *Config) *float64 { return &c.SampleRate }, numberIn(0, 1)),
	},
	{
		Key: "sampling.budget", Flag: "budget", Default: "0",
		Usage:   "most spans per second of this node, for which thresholds are raised; 0: no limit",
		binding: one(func(c *Config) *float64 { return &c.Sampling.Budget }, numberIn(0, maxSpans)),
	},
	{
		Key: keyTailBudget, Flag: "tail-budget", Default: "100",
		Usage:   "most spans per second that are kept as slow or failed alone; the default is at most a quarter of the budget; 0: no limit",
		binding: one(func(c *Config) *float64 { return &c.Sampling.TailBudget }, numberIn(0, maxSpans)),
	},
	{
		Key: "sampling.slow_p99", Flag: "slow-p99", Default: "0",
		Usage:   "what takes longer than so many times the p99 of its own route is slow, beside what rules say; 0: nothing",
		binding: one(func(c *Config) *float64 { return &c.Sampling.SlowP99 }, multiple),
	},
	{
		Key: "sampling.defaults", Flag: "sampling-defaults", Default: "on",
		Usage:   "shipped rules that hold behind those of the file",
		binding: several(func(c *Config) *[]string { return &c.Sampling.Defaults }, defaultRules, checkDefaultRules),
	},
	{
		Key: "sampling.control", Flag: "control", Default: "auto",
		Usage:   "whether rates are moved each second: auto is on where there is a budget, a latency band or remote sampling",
		binding: one(func(c *Config) *string { return &c.Sampling.Control.Mode }, oneOf("auto", "on", "off")),
	},
	{
		Key: "sampling.service_budgets", Flag: "service-budgets", Default: "",
		Usage:   "most spans per second of services, within the budget of the node, if there is one",
		binding: several(func(c *Config) *[]named { return &c.Sampling.Control.Services }, namedBudget(nil, "checkout=20"), once(func(n named) string { return n.name })),
	},
	{
		Key: "sampling.class_budgets", Flag: "class-budgets", Default: "",
		Usage:   "most spans per second of classes, within the budget of the node, if there is one",
		binding: several(func(c *Config) *[]named { return &c.Sampling.Control.Classes }, namedBudget(classNames[:], "background=5"), once(func(n named) string { return n.name })),
	},
	{
		Key: "sampling.load", Flag: "load", Default: "on",
		Usage:   "whether moved rates fall while the node, a workload or ambit itself is under pressure",
		binding: one(func(c *Config) *string { return &c.Sampling.Control.Load }, oneOf("on", "off")),
	},
	{
		Key: "sampling.load_marks", Flag: "load-marks", Default: "",
		Usage:   "low and high marks of signals of load, in the place of the shipped ones",
		binding: several(func(c *Config) *[]loadMark { return &c.Sampling.Control.Marks }, loadMarks, once(func(m loadMark) string { return m.signal })),
	},
	{
		Key: "sampling.anomalies", Flag: "anomalies", Default: "on",
		Usage:   "whether routes that behave unlike themselves are sampled more for a while, where rates are moved",
		binding: one(func(c *Config) *string { return &c.Sampling.Control.Anomalies }, oneOf("on", "off")),
	},
	{
		Key: "sampling.band.services", Flag: "band-services", Default: "",
		Usage:   "services whose base rate falls while their mean latency is high; * is all",
		binding: several(func(c *Config) *[]string { return &c.Sampling.Control.Band.Services }, servicePattern, nil),
	},
	{
		Key: "sampling.band.high", Flag: "band-high", Default: "100ms",
		Usage:   "mean latency of a service's server sides above which its base rate falls",
		binding: one(func(c *Config) *time.Duration { return &c.Sampling.Control.Band.High }, durationIn(time.Millisecond, time.Hour)),
	},
	{
		Key: "sampling.band.low", Flag: "band-low", Default: "50ms",
		Usage:   "mean latency below which it rises again; between the two it is held",
		binding: one(func(c *Config) *time.Duration { return &c.Sampling.Control.Band.Low }, durationIn(0, time.Hour)),
	},
	{
		Key: "sampling.band.least", Flag: "band-least", Default: "0.1",
		Usage:   "share of its base rate that a slow service keeps at the least",
		binding: one(func(c *Config) *float64 { return &c.Sampling.Control.Band.Least }, numberIn(0.001, 1)),
	},
	{
		Key: keyRemote + "endpoint", Flag: "remote-endpoint", Default: "",
		Usage:   "endpoint of Jaeger's remote sampling that rates of services are taken from",
		binding: one(func(c *Config) *string { return &c.Sampling.Control.Remote.Endpoint }, remoteEndpoint),
	},
	{
		Key: keyRemote + "interval", Flag: "remote-interval", Default: "1m",
		Usage:   "how often it is asked",
		binding: one(func(c *Config) *time.Duration { return &c.Sampling.Control.Remote.Interval }, durationIn(time.Second, time.Hour)),
	},
	{
		Key: keyRemote + "listen", Flag: "remote-listen", Default: "off",
		Usage:   "TCP address where SDKs ask for the rates in force, by Jaeger's remote sampling over HTTP and gRPC",
		binding: one(func(c *Config) *string { return &c.Sampling.Control.Remote.Listen }, listenAddress),
	},
	{
		Key: keyState, Flag: "state", Default: "",
		Usage:   "file in which rates survive a restart; the default is rates.json in systemd's STATE_DIRECTORY, else none",
		binding: one(func(c *Config) *string { return &c.Sampling.Control.State }, stateFile),
	},
	{
		Key: "sampling.forced.header", Flag: "forced-header", Default: "off",
		Usage:   "header of a request that forces its span",
		binding: one(func(c *Config) *string { return &c.Sampling.Forced.Header }, oneOf("off", forceHeader)),
	},
	{
		Key: keyForcedFrom, Flag: "forced-from", Default: "",
		Usage:   "sources whose header forces spans; an empty list is nobody",
		binding: several(func(c *Config) *[]netip.Prefix { return &c.Sampling.Forced.From }, prefix, nil),
	},
	{
		Key: "sampling.forced.budget", Flag: "forced-budget", Default: "10",
		Usage:   "most spans per second that are forced, by a header and by ambit trace; 0: no limit",
		binding: one(func(c *Config) *float64 { return &c.Sampling.Forced.Budget }, numberIn(0, maxSpans)),
	},
	{
		Key: "admin.address", Flag: "admin", Default: "127.0.0.1:9473",
		Usage:   "TCP address of /metrics, /healthz and /readyz",
		binding: one(func(c *Config) *string { return &c.Admin.Address }, listenAddress),
	},
	{
		Key: keySocket, Flag: "socket", Default: "/run/ambit/ambit.sock",
		Usage:   "unix socket of the local API, root only",
		binding: one(func(c *Config) *string { return &c.Admin.Socket }, socketPath),
	},
	{
		Key: "namespaces", Flag: "namespaces", Default: "all",
		Usage:   "network namespaces that are tapped",
		binding: several(func(c *Config) *[]string { return &c.Namespaces }, namespace, checkNamespaces),
	},
	{
		Key: "exclude.namespaces", Flag: "exclude-namespaces", Default: "",
		Usage:   "network namespaces that are left alone",
		binding: several(func(c *Config) *[]string { return &c.Exclude.Namespaces }, excludedNamespace, nil),
	},
	{
		Key: "exclude.ports", Flag: "exclude-ports", Default: "",
		Usage:   "connections that are left alone, by the port of either end",
		binding: several(func(c *Config) *[]uint16 { return &c.Exclude.Ports }, port, nil),
	},
	{
		Key: "exclude.cgroups", Flag: "exclude-cgroups", Default: "",
		Usage:   "cgroups whose sockets are left alone, with all below them",
		binding: several(func(c *Config) *[]string { return &c.Exclude.Cgroups }, cgroupPath, nil),
	},
	{
		Key: "capture.query", Flag: "capture-query", Default: "keys",
		Usage:   "what is kept of a query string: whole, its keys with values redacted, or nothing",
		binding: one(func(c *Config) *string { return &c.Capture.Query }, oneOf("values", "keys", "none")),
	},
	{
		Key: "capture.grpc_message", Flag: "capture-grpc-message", Default: "true",
		Usage:   "send the grpc-message of a failed call, as the description of the span's status",
		binding: one(func(c *Config) *bool { return &c.Capture.GRPCMessage }, trueOrFalse),
	},
	{
		Key: "capture.content_type", Flag: "capture-content-type", Default: "false",
		Usage:   "send the content types of HTTP/2 requests and responses",
		binding: one(func(c *Config) *bool { return &c.Capture.ContentType }, trueOrFalse),
	},
	{
		Key: "capture.guessed_route", Flag: "capture-guessed-route", Default: "false",
		Usage:   "send a guessed template of a path as http.route and in span names, which are for those that rules give",
		binding: one(func(c *Config) *bool { return &c.Capture.GuessedRoute }, trueOrFalse),
	},
	{
		Key: "idle_limit", Flag: "idle-limit", Default: "60s",
		Usage:   "longest that an exchange waits for its next byte before it is given up",
		binding: one(func(c *Config) *time.Duration { return &c.IdleLimit }, durationIn(time.Second, time.Hour)),
	},
	{
		Key: "peers", Flag: "peers", Default: "",
		Usage:   "addresses of nodes that run ambit with the same id_key",
		binding: several(func(c *Config) *[]netip.Prefix { return &c.Peers }, prefix, nil),
	},
	{
		Key: "trust_context", Flag: "trust-context", Default: "0.0.0.0/0,::/0",
		Usage:   "sources whose tracing headers are believed; an empty list believes nobody",
		binding: several(func(c *Config) *[]netip.Prefix { return &c.TrustContext }, prefix, nil),
	},
	{
		Key: "id_key", Flag: "id-key", Default: publishedKey, Secret: true,
		Usage:   "key of the hashes that IDs are derived from, the same on every node; the default is public",
		binding: one(func(c *Config) *IDKey { return &c.IDKey }, hexKey),
	},
	{
		Key: "max_connections", Flag: "max-connections", Default: "65536",
		Usage:   "connections that are followed at once; more are not traced, and counted",
		Memory:  "kernel memory for connections grows with those that are open, up to this many",
		binding: one(func(c *Config) *int { return &c.MaxConnections }, countIn(64, 1<<20)),
	},
	{
		Key: "max_http2_connections", Flag: "max-http2-connections", Default: "4096",
		Usage:   "of those, connections that speak HTTP/2; more are not traced, and counted",
		Memory:  "kernel memory of about 15 KiB for each that is open, up to this many",
		binding: one(func(c *Config) *int { return &c.MaxHTTP2Connections }, countIn(16, 1<<18)),
	},
	{
		Key: "ring_size", Flag: "ring-size", Default: "4MiB",
		Usage:   "ring buffer between kernel and userspace; full, records are dropped and counted",
		Memory:  "kernel memory, taken at start, exactly this much",
		binding: one(func(c *Config) *int64 { return &c.RingSize }, powerOfTwoIn(64*kib, 256*mib)),
	},
	{
		Key: "export.queue_bytes", Flag: "export-queue-bytes", Default: "4MiB",
		Usage:   "most that waits for the collector, encoded; full, spans are dropped and counted",
		Memory:  "process memory, at most this much",
		binding: one(func(c *Config) *int64 { return &c.Export.QueueBytes }, sizeIn(mib, gib)),
	},
	{
		Key: "export.batch_spans", Flag: "export-batch-spans", Default: "2048",
		Usage:   "most spans of one request to the collector",
		binding: one(func(c *Config) *int { return &c.Export.BatchSpans }, countIn(1, 8192)),
	},
	{
		Key: "export.batch_wait", Flag: "export-batch-wait", Default: "1s",
		Usage: "longest that a span waits for its batch to fill",
		binding: one(func(c *Config) *time.Duration { return &c.Export.BatchWait },
			durationIn(10*time.Millisecond, time.Minute)),
	},
	{
		Key: "export.retry_for", Flag: "export-retry-for", Default: "5m",
		Usage: "longest that a batch is tried again before it is dropped and counted",
		binding: one(func(c *Config) *time.Duration { return &c.Export.RetryFor },
			durationIn(time.Second, time.Hour)),
	},
	{
		Key: "export.flush_timeout", Flag: "export-flush-timeout", Default: "4s",
		Usage: "longest that stopping waits for the collector to take what is queued",
		binding: one(func(c *Config) *time.Duration { return &c.Export.FlushTimeout },
			durationIn(100*time.Millisecond, time.Minute)),
	},
	{
		Key: "handover.pins", Flag: "handover-pins", Default: "",
		Usage:   "directory of a BPF file system in which maps and links are pinned for the next daemon, as in Kubernetes; systemd keeps them without it",
		binding: one(func(c *Config) *string { return &c.Handover.Pins }, pinDirectory),
	},
	{
		Key: "store.max_traces", Flag: "store-max-traces", Default: "1000",
		Usage:   "traces that are kept in memory where no endpoint is set",
		binding: one(func(c *Config) *int { return &c.Store.MaxTraces }, countIn(1, 1_000_000)),
	},
	{
		Key: "store.max_bytes", Flag: "store-max-bytes", Default: "4MiB",
		Usage:   "memory that they may take; the trace that got no span for longest goes first",
		Memory:  "process memory, at most this much",
		binding: one(func(c *Config) *int64 { return &c.Store.MaxBytes }, sizeIn(64*kib, gib)),
	},
	{
		Key: "metrics.routes", Flag: "metrics-routes", Default: "all",
		Usage:   "templates that are labels of /metrics: guessed ones too, only those that rules give, or none",
		binding: one(func(c *Config) *string { return &c.Metrics.Routes }, oneOf("all", "rules", "none")),
	},
	{
		Key: "metrics.otlp", Flag: "metrics-otlp", Default: "true",
		Usage:   "send metrics of every request to the OTLP collector, where an endpoint is set",
		binding: one(func(c *Config) *bool { return &c.Metrics.OTLP }, trueOrFalse),
	},
	{
		Key: "log.level", Flag: "log-level", Default: "info",
		Usage:   "least severe messages that are logged",
		binding: one(logLevel, level),
	},
	{
		Key: "log.format", Flag: "log-format", Default: "auto",
		Usage:   "form of the log, on standard error; auto: text, or entries with fields where that is systemd's journal",
		binding: one(func(c *Config) *string { return &c.Log.Format }, oneOf("auto", "text", "json")),
	},
	{
		Key: "live", Flag: "live", Default: "auto",
		Usage:   "show spans on standard output as they come; auto: on a terminal where no endpoint is set",
		binding: one(func(c *Config) *string { return &c.Live }, oneOf("on", "off", "auto")),
	},
}
