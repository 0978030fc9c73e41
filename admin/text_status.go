package admin

import (
	"fmt"
	"io"
	"strconv"
)

// WriteStatus prints s for people. Counters that are zero and need no attention are left out.
func WriteStatus(w io.Writer, s Status) error {
	var p page
	p.heading("ambit "+Printable(s.Version), fmt.Sprintf("%s  up %s  pid %d  kernel %s  abi %d",
		s.State, uptime(s.UptimeSeconds), s.PID, s.Kernel, s.ABI))
	p.exchanges(s.Exchanges)
	p.rules(s.Rules)
	p.exporter(s.Exporter)
	p.attachments(s)
	p.untapped(s)
	p.programs(s)
	p.memory(s.Memory)
	p.handover(s.Handover)
	if rows := counts(s.Events); rows != nil {
		p.heading("EVENTS", "")
		p.table(rows, 1)
	}
	return p.writeTo(w)
}

func (p *page) exchanges(e Exchanges) {
	p.heading("EXCHANGES", "one request and response, as one socket saw it")
	rows := [][]string{
		{"seen", number(e.Seen)},
		{"unsampled", number(e.Unsampled)},
		{"submitted", number(e.Submitted)},
		{"exported", number(e.Exported)},
		{"in flight", number(e.InFlight)},
		{"queued", number(e.Queued)},
		{"dropped", number(e.DroppedTotal())},
	}
	for _, row := range counts(e.Dropped) {
		rows = append(rows, []string{"  " + row[0], row[1]})
	}
	p.table(rows, 1)
}

// handover says nothing where there was and will be none.
func (p *page) handover(h Handover) {
	if h == (Handover{}) {
		return
	}
	p.heading("HANDOVER", "")
	rows := [][]string{{"kept for the next daemon", fmt.Sprintf("%d maps and links", h.Kept)}}
	if h.Trouble != "" {
		rows = append(rows, []string{"not everything", h.Trouble})
	}
	switch {
	case h.TakenOver:
		rows = append(rows, []string{"from an earlier one", "taken over"})
	case h.Refused != "":
		rows = append(rows, []string{"from an earlier one", "not taken over: " + h.Refused})
	}
	if h.GapSeconds > 0 {
		rows = append(rows, []string{"nothing was traced", fmt.Sprintf("for %.1f s before", h.GapSeconds)})
	}
	p.table(rows)
}

func (p *page) exporter(e Exporter) {
	where := e.Kind
	if e.Endpoint != "" {
		where += " to " + e.Endpoint
	}
	p.heading("EXPORTER", where)
	rows := [][]string{
		{"state", string(e.State)},
		{"exported", number(e.Exported) + " spans"},
		{"queued", fmt.Sprintf("%s spans, %s", number(e.Queued), size(e.QueuedBytes))},
		{"dropped", number(total(e.Dropped)) + " spans"},
	}
	for _, row := range counts(e.Dropped) {
		rows = append(rows, []string{"  " + row[0], row[1] + " spans"})
	}
	if e.LastError != "" {
		rows = append(rows, []string{"last error", moment(e.LastErrorTime) + "  " + e.LastError})
	}
	p.table(rows)
}

func (p *page) attachments(s Status) {
	if len(s.Attachments) == 0 {
		note := "nothing"
		if s.State == Paused {
			note = `nothing: paused, "ambit resume" attaches again`
		}
		p.heading("ATTACHED", note)
		return
	}
	p.heading("ATTACHED", fmt.Sprintf("%d programs", len(s.Attachments)))
	rows := [][]string{{"NAMESPACE", "COOKIE", "INODE", "INTERFACE", "INDEX", "HOOK", "METHOD", "PROGRAM"}}
	for _, a := range s.Attachments {
		rows = append(rows, []string{dash(a.Namespace), ordinal(a.NetNSCookie), ordinal(a.Inode), dash(a.Interface),
			ordinal(uint64(a.Ifindex)), a.Hook, a.Method, a.Program})
	}
	p.table(rows, 1, 2, 4)
}

// untapped says what is missing from what was selected.
func (p *page) untapped(s Status) {
	if len(s.Untapped)+len(s.Unmatched) == 0 {
		return
	}
	p.heading("NOT TAPPED", "selected, and waited for")
	rows := [][]string{{"NAMESPACE", "INTERFACE", "REASON"}}
	for _, u := range s.Untapped {
		rows = append(rows, []string{dash(u.Namespace), dash(u.Interface), u.Reason})
	}
	for _, u := range s.Unmatched {
		rows = append(rows, []string{u.Selector, "-", u.Reason})
	}
	p.table(rows)
}

func (p *page) programs(s Status) {
	if !s.RunStats {
		p.heading("PROGRAMS", `run times are not kept; "sysctl kernel.bpf_stats_enabled=1" keeps them, at a small cost`)
		return
	}
	p.heading("PROGRAMS", "")
	rows := [][]string{{"PROGRAM", "RUNS", "TIME", "AVERAGE"}}
	for _, r := range s.Programs {
		rows = append(rows, []string{r.Name, number(r.RunCount), span(int64(r.RunTimeNS)), span(int64(r.AverageNS))})
	}
	p.table(rows, 1, 2, 3)
}

func (p *page) memory(m Memory) {
	p.heading("MEMORY", "")
	rows := [][]string{
		{"all", size(m.Total)},
		// The process has pages of maps in its memory, which are among the maps.
		{"process, resident", size(m.ProcessRSS - min(m.ProcessMaps, m.ProcessRSS))},
		{"  of it, Go heap", size(m.ProcessHeap)},
		{"sockets", size(m.SocketStorage)},
		{"maps", size(m.MapsBytes)},
	}
	for _, one := range m.Maps {
		rows = append(rows, []string{"  " + one.Name, size(one.Bytes)})
	}
	p.table(rows, 1)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ordinal is a number that is a name: ungrouped, and absent where it is zero.
func ordinal(n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}
