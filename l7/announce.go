package l7

import (
	"net/netip"
	"strings"

	"ambit/bpf"
)

// Announcement is what a record tells of a new route of its side: from what its name is made.
type Announcement struct {
	Key    uint64
	Kind   Kind
	Method string // as it was sent; "" is unknown
	Path   string // the target as it was sent; "" is unknown
	GRPC   bool
	Host   string         // Host or :authority as it was sent
	Remote netip.AddrPort // the side's peer; of a client the original destination
	// The rule that names the route, by its place among the rules of Generation; bpf.NoRule where none does.
	Rule       uint16
	Generation uint32
	// Decided is the place, among the same rules, of the one that decided the exchange, whether it was kept or not.
	Decided uint16
}

// Announcements fills out with the routes that the record announces, and returns their number.
func Announcements(rec *bpf.Record, out *[bpf.Sides]Announcement) int {
	n := 0
	for side := range bpf.Sides {
		d := &rec.Decision[side]
		if d.Flags&bpf.DecisionAnnounce == 0 {
			continue
		}
		a := Announcement{
			Key: d.Route, Kind: Kind(side), GRPC: rec.Flags&bpf.FlagGRPC != 0, Host: field(rec, bpf.FieldHost),
			Remote: rec.Ends.Remote[side].AddrPort(), Rule: rec.TemplateRule, Generation: rec.Generation,
			Decided: d.Rule,
		}
		if rec.Protocol == bpf.ProtocolHTTP2 {
			a.Method, a.Path = field(rec, bpf.FieldMethod), field(rec, bpf.FieldPath)
		} else {
			var rest string
			a.Method, rest, _ = strings.Cut(field(rec, bpf.FieldRequestLine), " ")
			a.Path, _, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
		}
		if a.Method == "CONNECT" {
			a.Path = "" // an authority, whatever it looks like
		}
		out[n] = a
		n++
	}
	return n
}

// field is the text of one field as it came.
func field(rec *bpf.Record, f int) string {
	from := int(rec.Fields[f].Off)
	to := from + int(rec.Fields[f].Len)
	if to > min(int(rec.Used), len(rec.Text)) {
		return ""
	}
	return string(rec.Text[from:to])
}
