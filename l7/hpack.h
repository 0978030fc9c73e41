/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* HPACK (RFC 7541): the dynamic table of one direction, and the integers and strings of header blocks. */
#ifndef AMBIT_HPACK_H
#define AMBIT_HPACK_H

#include "static_table.h"

/* What became of a piece of a header block. */
enum verdict {
	VERDICT_FINE,
	VERDICT_BROKEN, /* no decoder takes it */
	VERDICT_LIMIT, /* a field that goes on is longer than what is carried over */
};

/* Every insertion from now on is counted; what was inserted before is not known. */
static always_inline void forget_table(struct hpack_table *t)
{
	t->count = 0;
	t->total = 0;
	t->oldest = 0;
	t->max = TABLE_ANY;
	t->limit = TABLE_ANY;
	t->complete = 0;
}

static always_inline void new_table(struct hpack_table *t)
{
	t->max = TABLE_BYTES;
	t->limit = TABLE_BYTES;
	t->complete = 1;
}

enum finding {
	ENTRY_SEEN,
	ENTRY_UNSEEN, /* it came before the table was known, or was written over */
	ENTRY_GONE, /* evicted, or there never was one */
};

/* The entry before which n others were inserted last. */
static always_inline const struct hpack_entry *entry_at(const struct hpack_table *t, __u32 n)
{
	return &t->entries[(t->count - 1 - n) & (TABLE_SLOTS - 1)];
}

/* What is known of the entry before which n others were inserted last. */
static always_inline __u32 find_entry(const struct hpack_table *t, __u32 n)
{
	if (n >= t->count)
		return t->complete ? ENTRY_GONE : ENTRY_UNSEEN;
	__u32 number = t->count - 1 - n;
	if (number < t->oldest)
		return ENTRY_GONE;
	if (n >= TABLE_SLOTS)
		return t->max <= TABLE_SLOTS * 32 ? ENTRY_GONE : ENTRY_UNSEEN;
	const struct hpack_entry *e = entry_at(t, n);
	if (t->max != TABLE_ANY && t->total - e->begin > t->max)
		return ENTRY_GONE;
	return t->at - e->at > TABLE_BYTES ? ENTRY_UNSEEN : ENTRY_SEEN;
}

/* Whether nothing is in the table. */
static always_inline bool is_empty(const struct hpack_table *t)
{
	return !t->count || find_entry(t, 0) == ENTRY_GONE;
}

/* The size changes. What does not fit the smaller one of both goes, and never comes back. */
__noinline int resize_table(struct hpack_table *t, __u32 size)
{
	if (!t)
		return 0;
	__u32 least = size < t->max ? size : t->max, count = t->count;
	__u32 first = count - t->oldest > TABLE_SLOTS ? count - TABLE_SLOTS : t->oldest, n = first;

	for (__u32 i = 0; i < TABLE_SLOTS; i++) {
		if (n >= count || t->total - t->entries[n & (TABLE_SLOTS - 1)].begin <= least)
			break;
		n++;
	}
	/* Where none of them goes, those that were written over may stay too. */
	if (n != first || least <= TABLE_SLOTS * 32)
		t->oldest = n;
	t->max = size;
	return 0;
}

/* Copies up to VALUE_MAX bytes: the helper takes longer than words do where there are few. */
#define copy_value(to, from, n)                                                           \
	do {                                                                              \
		__u32 __n = (n);                                                          \
		if (__n <= 64) {                                                          \
			for (__u32 __i = 0; __i < 64; __i += 8) {                         \
				store64((to) + __i, load64((from) + __i));                \
				opaque(__n);                                              \
				if (__i + 8 >= __n)                                       \
					break;                                            \
			}                                                                 \
		} else {                                                                  \
			opaque(__n);                                                      \
			if (__n <= VALUE_MAX)                                             \
				copy_bytes(to, __n, from);                                \
		}                                                                         \
	} while (0)

/* An entry's value, of len bytes, into the window. */
__noinline int load_value(const struct hpack_table *t, struct window *win, __u32 at, __u32 len)
{
	if (!t || !win)
		return 0;
	at &= TABLE_BYTES - 1;
	opaque(at);
	if (at >= TABLE_BYTES)
		return 0;
	if (len > VALUE_MAX)
		len = VALUE_MAX;
	copy_value(win->bytes, t->bytes + at, len);
	return 0;
}

/* A string as it is on the wire, into the window. */
__noinline int load_string(const struct piece *piece, struct window *win, __u32 idx, __u32 len)
{
	if (!piece || !win)
		return 0;
	if (len > VALUE_MAX)
		len = VALUE_MAX;
	opaque(idx);
	if (idx >= BLOCK_BYTES)
		return 0;
	copy_value(win->bytes, piece->bytes + idx, len);
	return 0;
}

/* A new entry, whose value of len bytes is in the window where its header matters. */
__noinline int insert_entry(struct hpack_table *t, const struct window *win, __u32 id, __u32 name_len, __u32 len)
{
	if (!t || !win)
		return 0;
	__u32 size = name_len + len + 32, kept = len < VALUE_MAX ? len : VALUE_MAX;

	if (t->max != TABLE_ANY && size > t->max) {
		t->oldest = t->count;
		return 0;
	}
	struct hpack_entry *e = &t->entries[t->count & (TABLE_SLOTS - 1)];
	e->begin = t->total;
	e->at = t->at;
	e->len = len < 0xffff ? len : 0xffff;
	e->name_len = name_len < 0xffff ? name_len : 0xffff;
	e->name = id;
	t->total += size;
	t->count++;
	if (id == HEADER_DULL || id == HEADER_UNKNOWN || !kept)
		return 0;
	__u32 at = t->at & (TABLE_BYTES - 1);
	t->at += (kept + 7) & ~7U;
	opaque(at);
	if (at >= TABLE_BYTES)
		return 0;
	copy_value(t->bytes + at, win->bytes, kept);
	return 0;
}

#define INT_MAX 0x1000000 /* above what any string or table has */
#define INT_SHORT 0x2000000 /* the piece ends within it */
#define INT_BAD 0x3000000 /* no decoder takes as long a one */

/* An integer whose first byte is at idx and has it under mask; piece.next is behind it. */
__noinline __u32 read_int(struct piece *piece, __u32 idx, __u32 mask)
{
	if (!piece || idx >= BLOCK_BYTES)
		return INT_SHORT;
	if (idx >= piece->len)
		return INT_SHORT;
	__u64 v = piece->bytes[idx] & mask;

	idx++;
	if (v < mask) {
		piece->next = idx;
		return v;
	}
	for (__u32 shift = 0; shift < 63; shift += 7) {
		opaque(idx);
		if (idx >= BLOCK_BYTES || idx >= piece->len)
			return INT_SHORT;
		__u8 c = piece->bytes[idx++];
		v += (__u64)(c & 127) << shift;
		if (!(c & 128)) {
			piece->next = idx;
			return v < INT_MAX ? v : INT_MAX;
		}
	}
	return INT_BAD;
}

#endif
