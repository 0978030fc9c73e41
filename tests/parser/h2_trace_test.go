package parser

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"ambit/bpf"
)

// playH2 plays segments that come in order, and holds what comes of them against the reference.
func (d *driver) playH2(t testing.TB, segments []segment) (outcome, error) {
	t.Helper()
	o := d.run(t, played(segments))[0]
	return o, referenceOf(segments, bpf.EndingClosed).compare(&o)
}

// shorten leaves out what it can of a list that fails.
func shorten[S ~[]T, T any](list S, fails func(S) bool) S {
	for size := len(list); size > 0; size /= 2 {
		for at := 0; at+size <= len(list); {
			if less := slices.Concat(list[:at], list[at+size:]); fails(less) {
				list = less
			} else {
				at += size
			}
		}
	}
	return list
}

// anyValue is what differs between errors of one kind.
var anyValue = regexp.MustCompile(`"(\\.|[^"])*"|[0-9]+`)

func alike(a, b error) bool {
	kind := func(err error) string { return anyValue.ReplaceAllString(fmt.Sprint(err), "") }
	return a != nil && b != nil && kind(a) == kind(b)
}

// explain fails the test by a conversation that is as short as can be, for one that the reference reads otherwise.
func (d *driver) explain(t testing.TB, about string, c conversation, cuts []int) {
	t.Helper()
	_, first := d.playH2(t, c.segments(cuts...))
	c = shorten(c, func(c conversation) bool {
		segments := c.segments(cuts...)
		_, err := d.playH2(t, segments)
		return alike(err, first) && referenceOf(segments, bpf.EndingClosed).broken == nil
	})
	segments := c.segments(cuts...)
	o, err := d.playH2(t, segments)
	t.Fatalf("%s: %v\nin short: %v\ncounters %v\n%s", about, first, err, o.counters, h2Trace(segments))
}

// explainGaps does so for segments of which some are missing; play makes a script of them.
func (d *driver) explainGaps(t testing.TB, about string, want *h2Reference, segments []segment, play func([]segment) *script) {
	t.Helper()
	run := func(segments []segment) (outcome, error) {
		o := d.run(t, play(segments))[0]
		return o, want.compareSeen(&o)
	}
	_, first := run(segments)
	segments = shorten(segments, func(s []segment) bool {
		_, err := run(s)
		return alike(err, first)
	})
	o, err := run(segments)
	t.Fatalf("%s: %v\nin short: %v\ncounters %v\n%s", about, first, err, o.counters, h2Trace(segments))
}

// h2Trace shows what the tap saw: each segment, and the frames of each side, which may be none behind missing bytes.
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
		if old < 0 {
			unread[g.side], old, next[g.side] = nil, 0, g.seq
		}
		if int(old) >= len(g.bytes) {
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
