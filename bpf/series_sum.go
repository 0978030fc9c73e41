package bpf

import "time"

// wrap is the total that a counter of 32 bits which goes round shows to have become.
func wrap(total uint64, counter uint32) uint64 { return total + uint64(counter-uint32(total)) }

// pairs gives do every total beside its counter of 32 bits.
func (s *Series) pairs(e *ambitSeries, do func(total *uint64, counter uint32)) {
	do(&s.Kept, e.Kept)
	do(&s.Below, e.Below)
	for i := range s.Latency {
		do(&s.Latency[i], e.Latency[i])
	}
	for b := range s.Bodies {
		do(&s.Bodies[b].Unknown, e.SizesUnknown[b])
		do(&s.Bodies[b].Empty, e.Empty[b])
		for i := range s.Bodies[b].Buckets {
			do(&s.Bodies[b].Buckets[i], e.Sizes[b][i])
		}
	}
}

// same tells whether the element has counted nothing since.
func (s *Series) same(e *ambitSeries) bool {
	same := uint64(s.Sum) == e.SumNs && s.Bodies[RequestBody].Bytes == e.RequestBytes && s.Bodies[ResponseBody].Bytes == e.ResponseBytes
	s.pairs(e, func(total *uint64, counter uint32) { same = same && uint32(*total) == counter })
	return same
}

// advance takes what the element has counted since.
func (s *Series) advance(e *ambitSeries) {
	s.Sum = time.Duration(e.SumNs)
	s.Bodies[RequestBody].Bytes, s.Bodies[ResponseBody].Bytes = e.RequestBytes, e.ResponseBytes
	s.pairs(e, func(total *uint64, counter uint32) { *total = wrap(*total, counter) })
}

// add adds other to s, times times; what is below zero goes round, so that -1 times takes it away.
func (s *Series) add(other *Series, times uint64) {
	s.Sum += time.Duration(times) * other.Sum
	s.Kept += times * other.Kept
	s.Below += times * other.Below
	for i, n := range other.Latency {
		s.Latency[i] += times * n
	}
	for b := range s.Bodies {
		to, from := &s.Bodies[b], &other.Bodies[b]
		to.Unknown += times * from.Unknown
		to.Empty += times * from.Empty
		to.Bytes += times * from.Bytes
		for i, n := range from.Buckets {
			to.Buckets[i] += times * n
		}
	}
}

// Minus is what was counted between an earlier state of the same series, nil where there was none, and s.
func (s *Series) Minus(earlier *Series) *Series {
	out := *s
	if earlier != nil {
		out.add(earlier, ^uint64(0))
	}
	return &out
}

// Plus is what both have counted, under the key of s.
func (s *Series) Plus(more *Series) *Series {
	out := *s
	out.add(more, 1)
	return &out
}
