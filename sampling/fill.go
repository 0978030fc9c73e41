package sampling

import "slices"

// fill shares supply among demands so that the smallest share is as large as can be, then the next one, and so on (max-min
// fairness): whoever wants less than the level gets it, and the others get the level. scratch is used for the order, and
// returned for the next time. Where supply is enough for all, level is the largest demand.
func fill(demands []float64, supply float64, scratch []float64) (level float64, _ []float64) {
	scratch = append(scratch[:0], demands...)
	slices.Sort(scratch)
	left := supply
	for i, d := range scratch {
		even := left / float64(len(scratch)-i)
		if d >= even {
			return max(even, 0), scratch
		}
		left -= d
		level = d
	}
	return level, scratch
}
