package l7

import (
	"testing"

	"ambit/bpf"
)

// The kernel hashes too: these numbers, worked out apart from this code, are those that it must give.
func TestHashesAreTheKernels(t *testing.T) {
	for _, c := range []struct {
		what      string
		got, want uint64
	}{
		{"nothing mixed into nothing", mix(0, 0), 0},
		{"a one", mix(0, 1), 0x9e3779b97f4a7c15 ^ 0x9e3779b97f4a7c15>>29},
		{"an empty text is its length", hashText(5, ""), mix(5, 0)},
		{"one byte is a word", hashText(5, "a"), mix(mix(5, 0x61), 1)},
		{"the first byte is the lowest", hashText(5, "abcdefgh"), mix(mix(5, 0x6867666564636261), 8)},
		{"the last word is filled up", hashText(5, "abcdefghi"), mix(mix(mix(5, 0x6867666564636261), 0x69), 9)},
		{"a zero byte counts", hashText(5, "a\x00"), mix(mix(5, 0x61), 2)},
		{"a key is of its field", valueKey(5, bpf.MatchHost, "a"), mix(hashText(5, "a"), 10) | 1},
		{"presence", presenceKey(5, bpf.MatchBaggage), mix(mix(5, 0x70726573656e6365), 16) | 1},
		{"a segment has a hash of its own", valueKey(5, bpf.MatchSegment+1, "a"), mix(mix(5, hashText(0x7365676d656e7473, "a")), 2) | 1},
		{"in numbers", hashText(0x0123456789abcdef, "/users/{id}"), 0x60a221403b705f10},
		{"a key in numbers", valueKey(0x0123456789abcdef, bpf.MatchSegment+2, "users"), 0x48335da534d830fd},
		{"presence in numbers", presenceKey(0x0123456789abcdef, bpf.MatchUserAgent), 0xfc79f0eb12dfc5f1},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#016x, want %#016x", c.what, c.got, c.want)
		}
	}
}
