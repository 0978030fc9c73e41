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
		{"a key is of its field", matchKey(5, bpf.MatchHost, 9), mix(9, 14)},
		{"in numbers", hashText(0x0123456789abcdef, "/users/{id}"), 0x60a221403b705f10},
		{"a key in numbers", matchKey(0x0123456789abcdef, bpf.MatchSegment+2, hashText(0xfedcba9876543210, "users")), 0x2c9f8277bb7c5552},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#016x, want %#016x", c.what, c.got, c.want)
		}
	}
}
