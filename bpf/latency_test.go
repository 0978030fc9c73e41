package bpf

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestLatencyBuckets(t *testing.T) {
	for _, c := range []struct {
		what string
		ns   uint64
		want int
	}{
		{"nothing is in the zero bucket", 0, -1},
		{"2^-20 s are 953.67 ns: the last whole nanosecond of the zero bucket", 953, -1},
		{"and the first of bucket 0", 954, 0},
		{"2^-20+1/8 s are 1039.99 ns", 1039, 0},
		{"so that 1040 ns are the next bucket's", 1040, 1},
		{"a bucket has its upper end: 1 s is 2^0", 1e9, 159},
		{"and not its lower one", 1e9 + 1, 160},
		{"the last bucket ends at 256 s", 256e9, 223},
		{"and has what is above, too", 257e9, 223},
		{"however much", math.MaxUint64, 223},
	} {
		if got := LatencyBucket(c.ns); got != c.want {
			t.Errorf("%s: %d ns are in bucket %d, not %d", c.what, c.ns, got, c.want)
		}
	}
	// The definition, for durations of every order.
	r := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		ns := uint64(954 * math.Exp2(r.Float64()*28))
		seconds, i := float64(ns)/1e9, LatencyBucket(ns)
		if ns < 256e9 && (seconds <= LatencyBound(i) || seconds > LatencyBound(i+1)) {
			t.Fatalf("%d ns are in bucket %d, from %v s to %v s", ns, i, LatencyBound(i), LatencyBound(i+1))
		}
	}
}

func TestSizeBuckets(t *testing.T) {
	for _, c := range []struct {
		bytes uint64
		want  int
	}{{0, -1}, {1, -1}, {2, 0}, {4, 0}, {5, 1}, {16, 1}, {17, 2}, {1 << 20, 9}, {1<<20 + 1, 10}, {1 << 32, 15}, {math.MaxUint64, 15}} {
		if got := SizeBucket(c.bytes); got != c.want {
			t.Errorf("%d bytes are in bucket %d, not %d", c.bytes, got, c.want)
		}
	}
}

func TestQuantilesOfBuckets(t *testing.T) {
	var latency [LatencyBuckets]uint64
	if got := LatencyQuantile(0.5, 0, &latency); !math.IsNaN(got) {
		t.Errorf("of nothing it is %v", got)
	}
	if got := LatencyQuantile(0.99, 1, &latency); got != 0 {
		t.Errorf("of the zero bucket it is %v", got)
	}
	r := rand.New(rand.NewPCG(5, 6))
	durations := make([]uint64, 20_000)
	for i := range durations {
		durations[i] = uint64(math.Exp(r.NormFloat64()*1.5) * 1e6)
		latency[LatencyBucket(durations[i])]++
	}
	slices.Sort(durations)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := float64(durations[int(math.Ceil(q*float64(len(durations))))-1]) / 1e9
		if got := LatencyQuantile(q, 0, &latency); math.Abs(got/exact-1) > 0.045 {
			t.Errorf("the %v-quantile is %v s, exactly %v s", q, got, exact)
		}
	}
}
