package l7

import (
	"testing"

	"ambit/bpf"
)

func TestThresholdText(t *testing.T) {
	for _, c := range []struct {
		threshold uint64
		want      string
	}{
		{0, "0"},
		{1 << 55, "8"},
		{1<<56 - 1, "ffffffffffffff"},
		{0xe6666666666666, "e6666666666666"},
		{0x00800000000000, "008"},
		{1, "00000000000001"},
	} {
		if got := string(AppendThreshold(nil, c.threshold)); got != c.want {
			t.Errorf("threshold %x is written %s, want %s", c.threshold, got, c.want)
		}
	}
}

func TestTraceStateOfTwoHeaders(t *testing.T) {
	for _, c := range []struct {
		what, first, more string
		cut               uint16
		want              string
		marked            bool
	}{
		{"one list", "a=1", "ot=th:c,b=2", 0, "ot=th:8,a=1,b=2", false},
		{"the first is cut", "a=1,b=2", "c=3", 1 << bpf.FieldTraceState, "ot=th:8,a=1,c=3", true},
		{"the second is cut, or there is a third", "a=1", "b=2,c=3", 1 << bpf.FieldTraceMore, "ot=th:8,a=1,b=2", true},
	} {
		r := record(map[int]string{bpf.FieldTraceState: c.first, bpf.FieldTraceMore: c.more})
		r.Decision[0] = bpf.Decision{Flags: bpf.DecisionThreshold, Threshold: 1 << 55}
		r.Cut = c.cut
		if s := assemble(t, r)[0]; s.TraceState != c.want || (s.Cut == CutTraceState) != c.marked {
			t.Errorf("%s: %q, cut %b, want %q", c.what, s.TraceState, s.Cut, c.want)
		}
	}
}

func TestTraceState(t *testing.T) {
	const keep = bpf.DecisionThreshold
	for _, c := range []struct {
		what, received string
		flags          uint8
		cut            bool
		want           string
	}{
		{"nothing received, no threshold", "", 0, false, ""},
		{"nothing received", "", keep, false, "ot=th:8"},
		{"other members stay behind ambit's", "a=1,b=2", keep, false, "ot=th:8,a=1,b=2"},
		{"the caller's th gives way", "a=1,ot=th:c;rv:abcdefabcdef12", keep, false, "ot=th:8;rv:abcdefabcdef12,a=1"},
		{"no known probability carries no th", "ot=th:c;rv:abcdefabcdef12,a=1", 0, false, "ot=rv:abcdefabcdef12,a=1"},
		{"a member that only held th goes", "ot=th:c,a=1", 0, false, "a=1"},
		{"white space and empty members go", " a=1 ,, b=2", 0, false, "a=1,b=2"},
		{"the half member of a cut value goes", "a=1,b=2", keep, true, "ot=th:8,a=1"},
	} {
		r := record(map[int]string{bpf.FieldTraceState: c.received})
		r.Decision[0] = bpf.Decision{Flags: c.flags, Threshold: 1 << 55}
		if c.cut {
			r.Cut = 1 << bpf.FieldTraceState
		}
		if got := assemble(t, r)[0].TraceState; got != c.want {
			t.Errorf("%s: %q becomes %q, want %q", c.what, c.received, got, c.want)
		}
	}
}
