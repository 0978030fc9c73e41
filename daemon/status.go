package daemon

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/exporter"

	"golang.org/x/sys/unix"
)

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Status tells everything that ambit knows of itself. docs/operations.md defines the numbers.
func (d *Daemon) Status(context.Context) (admin.Status, error) {
	s := admin.Status{
		Version: Version, PID: os.Getpid(), Started: d.started, UptimeSeconds: time.Since(d.started).Seconds(),
		State: d.State(), ABI: bpf.ABIVersion, Kernel: d.release, RunStats: runStats(),
	}
	if d.ready() != nil {
		// Whoever reads the JSON finds objects, though nothing is in them yet.
		s.Exchanges.Dropped, s.Events = map[string]uint64{}, map[string]uint64{}
		return s, nil
	}
	s.Rules = d.rules.status()
	s.Attachments = d.attachments()
	s.Untapped, s.Unmatched = d.untapped()
	counters, err := d.kernel.Counters()
	if err != nil {
		return s, err
	}
	s.Exporter = d.exporterStatus()
	s.Exchanges = admin.Exchanges{
		Seen:      counters.Exchanges.Seen,
		Unsampled: counters.Exchanges.Unsampled,
		Submitted: counters.Exchanges.Submitted,
		InFlight:  counters.Exchanges.InFlight(),
		Exported:  d.legacy.exported + s.Exporter.Exported,
		Dropped:   counters.Exchanges.Dropped,
	}
	s.Exchanges.Dropped["earlier_daemon"] = d.legacy.lost
	lost := d.legacy.lost
	for reason, n := range s.Exporter.Dropped {
		s.Exchanges.Dropped["export_"+reason] = n
		lost += n
	}
	// What is between the kernel and the exporter counts as queued: the ring buffer is a queue too.
	if done := s.Exchanges.Exported + lost; s.Exchanges.Submitted > done {
		s.Exchanges.Queued = s.Exchanges.Submitted - done
	}
	s.Handover = d.handoverStatus()
	s.Events = counters.Events
	s.Events["values_repaired"] = d.pump.repaired.Load()
	s.Events["lines_not_shown"] = d.out.notShown()
	if s.Programs, err = d.programs(); err != nil {
		return s, err
	}
	s.Memory, err = d.memory()
	return s, err
}

func (d *Daemon) attachments() []admin.Attachment {
	var out []admin.Attachment
	for _, a := range d.taps.Attachments() {
		program := "ambit_" + a.Hook
		if a.Interface == "lo" {
			program = "ambit_lo"
		}
		out = append(out, admin.Attachment{
			Namespace: a.NetNS.Name, NetNSCookie: a.NetNS.Cookie, Inode: a.NetNS.Inode,
			Interface: a.Interface, Ifindex: a.Ifindex, Hook: a.Hook, Method: a.Method, Program: program,
		})
	}
	if d.hooks.listening.Load() {
		for _, p := range bpf.CgroupPrograms {
			out = append(out, admin.Attachment{Hook: p.Hook, Method: "link", Program: p.Name})
		}
	}
	return out
}

// untapped lists what is selected and not tapped, and the selectors that nothing meets.
func (d *Daemon) untapped() ([]admin.Untapped, []admin.Unmatched) {
	untapped, unmatched := []admin.Untapped{}, []admin.Unmatched{}
	for _, s := range d.taps.Skipped() {
		untapped = append(untapped, admin.Untapped{
			Namespace: s.NetNS.Name, NetNSCookie: s.NetNS.Cookie, Inode: s.NetNS.Inode, Interface: s.Interface,
			PID: s.PID, Reason: s.Err.Error(),
		})
	}
	for _, u := range d.taps.Unmatched() {
		unmatched = append(unmatched, admin.Unmatched{Selector: u.Selector, Reason: u.Reason})
	}
	return untapped, unmatched
}

func (d *Daemon) exporterStatus() admin.Exporter {
	e := admin.Exporter{Kind: "memory", State: admin.ExporterOK, Dropped: make(map[string]uint64)}
	if d.out.otlp == nil {
		s := d.out.store.Stats()
		e.Exported = s.Added
		return e
	}
	s := d.out.otlp.Stats()
	e.Kind, e.Endpoint = "otlp", s.Endpoint
	e.Queued, e.QueuedBytes = uint64(s.Queued), uint64(s.QueuedBytes)
	e.Exported = s.Exported
	// All of them, so that an alert on an increase sees the first one too.
	for reason, n := range s.Dropped {
		e.Dropped[exporter.DropReason(reason).String()] = n
	}
	if !s.FailingSince.IsZero() {
		e.State = admin.ExporterFailing
	}
	e.LastError, e.LastErrorTime = s.LastError, s.LastErrorAt
	return e
}

func (d *Daemon) programs() ([]admin.Program, error) {
	stubs, err := d.spaces.programs()
	if err != nil {
		return nil, err
	}
	all, err := d.kernel.Programs()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(stubs)) {
		all = append(all, stubs[name])
	}
	var out []admin.Program
	for _, p := range all {
		if p.Name == "tap" || p.Name == "tap_unknown" || p.Name == "tap_http2" {
			continue // runs as part of the stubs
		}
		a := admin.Program{Name: p.Name, RunCount: p.Runs, RunTimeNS: p.NS}
		if p.Runs > 0 {
			a.AverageNS = p.NS / p.Runs
		}
		out = append(out, a)
	}
	return out, nil
}

// runStats tells whether the kernel keeps the run times of programs.
func runStats() bool {
	b, err := os.ReadFile("/proc/sys/kernel/bpf_stats_enabled")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}
