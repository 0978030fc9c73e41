package l7

import "strings"

// thresholdText keeps the last threshold's text: most spans of a node have the same one.
type thresholdText struct {
	threshold uint64
	th        string // "th:8"
	alone     string // "ot=th:8"
}

func (t *thresholdText) set(threshold uint64) {
	if t.th != "" && t.threshold == threshold {
		return
	}
	t.threshold = threshold
	t.th = "th:" + string(AppendThreshold(nil, threshold))
	t.alone = "ot=" + t.th
}

// AppendThreshold appends a threshold of 56 bits as tracestate has it: 14 hex digits without trailing zeros.
func AppendThreshold(b []byte, threshold uint64) []byte {
	const digits = "0123456789abcdef"
	b = append(b, digits[threshold>>52&15])
	for threshold = threshold << 12; threshold != 0; threshold <<= 4 {
		b = append(b, digits[threshold>>60])
	}
	return b
}

// joinStates makes one list of the tracestate headers of a request, of which the second stands for all that follow.
func joinStates(first string, firstCut bool, more string, moreCut bool) string {
	first, more = wholeMembers(first, firstCut), wholeMembers(more, moreCut)
	if first == "" || more == "" {
		return first + more
	}
	return first + "," + more
}

// wholeMembers leaves the last member out where it may be half of one.
func wholeMembers(list string, cut bool) string {
	if !cut {
		return list
	}
	return list[:max(strings.LastIndexByte(list, ','), 0)]
}

// traceState gives the caller's tracestate with the threshold that held in its member ot, or without
// one where the span was kept under no known probability. Other members and sub-keys stay.
func (a *Assembler) traceState(received string, s *Span) string {
	th := ""
	if s.HasThreshold {
		a.threshold.set(s.Threshold)
		if received == "" {
			return a.threshold.alone
		}
		th = a.threshold.th
	}
	if received == "" {
		return ""
	}
	ot := th
	others := make([]string, 0, 4)
	for member := range strings.SplitSeq(received, ",") {
		member = strings.Trim(member, " \t")
		value, isOT := strings.CutPrefix(member, "ot=")
		if !isOT {
			if member != "" {
				others = append(others, member)
			}
			continue
		}
		for sub := range strings.SplitSeq(value, ";") {
			if sub == "" || strings.HasPrefix(sub, "th:") {
				continue
			}
			if ot != "" {
				ot += ";"
			}
			ot += sub
		}
	}
	if ot != "" {
		others = append([]string{"ot=" + ot}, others...)
	}
	return strings.Join(others, ",")
}
