package bpf

import (
	"fmt"
	"iter"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Exchanges counts exchange sides: each request and its response as one application socket saw them.
// Seen = Unsampled + Submitted + the sum of Dropped + those in flight.
type Exchanges struct {
	Seen      uint64
	Unsampled uint64
	Submitted uint64
	// Dropped has every reason, also those that never occurred.
	Dropped map[string]uint64
}

// InFlight is the number of exchange sides that have begun and not ended.
func (e *Exchanges) InFlight() uint64 {
	ended := e.Unsampled + e.Submitted
	for _, n := range e.Dropped {
		ended += n
	}
	// The counters are read one after the other while traffic goes on.
	if ended > e.Seen {
		return 0
	}
	return e.Seen - ended
}

// Counters is what the kernel side counted since it was loaded.
type Counters struct {
	Exchanges Exchanges
	// Events counts what is no exchange side: connections, responses, segments; definitions: docs/operations.md.
	Events map[string]uint64
}

var dropNames = map[ambitStat]string{
	ambitStatSTAT_DROP_RING_FULL:     "ring_full",
	ambitStatSTAT_DROP_GAP:           "gap",
	ambitStatSTAT_DROP_MALFORMED:     "malformed",
	ambitStatSTAT_DROP_PIPELINE:      "pipeline",
	ambitStatSTAT_DROP_HEAD_TOO_LONG: "head_too_long",
	ambitStatSTAT_DROP_LIMIT:         "limit",
	ambitStatSTAT_DROP_STREAMS:       "streams",
	ambitStatSTAT_DROP_PAUSED:        "paused",
}

var eventNames = map[ambitStat]string{
	ambitStatSTAT_FLOWS:           "connections",
	ambitStatSTAT_FLOWS_FULL:      "connections_table_full",
	ambitStatSTAT_FLOWS_ENDED:     "connections_ended",
	ambitStatSTAT_NOT_HTTP:        "connections_not_http",
	ambitStatSTAT_ORPHAN_RESPONSE: "responses_without_request",
	ambitStatSTAT_DESYNC:          "desynchronised",
	ambitStatSTAT_RESYNC:          "resynchronised",
	ambitStatSTAT_CONTENDED:       "segments_contended",
	ambitStatSTAT_CARRY_FULL:      "split_lines_table_full",
	ambitStatSTAT_FIELD_CUT:       "values_cut",
	ambitStatSTAT_SERVICES_FULL:   "services_table_full",
	ambitStatSTAT_STORAGE_NOMEM:   "socket_storage_refused",
	ambitStatSTAT_NO_SOCKET:       "segments_without_socket",
	ambitStatSTAT_UPGRADED:        "connections_upgraded",
	ambitStatSTAT_SYN_DATA:        "connections_fast_open",
	ambitStatSTAT_HTTP2:           "connections_http2",
	ambitStatSTAT_HTTP2FULL:       "http2_table_full",
	ambitStatSTAT_HTTP2BROKEN:     "http2_broken",
	ambitStatSTAT_HPACK_UNKNOWN:   "hpack_unknown_fields",
	ambitStatSTAT_HPACK_LIMIT:     "hpack_blocks_given_up",
	ambitStatSTAT_RULES_OUTDATED:  "sides_rules_outdated",
	ambitStatSTAT_RING_PRESSED:    "sides_ring_pressed",
	ambitStatSTAT_RUSHED:          "sides_rushed",
	ambitStatSTAT_ROUTES_FULL:     "sides_routes_full",
	ambitStatSTAT_COUNTERS_FULL:   "sides_counters_full",
	ambitStatSTAT_UNCOUNTED:       "sides_uncounted",
}

// Counters reads the kernel's counters. What an exchange ends as is read before Seen, so that ended sides
// are never more than those seen.
func (k *Kernel) Counters() (Counters, error) {
	c := Counters{Exchanges: Exchanges{Dropped: make(map[string]uint64)}, Events: make(map[string]uint64)}
	cpus := make([]uint64, ebpf.MustPossibleCPU())
	for s := ambitStatSTATS; s > 0; s-- {
		stat := s - 1
		if err := k.objs.Stats.Lookup(uint32(stat), &cpus); err != nil {
			return c, fmt.Errorf("read counter %d: %w", stat, err)
		}
		var sum uint64
		for _, n := range cpus {
			sum += n
		}
		switch {
		case stat == ambitStatSTAT_SEEN:
			c.Exchanges.Seen = sum
		case stat == ambitStatSTAT_UNSAMPLED:
			c.Exchanges.Unsampled = sum
		case stat == ambitStatSTAT_SUBMITTED:
			c.Exchanges.Submitted = sum
		case dropNames[stat] != "":
			c.Exchanges.Dropped[dropNames[stat]] = sum
		default:
			c.Events[eventNames[stat]] = sum
		}
	}
	return c, nil
}

// MapInfo is one map and the memory it holds.
type MapInfo struct {
	Name  string
	Bytes uint64 // as the kernel accounts for it; grows with use where a map is not preallocated
}

// ProgramInfo is one program and what it has run.
type ProgramInfo struct {
	Name     string
	Runs     uint64
	NS       uint64 // total; both are 0 unless the kernel keeps run time statistics
	Verified uint32 // instructions that the verifier looked at
}

// ABIVersion is the version of the structs in abi.h.
const ABIVersion = int(ambitAbiABI_VERSION)

// storageOverhead is what the kernel adds to a socket's storage: its own bookkeeping, rounded up.
const storageOverhead = 120

// SocketStorageBytes bounds from above what is kept at sockets. The kernel does not account for it, so it is
// reckoned from the number of TCP sockets that are allocated in all namespaces.
func (k *Kernel) SocketStorageBytes() (uint64, error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, fmt.Errorf("count the TCP sockets: %w", err)
	}
	var n uint64
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(fields); i += 2 {
			if fields[i] == "alloc" {
				if n, err = strconv.ParseUint(fields[i+1], 10, 64); err != nil {
					return 0, fmt.Errorf("count the TCP sockets: %w", err)
				}
			}
		}
	}
	return n * (uint64(unsafe.Sizeof(ambitSockInfo{})) + storageOverhead), nil
}

// all gives every map by its name.
func (k *Kernel) all() iter.Seq2[string, *ebpf.Map] {
	m := &k.objs.ambitMaps
	return func(yield func(string, *ebpf.Map) bool) {
		for _, e := range []struct {
			name string
			m    *ebpf.Map
		}{
			{"flows", m.Flows}, {"waiting", m.Waiting}, {"carries", m.Carries}, {"windows", m.Windows},
			{"http2s", m.Http2s}, {"fragments", m.Fragments}, {"pieces", m.Pieces},
			{"tap_parts", m.TapParts}, {"ignored", m.Ignored}, {"sockets", m.Sockets}, {"openers", m.Openers},
			{"listeners", m.Listeners}, {"redirects", m.Redirects},
			{"tapped", m.Tapped}, {"cidrs", m.Cidrs}, {"excluded_cgroups", m.ExcludedCgroups},
			{"excluded_ports", m.ExcludedPorts}, {"rates", m.Rates}, {"rule_sets", m.RuleSets}, {"actions", m.Actions},
			{"subjects", m.Subjects}, {"routes", m.Routes}, {"route_counts", m.RouteCounts}, {"counters", m.Counters},
			{"series_begun", m.SeriesBegun}, {"series_rounds", m.SeriesRounds}, {"budgets", m.Budgets},
			{"stats", m.Stats}, {"services", m.Services}, {"service_count", m.ServiceCount}, {"records", m.Records}, {"taps", m.Taps},
			{heritageName, m.Heritage},
		} {
			if !yield(e.name, e.m) {
				return
			}
		}
	}
}

// Maps lists all maps.
func (k *Kernel) Maps() ([]MapInfo, error) {
	var out []MapInfo
	for name, m := range k.all() {
		info, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("ask for map %s: %w", name, err)
		}
		bytes, _ := info.Memlock()
		if m == k.objs.RuleSets {
			bytes += k.rulesBytes()
		}
		out = append(out, MapInfo{Name: name, Bytes: bytes})
	}
	return out, nil
}

// ProgramOf tells what one program has run.
func ProgramOf(p *ebpf.Program) (ProgramInfo, error) {
	info, err := p.Info()
	if err != nil {
		return ProgramInfo{}, fmt.Errorf("ask for program %s: %w", p, err)
	}
	out := ProgramInfo{Name: info.Name}
	if n, ok := info.VerifiedInstructions(); ok {
		out.Verified = n
	}
	stats, err := p.Stats()
	if err != nil {
		return out, fmt.Errorf("ask for the run time of %s: %w", info.Name, err)
	}
	out.Runs, out.NS = stats.RunCount, uint64(stats.Runtime)
	return out, nil
}

// Programs lists the loaded programs. The tap runs as part of the stubs, which have its run time.
func (k *Kernel) Programs() ([]ProgramInfo, error) {
	var out []ProgramInfo
	for _, p := range []*ebpf.Program{
		k.objs.Tap, k.objs.TapUnknown, k.objs.TapHttp2, k.objs.SockCreate, k.objs.Bound4, k.objs.Bound6, k.objs.Established,
		k.objs.Sweep, k.objs.Abandon, k.objs.Inventory, k.objs.WhoAmI,
	} {
		info, err := ProgramOf(p)
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}
