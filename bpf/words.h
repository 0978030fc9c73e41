/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Text and hashes by words of eight bytes. */
#ifndef AMBIT_WORDS_H
#define AMBIT_WORDS_H

#include "platform.h"

/* Text constants as the words that the comparisons load. */
#define WORD(a, b, c, d, e, f, g, h)                                                      \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 |             \
	 (__u64)(e) << 32 | (__u64)(f) << 40 | (__u64)(g) << 48 | (__u64)(h) << 56)
#define FIRST(n) ((1ULL << (8 * (n))) - 1)

#define EACH 0x0101010101010101ULL

/* Index of the first byte whose highest bit is set in a mask that has no other bits. */
static always_inline __u32 first_byte(__u64 mask)
{
	return ((((mask & -mask) - 1) & EACH) * EACH >> 56) - 1;
}

/* The highest bit of each byte of text that is c; bits above the first such byte may be wrong. */
static always_inline __u64 hits(__u64 text, __u8 c)
{
	__u64 x = text ^ c * EACH;

	return (x - EACH) & ~x & 0x80 * EACH;
}

/* The highest bit of each byte of text from lo to hi, both below 128. */
static always_inline __u64 between(__u64 text, __u8 lo, __u8 hi)
{
	__u64 low = text & 0x7f * EACH;

	return (low + (0x80 - lo) * EACH) & ~(low + (0x7f - hi) * EACH) & ~text & 0x80 * EACH;
}

/* The first n bytes of text, 0 to 8, and zeros. */
static always_inline __u64 head_of(__u64 text, __u32 n)
{
	return n < 8 ? text & FIRST(n) : text;
}

/* Letters in lower case; other bytes from A to Z do not occur above 127, and stay. */
static always_inline __u64 lower_case(__u64 text)
{
	return text | between(text, 'A', 'Z') >> 2;
}

/* One step of a hash that is quick, not strong. */
static always_inline __u64 mix(__u64 h, __u64 v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ (h >> 29);
}

#endif
