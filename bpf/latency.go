package bpf

import (
	"math"
	"slices"
)

// Histogram's shape: struct series in sampling_abi.h.
const (
	// LatencyBuckets is the number of buckets of latency, beside the zero bucket.
	LatencyBuckets = 224
	// LatencyScale is OpenTelemetry's scale of an exponential histogram: 2^3 buckets for each doubling.
	LatencyScale = 3
	// LatencyOffset is OpenTelemetry's index of bucket 0.
	LatencyOffset = -20 << LatencyScale
	// SizeBuckets is the number of buckets of body sizes, of scale -1 from index 0 on, beside the zero bucket.
	SizeBuckets = 16
	// SizeScale is their scale: each bucket ends at four times the size at which it begins.
	SizeScale = -1
)

// latencyEnds has the last nanosecond of each bucket, behind that of the zero bucket.
var latencyEnds = func() (ends [LatencyBuckets + 1]uint64) {
	for i := range ends {
		ends[i] = uint64(1e9 * LatencyBound(i))
	}
	return ends
}()

// LatencyBound is where bucket i begins, and the one before it ends, in seconds: 2^(-20 + i/8).
func LatencyBound(i int) float64 {
	return math.Exp2(float64(i+LatencyOffset) / (1 << LatencyScale))
}

// LatencyBucket is the bucket of a duration in nanoseconds, -1 for the zero bucket. It is the kernel's function.
func LatencyBucket(ns uint64) int {
	i, _ := slices.BinarySearch(latencyEnds[:], ns)
	return min(i-1, LatencyBuckets-1)
}

// SizeBucket is the bucket of a body's size in bytes, -1 for the zero bucket, which 0 and 1 are in. It is the kernel's
// function.
func SizeBucket(bytes uint64) int {
	for i := range SizeBuckets {
		if bytes <= 1<<(2*i) {
			return i - 1
		}
	}
	return SizeBuckets - 1
}

// LatencyQuantile is the q-quantile, 0 to 1, in seconds: the geometric middle of the bucket that holds it, which is at
// most 4.5 % away from it, between 0.95 us and 256 s. It is 0 where it lies in the zero bucket, and NaN where nothing
// was counted.
func LatencyQuantile(q float64, below uint64, latency *[LatencyBuckets]uint64) float64 {
	total := latencyCount(below, latency)
	if total == 0 {
		return math.NaN()
	}
	rank := max(uint64(math.Ceil(q*float64(total))), 1)
	sum := below
	if rank <= sum {
		return 0
	}
	for i, n := range latency {
		if sum += n; rank <= sum {
			return math.Sqrt(LatencyBound(i) * LatencyBound(i+1))
		}
	}
	return math.NaN() // unreachable: rank is total at the most
}

// LatencyLog2 is the base-2 logarithm of the q-quantile in seconds, as if what a bucket counts were spread over it evenly:
// finer than LatencyQuantile, for those who compare quantiles with each other. It is LatencyOffset's bound where the
// quantile lies in the zero bucket, and NaN where nothing was counted.
func LatencyLog2(q float64, below uint64, latency *[LatencyBuckets]uint64) float64 {
	total := latencyCount(below, latency)
	if total == 0 {
		return math.NaN()
	}
	rank := q * float64(total)
	sum := float64(below)
	for i, n := range latency {
		if n > 0 && sum+float64(n) >= rank {
			return (float64(i+LatencyOffset) + max(0, rank-sum)/float64(n)) / (1 << LatencyScale)
		}
		sum += float64(n)
	}
	return float64(LatencyOffset) / (1 << LatencyScale)
}

func latencyCount(below uint64, latency *[LatencyBuckets]uint64) uint64 {
	total := below
	for _, n := range latency {
		total += n
	}
	return total
}
