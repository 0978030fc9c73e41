package parser

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/net/http2"
)

// h2Trace shows what the tap saw: each segment, and the frames of each side as far as no byte is missing.
func h2Trace(segments []segment) string {
	var b strings.Builder
	isn := [2]uint32{openerISN, acceptorISN}
	next := [2]uint32{openerISN + 1, acceptorISN + 1}
	var unread [2][]byte
	for i, g := range segments {
		if b.Len() > 1<<15 {
			fmt.Fprintf(&b, "... %d segments more\n", len(segments)-i)
			break
		}
		fmt.Fprintf(&b, "%s %d+%d %.40x\n", []string{">", "<"}[g.side], int32(g.seq-isn[g.side]-1), len(g.bytes), g.bytes)
		old := int32(next[g.side] - g.seq)
		if old < 0 || int(old) >= len(g.bytes) {
			continue
		}
		next[g.side] += uint32(len(g.bytes)) - uint32(old)
		rest := append(unread[g.side], g.bytes[old:]...)
		if after, ok := strings.CutPrefix(string(rest), http2.ClientPreface); ok {
			rest = []byte(after)
		}
		for len(rest) >= 9 && len(rest) >= 9+frameLength(rest) {
			n := 9 + frameLength(rest)
			fmt.Fprintf(&b, "    %v stream %d flags %#x: %.200x\n", http2.FrameType(rest[3]), binary.BigEndian.Uint32(rest[5:]), rest[4], rest[9:n])
			rest = rest[n:]
		}
		unread[g.side] = rest
	}
	return b.String()
}
