/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Trace context that a request carries: traceparent and tracestate (W3C), b3 in one header or several, x-request-id. */
#ifndef AMBIT_TRACEPARENT_H
#define AMBIT_TRACEPARENT_H

#include "identity.h"
#include "../bpf/words.h"

/*
 * Eight hex digits to four bytes, in the order of the text; *bad gets the highest bit of each byte that is
 * something else. All eight are looked at as one word.
 */
static always_inline __u32 hex8(__u64 text, __u64 *bad)
{
	__u64 lower = text | 0x20 * EACH;
	__u64 digit = text ^ 0x30 * EACH; /* 0..9 where a digit */
	__u64 letter = lower ^ 0x60 * EACH; /* 1..6 where a letter */
	__u64 not_digit = ((digit & 0x7f * EACH) + 0x76 * EACH) | digit;
	__u64 over_f = ((letter & 0x7f * EACH) + 0x79 * EACH) | letter;
	__u64 some = (letter & 0x7f * EACH) + 0x7f * EACH;
	__u64 is_letter = ~over_f & some & (text << 1);

	*bad |= not_digit & ~is_letter & 0x80 * EACH;
	__u64 v = (text & 0x0f * EACH) + 9 * ((text >> 6) & EACH);
	v = (v << 4 | v >> 8) & 0x00ff00ff00ff00ffULL;
	v = (v | v >> 8) & 0x0000ffff0000ffffULL;
	return v | v >> 16;
}

/* The highest bit of each byte that is an upper-case letter, of bytes that are hex digits or dashes. */
static always_inline __u64 upper_case(__u64 text)
{
	return (text << 1) & ~(text << 2) & 0x80 * EACH;
}

static always_inline __u64 hex16(const __u8 *p, __u64 *bad)
{
	__u64 low = hex8(load64(p), bad);

	return low | (__u64)hex8(load64(p + 8), bad) << 32;
}

/* Up to 14 digits, as if zeros followed: a threshold or randomness of 56 bits. */
static always_inline __u64 hex56(const __u8 *p, __u32 len, __u64 *bad)
{
	__u64 zeros = 0x30 * EACH, a = load64(p), b = load64(p + 8);
	__u32 first = len < 8 ? len : 8, second = len < 8 ? 0 : len - 8;

	if (len > 14 || !len) {
		*bad = 1;
		return 0;
	}
	__u64 keep = first == 8 ? ~0ULL : (1ULL << (8 * first)) - 1;
	a = (a & keep) | (zeros & ~keep);
	keep = (1ULL << (8 * (second & 7))) - 1;
	b = (b & keep) | (zeros & ~keep);
	__u64 high = bpf_ntohl(hex8(a, bad)), low = bpf_ntohl(hex8(b, bad));
	return (high << 32 | low) >> 8;
}

static always_inline void store_trace(struct exchange *ex, __u64 high, __u64 low)
{
	*(__u64 *)ex->trace_id = high;
	*(__u64 *)(ex->trace_id + 8) = low;
	ex->flags |= EXCHANGE_TRACE_HEADER;
}

static always_inline void store_decision(struct exchange *ex, bool sampled)
{
	ex->flags |= EXCHANGE_PARENT_DECIDED;
	if (sampled)
		ex->flags |= EXCHANGE_PARENT_SAMPLED;
	else
		ex->flags &= ~EXCHANGE_PARENT_SAMPLED;
}

/*
 * "00-" 32 digits "-" 16 digits "-" 2 digits, in lower case; a later version may go on behind another "-". It beats b3.
 */
static always_inline void read_traceparent(struct exchange *ex, const __u8 *v, __u32 len)
{
	__u64 bad = 0;

	if (ex->flags & (EXCHANGE_TRACEPARENT | EXCHANGE_TRACEPARENTS)) {
		/* Which of several holds nobody can say, so none does. */
		ex->flags &= ~(EXCHANGE_TRACEPARENT | EXCHANGE_TRACE_HEADER | EXCHANGE_PARENT_HEADER |
			       EXCHANGE_PARENT_DECIDED | EXCHANGE_PARENT_SAMPLED);
		ex->flags |= EXCHANGE_TRACEPARENTS;
		ex->trace_flags = 0;
		return;
	}
	if (len < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-')
		return;
	/* The version, and the flags behind the last dash: "vv-" and "-ff" as parts of eight digits. */
	__u64 zeros = 0x30 * EACH;
	__u8 version = hex8((load64(v) & 0xffff) | (zeros & ~0xffffULL), &bad);
	__u8 flags = hex8((load64(v + 53) & 0xffff) | (zeros & ~0xffffULL), &bad);
	if (version == 0xff || (version == 0 && len != 55) || (len > 55 && v[55] != '-'))
		return;
	__u64 high = hex16(v + 3, &bad), low = hex16(v + 19, &bad), parent = hex16(v + 36, &bad);
	for (__u32 i = 0; i < 48; i += 8)
		bad |= upper_case(load64(v + i));
	bad |= upper_case(load64(v + 47));
	if (bad || !(high | low) || !parent)
		return;
	store_trace(ex, high, low);
	*(__u64 *)ex->header_parent = parent;
	ex->trace_flags = flags;
	ex->flags |= EXCHANGE_PARENT_HEADER | EXCHANGE_TRACEPARENT;
	store_decision(ex, flags & 1);
}

static always_inline void read_b3_trace(struct exchange *ex, const __u8 *v, __u32 len)
{
	__u64 bad = 0;

	if (ex->flags & EXCHANGE_TRACEPARENT || (len != 32 && len != 16))
		return;
	__u64 high = len == 32 ? hex16(v, &bad) : 0;
	__u64 low = len == 32 ? hex16(v + 16, &bad) : hex16(v, &bad);
	if (!bad && (high | low))
		store_trace(ex, high, low);
}

static always_inline void read_b3_span(struct exchange *ex, const __u8 *v, __u32 len)
{
	__u64 bad = 0;

	if (ex->flags & EXCHANGE_TRACEPARENT || len != 16)
		return;
	__u64 parent = hex16(v, &bad);
	if (bad || !parent)
		return;
	*(__u64 *)ex->header_parent = parent;
	ex->flags |= EXCHANGE_PARENT_HEADER;
}

static always_inline void read_b3_sampled(struct exchange *ex, __u8 c)
{
	if (ex->flags & EXCHANGE_TRACEPARENT)
		return;
	if (c == '1' || c == 'd' || c == 't' || c == 'T')
		store_decision(ex, true);
	else if (c == '0' || c == 'f' || c == 'F')
		store_decision(ex, false);
}

/* trace "-" span ["-" state ["-" parent]], or the state alone; the trace has 16 or 32 digits. */
static always_inline void read_b3(struct exchange *ex, const __u8 *v, __u32 len)
{
	if (len == 1) {
		read_b3_sampled(ex, v[0]);
		return;
	}
	if (len >= 49 && v[32] == '-') {
		read_b3_trace(ex, v, 32);
		read_b3_span(ex, v + 33, 16);
		if (len >= 51 && v[49] == '-')
			read_b3_sampled(ex, v[50]);
	} else if (len >= 33 && v[16] == '-') {
		read_b3_trace(ex, v, 16);
		read_b3_span(ex, v + 17, 16);
		if (len >= 35 && v[33] == '-')
			read_b3_sampled(ex, v[34]);
	}
}

/* x-request-id: the same value gives the same trace, whoever reads it. */
#define REQUEST_ID_WORDS 16

static always_inline void read_request_id(struct exchange *ex, const __u8 *v, __u32 len)
{
	struct sip high, low;

	if (!len || ex->flags & EXCHANGE_TRACE_HEADER)
		return;
	if (len > REQUEST_ID_WORDS * 8)
		len = REQUEST_ID_WORDS * 8;
	sip_start(&low);
	for (__u32 i = 0; i < REQUEST_ID_WORDS; i++) {
		__u32 left = len - i * 8;
		if (i * 8 >= len)
			break;
		__u64 word = load64(v + i * 8);
		if (left < 8)
			word &= (1ULL << (8 * left)) - 1;
		sip_word(&low, word);
	}
	high = low;
	*(__u64 *)ex->trace_id = sip_end(&high, DOMAIN_REQUEST_ID_HIGH | (__u64)len << 8);
	*(__u64 *)(ex->trace_id + 8) = sip_end(&low, DOMAIN_REQUEST_ID_LOW | (__u64)len << 8);
	ex->flags |= EXCHANGE_TRACE_REQUEST_ID;
}

#endif
