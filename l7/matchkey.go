package l7

import (
	"encoding/binary"

	"ambit/bpf"
)

// The hashes by which rules find values, as the kernel side has them.

// mix adds 64 bits to a hash.
func mix(h, v uint64) uint64 {
	x := (h ^ v) * 0x9e3779b97f4a7c15
	return x ^ x>>29
}

// hashText hashes a text in words of 8 bytes, little-endian, the last one filled up with zeros.
func hashText(seed uint64, text string) uint64 {
	h, rest := seed, text
	for len(rest) > 0 {
		var word [8]byte
		rest = rest[copy(word[:], rest):]
		h = mix(h, binary.LittleEndian.Uint64(word[:]))
	}
	return mix(h, uint64(len(text)))
}

// matchKey is the key of a value in the table, never 0.
func matchKey(field int, h uint64) uint64 {
	return mix(h, uint64(field)+1) | 1
}

// segmentSeed hashes segments of paths, which routes look at too: theirs must not change with the rules.
const segmentSeed = 0x7365676d656e7473

// valueKey is the key of a value that a field has.
func valueKey(seed uint64, field int, value string) uint64 {
	if field < bpf.MatchExtension {
		return matchKey(field, mix(seed, hashText(segmentSeed, value)))
	}
	return matchKey(field, hashText(seed, value))
}

// presenceKey is the key of a field that has any value.
func presenceKey(seed uint64, field int) uint64 {
	return matchKey(field, mix(seed, 0x70726573656e6365))
}
