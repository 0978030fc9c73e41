/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * HTTP/1.0 and 1.1, one direction of a connection:
 *
 *              +----------------------- no body --------------------+
 *              v                                                    |
 *   START --first line--> HEAD --empty line--> BODY ----------------+
 *     ^                     |                  CHUNK_SIZE <-> CHUNK |
 *     |                     |                  TRAILER -------------+
 *     |                     |                  UNTIL_CLOSE --FIN--> (end)
 *     |                     +--101, CONNECT--> OFF
 *     +--a segment that begins a message-- LOST <--gap, nonsense-- (any)
 *
 * Lines are read whole from the window; one that a segment breaks off waits in the map carries. Bodies are skipped
 * by arithmetic, so a segment inside of one costs nothing but its header.
 */
#ifndef AMBIT_HTTP1_H
#define AMBIT_HTTP1_H

#include "window.h"

enum half_state {
	HALF_START, /* between messages */
	HALF_HEAD, /* in the lines of a head */
	HALF_BODY, /* remain bytes are left */
	HALF_CHUNK_SIZE, /* the next line is a chunk's size */
	HALF_CHUNK, /* remain bytes are left of a chunk and its line end */
	HALF_TRAILER, /* behind the last chunk */
	HALF_UNTIL_CLOSE, /* a body that the connection's end ends */
	HALF_LOST, /* it is not known where the next message begins */
	HALF_OFF, /* no more HTTP/1 follows */
};

enum framing {
	FRAMING_NONE,
	FRAMING_LENGTH,
	FRAMING_CHUNKED,
	FRAMING_CLOSE, /* transfer-encoding without chunked at its end */
	FRAMING_INVALID,
};

#define HEAD_MAX 16384
#define STEPS_MAX 4096

/* Text constants as the words that the comparisons load. */
#define WORD(a, b, c, d, e, f, g, h)                                                      \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 |             \
	 (__u64)(e) << 32 | (__u64)(f) << 40 | (__u64)(g) << 48 | (__u64)(h) << 56)
#define FIRST(n) ((1ULL << (8 * (n))) - 1)

/* How much is kept of each field, in bytes. */
#define REQUEST_LINE_MAX 640
#define HOST_MAX 256
#define USER_AGENT_MAX 192
#define REQUEST_ID_MAX 128
#define TRACESTATE_MAX 512

/* The bytes that a token may have, by RFC 9110: of 0 to 63, and of 64 to 127. */
#define TOKEN_LOW 0x03ff6cfa00000000ULL
#define TOKEN_HIGH 0x57ffffffc7fffffeULL

static always_inline bool is_token_byte(__u8 c)
{
	return c < 128 && ((c < 64 ? TOKEN_LOW : TOKEN_HIGH) >> (c & 63) & 1);
}

__noinline int is_method(__u64 text, __u32 len)
{
	for (__u32 i = 0; i < 8; i++) {
		__u8 c = text >> (8 * i);
		if (i >= len)
			return 1;
		if (c == ' ')
			return i > 0;
		if ((c == '\r' || c == '\n') && i < 4)
			continue;
		if (!is_token_byte(c))
			return 0;
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

static always_inline void forget_line(struct flow *f, __u32 side)
{
	struct part_key key = { f->id, side };

	if (f->half[side & 1].carried) {
		bpf_map_delete_elem(&carries, &key);
		f->half[side & 1].carried = 0;
	}
	f->half[side & 1].skipping = 0;
}

/*
 * A direction lost its place. What depends on the missing bytes is dropped and counted; an exchange whose
 * response head was whole only lost the exact end of its body, which the next turn tells.
 */
__noinline int lose(struct flow *f, __u32 side, __u32 stat)
{
	if (!f)
		return 0;
	struct half *half = &f->half[side & 1];

	half->state = HALF_LOST;
	half->resynced = 0;
	half->proving = 0;
	half->body = BODY_UNKNOWN;
	forget_line(f, side);
	count(STAT_DESYNC);
	if (side == SIDE_OPENER)
		drop_newest(f, stat);
	else if (outstanding(f) != 1 || !f->response.headed)
		drop_all(f, stat);
	return 0;
}

/* Counts a request of which nothing was seen. */
static always_inline void miss(struct flow *f)
{
	__u32 n = is_app(&f->exchange, SIDE_OPENER) + is_app(&f->exchange, SIDE_ACCEPTOR);

	count_n(STAT_SEEN, n);
	count_n(STAT_DROP_GAP, n);
}

/* The connection turned out to speak something else, or to be no longer worth watching. */
static always_inline void give_up(struct flow *f)
{
	f->ended = 1;
	f->half[SIDE_OPENER].state = HALF_OFF;
	f->half[SIDE_ACCEPTOR].state = HALF_OFF;
	/* Its flow is about to be deleted, and then nobody knows the key of what was carried. */
	forget_line(f, SIDE_OPENER);
	forget_line(f, SIDE_ACCEPTOR);
}

static always_inline void malformed(struct flow *f, __u32 side)
{
	struct half *half = &f->half[side & 1];

	if (!f->taken) {
		count(STAT_NOT_HTTP);
		give_up(f);
	} else if (half->resynced) {
		half->state = HALF_LOST;
		half->resynced = 0;
	} else {
		if (side == SIDE_OPENER && half->state == HALF_START) {
			__u32 n = is_app(&f->exchange, SIDE_OPENER) + is_app(&f->exchange, SIDE_ACCEPTOR);
			count_n(STAT_SEEN, n);
			count_n(STAT_DROP_MALFORMED, n);
		}
		lose(f, side, STAT_DROP_MALFORMED);
	}
}

/* Copies a value into the exchange's text; max is FIELD's bound. */
__noinline int keep(struct exchange *ex, const struct window *win, __u32 idx, __u32 len, __u32 field_max)
{
	if (!ex || !win)
		return 0;
	__u32 field = field_max & 7, max = field_max >> 3, used = ex->used, room;

	if (field >= FIELDS || idx >= LINE_MAX)
		return 0;
	if (ex->fields[field].len) {
		/* The first one counts; of a list it is not all. */
		if (field == FIELD_TRACESTATE) {
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
	else if (used <= EXCHANGE_TEXT - 64 && len <= 64)
		copy_bytes(ex->text + used, len, win->bytes + idx);
	return 0;
}

#define FIELD_MAX(field, max) ((max) << 3 | (field))

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
	__u32 last = idx + len - 7;

	half->framing = FRAMING_CLOSE;
	if (len >= 7 && last < LINE_MAX &&
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
#define NAME_ENCODING WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')

/* The first letters of those, of a request and of a response. */
#define LETTER(c) (1U << ((c) - 'a'))
#define LETTERS_RESPONSE (LETTER('t') | LETTER('c'))
#define LETTERS_REQUEST (LETTERS_RESPONSE | LETTER('h') | LETTER('b') | LETTER('u') | LETTER('x'))

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
	if (two == ('c' | 'o' << 8))
		return (b[8] | 0x20) != 'l';
	if (two == ('x' | '-' << 8)) {
		__u8 third = (__u8)(text >> 16) | 0x20;
		return third != 'r' && third != 'b';
	}
	return two != ('t' | 'r' << 8) && two != ('h' | 'o' << 8) && two != ('u' | 's' << 8) && two != ('b' | '3' << 8);
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
	NAME(NAME_LENGTH, 7, 'l', 'e', 'n', 'g', 't', 'h', ':', 0)
	if (name == NAME_ENCODING && more == WORD('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') &&
	    (to_lower(load64(b + 16)) & FIRST(2)) == WORD('g', ':', 0, 0, 0, 0, 0, 0)) {
		*skip = 18;
		return NAME_ENCODING;
	}
	if (side == SIDE_ACCEPTOR)
		return 0;
	if ((name & FIRST(5)) == NAME_HOST) {
		*skip = 5;
		return NAME_HOST;
	}
	if ((name & FIRST(3)) == NAME_B3) {
		*skip = 3;
		return NAME_B3;
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

/* A header of tracing context other than tracestate; value as trim says. A global function: verified once. */
__noinline int read_context(struct exchange *ex, const struct window *win, __u64 name, __u32 value)
{
	__u32 idx = value >> 16, len = value & 0xffff;

	if (!ex || !win || idx >= LINE_MAX || len > LINE_MAX)
		return 0;
	const __u8 *v = win->bytes + idx;
	if (name == NAME_TRACEPARENT)
		read_traceparent(ex, v, len);
	else if (name == NAME_REQUEST_ID)
		read_request_id(ex, v, len);
	else if (name == NAME_B3)
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
	if (w->a->side != SIDE_OPENER)
		return;

	__u32 kept = FIELDS;
	if (name == NAME_TRACESTATE && !w->flow->trusted)
		return;
	if (name == NAME_HOST)
		kept = FIELD_MAX(FIELD_HOST, HOST_MAX);
	else if (name == NAME_USER_AGENT)
		kept = FIELD_MAX(FIELD_USER_AGENT, USER_AGENT_MAX);
	else if (name == NAME_REQUEST_ID)
		kept = FIELD_MAX(FIELD_REQUEST_ID, REQUEST_ID_MAX);
	else if (name == NAME_TRACESTATE)
		kept = FIELD_MAX(FIELD_TRACESTATE, TRACESTATE_MAX);
	if (kept != FIELDS)
		keep(ex, win, idx, len, kept);
	if (!w->flow->trusted)
		return;

	if (name == NAME_TRACESTATE)
		read_tracestate(ex, win, idx, idx + len);
	else if (name != NAME_HOST && name != NAME_USER_AGENT)
		read_context(ex, win, name, value);
}

static always_inline bool is_version(__u64 text)
{
	return text == WORD('H', 'T', 'T', 'P', '/', '1', '.', '1') ||
	       text == WORD('H', 'T', 'T', 'P', '/', '1', '.', '0');
}

static always_inline bool ends_in_version(const struct window *win, __u32 idx, __u32 len)
{
	__u32 at = idx + len - 9;

	/* A method and a target of one byte each, their spaces, and the version. */
	if (len < 12 || at >= LINE_MAX || win->bytes[at] != ' ')
		return false;
	return is_version(load64(win->bytes + at + 1));
}

/* It speaks HTTP/1. */
static always_inline void take(struct flow *f)
{
	if (f->taken)
		return;
	f->taken = 1;
	count(STAT_FLOWS);
}

/*
 * More of a request line that is longer than the window: only its end says whether it is one. Its last eight bytes are
 * put together from the parts; a CR at a part's end is the line end's.
 */
__noinline int prove(struct flow *f, const struct window *win, __u32 idx, __u32 len, __u32 ended)
{
	if (!f || !win || idx >= LINE_MAX || len > LINE_MAX)
		return 0;
	struct half *half = &f->half[SIDE_OPENER];
	__u32 last = idx + len - 1;

	opaque(last);
	if (len && last < LINE_MAX && win->bytes[last] == '\r')
		len--;
	last = idx + len - 8;
	opaque(last);
	if (len >= 8 && last < LINE_MAX)
		half->tail = load64(win->bytes + last);
	else if (len)
		half->tail = half->tail >> (8 * (len & 7)) | load64(win->bytes + idx) << (64 - 8 * (len & 7));
	if (!ended)
		return 0;
	half->proving = 0;
	if (is_version(half->tail)) {
		take(f);
		return 0;
	}
	drop_newest(f, STAT_DROP_MALFORMED);
	malformed(f, SIDE_OPENER);
	return 0;
}

static always_inline void request_line(struct walk *w, struct half *half, __u32 idx, __u32 len, bool whole)
{
	struct flow *f = w->flow;
	__u64 text = load64(w->win->bytes + idx);

	if (!begins_request(text, len) || (whole ? !ends_in_version(w->win, idx, len) : half->resynced)) {
		malformed(f, SIDE_OPENER);
		return;
	}
	if (half->resynced)
		count(STAT_RESYNC);
	half->resynced = 0;
	if (whole)
		take(f);
	struct exchange *ex = begin(f, f->begun_ns, f->begun_seq, f->begun_ack);
	half->body = 0;
	half->state = HALF_HEAD;
	half->framing = FRAMING_NONE;
	keep(ex, w->win, idx, len, FIELD_MAX(FIELD_REQUEST_LINE, REQUEST_LINE_MAX));
	if (!whole) {
		ex->cut |= 1 << FIELD_REQUEST_LINE;
		half->proving = 1;
	}
	__u64 bit = 1ULL << (f->held & 63);
	if ((text & FIRST(5)) == WORD('H', 'E', 'A', 'D', ' ', 0, 0, 0))
		f->heads |= bit;
	else if (text == WORD('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '))
		f->connects |= bit;
	/* The bits are used again: which response has no body can't be told any more. */
	if (outstanding(f) > 64 && (f->heads | f->connects)) {
		drop_all(f, STAT_DROP_PIPELINE);
		give_up(f);
	}
}

static always_inline void status_line(struct walk *w, struct half *half, __u32 idx, __u32 len)
{
	struct flow *f = w->flow;
	const __u8 *b = w->win->bytes + idx;

	if (len < 12 || !begins_response(load64(b), 8) || b[8] != ' ') {
		malformed(f, SIDE_ACCEPTOR);
		return;
	}
	__u32 hundreds = b[9] - '0', tens = b[10] - '0', ones = b[11] - '0';
	if (hundreds > 9 || tens > 9 || ones > 9 || !hundreds || (len > 12 && b[12] != ' ')) {
		malformed(f, SIDE_ACCEPTOR);
		return;
	}
	if (!outstanding(f)) {
		/* Without its request not even its length is known: a HEAD's response has none. */
		count(STAT_ORPHAN_RESPONSE);
		half->state = HALF_LOST;
		half->resynced = 0;
		return;
	}
	if (half->resynced)
		count(STAT_RESYNC);
	half->resynced = 0;
	f->response.status = hundreds * 100 + tens * 10 + ones;
	half->state = HALF_HEAD;
	half->framing = FRAMING_NONE;
	half->body = 0;
}

static always_inline void message_end(struct walk *w, struct half *half)
{
	half->state = HALF_START;
	half->head = 0;
	if (w->a->side == SIDE_ACCEPTOR)
		conclude_first(w->flow, ENDING_RESPONSE, w->a->now);
}

static always_inline void enter_body(struct walk *w, struct half *half)
{
	if (half->framing == FRAMING_CHUNKED) {
		half->state = HALF_CHUNK_SIZE;
	} else {
		/* A body of no bytes ends in this step too. */
		if (half->framing != FRAMING_LENGTH)
			half->remain = 0;
		half->state = HALF_BODY;
	}
}

static always_inline void request_headed(struct walk *w, struct half *half)
{
	struct exchange *ex = &w->flow->exchange;

	ex->flags |= EXCHANGE_HEAD_DONE;
	if (!(ex->flags & EXCHANGE_TRACE_HEADER))
		ex->flags &= ~EXCHANGE_PARENT_HEADER;
	sample(ex);
	if (half->framing == FRAMING_CLOSE || half->framing == FRAMING_INVALID)
		malformed(w->flow, SIDE_OPENER);
	else
		enter_body(w, half);
}

static always_inline void response_headed(struct walk *w, struct half *half)
{
	struct flow *f = w->flow;
	__u64 bit = 1ULL << (f->first & 63);
	__u16 status = f->response.status;

	if (status < 200 && status != 101) {
		f->response.status = 0;
		f->response.first_ns = 0;
		half->state = HALF_START;
		half->head = 0;
		return;
	}
	f->response.headed = 1;
	if (status == 101 || (f->connects & bit && status < 300)) {
		conclude_first(f, ENDING_RESPONSE, w->a->now);
		drop_all(f, STAT_DROP_MALFORMED);
		count(STAT_UPGRADED);
		give_up(f);
		return;
	}
	if (f->heads & bit || status == 204 || status == 304) {
		half->remain = 0;
		half->state = HALF_BODY;
		return;
	}
	switch (half->framing) {
	case FRAMING_NONE:
	case FRAMING_CLOSE:
		half->state = HALF_UNTIL_CLOSE;
		break;
	case FRAMING_INVALID:
		malformed(f, SIDE_ACCEPTOR);
		break;
	default:
		enter_body(w, half);
	}
}

/* A line of LINE_MAX at most, without its end; not whole where it is longer. */
static always_inline void line(struct walk *w, struct half *half, __u32 idx, __u32 len, bool whole)
{
	__u64 size;

	switch (half->state) {
	case HALF_START:
		if (!len) {
			half->head = 0;
			return;
		}
		if (w->a->side == SIDE_OPENER)
			request_line(w, half, idx, len, whole);
		else
			status_line(w, half, idx, len);
		return;
	case HALF_HEAD:
		if (len)
			header(w, half, idx, len);
		else if (w->a->side == SIDE_OPENER)
			request_headed(w, half);
		else
			response_headed(w, half);
		return;
	case HALF_CHUNK_SIZE:
		size = read_chunk_size(w->win, idx, len);
		if (size == ~0ULL) {
			malformed(w->flow, w->a->side);
		} else if (size) {
			half->remain = size + 2;
			half->state = HALF_CHUNK;
		} else {
			half->state = HALF_TRAILER;
			half->head = 0;
		}
		return;
	case HALF_TRAILER:
		if (!len) {
			half->remain = 0;
			half->state = HALF_BODY;
		}
		return;
	}
}

/* Keeps the line that a segment broke off; the window begins with it. */
static always_inline void carry(struct walk *w, struct half *half)
{
	struct part_key key = { w->flow->id, w->a->side };

	w->win->len = w->win->filled;
	if (bpf_map_update_elem(&carries, &key, w->win, BPF_ANY)) {
		count(STAT_CARRY_FULL);
		lose(w->flow, w->a->side, STAT_DROP_LIMIT);
		return;
	}
	half->carried = 1;
}

/*
 * Adds the segment's next bytes to a window that a carried line begins. No more than the slack at a time:
 * so the verifier can bound the copy, whatever the window already holds.
 */
static always_inline bool extend(struct walk *w)
{
	struct window *win = w->win;
	__u32 at = w->win->filled;
	__s32 pos = w->win->origin + (__s32)at;

	opaque(at);
	if (at >= LINE_MAX || pos < 0 || pos >= w->a->end)
		return false;
	__u32 n = w->a->end - pos;
	if (n > sizeof(win->slack))
		n = sizeof(win->slack);
	if (n > LINE_MAX - at)
		n = LINE_MAX - at;
	n -= 1;
	opaque(n);
	opaque(at);
	if (n >= sizeof(win->slack) || at >= LINE_MAX)
		return false;
	n += 1;
	if (load_bytes(w->packet, w->a->payload + pos, win->bytes + at, n))
		return false;
	n += at;
	opaque(n);
	if (n > LINE_MAX)
		return false;
	*(win->bytes + n) = '\n';
	win->filled = n;
	return true;
}

/* Puts a carried line before the new bytes. */
static always_inline void resume(struct walk *w, struct half *half)
{
	struct part_key key = { w->flow->id, w->a->side };
	struct window *carried = bpf_map_lookup_elem(&carries, &key);
	__s32 pos = position(w); /* the copy brings the cursor of another segment along */

	half->carried = 0;
	if (!carried || copy_bytes(w->win, sizeof(*w->win), carried) || w->win->len >= LINE_MAX) {
		lose(w->flow, w->a->side, STAT_DROP_LIMIT);
		return;
	}
	bpf_map_delete_elem(&carries, &key);
	w->win->filled = w->win->len;
	w->win->origin = pos - (__s32)w->win->filled;
	w->win->idx = 0;
}

/* One line, body part or chunk. Answers 1 when the segment is used up. */
static long http1_step(__u64 i, struct walk *w)
{
	struct flow *f = w->flow;
	struct half *half = &f->half[w->a->side & 1];
	__s32 left = w->a->end - position(w);
	__u64 n;

	if (left <= 0)
		return 1;
	switch (half->state) {
	case HALF_BODY:
		goto body;
	case HALF_CHUNK:
		if (half->skipping)
			break; /* the extensions behind the size go on */
		n = half->remain < left ? half->remain : left;
		/* The last two bytes of remain are the line end. */
		if (half->remain > 2)
			half->body += n < half->remain - 2 ? n : half->remain - 2;
		half->remain -= n;
		advance(w, n);
		if (!half->remain)
			half->state = HALF_CHUNK_SIZE;
		return 0;
	case HALF_UNTIL_CLOSE:
		half->body += left;
		advance(w, left);
		return 1;
	case HALF_LOST:
	case HALF_OFF:
		return 1;
	}

	if (w->win->idx >= w->win->filled && !refill(w))
		return 1;
	if (half->state == HALF_START && !half->head && position(w) >= 0) {
		__u32 pos = position(w);
		if (w->a->side == SIDE_OPENER) {
			f->begun_ns = w->a->now;
			f->begun_seq = w->a->seq + pos;
			f->begun_ack = w->a->ack;
		} else if (!f->response.first_ns) {
			f->response.first_ns = w->a->now;
		}
	}

	__u32 idx = w->win->idx, filled = w->win->filled;
	if (idx >= LINE_MAX || filled > LINE_MAX)
		return 1;
	__u32 letters = half->state != HALF_HEAD || half->skipping ? 0 :
			w->a->side == SIDE_OPENER		   ? LETTERS_REQUEST :
								     LETTERS_RESPONSE;
	half->head -= idx;
	__u32 lf = find_line(w->win, filled, letters);
	idx = w->win->idx;
	half->head += idx;
	if (idx >= LINE_MAX)
		return 1;
	bool ended = lf < filled;
	if (!ended && idx > 0) {
		/* The line goes on behind the window: look again from where it begins. */
		w->win->origin += idx;
		w->win->idx = 0;
		w->win->filled = 0;
		return 0;
	}
	if (!ended && !half->skipping && filled < LINE_MAX) {
		if (w->win->origin + (__s32)filled < w->a->end) {
			/* Only behind a carried line does the window end before the segment. */
			return !extend(w);
		}
		carry(w, half);
		w->win->idx = filled;
		return 1;
	}
	__u32 len = lf - idx;
	if (len > LINE_MAX || lf > LINE_MAX)
		return 1;
	half->head += len + ended;
	w->win->idx = ended ? lf + 1 : lf;
	if (half->head > HEAD_MAX && half->state <= HALF_HEAD) {
		lose(f, w->a->side, STAT_DROP_HEAD_TOO_LONG);
		return 0;
	}
	if (half->skipping) {
		half->skipping = !ended;
		if (half->proving)
			prove(f, w->win, idx, len, ended);
	} else {
		half->skipping = !ended;
		__u32 last = lf - 1;
		opaque(last);
		if (ended && len && last < LINE_MAX && w->win->bytes[last] == '\r')
			len--;
		line(w, half, idx, len, ended);
		if (!ended && half->proving)
			prove(f, w->win, idx, len, 0);
	}
	if (half->state == HALF_BODY) {
body:
		/* What of the body is in this segment, without another step: each costs a call and its return. */
		left = w->a->end - position(w);
		n = half->remain < left ? half->remain : left;
		half->remain -= n;
		half->body += n;
		advance(w, n);
		if (!half->remain)
			message_end(w, half);
	}
	return position(w) >= w->a->end;
}

/* The exchange whose response lost its end is over when its client asks again. */
static always_inline void settle(struct flow *f)
{
	if (f->half[SIDE_ACCEPTOR].state != HALF_LOST || !outstanding(f))
		return;
	if (f->response.headed)
		conclude_first(f, ENDING_RESPONSE, f->half[SIDE_ACCEPTOR].last_ns);
	drop_all(f, STAT_DROP_GAP);
}

/*
 * A direction that lost its place finds it where a segment begins a message and the other side spoke last:
 * in the middle of a body nobody waits for an answer.
 */
static always_inline bool resync(struct walk *w, struct half *half, bool turn)
{
	struct flow *f = w->flow;
	__u32 len = w->a->end < 8 ? w->a->end : 8;
	__u64 text;

	if (!turn || (w->a->side == SIDE_ACCEPTOR && !outstanding(f)) || !refill(w))
		return false;
	text = load64(w->win->bytes);
	if (w->a->side == SIDE_OPENER ? !begins_request(text, len) : !begins_response(text, len))
		return false;
	half->state = HALF_START;
	half->head = 0;
	half->resynced = 1;
	return true;
}

/* Bytes were never seen: no harm inside of a body, which is skipped anyway, nor where they are all the rest of it. */
static always_inline bool absorb(struct flow *f, __u32 side, __u32 gap)
{
	struct half *half = &f->half[side & 1];

	if (half->skipping)
		return false;
	if (half->state == HALF_UNTIL_CLOSE) {
		half->body += gap;
		return true;
	}
	if (half->state == HALF_BODY && half->remain == gap) {
		half->remain = 0;
		half->body += gap;
		half->state = HALF_START;
		half->head = 0;
		if (side == SIDE_ACCEPTOR)
			conclude_first(f, ENDING_RESPONSE, half->last_ns);
		return true;
	}
	if ((half->state != HALF_BODY || half->remain <= gap) && (half->state != HALF_CHUNK || half->remain <= gap + 2))
		return false;
	half->remain -= gap;
	half->body += gap;
	return true;
}

/* There is a gap before what comes next of a side. */
__noinline int miss_bytes(struct flow *f, __u32 side, __u32 gap)
{
	if (!f || absorb(f, side, gap))
		return 0;
	if (side == SIDE_OPENER && f->half[SIDE_OPENER].state == HALF_START)
		miss(f);
	lose(f, side, STAT_DROP_GAP);
	return 0;
}

/* The peer confirms bytes of this side that were never seen, and so never will be. */
static always_inline void confirmed(struct flow *f, __u32 side, __u32 ack)
{
	struct half *half = &f->half[side & 1];
	__s32 gap = ack - half->next_seq;

	if (gap <= 0 || half->state == HALF_LOST || half->state == HALF_OFF)
		return;
	half->next_seq = ack;
	miss_bytes(f, side, gap);
}

/* Takes one segment of a direction through the parser. The flow is locked. */
__noinline int http1_segment(struct packet *packet, struct flow *f, const struct arrival *a)
{
	__u32 zero = 0;

	if (!f || !a)
		return 0;
	struct walk w = {
		.packet = packet,
		.a = a,
		.flow = f,
		.win = bpf_map_lookup_elem(&windows, &zero),
	};
	struct half *half = &f->half[a->side & 1];
	bool turn = f->last_side != a->side;
	bool was_lost = half->state == HALF_LOST;
	__s32 ahead = a->seq - half->next_seq;

	if (!w.win || half->state == HALF_OFF)
		return 0;
	if (ahead < 0 && half->next_seq - a->seq >= (__u32)a->end)
		return 0; /* seen before */
	w.win->origin = 0;
	w.win->idx = 0;
	w.win->filled = 0;
	f->last_side = a->side;
	confirmed(f, !a->side, a->ack);
	if (a->side == SIDE_OPENER && turn)
		settle(f);
	if (ahead > 0 && half->state != HALF_LOST)
		miss_bytes(f, a->side, ahead);
	if (half->state == HALF_LOST) {
		half->next_seq = a->seq + a->end;
		/* Behind a gap even what looks like a first line may be the rest of one. */
		if (ahead || !resync(&w, half, turn)) {
			half->last_ns = a->now;
			if (a->side == SIDE_ACCEPTOR)
				half->missed = outstanding(f) > 0;
			else if (was_lost && turn && ahead > 0)
				miss(f);
			return 0;
		}
		half->missed = 0;
	}
	if (ahead < 0)
		w.win->origin = -ahead;
	half->next_seq = a->seq + a->end;
	half->last_ns = a->now;
	if (half->carried)
		resume(&w, half);
	bpf_loop(STEPS_MAX, http1_step, &w, 0);
	if (half->state != HALF_LOST && half->state != HALF_OFF && position(&w) < a->end)
		lose(f, a->side, STAT_DROP_LIMIT);
	return 0;
}

/* The connection is over. What still waits for a response won't get one, unless it passed unread. */
__noinline int http1_over(struct flow *f, __u32 ending, __u64 now)
{
	if (!f)
		return 0;
	struct half *half = &f->half[SIDE_ACCEPTOR];
	bool missed = half->missed || (f->finned && half->next_seq != f->fin_seq);

	if (ending != ENDING_RESET &&
	    (half->state == HALF_UNTIL_CLOSE || (half->state == HALF_LOST && f->response.headed)))
		conclude_first(f, ENDING_RESPONSE, half->last_ns);
	if (missed)
		drop_all(f, STAT_DROP_GAP);
	else
		conclude_all(f, ending, now);
	return 0;
}

/*
 * A segment with FIN or RST, or one behind a FIN that came too early; seq is the number behind its bytes. What overtook
 * bytes that are still to come ends nothing yet, and at the latest the end of a socket does.
 */
static always_inline void http1_closing(struct flow *f, __u32 side, __u32 seq, __u32 flags, __u64 now)
{
	struct half *half = &f->half[side & 1];

	if (flags & TCP_RST) {
		if (half->next_seq == seq || !f->sockets)
			http1_over(f, ENDING_RESET, now);
		return;
	}
	if (side != SIDE_ACCEPTOR) {
		/* The FIN has a number of its own, which the peer confirms too. */
		if (flags & TCP_FIN && half->next_seq == seq)
			half->next_seq++;
		return;
	}
	if (flags & TCP_FIN) {
		f->finned = 1;
		f->fin_seq = seq;
	}
	if (half->next_seq != f->fin_seq)
		return;
	http1_over(f, ENDING_CLOSED, now);
	half->next_seq++;
	f->finned = 0;
}

#endif
