package decision

import (
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

// series decides an exchange of one side that ended at once in 200, and answers its counters.
func (k *kernel) series(s *situation, change func(*bpf.Record)) (found decisionSeries) {
	k.t.Helper()
	s.app[bpf.SideOpener] = false
	k.putRequest(s, nil)
	k.run(k.programs.Head)
	k.putResponse(s)
	change(k.exchange)
	k.run(k.programs.Tail)
	defer k.forget()
	var key uint64
	var one decisionSeries
	n := 0
	for it := k.counters.Iterate(); it.Next(&key, &one); {
		if one.Route == k.exchange.Decision[bpf.SideAcceptor].Route {
			found = one
			n++
		}
	}
	if n != 1 {
		k.t.Fatalf("%d series", n)
	}
	k.countedSoFar()
	return found
}

// bound is 2^(i/8 - 20) seconds in nanoseconds, to far more digits than are looked at.
func bound(i int) *big.Float {
	const precision = 200
	eighth := new(big.Float).SetPrec(precision).SetInt64(2)
	for range 3 {
		eighth.Sqrt(eighth)
	}
	ns := new(big.Float).SetPrec(precision).SetInt64(1e9)
	for range i % 8 {
		ns.Mul(ns, eighth)
	}
	return ns.SetMantExp(ns, i/8-20)
}

// A duration is in the bucket of OpenTelemetry's exponential histogram: above its lower end, and up to its upper one.
func TestLatencyBuckets(t *testing.T) {
	k := open(t)
	s := k.emptied()
	bucket := func(ns uint64) int {
		c := k.series(s, func(ex *bpf.Record) { ex.EndNs = ex.StartNs + ns })
		if c.SumNs != ns {
			t.Errorf("%d ns: the sum is %d", ns, c.SumNs)
		}
		for i, n := range c.Latency {
			if n == 1 {
				return i
			}
		}
		return -1
	}
	for i := range bpf.LatencyBuckets + 1 {
		last, _ := bound(i).Uint64() // of the bucket below
		for _, c := range []struct {
			ns   uint64
			want int
		}{{last - 1, i - 1}, {last, i - 1}, {last + 1, i}} {
			want := min(c.want, bpf.LatencyBuckets-1)
			if got := bucket(c.ns); got != want {
				t.Errorf("%d ns are in bucket %d, want %d, which ends at %.3f ns", c.ns, got, want, bound(i))
			}
			if got := bpf.LatencyBucket(c.ns); got != want {
				t.Errorf("%d ns are in bucket %d by userspace, want %d", c.ns, got, want)
			}
		}
	}
	for _, ns := range []uint64{0, 1} {
		if got := bucket(ns); got != -1 {
			t.Errorf("%d ns are in bucket %d, want the zero bucket", ns, got)
		}
	}
	for _, ns := range []uint64{1 << 38, 1<<38 - 1, math.MaxInt64} {
		if got := bucket(ns); got != bpf.LatencyBuckets-1 {
			t.Errorf("%d ns are in bucket %d, want the last one", ns, got)
		}
	}
}

// A size is in the bucket above 4^i, up to 4^(i+1); one that is not known is counted apart.
func TestSizeBuckets(t *testing.T) {
	k := open(t)
	s := k.emptied()
	try := func(size uint64, want int) {
		t.Helper()
		c := k.series(s, func(ex *bpf.Record) { ex.RequestBody, ex.ResponseBody = size, 2*size })
		for body, size := range []uint64{size, 2 * size} {
			got := -1
			for i, n := range c.Sizes[body] {
				if n == 1 {
					got = i
				}
			}
			if body == bpf.RequestBody && got != want || got != bpf.SizeBucket(size) {
				t.Errorf("%d bytes are in bucket %d, want %d; by userspace %d", size, got, want, bpf.SizeBucket(size))
			}
			if empty := c.Empty[body]; (empty == 1) != (got < 0) || c.SizesUnknown[body] != 0 {
				t.Errorf("%d bytes: %d in the zero bucket, %d not known", size, empty, c.SizesUnknown[body])
			}
		}
		if c.RequestBytes != size || c.ResponseBytes != 2*size {
			t.Errorf("%d bytes and twice as many: the sums are %d and %d", size, c.RequestBytes, c.ResponseBytes)
		}
	}
	try(0, -1)
	for i := range bpf.SizeBuckets + 2 {
		last := uint64(1) << (2 * i) // of the bucket below
		try(last, min(i, bpf.SizeBuckets)-1)
		try(last+1, min(i, bpf.SizeBuckets-1))
	}
	c := k.series(s, func(ex *bpf.Record) { ex.RequestBody, ex.ResponseBody = math.MaxUint64, 3 })
	if c.SizesUnknown != [2]uint32{1, 0} || c.RequestBytes != 0 || c.ResponseBytes != 3 || c.Sizes[bpf.ResponseBody][0] != 1 {
		t.Errorf("of an unknown size %+v", c)
	}
}

// Errors are counted apart, also where they have one outcome with what is none: of a stream's reset the code tells.
func TestErrorsAreCountedApart(t *testing.T) {
	const cancel, internal = 0x8, 0x2
	k := open(t)
	for _, order := range [][]uint32{{cancel, internal, internal}, {internal, internal, cancel}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			s := k.emptied()
			s.request.GRPC, s.ending, s.took = true, l7.EndedByStreamReset, time.Millisecond
			for _, s.errorCode = range order {
				k.answered(s, bpf.SideAcceptor, "/a/b", 200)
			}
			counted := map[bool]uint32{}
			for key, n := range k.countedSoFar() {
				counted[key.error] += n[0]
			}
			if counted[true] != 2 || counted[false] != 1 {
				t.Errorf("%d errors, and %d of no error; want 2 and 1", counted[true], counted[false])
			}
		})
	}
}
