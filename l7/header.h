/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Header lines of HTTP/1: which of them matter, and what is kept or read of those. */
#ifndef AMBIT_HEADER_H
#define AMBIT_HEADER_H

#include "message.h"

/* How much is kept of each field, in bytes. */
#define REQUEST_LINE_MAX 640
#define HOST_MAX 256
#define USER_AGENT_MAX 192
#define REQUEST_ID_MAX 128
#define TRACESTATE_MAX 512
#define FORCE_TRACE_MAX 32
#define TYPE_MAX 64

/* Copies a value into the exchange's text; max is FIELD's bound. */
__noinline int keep(struct exchange *ex, const struct window *win, __u32 idx, __u32 len, __u32 field_max)
{
	if (!ex || !win)
		return 0;
	__u32 field = field_max & 15, max = field_max >> 4, used = ex->used, room;

	if (field >= FIELDS || idx >= LINE_MAX)
		return 0;
	if (ex->fields[field].len) {
		/* The first one counts; of a list it is not all. */
		if (field == FIELD_TRACESTATE_MORE) {
			ex->cut |= 1 << field;
			count(STAT_FIELD_CUT);
		}
		return 0;
	}
	/* The copy's bound has to be a constant for each range of used, or the verifier can't add them. */
	room = used <= EXCHANGE_TEXT - 640 ? 640 :
	       used <= EXCHANGE_TEXT - 256 ? 256 :
	       used <= EXCHANGE_TEXT - 128 ? 128 :
	       used <= EXCHANGE_TEXT - 64  ? 64 :
					     0;
	if (max > room)
		max = room;
	if (len > max) {
		len = max;
		ex->cut |= 1 << field;
		count(STAT_FIELD_CUT);
	}
	if (!len)
		return 0;
	opaque(used);
	opaque(len);
	ex->fields[field].off = used;
	ex->fields[field].len = len;
	ex->used = used + len;
	opaque(idx);
	if (idx >= LINE_MAX)
		return 0;
	if (len <= 64 && used <= EXCHANGE_TEXT - 64) {
		/* The helper takes longer than this does. */
		const __u8 *from = win->bytes + idx;
		__u8 *to = ex->text + used;
		for (__u32 i = 0; i < 64; i += 8) {
			store64(to + i, load64(from + i));
			opaque(len);
			if (i + 8 >= len)
				break;
		}
	} else if (used <= EXCHANGE_TEXT - 640 && len <= 640)
		copy_bytes(ex->text + used, len, win->bytes + idx);
	else if (used <= EXCHANGE_TEXT - 256 && len <= 256)
		copy_bytes(ex->text + used, len, win->bytes + idx);
	else if (used <= EXCHANGE_TEXT - 128 && len <= 128)
		copy_bytes(ex->text + used, len, win->bytes + idx);
	return 0;
}

#define FIELD_MAX(field, max) ((max) << 4 | (field))

/* The member ot of a tracestate: th and rv, 56 bits each (OpenTelemetry's probability sampling). */
__noinline int read_tracestate(struct exchange *ex, struct window *win, __u32 from, __u32 to)
{
	if (!ex || !win)
		return 0;
	for (__u32 i = 0; i < 32; i++) {
		if (from >= to || from >= LINE_MAX)
			return 0;
		__u32 end = find_byte(win, from, to, ',');
		__u8 c = win->bytes[from];
		if (c == ' ' || c == '\t' || c == ',') {
			from++;
			continue;
		}
		if ((load32(win->bytes + from) & FIRST(3)) == WORD('o', 't', '=', 0, 0, 0, 0, 0)) {
			/* Members may have a blank behind. */
			__u32 last = end - 1;
			opaque(last);
			to = last < LINE_MAX && win->bytes[last] == ' ' ? last : end;
			from += 3;
			break;
		}
		from = end + 1;
	}
	for (__u32 i = 0; i < 4; i++) {
		if (from >= to || from >= LINE_MAX)
			return 0;
		__u32 end = find_byte(win, from, to, ';');
		const __u8 *p = win->bytes + from;
		__u32 name = load32(p) & FIRST(3);
		__u64 bad = 0, v = hex56(p + 3, end - from - 3, &bad);
		if (name == WORD('t', 'h', ':', 0, 0, 0, 0, 0) && !bad) {
			ex->parent_threshold = v;
			ex->flags |= EXCHANGE_PARENT_THRESHOLD;
		} else if (name == WORD('r', 'v', ':', 0, 0, 0, 0, 0) && !bad && end - from == 17) {
			ex->randomness = v;
			ex->flags |= EXCHANGE_RANDOMNESS;
		}
		from = end + 1;
	}
	return 0;
}

static always_inline void read_length(struct half *half, const struct window *win, __u32 idx, __u32 len)
{
	__u64 n = read_number(win, idx, len);

	if (half->framing == FRAMING_CHUNKED || half->framing == FRAMING_CLOSE)
		return;
	if (n == ~0ULL || (half->framing == FRAMING_LENGTH && half->remain != n)) {
		half->framing = FRAMING_INVALID;
		return;
	}
	half->framing = FRAMING_LENGTH;
	half->remain = n;
}

static always_inline void read_encoding(struct half *half, const struct window *win, __u32 idx, __u32 len)
{
	__u32 last = idx + len - 7, prior = idx + len - 8;

	opaque(last);
	opaque(prior);
	__u8 before = len > 7 && prior < LINE_MAX ? win->bytes[prior] : ',';

	half->framing = FRAMING_CLOSE;
	if (len >= 7 && last < LINE_MAX && (before == ',' || before == ' ' || before == '\t') &&
	    (to_lower(load64(win->bytes + last)) & FIRST(7)) == WORD('c', 'h', 'u', 'n', 'k', 'e', 'd', 0))
		half->framing = FRAMING_CHUNKED;
}

/* Headers that matter, told by their first eight bytes. */
#define NAME_HOST WORD('h', 'o', 's', 't', ':', 0, 0, 0)
#define NAME_B3 WORD('b', '3', ':', 0, 0, 0, 0, 0)
#define NAME_USER_AGENT WORD('u', 's', 'e', 'r', '-', 'a', 'g', 'e')
#define NAME_TRACEPARENT WORD('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r')
#define NAME_TRACESTATE WORD('t', 'r', 'a', 'c', 'e', 's', 't', 'a')
#define NAME_REQUEST_ID WORD('x', '-', 'r', 'e', 'q', 'u', 'e', 's')
#define NAME_B3_TRACE WORD('x', '-', 'b', '3', '-', 't', 'r', 'a')
#define NAME_B3_SPAN WORD('x', '-', 'b', '3', '-', 's', 'p', 'a')
#define NAME_B3_SAMPLED WORD('x', '-', 'b', '3', '-', 's', 'a', 'm')
#define NAME_B3_FLAGS WORD('x', '-', 'b', '3', '-', 'f', 'l', 'a')
#define NAME_LENGTH WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')
#define NAME_EXPECT WORD('e', 'x', 'p', 'e', 'c', 't', ':', 0)
#define NAME_ENCODING WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')
#define NAME_UPGRADE WORD('u', 'p', 'g', 'r', 'a', 'd', 'e', ':')
#define NAME_GRPC_STATUS WORD('g', 'r', 'p', 'c', '-', 's', 't', 'a')
#define NAME_BAGGAGE WORD('b', 'a', 'g', 'g', 'a', 'g', 'e', ':')
#define NAME_FORCE_TRACE WORD('x', '-', 'e', 'n', 'v', 'o', 'y', '-')
#define NAME_TYPE WORD('c', 'o', 'n', 't', 'y', 'p', 'e', ':') /* content-type, which begins as content-length does */

/* The first letters of those, of a request and of a response. */
#define LETTER(c) (1U << ((c) - 'a'))
#define LETTERS_RESPONSE (LETTER('t') | LETTER('c') | LETTER('u') | LETTER('g'))
#define LETTERS_REQUEST (LETTERS_RESPONSE | LETTER('e') | LETTER('h') | LETTER('b') | LETTER('x'))

/*
 * A line that begins at b is a header that does not matter; it may say no of one that doesn't. letters are those that
 * the headers begin with that do; without any, every line matters.
 */
static always_inline bool is_dull(const __u8 *b, __u32 letters)
{
	__u64 text = load64(b);
	__u32 letter = ((__u8)text | 0x20) - 'a', two = (text | 0x2020) & 0xffff;

	if (letter >= 26 || !letters)
		return false;
	if (!(letters >> letter & 1))
		return true;
	if (two == ('c' | 'o' << 8)) {
		/* A response's type says nothing. */
		__u8 ninth = b[8] | 0x20;
		return ninth != 'l' && (ninth != 't' || letters == LETTERS_RESPONSE);
	}
	if (two == ('x' | '-' << 8)) {
		__u8 third = (__u8)(text >> 16) | 0x20;
		return third != 'r' && third != 'b' && third != 'e';
	}
	return two != ('e' | 'x' << 8) && two != ('t' | 'r' << 8) && two != ('h' | 'o' << 8) &&
	       two != ('u' | 's' << 8) && two != ('u' | 'p' << 8) && two != ('g' | 'r' << 8) && two != ('b' | '3' << 8) &&
	       two != ('b' | 'a' << 8);
}

/*
 * Moves the cursor past whole lines that don't matter, as most lines of a head, and answers where the line ends that it
 * then is at; filled where the window does not have that end, or many lines had to be passed. Whoever fills the window
 * puts a line end behind what it holds, so the search need not look where that ends.
 */
static always_inline __u32 find_line(struct window *win, __u32 filled, __u32 letters)
{
	__u32 at = win->idx, zero = *(volatile __u32 *)&win->zero;

	win->found = filled;
	for (__u32 i = 0; i < 64; i++) {
		forget(at, zero);
		if (at >= LINE_MAX)
			break;
		__u64 hit = hits(load64(win->bytes + at), '\n'), next = hits(load64(win->bytes + at + 8), '\n');
		if (!(hit | next)) {
			at += 16;
			continue;
		}
		at += hit ? first_byte(hit) : 8 + first_byte(next);
		__u32 start = *(volatile __u32 *)&win->idx;
		if (at >= filled)
			break;
		opaque(start);
		if (start >= LINE_MAX || !is_dull(win->bytes + start, letters)) {
			win->found = at;
			break;
		}
		at++;
		*(volatile __u32 *)&win->idx = at;
	}
	return *(volatile __u32 *)&win->found;
}

/* Which header this is: its NAME_, with *skip the length of its name and colon; 0 for one that does not matter. */
static always_inline __u64 header_name(const __u8 *b, __u32 side, __u32 *skip)
{
	__u64 name = to_lower(load64(b)), more;

	more = to_lower(load64(b + 8));
#define NAME(word, n, ...)                                                                \
	if (name == word) {                                                               \
		*skip = 8 + n;                                                            \
		return (more & FIRST(n)) == WORD(__VA_ARGS__) ? word : 0;                 \
	}
	if (name == NAME_LENGTH && (more & FIRST(5)) == WORD('t', 'y', 'p', 'e', ':', 0, 0, 0)) {
		*skip = 13;
		return NAME_TYPE;
	}
	NAME(NAME_LENGTH, 7, 'l', 'e', 'n', 'g', 't', 'h', ':', 0)
	if (name == NAME_ENCODING && more == WORD('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') &&
	    (to_lower(load64(b + 16)) & FIRST(2)) == WORD('g', ':', 0, 0, 0, 0, 0, 0)) {
		*skip = 18;
		return NAME_ENCODING;
	}
	if (side == SIDE_ACCEPTOR) {
		*skip = 8;
		if (name == NAME_UPGRADE)
			return NAME_UPGRADE;
		NAME(NAME_GRPC_STATUS, 4, 't', 'u', 's', ':', 0, 0, 0, 0)
		return 0;
	}
	if ((name & FIRST(5)) == NAME_HOST) {
		*skip = 5;
		return NAME_HOST;
	}
	if ((name & FIRST(3)) == NAME_B3) {
		*skip = 3;
		return NAME_B3;
	}
	if ((name & FIRST(7)) == NAME_EXPECT) {
		*skip = 7;
		return NAME_EXPECT;
	}
	if (name == NAME_BAGGAGE) {
		*skip = 8;
		return NAME_BAGGAGE;
	}
	if (name == NAME_FORCE_TRACE && more == WORD('f', 'o', 'r', 'c', 'e', '-', 't', 'r') &&
	    (to_lower(load64(b + 16)) & FIRST(4)) == WORD('a', 'c', 'e', ':', 0, 0, 0, 0)) {
		*skip = 20;
		return NAME_FORCE_TRACE;
	}
	NAME(NAME_USER_AGENT, 3, 'n', 't', ':', 0, 0, 0, 0, 0)
	NAME(NAME_TRACEPARENT, 4, 'e', 'n', 't', ':', 0, 0, 0, 0)
	NAME(NAME_TRACESTATE, 3, 't', 'e', ':', 0, 0, 0, 0, 0)
	NAME(NAME_REQUEST_ID, 5, 't', '-', 'i', 'd', ':', 0, 0, 0)
	NAME(NAME_B3_TRACE, 5, 'c', 'e', 'i', 'd', ':', 0, 0, 0)
	NAME(NAME_B3_SPAN, 4, 'n', 'i', 'd', ':', 0, 0, 0, 0)
	NAME(NAME_B3_SAMPLED, 5, 'p', 'l', 'e', 'd', ':', 0, 0, 0)
	NAME(NAME_B3_FLAGS, 3, 'g', 's', ':', 0, 0, 0, 0, 0)
#undef NAME
	return 0;
}

static always_inline __u16 read_grpc_status(const struct window *win, __u32 idx, __u32 len)
{
	__u64 n = read_number(win, idx, len);

	return n < GRPC_STATUS_NONE ? n : GRPC_STATUS_NONE;
}

/* Whether it is gRPC. */
static always_inline void read_content_type(struct exchange *ex, const __u8 *v, __u32 len)
{
	if (len < 16 || to_lower(load64(v)) != WORD('a', 'p', 'p', 'l', 'i', 'c', 'a', 't') ||
	    to_lower(load64(v + 8)) != WORD('i', 'o', 'n', '/', 'g', 'r', 'p', 'c'))
		return;
	if (len == 16 || v[16] == '+' || v[16] == ';' || v[16] == ' ')
		ex->flags |= EXCHANGE_GRPC;
	else if (len >= 20 && (to_lower(load64(v + 16)) & FIRST(4)) == WORD('-', 'w', 'e', 'b', 0, 0, 0, 0))
		ex->flags |= EXCHANGE_GRPC_WEB;
}

/* Envoy takes any value but these for a wish. */
static always_inline void read_force_trace(struct exchange *ex, const __u8 *v, __u32 len)
{
	__u64 text = to_lower(load64(v));

	if ((len == 5 && (text & FIRST(5)) == WORD('f', 'a', 'l', 's', 'e', 0, 0, 0)) || (len == 1 && v[0] == '0'))
		return;
	ex->flags |= EXCHANGE_FORCE;
}

/* These are functions of their own: their stacks are a large part of what all that call each other have. */
__noinline int take_traceparent(struct exchange *ex, const struct window *win, __u32 idx, __u32 len)
{
	if (!ex || !win || idx >= LINE_MAX || len > LINE_MAX)
		return 0;
	read_traceparent(ex, win->bytes + idx, len);
	return 0;
}

__noinline int take_request_id(struct exchange *ex, const struct window *win, __u32 idx, __u32 len)
{
	if (!ex || !win || idx >= LINE_MAX || len > LINE_MAX)
		return 0;
	read_request_id(ex, win->bytes + idx, len);
	return 0;
}

/* A header of b3; value as trim says. A global function: verified once. */
__noinline int take_b3(struct exchange *ex, const struct window *win, __u64 name, __u32 value)
{
	__u32 idx = value >> 16, len = value & 0xffff;

	if (!ex || !win || idx >= LINE_MAX || len > LINE_MAX)
		return 0;
	const __u8 *v = win->bytes + idx;
	if (name == NAME_B3)
		read_b3(ex, v, len);
	else if (name == NAME_B3_TRACE)
		read_b3_trace(ex, v, len);
	else if (name == NAME_B3_SPAN)
		read_b3_span(ex, v, len);
	else if (name == NAME_B3_SAMPLED && len <= 5)
		read_b3_sampled(ex, v[0]);
	else if (name == NAME_B3_FLAGS && len == 1 && v[0] == '1')
		read_b3_sampled(ex, 'd');
	return 0;
}

static always_inline void header(struct walk *w, struct half *half, __u32 idx, __u32 len)
{
	struct window *win = w->win;
	struct exchange *ex = &w->flow->exchange;
	__u32 skip = 0, end = idx + len;

	opaque(idx);
	if (idx >= LINE_MAX)
		return;
	__u64 name = header_name(win->bytes + idx, w->a->side, &skip);
	if (!name || skip > len)
		return;
	idx += skip;
	opaque(idx);
	if (idx >= LINE_MAX)
		return;
	__u32 value = idx << 16 | (end - idx);
	/* Nearly every value has one space before it and none behind. */
	if (win->bytes[idx] != ' ' || is_blank(win, idx + 1) || is_blank(win, end - 1))
		value = trim(win, idx, end);
	else
		value += (1 << 16) - 1;
	idx = value >> 16;
	len = value & 0xffff;
	if (idx >= LINE_MAX || !len || len > LINE_MAX)
		return;

	if (name == NAME_LENGTH) {
		read_length(half, win, idx, len);
		return;
	}
	if (name == NAME_ENCODING) {
		read_encoding(half, win, idx, len);
		return;
	}
	if (name == NAME_UPGRADE)
		w->flow->h2c = len == 3 && (to_lower(load64(win->bytes + idx)) & FIRST(3)) == WORD('h', '2', 'c', 0, 0, 0, 0, 0);
	if (name == NAME_GRPC_STATUS)
		w->flow->response.grpc_status = read_grpc_status(win, idx, len);
	if (w->a->side != SIDE_OPENER)
		return;
	if (name == NAME_EXPECT) {
		ex->flags |= EXCHANGE_EXPECT;
		return;
	}

	__u32 kept = FIELDS;
	if (name == NAME_TRACESTATE && !w->flow->trusted)
		return;
	if (name == NAME_HOST)
		kept = FIELD_MAX(FIELD_HOST, HOST_MAX);
	else if (name == NAME_USER_AGENT)
		kept = FIELD_MAX(FIELD_USER_AGENT, USER_AGENT_MAX);
	else if (name == NAME_REQUEST_ID)
		kept = FIELD_MAX(FIELD_REQUEST_ID, REQUEST_ID_MAX);
	else if (name == NAME_TYPE)
		kept = FIELD_MAX(FIELD_CONTENT_TYPE, TYPE_MAX);
	else if (name == NAME_BAGGAGE)
		kept = FIELD_MAX(FIELD_BAGGAGE, BAGGAGE_MAX);
	else if (name == NAME_FORCE_TRACE)
		kept = FIELD_MAX(FIELD_FORCE_TRACE, FORCE_TRACE_MAX);
	else if (name == NAME_TRACESTATE)
		kept = ex->fields[FIELD_TRACESTATE].len ? FIELD_MAX(FIELD_TRACESTATE_MORE, TRACESTATE_MAX) :
							  FIELD_MAX(FIELD_TRACESTATE, TRACESTATE_MAX);
	if (kept != FIELDS)
		keep(ex, win, idx, len, kept);
	if (name == NAME_TYPE)
		read_content_type(ex, win->bytes + idx, len);
	if (name == NAME_FORCE_TRACE && w->flow->may_force)
		read_force_trace(ex, win->bytes + idx, len);
	if (!w->flow->trusted)
		return;

	if (name == NAME_TRACESTATE)
		read_tracestate(ex, win, idx, idx + len);
	else if (name == NAME_TRACEPARENT)
		take_traceparent(ex, win, idx, len);
	else if (name == NAME_REQUEST_ID)
		take_request_id(ex, win, idx, len);
	else if (name == NAME_B3 || name == NAME_B3_TRACE || name == NAME_B3_SPAN || name == NAME_B3_SAMPLED ||
		 name == NAME_B3_FLAGS)
		take_b3(ex, win, name, value);
}

#endif
