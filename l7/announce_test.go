package l7

import (
	"testing"

	"ambit/bpf"
)

func TestAnnouncements(t *testing.T) {
	put := func(rec *bpf.Record, f int, text string) {
		rec.Fields[f].Off, rec.Fields[f].Len = rec.Used, uint16(len(text))
		copy(rec.Text[rec.Used:], text)
		rec.Used += uint16(len(text))
	}
	var h1 bpf.Record
	h1.Protocol, h1.TemplateRule, h1.Generation = bpf.ProtocolHTTP1, 4, 9
	put(&h1, bpf.FieldRequestLine, "GET /a/1?b HTTP/1.1")
	put(&h1, bpf.FieldHost, "shop:81")
	var out [bpf.Sides]Announcement
	if n := Announcements(&h1, &out); n != 0 {
		t.Errorf("%d routes of a record that announces none", n)
	}
	h1.Decision[bpf.SideAcceptor].Flags, h1.Decision[bpf.SideAcceptor].Route = bpf.DecisionAnnounce, 7
	h1.Decision[bpf.SideAcceptor].Rule = 3
	want := Announcement{Key: 7, Kind: Server, Method: "GET", Path: "/a/1?b", Host: "shop:81", Rule: 4, Generation: 9, Decided: 3}
	if n := Announcements(&h1, &out); n != 1 || out[0] != want {
		t.Errorf("%d: %+v", n, out[0])
	}

	var h2 bpf.Record
	h2.Protocol, h2.TemplateRule, h2.Flags = bpf.ProtocolHTTP2, bpf.NoRule, bpf.FlagGRPC
	put(&h2, bpf.FieldMethod, "POST")
	put(&h2, bpf.FieldPath, "/shop.v1.Stock/Get")
	for side := range h2.Decision {
		h2.Decision[side].Flags, h2.Decision[side].Route = bpf.DecisionAnnounce, uint64(side+1)
	}
	h2.Ends.Remote[bpf.SideOpener].Port = 80
	if n := Announcements(&h2, &out); n != 2 || out[0].Kind != Client || out[0].Remote.Port() != 80 || out[1].Key != 2 ||
		!out[1].GRPC || out[1].Method != "POST" || out[1].Path != "/shop.v1.Stock/Get" || out[1].Rule != bpf.NoRule || out[1].Host != "" {
		t.Errorf("%d: %+v", n, out)
	}
	// A slice that is not within the used part of the text is none.
	h2.Used = 5
	if Announcements(&h2, &out); out[0].Path != "" {
		t.Errorf("path %q", out[0].Path)
	}

	var connect bpf.Record
	connect.Protocol = bpf.ProtocolHTTP1
	put(&connect, bpf.FieldRequestLine, "CONNECT http://x/1 HTTP/1.1")
	connect.Decision[0].Flags = bpf.DecisionAnnounce
	if Announcements(&connect, &out); out[0].Method != "CONNECT" || out[0].Path != "" {
		t.Errorf("%+v", out[0])
	}
}
