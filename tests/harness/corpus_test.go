package harness_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/tests/harness"
	"ambit/tests/harness/record"
)

// story is one request of the recording, told again through the stand-in.
type story struct {
	name string // of the file in testdata/ambient
	pod  string // whose request it is
	path string // of its URL
	to   netip.AddrPort
}

var stories = []story{
	{"vip", "a", "/vip", harness.VIP4},
	{"podip", "a", "/podip", netip.AddrPortFrom(harness.AddressB4, 8080)},
	{"plaintext", "w", "/plain", netip.AddrPortFrom(harness.AddressB4, 8080)},
	{"self", "b", "/self", netip.AddrPortFrom(harness.AddressB4, 8080)},
	{"selfvip", "b", "/selfvip", harness.VIP4},
	{"outside", "a", "/outside", netip.AddrPortFrom(harness.AddressW4, 9090)},
}

// overIPv6 says what takes the place of what in an IPv6 recording.
var overIPv6 = map[netip.Addr]netip.Addr{
	harness.AddressA4:                harness.AddressA6,
	harness.AddressB4:                harness.AddressB6,
	harness.AddressW4:                harness.AddressW6,
	harness.VIP4.Addr():              harness.VIP6.Addr(),
	netip.MustParseAddr("127.0.0.1"): netip.IPv6Loopback(),
}

// The stand-in must look to TC and sockops programs like the real ztunnel. Each request of the recording is made
// again and the rows compared: those of each connection in their order, and those with plain data in their order over
// all connections, per pod, hook and interface. When a connection begins, measured by another, is a matter of
// scheduling (whether ztunnel has dialled before the request's bytes are there). Before that, in both:
//
//   - A new port (one that the kernel chose) is replaced by the fixed ports and addresses it talks to, which tell
//     its part in the story. Two connections where one is expected, or one where two are, show.
//   - Of the packets of an HBONE connection with data only the first of each direction is kept, and not its size:
//     how many frames and records there are depends on the TLS library, on ciphers and on keep-alives.
//
// Addresses, marks, socket kinds, families, the size of plain segments and their first bytes have to be equal.
// The real one was recorded over IPv4. Over IPv6 the same is expected with IPv6's addresses and family; there the
// size of requests is left out, as curl writes the address into them.
func TestLooksLikeTheRecording(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			p := pair(t, harness.PairConfig{})
			start(t, p.B.Namespace, "8080")
			start(t, p.W.Namespace, "9090")
			recorder := recordPair(t, p)
			// The HBONE connection from a to b was open before the recording.
			curl(t, p.A.Namespace, url(story{path: "/", to: harness.VIP4}, v6))
			for _, s := range stories {
				t.Run(s.name, func(t *testing.T) {
					// What is left of the story before: acknowledged settings and closing connections.
					if _, err := recorder.Rows(100 * time.Millisecond); err != nil {
						t.Fatal(err)
					}
					from := map[string]*harness.Pod{"a": p.A, "b": p.B, "w": p.W}[s.pod]
					tell(t, from.Namespace, url(s, v6))
					got, err := recorder.Rows(100 * time.Millisecond)
					if err != nil {
						t.Fatal(err)
					}
					compare(t, recording(t, s.name, v6), got, v6)
				})
			}
		})
	}
}

// A recording with one thing changed must not pass for the real one.
func TestComparisonSeesDifferences(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func([]record.Row) []record.Row
	}{
		{"a mark of a socket", func(rows []record.Row) []record.Row { rows[1].SkMark = 0x539; return rows }},
		{"a mark of a packet", func(rows []record.Row) []record.Row { rows[4].SkbMark = 0x539; return rows }},
		{"a family", func(rows []record.Row) []record.Row { rows[2].Family = 2; return rows }},
		{"a socket kind", func(rows []record.Row) []record.Row { rows[3].Socket = "full"; return rows }},
		{"a size", func(rows []record.Row) []record.Row { rows[4].Payload++; return rows }},
		{"an order", func(rows []record.Row) []record.Row { rows[1], rows[3] = rows[3], rows[1]; return rows }},
		{"a missing row", func(rows []record.Row) []record.Row { return slices.Delete(rows, 4, 5) }},
		{"a doubled row", func(rows []record.Row) []record.Row { return slices.Insert(rows, 4, rows[4]) }},
		{"another port", func(rows []record.Row) []record.Row {
			rows[4].Source = netip.AddrPortFrom(rows[4].Source.Addr(), 33333)
			return rows
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := recording(t, "vip", false)
			if lines := difference(want, c.change(recording(t, "vip", false)), false); len(lines) == 0 {
				t.Error("no difference was found")
			}
		})
	}
}

func recordPair(t *testing.T, p *harness.Pair) *record.Recorder {
	t.Helper()
	recorder, err := record.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := recorder.Close(); err != nil {
			t.Errorf("close the recorder: %v", err)
		}
	})
	for _, pod := range []*harness.Pod{p.A, p.B} {
		if err := recorder.Watch(pod.ShortName, pod.Namespace, "lo", "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	if err := recorder.Watch("w", p.W.Namespace); err != nil { // connections alone, as in the recording
		t.Fatal(err)
	}
	return recorder
}

func url(s story, v6 bool) string {
	to := s.to
	if v6 {
		to = netip.AddrPortFrom(overIPv6[to.Addr()], to.Port())
	}
	return "http://" + to.String() + s.path
}

// tell makes the request with the very bytes of the recording, whatever curl's version.
func tell(t *testing.T, ns *harness.Namespace, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := ns.Run(ctx, "curl", "-sS", "--max-time", "5", "-A", "curl/7.88.1", url)
	if err != nil || out != body {
		t.Fatalf("curl %s: %q: %v", url, out, err)
	}
}

func recording(t *testing.T, name string, v6 bool) []record.Row {
	t.Helper()
	file, err := os.Open("testdata/ambient/" + name + ".tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := record.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if v6 {
		for i := range rows {
			for _, a := range endpoints(&rows[i]) {
				*a = netip.AddrPortFrom(overIPv6[a.Addr()], a.Port())
			}
			if rows[i].Socket == "full" {
				rows[i].Family = 10
			}
		}
	}
	return rows
}

// endpoints are the addresses that a row has.
func endpoints(r *record.Row) []*netip.AddrPort {
	var found []*netip.AddrPort
	for _, a := range []*netip.AddrPort{&r.Source, &r.Destination, &r.Local, &r.Remote} {
		if a.IsValid() {
			found = append(found, a)
		}
	}
	return found
}

func compare(t *testing.T, want, got []record.Row, v6 bool) {
	t.Helper()
	if lines := difference(want, got, v6); len(lines) > 0 {
		var raw strings.Builder
		for _, row := range got {
			fmt.Fprintln(&raw, row)
		}
		t.Errorf("the stand-in differs from the real one:\n%s\nall that was seen:\n%s\n%s",
			strings.Join(lines, "\n"), record.Columns, raw.String())
	}
}

// difference lists, for each place where they differ, the rows of both.
func difference(want, got []record.Row, v6 bool) []string {
	wanted, seen := normalise(want, v6), normalise(got, v6)
	places := make(map[string]struct{})
	for _, m := range []map[string][]string{wanted, seen} {
		for place := range m {
			places[place] = struct{}{}
		}
	}
	var lines []string
	for _, place := range slices.Sorted(maps.Keys(places)) {
		if slices.Equal(wanted[place], seen[place]) {
			continue
		}
		lines = append(lines, place+", recorded:")
		lines = append(lines, wanted[place]...)
		lines = append(lines, place+", seen:")
		lines = append(lines, seen[place]...)
	}
	return lines
}

// normalise returns the rows as text, with what may differ replaced, by pod, hook, interface and connection,
// and those with plain data by pod, hook and interface alone too.
func normalise(rows []record.Row, v6 bool) map[string][]string {
	parts := partsOf(rows)
	places := make(map[string][]string)
	for _, row := range rows {
		size := fmt.Sprint(row.Payload)
		if row.TLS() || v6 && strings.HasPrefix(row.First, "GET ") {
			size = "some"
		}
		line := fmt.Sprintf("  %s %s > %s, %s bytes, mark %#x, socket %s, mark %#x, %s < %s, family %d, %q",
			row.Event, name(row.Source, parts), name(row.Destination, parts), size, row.SkbMark,
			row.Socket, row.SkMark, name(row.Local, parts), name(row.Remote, parts), row.Family, row.First)
		place := strings.TrimSpace(row.Pod + " " + row.Hook + " " + row.Device)
		if row.Event == "data" && !row.TLS() {
			places[place] = append(places[place], line)
		}
		for _, a := range endpoints(&row) {
			if _, ok := parts[*a]; ok { // a connection is known by its new port
				place += ", connection of " + name(*a, parts)
				break
			}
		}
		if row.Event == "data" && row.TLS() {
			line, _, _ = strings.Cut(line, ", \"")
			if slices.Contains(places[place], line) {
				continue
			}
		}
		places[place] = append(places[place], line)
	}
	return places
}

// fixed are the ports that somebody listens on.
var fixed = []uint16{80, 8080, 9090, 15001, 15006, 15008}

// partsOf describes every new port by the fixed endpoints that share a row with it, in the packet or the socket.
func partsOf(rows []record.Row) map[netip.AddrPort]string {
	peers := make(map[netip.AddrPort][]string)
	add := func(a, b netip.AddrPort) {
		if a.IsValid() && b.IsValid() && !slices.Contains(fixed, a.Port()) && !slices.Contains(peers[a], b.String()) {
			peers[a] = append(peers[a], b.String())
		}
	}
	for _, row := range rows {
		add(row.Source, row.Destination)
		add(row.Destination, row.Source)
		add(row.Local, row.Remote)
		add(row.Remote, row.Local)
	}
	parts := make(map[netip.AddrPort]string, len(peers))
	for port, list := range peers {
		slices.Sort(list)
		parts[port] = strings.Join(list, "+")
	}
	return parts
}

func name(a netip.AddrPort, parts map[netip.AddrPort]string) string {
	if !a.IsValid() {
		return "-"
	}
	if part, ok := parts[a]; ok {
		return fmt.Sprintf("%v:(%s)", a.Addr(), part)
	}
	return a.String()
}
