package record

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Columns are those of a row's text form, as testdata/ambient/README.md describes them.
const Columns = "pod\thook\tinterface\tevent\tsource\tdestination\tpayload\tskb_mark\tskb_sk\tsk_mark\tsk_local\tsk_remote\tsk_family\tfirst_bytes"

// hbonePort is what makes a packet's bytes "(TLS)".
const hbonePort = 15008

var (
	eventNames = map[recordEvent]string{
		recordEventEVENT_SYN:     "SYN",
		recordEventEVENT_SYN_ACK: "SYN-ACK",
		recordEventEVENT_DATA:    "data",
		recordEventEVENT_ACTIVE:  "ACTIVE_ESTABLISHED",
		recordEventEVENT_PASSIVE: "PASSIVE_ESTABLISHED",
	}
	socketNames = map[recordSocketKind]string{
		recordSocketKindSOCKET_NONE:    "none",
		recordSocketKindSOCKET_REQUEST: "request",
		recordSocketKindSOCKET_OTHER:   "other",
		recordSocketKindSOCKET_FULL:    "full",
	}
)

// Row is one sighting. A sockops row has no packet, and one whose socket is not full has no socket's columns.
type Row struct {
	Pod    string
	Hook   string // egress, ingress or sockops
	Device string // "" in a sockops row
	Event  string // SYN, SYN-ACK, data, ACTIVE_ESTABLISHED, PASSIVE_ESTABLISHED

	Source, Destination netip.AddrPort // the packet's
	Payload             int            // bytes
	SkbMark             uint32
	First               string // up to 16 bytes of the payload, what does not print as "."

	Socket        string // none, request, other, full
	SkMark        uint32
	Local, Remote netip.AddrPort // v4-mapped addresses are shown as IPv4
	Family        uint32
}

// TLS tells whether the packet belongs to an HBONE connection.
func (r Row) TLS() bool { return r.Source.Port() == hbonePort || r.Destination.Port() == hbonePort }

// String is the row's line in a recording.
func (r Row) String() string {
	fields := []string{r.Pod, r.Hook, r.Device, r.Event, "-", "-", "-", "-", r.Socket, "-", "-", "-", "-", "-"}
	if r.Hook == "sockops" {
		fields[2] = "-"
	} else {
		fields[4], fields[5] = r.Source.String(), r.Destination.String()
		fields[6], fields[7] = strconv.Itoa(r.Payload), fmt.Sprintf("%#x", r.SkbMark)
		fields[13] = r.First
		if r.TLS() && r.Event == "data" {
			fields[13] = "(TLS)"
		}
	}
	if r.Socket == "full" {
		fields[9], fields[10], fields[11] = fmt.Sprintf("%#x", r.SkMark), r.Local.String(), r.Remote.String()
		fields[12] = strconv.Itoa(int(r.Family))
	}
	return strings.Join(fields, "\t")
}

// Parse reads a recording.
func Parse(from io.Reader) ([]Row, error) {
	lines := bufio.NewScanner(from)
	if !lines.Scan() || lines.Text() != Columns {
		return nil, fmt.Errorf("read a recording: its first line is not %q", Columns)
	}
	var rows []Row
	for number := 2; lines.Scan(); number++ {
		row, err := parseRow(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("read a recording: line %d: %w", number, err)
		}
		rows = append(rows, row)
	}
	return rows, lines.Err()
}

func parseRow(line string) (Row, error) {
	fields := strings.Split(line, "\t")
	if len(fields) != strings.Count(Columns, "\t")+1 {
		return Row{}, fmt.Errorf("it has %d columns", len(fields))
	}
	row := Row{Pod: fields[0], Hook: fields[1], Event: fields[3], Socket: fields[8]}
	var failed error
	address := func(text string) netip.AddrPort {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			failed = err
		}
		return a
	}
	number := func(text string) int {
		n, err := strconv.ParseUint(text, 0, 32)
		if err != nil {
			failed = err
		}
		return int(n)
	}
	if row.Hook != "sockops" {
		row.Device = fields[2]
		row.Source, row.Destination = address(fields[4]), address(fields[5])
		row.Payload, row.SkbMark = number(fields[6]), uint32(number(fields[7]))
		if fields[13] != "(TLS)" {
			row.First = fields[13]
		}
	}
	if row.Socket == "full" {
		row.SkMark, row.Local, row.Remote = uint32(number(fields[9])), address(fields[10]), address(fields[11])
		row.Family = uint32(number(fields[12]))
	}
	if row.String() != line {
		return Row{}, fmt.Errorf("it is written differently: %q: %w", row, failed)
	}
	return row, failed
}

func printable(p []byte) string {
	text := make([]byte, len(p))
	for i, c := range p {
		if text[i] = c; c < ' ' || c > '~' {
			text[i] = '.'
		}
	}
	return string(text)
}
