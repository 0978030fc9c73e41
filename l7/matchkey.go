package l7

import "encoding/binary"

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

// matchKey is the key of a value's hash in the table of rules, of which the lowest rowBits are not looked at.
func matchKey(seed uint64, field int, h uint64) uint64 {
	return mix(h, seed+uint64(field))
}

// rowBits are those of a slot in the table that name a row; the others are the key's.
const rowBits = 16
