package l7

import (
	"fmt"
	"strings"
)

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
	t.th = "th:" + FormatThreshold(threshold)
	t.alone = "ot=" + t.th
}

// FormatThreshold writes a threshold of 56 bits as tracestate has it: 14 hex digits without trailing zeros.
func FormatThreshold(threshold uint64) string {
	s := strings.TrimRight(fmt.Sprintf("%014x", threshold), "0")
	if s == "" {
		return "0"
	}
	return s
}

// traceState gives the caller's tracestate with the threshold that held in its member ot, or without
// one where the span was kept under no known probability. Other members and sub-keys stay.
func (a *Assembler) traceState(received string, s *Span) string {
	if s.Cut&CutTraceState != 0 {
		// The last member may be half of one.
		received = received[:max(strings.LastIndexByte(received, ','), 0)]
	}
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
