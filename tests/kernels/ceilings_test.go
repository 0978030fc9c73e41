package kernels

import (
	"strings"
	"testing"
)

func TestCeilings(t *testing.T) {
	ceilings := Ceilings{"tap": 1000}
	for _, c := range []struct {
		sentence string
		reported map[string]string
		want     string // part of the only complaint; empty: there is none
	}{
		{"at the ceiling", map[string]string{"tap": "loaded, 1000 instructions verified"}, ""},
		{"above it", map[string]string{"tap": "loaded, 1001 instructions verified"}, "tap the verifier looked at 1001 instructions, the ceiling is 1000"},
		{"a program without one", map[string]string{"tap": "loaded, 1 instructions verified", "new": "loaded, 7 instructions verified"}, "program new has no ceiling"},
		{"a kernel that does not count", map[string]string{"tap": "loaded"}, `tap the guest does not say what the verifier looked at, but "loaded"`},
		{"a program that is gone", nil, `but "no such program"`},
	} {
		complaints := ceilings.Over(c.reported)
		if c.want == "" && len(complaints) > 0 || c.want != "" && (len(complaints) != 1 || !strings.Contains(complaints[0], c.want)) {
			t.Errorf("%s: the complaints are %q, want %q", c.sentence, complaints, c.want)
		}
	}
}
