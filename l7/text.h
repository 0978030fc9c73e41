/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Text of HTTP/1 in the window, told and read by words of eight bytes. */
#ifndef AMBIT_TEXT_H
#define AMBIT_TEXT_H

#include "window.h"

/* The bytes that a token may have, by RFC 9110: of 0 to 63, and of 64 to 127. */
#define TOKEN_LOW 0x03ff6cfa00000000ULL
#define TOKEN_HIGH 0x57ffffffc7fffffeULL

static always_inline bool is_token_byte(__u8 c)
{
	return c < 128 && ((c < 64 ? TOKEN_LOW : TOKEN_HIGH) >> (c & 63) & 1);
}

__noinline int is_method(__u64 text, __u32 len)
{
	bool begun = false; /* behind empty lines */

	for (__u32 i = 0; i < 8; i++) {
		__u8 c = text >> (8 * i);
		if (i >= len)
			return 1;
		if (c == ' ')
			return begun;
		if ((c == '\r' || c == '\n') && !begun && i < 4)
			continue;
		if (!is_token_byte(c))
			return 0;
		begun = true;
	}
	return 1;
}

/* The first bytes of a segment could begin a request: a token, then a space, as far as they reach. */
static always_inline bool begins_request(__u64 text, __u32 len)
{
	/* Most of them without a call. */
	if (len >= 5 && ((text & FIRST(4)) == WORD('G', 'E', 'T', ' ', 0, 0, 0, 0) ||
			 (text & FIRST(5)) == WORD('P', 'O', 'S', 'T', ' ', 0, 0, 0)))
		return true;
	return is_method(text, len);
}

static always_inline bool begins_response(__u64 text, __u32 len)
{
	__u64 mask = len >= 7 ? FIRST(7) : FIRST(len & 7);

	return ((text ^ WORD('H', 'T', 'T', 'P', '/', '1', '.', 0)) & mask) == 0;
}

static always_inline bool is_version(__u64 text)
{
	return text == WORD('H', 'T', 'T', 'P', '/', '1', '.', '1') ||
	       text == WORD('H', 'T', 'T', 'P', '/', '1', '.', '0');
}

static always_inline bool ends_in_version(const struct window *win, __u32 idx, __u32 len)
{
	__u32 at = idx + len - 9;

	opaque(at);
	/* A method and a target of one byte each, their spaces, and the version. */
	if (len < 12 || at >= LINE_MAX || win->bytes[at] != ' ')
		return false;
	return is_version(load64(win->bytes + at + 1));
}

/* A decimal number of up to 18 digits; ~0 for anything else. */
__noinline __u64 read_number(const struct window *win, __u32 idx, __u32 len)
{
	__u64 n = 0;

	if (!win || !len || len > 18 || idx >= LINE_MAX)
		return ~0ULL;
	for (__u32 i = 0; i < 18; i++) {
		if (i >= len)
			break;
		__u8 c = win->bytes[idx + i] - '0';
		if (c > 9)
			return ~0ULL;
		n = n * 10 + c;
	}
	return n;
}

/* A chunk's size in at most 15 hex digits, ended by the line or by ";" or a space; ~0 for anything else. */
__noinline __u64 read_chunk_size(const struct window *win, __u32 idx, __u32 len)
{
	if (!win || idx >= LINE_MAX)
		return ~0ULL;
	const __u8 *p = win->bytes + idx;
	__u64 bad = 0, more_bad = 0;
	__u64 high = bpf_ntohl(hex8(load64(p), &bad)), low = bpf_ntohl(hex8(load64(p + 8), &more_bad));
	__u32 digits = bad ? first_byte(bad) : more_bad ? 8 + first_byte(more_bad) : 16;

	if (digits > len)
		digits = len;
	if (!digits || digits > 15)
		return ~0ULL;
	__u8 c = p[digits];
	if (digits < len && c != ';' && c != ' ' && c != '\t')
		return ~0ULL;
	return (high << 32 | low) >> (4 * (16 - digits));
}

static always_inline bool is_blank(const struct window *win, __u32 at)
{
	opaque(at);
	return at < LINE_MAX && (win->bytes[at] == ' ' || win->bytes[at] == '\t');
}

#define BLANKS_MAX 32

/* [idx, end) without white space around: its start in the upper half, its length in the lower. */
__noinline __u32 trim(const struct window *win, __u32 idx, __u32 end)
{
	if (!win)
		return 0;
	for (int i = 0; i < BLANKS_MAX && idx < end && is_blank(win, idx); i++)
		idx++;
	for (int i = 0; i < BLANKS_MAX && idx < end && is_blank(win, end - 1); i++)
		end--;
	return idx << 16 | ((end - idx) & 0xffff);
}

#endif
