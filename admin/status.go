// Package admin is the daemon's local API: an HTTP server on a TCP address for reads that may be public
// on the node, the same server with everything on a unix socket for root, and the client of the latter.
//
// It knows nothing of the daemon's insides: what it shows are the plain types here, which a Backend fills.
// docs/operations.md defines every number.
package admin

import "time"

// State is what the daemon is doing.
type State string

// The states of a daemon:
//
//	starting -> tracing <-> paused -> handed_over
const (
	Starting State = "starting" // programs are being loaded and attached
	Tracing  State = "tracing"
	Paused   State = "paused" // by the kill switch: nothing is attached
	// HandedOver to another daemon, which lives: this one waits for its end.
	HandedOver State = "handed_over"
)

// Status is the daemon at one moment. Counters count from the start of the daemon.
type Status struct {
	Version       string    `json:"version"`
	PID           int       `json:"pid"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	State         State     `json:"state"`
	ABI           int       `json:"abi"`    // version of the structs shared with the kernel side
	Kernel        string    `json:"kernel"` // release

	Attachments []Attachment `json:"attachments"`
	// Untapped is what is selected and cannot be tapped for now.
	Untapped []Untapped `json:"untapped"`
	// Unmatched are selectors of namespaces that nothing meets for now.
	Unmatched []Unmatched `json:"unmatched"`
	Exchanges Exchanges   `json:"exchanges"`
	Rules     RulesStatus `json:"rules"`
	// Events counts what is no exchange, by name.
	Events   map[string]uint64 `json:"events"`
	Programs []Program         `json:"programs"`
	// RunStats says whether the kernel keeps run times (sysctl kernel.bpf_stats_enabled), without which
	// those of Programs are zero.
	RunStats bool     `json:"run_stats"`
	Memory   Memory   `json:"memory"`
	Exporter Exporter `json:"exporter"`
	Handover Handover `json:"handover"`
}

// Handover is what this daemon took from an earlier one, and keeps for the next.
type Handover struct {
	Kept      int    `json:"kept"`       // maps and links; 0: a restart leaves a gap
	Trouble   string `json:"trouble"`    // why not everything is kept
	TakenOver bool   `json:"taken_over"` // from an earlier daemon
	Refused   string `json:"refused"`    // why what one left was not taken over
	// GapSeconds is for how long nothing was traced before this daemon, as far as that is known.
	GapSeconds float64 `json:"gap_seconds"`
}

// Attachment is one program at one hook.
type Attachment struct {
	Namespace   string `json:"namespace"` // name of the network namespace; empty for the whole machine
	NetNSCookie uint64 `json:"netns_cookie,omitempty"`
	Inode       uint64 `json:"inode,omitempty"`
	Interface   string `json:"interface,omitempty"`
	Ifindex     int    `json:"ifindex,omitempty"`
	Hook        string `json:"hook"`   // egress, ingress, sockops, cgroup or iter
	Method      string `json:"method"` // tcx, clsact or link
	Program     string `json:"program"`
}

// Untapped is a selected namespace, or an interface of a tapped one, that is not tapped.
type Untapped struct {
	Namespace   string `json:"namespace"`
	NetNSCookie uint64 `json:"netns_cookie,omitempty"`
	Inode       uint64 `json:"inode,omitempty"`
	Interface   string `json:"interface,omitempty"` // empty: the whole namespace
	PID         int    `json:"pid,omitempty"`       // of the daemon that taps it instead
	Reason      string `json:"reason"`
}

// Unmatched is a selector that no namespace meets.
type Unmatched struct {
	Selector string `json:"selector"` // a name, a path or "ambient"
	Reason   string `json:"reason"`
}

// Exchanges counts exchange sides: one request and its response as one application socket saw them. It
// adds up when nothing moves:
//
//	seen = unsampled + exported + dropped + in flight + queued
//
// and submitted is what the kernel handed to userspace: exported, queued, and dropped there.
type Exchanges struct {
	Seen      uint64            `json:"seen"`
	Unsampled uint64            `json:"unsampled"`
	Submitted uint64            `json:"submitted"`
	InFlight  uint64            `json:"in_flight"`
	Queued    uint64            `json:"queued"`
	Exported  uint64            `json:"exported"`
	Dropped   map[string]uint64 `json:"dropped"` // by reason
}

// DroppedTotal is the sum over all reasons.
func (e Exchanges) DroppedTotal() uint64 { return total(e.Dropped) }

// Program is one kernel program, all its attachments together.
type Program struct {
	Name      string `json:"name"`
	RunCount  uint64 `json:"run_count"`
	RunTimeNS uint64 `json:"run_time_ns"`
	AverageNS uint64 `json:"average_ns"` // of one run
}

// Memory is what ambit takes of the machine, in bytes.
type Memory struct {
	Maps          []MapMemory `json:"maps"`
	MapsBytes     uint64      `json:"maps_bytes"` // of all Maps
	SocketStorage uint64      `json:"socket_storage_bytes"`
	ProcessRSS    uint64      `json:"process_rss_bytes"`
	ProcessHeap   uint64      `json:"process_heap_bytes"` // part of ProcessRSS
	ProcessMaps   uint64      `json:"process_maps_bytes"` // part of ProcessRSS that is pages of Maps
	// Total is all of it: ProcessRSS without ProcessMaps, MapsBytes and SocketStorage.
	Total uint64 `json:"total_bytes"`
}

// MapMemory is the kernel memory of one map.
type MapMemory struct {
	Name  string `json:"name"`
	Bytes uint64 `json:"bytes"`
}

// ExporterState is how the exporter fares.
type ExporterState string

// The states of an exporter.
const (
	ExporterOK      ExporterState = "ok"      // the latest attempt succeeded, or there was none
	ExporterFailing ExporterState = "failing" // the collector is away or refuses
)

// Exporter is where spans go.
type Exporter struct {
	Kind        string            `json:"kind"` // otlp, or memory where no endpoint is set
	Endpoint    string            `json:"endpoint,omitempty"`
	State       ExporterState     `json:"state"`  // ok or failing
	Queued      uint64            `json:"queued"` // spans that wait or are on their way
	QueuedBytes uint64            `json:"queued_bytes"`
	Exported    uint64            `json:"exported"`
	Dropped     map[string]uint64 `json:"dropped"` // by reason
	// LastError is the latest failure, also when it is over; empty where there was none.
	LastError     string    `json:"last_error,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
}

func total(counts map[string]uint64) (n uint64) {
	for _, v := range counts {
		n += v
	}
	return n
}
