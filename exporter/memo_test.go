package exporter

import (
	"fmt"
	"net/netip"
	"testing"

	"ambit/l7"
)

// TestEncodingDoesNotDependOnWhatWentBefore encodes spans that differ in one of the remembered values, in every order
// of two.
func TestEncodingDoesNotDependOnWhatWentBefore(t *testing.T) {
	spans := map[string]*l7.Span{"the example": exampleSpan()}
	for name := range textFields(new(l7.Span)) {
		for _, text := range []string{"", "a", "bb", "_OTHER", "a\xffb", "b\xffb", "user@[fd00::9]"} {
			s := exampleSpan()
			*textFields(s)[name] = text
			spans[fmt.Sprintf("%s %q", name, text)] = s
		}
	}
	for _, addr := range []netip.AddrPort{
		{}, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("[::ffff:10.0.0.2]:65535"), netip.MustParseAddrPort("[fd00::1]:80"),
	} {
		local, remote := exampleSpan(), exampleSpan()
		local.Local, remote.Remote = addr, addr
		spans[fmt.Sprint("local ", addr)], spans[fmt.Sprint("remote ", addr)] = local, remote
	}
	for name, s := range spans {
		server := *s
		server.Kind = l7.Server
		spans["server: "+name] = &server
	}
	for before, first := range spans {
		for name, s := range spans {
			used, fresh := encoder{}, encoder{}
			used.appendSpan(nil, first)
			repaired := used.repaired
			got, want := used.appendSpan(nil, s), fresh.appendSpan(nil, s)
			if string(got) != string(want) {
				t.Errorf("%s, behind %s, is\n%q, not\n%q", name, before, got, want)
			}
			if used.repaired-repaired != fresh.repaired {
				t.Errorf("%s, behind %s: %d strings repaired, not %d", name, before, used.repaired-repaired, fresh.repaired)
			}
		}
	}
}
