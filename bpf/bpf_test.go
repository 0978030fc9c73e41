package bpf

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func load(t testing.TB, cfg Config) *Kernel {
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
	"tap": 600_000, "tap_http2": 325_000, "tap_unknown": 100_000, "established": 42_000, "sweep": 42_000, "abandon": 42_000, "who_am_i": 10,
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

// What a press leaves stands for what came: the inverse of each probability, summed up, is their number.
func TestPressLeavesAnHonestCount(t *testing.T) {
	const records = 200_000
	random := rand.New(rand.NewPCG(1, 2))
	for _, rate := range []float64{1, 0.1} {
		for _, share := range []uint32{Full, Full / 2, Full / 100} {
			var estimate, variance float64
			for range records {
				r := Record{Kept: 3, Randomness: random.Uint64() >> 8}
				for side := range r.Decision {
					r.Decision[side] = Decision{Threshold: Threshold(rate), Flags: DecisionThreshold}
				}
				if r.Randomness < Threshold(rate) {
					continue
				}
				if lost := r.Press(share); lost != 2-bits.OnesCount8(r.Kept) || lost == 1 {
					t.Fatalf("%d sides are lost, and %b are kept", lost, r.Kept)
				}
				if r.Kept == 0 {
					continue
				}
				threshold := r.Decision[SideOpener].Threshold
				if r.Randomness < threshold || threshold != r.Decision[SideAcceptor].Threshold {
					t.Fatalf("kept with R %x and the thresholds %x, %x", r.Randomness, threshold, r.Decision[SideAcceptor].Threshold)
				}
				p := float64(ThresholdNever-threshold) / float64(ThresholdNever)
				estimate += 1 / p
				variance += (1 - p) / (p * p)
			}
			if d := math.Abs(estimate - records); d > 4*math.Sqrt(variance) {
				t.Errorf("rate %v, share %v: the estimate is %v of %v, off by %v standard errors", rate, share, estimate, records, d/math.Sqrt(variance))
			}
		}
	}
	unknown := Record{Kept: 1, Decision: [Sides]Decision{{Flags: 0}}}
	if lost := unknown.Press(1); lost != 0 || unknown.Kept != 1 {
		t.Errorf("what has no probability was pressed: %d lost", lost)
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
