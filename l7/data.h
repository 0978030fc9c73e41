/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* DATA of HTTP/2, passed over before the parser. */
#ifndef AMBIT_DATA_H
#define AMBIT_DATA_H

#include "stream.h"

#define DATA_AT_ONCE 8

/*
 * Passes over the DATA that a segment begins with, where nothing of it matters but its size: the parser is another program,
 * and a large part of what it costs is to get there. Answers true where that was all; what else there is, is left to it.
 */
static always_inline bool pass_data(struct packet *packet, struct flow *f, struct arrival *a, struct window *win)
{
	struct half *half = &f->half[a->side & 1];
	struct exchange *ex = &f->exchange;
	__u32 pos = 0, end = a->end, stream = ex->stream;

	a->loaded = 0;
	if (a->seq != half->next_seq || (__s32)(a->ack - f->half[!a->side].next_seq) > 0)
		return false;
	if (half->state == HALF_PAYLOAD) {
		if (end < half->remain) {
			half->remain -= end;
			goto passed;
		}
		if (half->frame.flags & FLAG_END_STREAM && half->frame.type == FRAME_DATA)
			return false;
		pos = half->remain;
		between_frames(half);
	} else if (half->state != HALF_FRAME || half->head || half->frame.open) {
		return false;
	}
	for (__u32 i = 0; i < DATA_AT_ONCE; i++) {
		if (pos == end)
			goto passed;
		/* As much as gather wants to have, which then need not load it. */
		if (end - pos < PREFACE_LEN || load_bytes(packet, a->payload + pos, win->bytes, PREFACE_LEN))
			break;
		a->loaded_at = pos;
		a->loaded = PREFACE_LEN;
		const __u8 *b = win->bytes;
		if (b[3] != FRAME_DATA || b[4] || !stream || bpf_ntohl(load32(b + 5)) != stream)
			break;
		__u32 len = length_of(b);
		if (a->side == SIDE_OPENER)
			ex->request_body += len;
		else
			ex->response_body += len;
		ex->end_ns = a->now;
		pos += FRAME_HEADER + len;
		if (pos > end) {
			half->state = HALF_PAYLOAD;
			half->remain = pos - end;
			half->frame.type = FRAME_DATA;
			half->frame.flags = 0;
			half->frame.pad = 0;
			half->frame.stream = stream;
			goto passed;
		}
	}
	half->next_seq += pos;
	return false;
passed:
	half->next_seq += end;
	half->last_ns = a->now;
	return true;
}

#endif
