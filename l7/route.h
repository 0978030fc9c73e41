/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What a request asks for, as rules and routes see it: the segments of its path, and the template that they make.
 * A segment that looks like an ID is a placeholder; route.go says the same to people.
 *
 *   {number}  up to 128 digits and . , - , at least one digit
 *   {uuid}    36 bytes, hex digits and a dash at 8, 13, 18 and 23
 *   {hex}     16 to 128 hex digits, one of them 0 to 9
 *   {token}   20 to 128 of A-Z a-z 0-9 - _ = + , with upper and lower case and a digit
 */
#ifndef AMBIT_ROUTE_H
#define AMBIT_ROUTE_H

#include "../bpf/config.h"
#include "../bpf/maps.h"
#include "../bpf/words.h"

#define TEMPLATE_SEGMENTS 24
#define PATH_STEPS 512 /* segments and words of the longest path that is kept */
#define PLACEHOLDER_BYTES 128

/* What a segment with a digit is. */
__noinline int placeholder_of(const struct exchange *ex, __u32 from, __u32 len)
{
	__u64 not_number = 0, not_hex = 0, not_uuid = 0, not_token = 0, upper = 0, lower = 0, dashes = 0;

	if (!ex || len > PLACEHOLDER_BYTES)
		return PLACEHOLDER_NONE;
	for (__u32 i = 0; i < PLACEHOLDER_BYTES / 8; i++) {
		__u32 at = from + i * 8, left = len - i * 8;
		if (i * 8 >= len)
			break;
		opaque(at);
		if (at > EXCHANGE_TEXT - 8)
			return PLACEHOLDER_NONE;
		__u64 text = load64(ex->text + at), all = head_of(0x80 * EACH, left < 8 ? left : 8);
		__u64 digit = between(text, '0', '9');
		not_number |= all & ~(digit | between(text, ',', '.'));
		/* Nothing else is so short. */
		if (len < 16)
			continue;
		__u64 dash = between(text, '-', '-');
		__u64 up = between(text, 'A', 'Z'), low = between(text, 'a', 'z');
		__u64 hex = digit | between(text | 0x20 * EACH, 'a', 'f');
		not_hex |= all & ~hex;
		not_uuid |= all & ~(hex | dash);
		not_token |= all & ~(digit | up | low | dash | between(text, '_', '_') | between(text, '=', '=') |
				     between(text, '+', '+'));
		upper |= all & up;
		lower |= all & low;
		/* A bit for each byte, of the first five words. */
		if (i < 5)
			dashes |= ((all & dash) >> 7) << i;
	}
	if (!not_number)
		return PLACEHOLDER_NUMBER;
	if (len < 16)
		return PLACEHOLDER_NONE;
	/* At 8, 13, 18 and 23: of the words 1, 1, 2 and 2 the bytes 0, 5, 2 and 7. */
	if (len == 36 && !not_uuid && dashes == (1ULL << 1 | 1ULL << 41 | 1ULL << 18 | 1ULL << 58))
		return PLACEHOLDER_UUID;
	if (!not_hex)
		return PLACEHOLDER_HEX;
	return len >= 20 && !not_token && upper && lower ? PLACEHOLDER_TOKEN : PLACEHOLDER_NONE;
}

#define BLANKS 16

/* Where what is no space begins: several may stand for one (RFC 9112, section 3). */
__noinline __u32 behind_blanks(const struct exchange *ex, __u32 from, __u32 end)
{
	if (!ex)
		return end;
	for (__u32 i = 0; i < BLANKS; i++) {
		__u32 at = from + i;
		opaque(at);
		if (at >= end || at >= EXCHANGE_TEXT)
			break;
		if (ex->text[at] != ' ')
			return at;
	}
	return end;
}

/* Where the target of HTTP/1's request line begins: behind the method and a space. */
static always_inline __u32 target_of(const struct exchange *ex, __u32 from, __u32 end)
{
	for (__u32 i = 0; i < 16; i++) {
		__u32 at = from + i * 8;
		opaque(at);
		if (at >= end || at > EXCHANGE_TEXT - 8)
			return end;
		__u64 space = hits(load64(ex->text + at), ' ');
		if (space)
			return at + first_byte(space) + 1;
	}
	return end;
}

#define BAGGAGE_MAX 256

/* Where a character is in the text, from at on; end where it is not. */
__noinline __u32 find_in_text(const struct exchange *ex, __u32 at, __u32 end, __u32 c)
{
	if (!ex)
		return end;
	for (__u32 i = 0; i <= BAGGAGE_MAX / 8; i++) {
		__u32 here = at + i * 8;
		opaque(here);
		if (here >= end || here > EXCHANGE_TEXT - 8)
			break;
		__u64 hit = hits(load64(ex->text + here), c);
		if (hit) {
			here += first_byte(hit);
			return here < end ? here : end;
		}
	}
	return end;
}

/* Where the path begins of a target that does not begin with it: behind a scheme and an authority. The end where it has none. */
static always_inline __u32 path_of(const struct exchange *ex, __u32 from, __u32 end)
{
	/* Behind the target of HTTP/1 is a version, which has a slash. */
	end = find_in_text(ex, from, end, ' ');
	__u32 authority = find_in_text(ex, from, end, '/') + 2, path = find_in_text(ex, authority, end, '/');

	if (find_in_text(ex, authority, end, '?') < path || find_in_text(ex, authority, end, '#') < path)
		return end;
	return path;
}

#define METHOD_WORD(m, len, ...) \
	if (n == len && text == WORD(__VA_ARGS__)) \
		return m;

/* text begins with a method of n bytes. */
static always_inline __u32 method_of(__u64 text, __u32 n)
{
	if (n > 7)
		return METHOD_OTHER;
	text &= FIRST(n);
	METHOD_WORD(METHOD_GET, 3, 'G', 'E', 'T', 0, 0, 0, 0, 0)
	METHOD_WORD(METHOD_POST, 4, 'P', 'O', 'S', 'T', 0, 0, 0, 0)
	METHOD_WORD(METHOD_PUT, 3, 'P', 'U', 'T', 0, 0, 0, 0, 0)
	METHOD_WORD(METHOD_DELETE, 6, 'D', 'E', 'L', 'E', 'T', 'E', 0, 0)
	METHOD_WORD(METHOD_HEAD, 4, 'H', 'E', 'A', 'D', 0, 0, 0, 0)
	METHOD_WORD(METHOD_PATCH, 5, 'P', 'A', 'T', 'C', 'H', 0, 0, 0)
	METHOD_WORD(METHOD_OPTIONS, 7, 'O', 'P', 'T', 'I', 'O', 'N', 'S', 0)
	METHOD_WORD(METHOD_CONNECT, 7, 'C', 'O', 'N', 'N', 'E', 'C', 'T', 0)
	METHOD_WORD(METHOD_TRACE, 5, 'T', 'R', 'A', 'C', 'E', 0, 0, 0)
	METHOD_WORD(METHOD_QUERY, 5, 'Q', 'U', 'E', 'R', 'Y', 0, 0, 0)
	return METHOD_OTHER;
}
#undef METHOD_WORD

/* Finds method and path. */
static always_inline void find_path(struct subject *s, const struct exchange *ex)
{
	bool h2 = ex->protocol == PROTOCOL_HTTP2;
	struct slice path = ex->fields[h2 ? FIELD_PATH : FIELD_REQUEST_LINE];
	__u32 from = path.off, end = from + path.len;

	s->method = METHOD_OTHER;
	if (h2) {
		struct slice method = ex->fields[FIELD_METHOD];
		__u32 at = method.off;
		opaque(at);
		if (at <= EXCHANGE_TEXT - 8)
			s->method = method_of(load64(ex->text + at), method.len);
	} else {
		__u32 target = target_of(ex, from, end);
		opaque(from);
		if (from <= EXCHANGE_TEXT - 8 && target > from)
			s->method = method_of(load64(ex->text + from), target - from - 1);
		from = target;
	}
	__u32 at = from;
	opaque(at);
	if (at < EXCHANGE_TEXT && at < end && ex->text[at] == ' ') {
		from = behind_blanks(ex, from, end);
		at = from;
		opaque(at);
	}
	if (s->method == METHOD_CONNECT)
		from = end;
	else if (at < EXCHANGE_TEXT && at < end && ex->text[at] != '/' && ex->text[at] != '*')
		from = path_of(ex, from, end);
	s->from = from;
	s->end = end;
}

#define WORDS_AT_ONCE 4

/* How many bytes of a word are before the first / ? # or space. */
static always_inline __u32 bytes_before(__u64 text)
{
	/* Two at once: / and ? differ in one bit, space and # in two, which ! and " share. */
	__u64 first = hits(text | 0x10 * EACH, '?') | hits(text & ~(3 * EACH), ' ');

	if (!first)
		return 8;
	__u8 c = text >> (8 * first_byte(first));
	if (c == '!' || c == '"') {
		first = hits(text, '/') | hits(text, '?') | hits(text, '#') | hits(text, ' ');
		if (!first)
			return 8;
	}
	return first_byte(first);
}

/* Takes a segment, or WORDS_AT_ONCE words of a long one. Answers 1 behind the last one. */
static long path_step(__u64 i, struct splitting *p)
{
	struct subject *s = p->subject;
	const struct exchange *ex = p->exchange;
	__u64 hash = s->hash, digits = s->digits;
	__u32 at = s->at, end = s->end, n = 8;
	bool ends = false;

	for (__u32 k = 0; k < WORDS_AT_ONCE; k++) {
		__u32 here = at;
		opaque(here);
		if (here > EXCHANGE_TEXT - 8 || here >= end) {
			ends = true;
			break;
		}
		__u64 text = load64(ex->text + here);
		n = bytes_before(text);
		if (end - at < n)
			n = end - at;
		if (n) {
			__u64 part = head_of(text, n);
			digits |= between(part, '0', '9');
			hash = mix(hash, part);
			at += n;
		}
		if (n < 8) {
			ends = at >= end || (text >> (8 * n) & 0xff) != '/';
			break;
		}
	}
	if (n == 8 && !ends) {
		s->hash = hash;
		s->digits = digits;
		s->at = at;
		return 0;
	}
	/* A segment is whole. */
	__u32 begin = s->begin, len = at - begin, place = s->depth;
	if (len) {
		__u32 kind = digits && s->guess ? placeholder_of(ex, begin, len) : PLACEHOLDER_NONE;
		hash = mix(hash, len);
		if (place < TEMPLATE_SEGMENTS)
			s->path = mix(s->path, kind ? kind : hash);
		s->depth = place + 1;
		s->last = begin;
		s->last_end = at;
		opaque(place);
		if (place < SEGMENTS)
			s->segment[place] = hash;
	}
	at++; /* the slash */
	s->at = at;
	s->begin = at;
	s->hash = flow_seed;
	s->digits = 0;
	return ends;
}

/* Cuts the path into segments, and makes its template. */
static always_inline void split_path(struct subject *s, const struct exchange *ex)
{
	struct splitting p = { s, ex };

	s->at = s->from;
	s->begin = s->from;
	s->hash = flow_seed;
	s->path = flow_seed;
	s->digits = 0;
	s->depth = 0;
	s->last = 0;
	s->last_end = 0;
	s->guess = !(ex->flags & EXCHANGE_GRPC);
	bpf_loop(PATH_STEPS, path_step, &p, 0);
	s->path = mix(s->path, s->depth < TEMPLATE_SEGMENTS ? s->depth : TEMPLATE_SEGMENTS + 1);
	if (s->depth > DEPTHS - 1)
		s->depth = DEPTHS - 1;
	/* A path that nobody knows is no rule's, and not that of the root: as if it had many segments, each of them unheard-of. */
	if (ex->protocol == PROTOCOL_HTTP2 && !ex->fields[FIELD_PATH].len && s->method != METHOD_CONNECT) {
		s->path = flow_seed;
		s->depth = DEPTHS - 1;
		__builtin_memset(s->segment, 0, sizeof(s->segment));
	}
}

#endif
