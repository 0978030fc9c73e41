package bpf

import (
	"net/netip"
	"testing"
	"time"
)

func load(t *testing.T, cfg Config) *Kernel {
	t.Helper()
	if cfg.IdleLimit == 0 {
		cfg.IdleLimit = time.Minute
	}
	k, err := Load(cfg)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// verifiedMax is the ceiling of what the verifier may look at in one program, by name: loading time grows with it.
var verifiedMax = map[string]uint32{
	"tap": 600_000, "tap_http2": 325_000, "tap_unknown": 100_000, "established": 42_000, "sweep": 42_000, "abandon": 42_000,
	"sock_create": 500, "bound4": 500, "bound6": 500, "inventory": 500,
}

func TestEveryProgramLoadsUnderItsCeiling(t *testing.T) {
	programs, err := load(t, Config{}).Programs()
	if err != nil {
		t.Fatal(err)
	}
	if len(programs) != len(verifiedMax) {
		t.Errorf("%d programs, the ceilings name %d", len(programs), len(verifiedMax))
	}
	for _, p := range programs {
		t.Logf("%s: %d instructions verified", p.Name, p.Verified)
		if p.Verified == 0 || p.Verified > verifiedMax[p.Name] {
			t.Errorf("%s: %d instructions verified, the ceiling is %d", p.Name, p.Verified, verifiedMax[p.Name])
		}
	}
}

func TestThreshold(t *testing.T) {
	for _, c := range []struct {
		rate float64
		want uint64
	}{
		{1, 0}, {0, 1 << 56}, {0.5, 1 << 55}, {0.25, 3 << 54},
	} {
		if got := Threshold(c.rate); got != c.want {
			t.Errorf("rate %v: threshold %x, want %x", c.rate, got, c.want)
		}
	}
}

func TestInnerRangesInheritFlags(t *testing.T) {
	outer := cidrOf(netip.MustParsePrefix("10.0.0.0/8"))
	inner := cidrOf(netip.MustParsePrefix("10.1.0.0/16"))
	other := cidrOf(netip.MustParsePrefix("11.0.0.0/8"))
	v6 := cidrOf(netip.MustParsePrefix("fd00::/8"))
	flags := map[ambitCidr]uint8{outer: 1, inner: 2, other: 2, v6: 2}
	inherit(flags)
	if flags[outer] != 1 || flags[inner] != 3 || flags[other] != 2 || flags[v6] != 2 {
		t.Errorf("%v", flags)
	}
}

func TestWhoIsTrusted(t *testing.T) {
	p := netip.MustParsePrefix
	for _, c := range []struct {
		what string
		list []netip.Prefix
		want bool
	}{
		{"an empty list trusts nobody", nil, false},
		{"both families wholly", []netip.Prefix{p("0.0.0.0/0"), p("::/0")}, true},
		{"one family is not all", []netip.Prefix{p("0.0.0.0/0")}, false},
	} {
		if got := trustsAll(c.list); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

func TestRecordsOfAnotherSizeAreRefused(t *testing.T) {
	var r Record
	for _, size := range []int{0, headSize - 1, recordSize + 1} {
		if r.complete(size) {
			t.Errorf("a sample of %d bytes was taken", size)
		}
	}
	if !r.complete(headSize) {
		t.Error("a record without text was refused")
	}
	if r.Used = 1; r.complete(headSize) {
		t.Error("a record that lacks its text was taken")
	}
	if room := r.room(); len(room) != 0 || cap(room) != recordSize {
		t.Errorf("there is room for %d bytes behind %d, not for a record", cap(room), len(room))
	}
}
