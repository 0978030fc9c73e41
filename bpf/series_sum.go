package bpf

import "time"

// wrap is the total that a counter of 32 bits which goes round shows to have become.
func wrap(total uint64, counter uint32) uint64 { return total + uint64(counter-uint32(total)) }

// same tells whether the element has counted nothing since. It and advance are most of what reading costs.
func (s *Series) same(e *ambitSeries) bool {
	if uint64(s.Sum) != e.SumNs || s.Bodies[RequestBody].Bytes != e.RequestBytes || s.Bodies[ResponseBody].Bytes != e.ResponseBytes ||
		uint32(s.Kept) != e.Kept || uint32(s.Below) != e.Below {
		return false
	}
	for i := range s.Latency {
		if uint32(s.Latency[i]) != e.Latency[i] {
			return false
		}
	}
	for b := range s.Bodies {
		body := &s.Bodies[b]
		if uint32(body.Unknown) != e.SizesUnknown[b] || uint32(body.Empty) != e.Empty[b] {
			return false
		}
		for i := range body.Buckets {
			if uint32(body.Buckets[i]) != e.Sizes[b][i] {
				return false
			}
		}
	}
	return true
}

// advance takes what the element has counted since, and tells whether a counter has gone round.
func (s *Series) advance(e *ambitSeries) (round bool) {
	var high uint64
	to := func(total *uint64, counter uint32) {
		next := wrap(*total, counter)
		high |= (next ^ *total) >> 32
		*total = next
	}
	s.Sum = time.Duration(e.SumNs)
	s.Bodies[RequestBody].Bytes, s.Bodies[ResponseBody].Bytes = e.RequestBytes, e.ResponseBytes
	to(&s.Kept, e.Kept)
	to(&s.Below, e.Below)
	s.count = s.Below
	for i := range s.Latency {
		to(&s.Latency[i], e.Latency[i])
		s.count += s.Latency[i]
	}
	for b := range s.Bodies {
		body := &s.Bodies[b]
		to(&body.Unknown, e.SizesUnknown[b])
		to(&body.Empty, e.Empty[b])
		for i := range body.Buckets {
			to(&body.Buckets[i], e.Sizes[b][i])
		}
	}
	return high != 0
}

// add adds other to s, times times; what is below zero goes round, so that -1 times takes it away.
func (s *Series) add(other *Series, times uint64) {
	s.count = 0
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
