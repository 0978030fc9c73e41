/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How a connection turns out to speak HTTP/2: by its first bytes, by an upgrade, or met in its middle. */
#ifndef AMBIT_PREFACE_H
#define AMBIT_PREFACE_H

#include "block.h"

enum http2_found {
	HTTP2_NOT,
	HTTP2_BEGINS, /* with the first byte of the connection */
	HTTP2_JOINED, /* it was open before */
};

/* The first eight bytes of a server's first frame, which has its settings. */
static always_inline bool begins_settings(__u64 text)
{
	__u32 len = (text >> 16 & 0xff) | (text & 0xff00);

	return !(text & 0xff) && text >> 24 == FRAME_SETTINGS && len % SETTING_LEN == 0;
}

/*
 * Who sent a segment of a connection that was open before: one that is made of whole frames, of which the first has a
 * request's head or a response's. SIDES where it is none, or does not say.
 */
__noinline __u32 http2_sender(struct packet *packet, __u32 payload, __u32 end)
{
	__u32 zero = 0;
	struct window *win = bpf_map_lookup_elem(&windows, &zero);

	if (!win || end < FRAME_HEADER + 8 || !is_chain(packet, win, payload, end) ||
	    load_bytes(packet, payload, win->bytes, FRAME_HEADER + 8))
		return SIDES;
	const __u8 *b = win->bytes;
	__u32 at = FRAME_HEADER + extra_of(b[3], b[4]);
	if (b[3] != FRAME_HEADERS || !(b[4] & FLAG_END_HEADERS) || !(b[8] & 1))
		return SIDES;
	/* The pseudo-headers come first, and most of them are in the static table. */
	for (__u32 i = 0; i < 8; i++) {
		if (at + i >= FRAME_HEADER + 8)
			return SIDES;
		__u8 c = b[at + i];
		__u32 n = c & 0x80 ? c & 0x7f : c & 0x40 ? c & 0x3f : c & 0x0f;
		if (n >= 1 && n <= 7)
			return SIDE_OPENER;
		if (n >= 8 && n <= 14)
			return SIDE_ACCEPTOR;
		if (!(c & 0x80) || n == 0x7f)
			return SIDES;
	}
	return SIDES;
}

/* The request that HTTP/1 has read is the first stream. */
static always_inline void begin_upgraded(struct flow *f)
{
	struct http2 *h = http2_of(f);
	struct exchange *ex = &f->exchange;

	if (!h || f->protocol != PROTOCOL_HTTP2)
		return;
	h->last = 1;
	ex->stream = 1;
	await_response(ex);
}

/* A connection turns out to speak HTTP/2. preface: bytes of it that are still to come. */
__noinline int begin_http2(struct flow *f, __u32 preface, __u32 complete)
{
	if (!f)
		return 0;
	struct http2 *fresh;
	__u64 id = f->id;

	if (bpf_map_update_elem(&http2s, &id, (void *)&new_http2, BPF_ANY) || !(fresh = http2_of(f))) {
		count(STAT_HTTP2_FULL);
		drop_all(f, STAT_DROP_LIMIT);
		give_up(f);
		return 0;
	}
	f->protocol = PROTOCOL_HTTP2;
	take(f);
	count(STAT_HTTP2);
	for (__u32 side = 0; side < SIDES; side++) {
		struct half *half = &f->half[side];
		if (complete)
			new_table(&fresh->table[side]);
		else
			forget_table(&fresh->table[side]);
		half->frame.open = 0;
		if (half->state != HALF_LOST)
			between_frames(half);
	}
	if (preface) {
		f->half[SIDE_OPENER].state = HALF_PREFACE;
		f->half[SIDE_OPENER].remain = preface;
	}
	return 0;
}

#endif
