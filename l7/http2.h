/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * HTTP/2 (RFC 9113), one direction of a connection:
 *
 *   PREFACE --24 bytes of the opener--> FRAME --header--> PAYLOAD -----+
 *                                       ^                 SETTINGS ----+
 *                                       |                 FRAGMENT ----+  of a header block
 *                                       +------------------------------+
 *     ^-- a segment that is a chain of frames -- LOST <--bytes were never seen-- (any)
 *
 * A frame's beginning is read whole: its header, and what else of it is needed at once. Of a payload nothing is looked at
 * but settings and header blocks, which are decoded piece by piece as they come (hpack.h, field.h); the field that a
 * segment breaks off waits in the map fragments.
 */
#ifndef AMBIT_HTTP2_H
#define AMBIT_HTTP2_H

#include "preface.h"

#define FRAMES_MAX 16384 /* of a segment: there is none of 128 KiB that has more */
#define SETTING_TABLE_SIZE 1
#define GOAWAYS_MAX 8

/* There is a gap before what comes next of a side: no harm inside of a payload that is passed over. */
static always_inline void http2_gap(struct flow *f, __u32 side, __u32 gap)
{
	struct half *half = &f->half[side & 1];

	if (half->state == HALF_PAYLOAD && half->remain > gap)
		half->remain -= gap;
	else
		http2_lose(f, side);
}

/* The peer confirms bytes of this side that were never seen, and so never will be. */
static always_inline void http2_confirmed(struct flow *f, __u32 side, __u32 ack)
{
	struct half *half = &f->half[side & 1];
	__s32 gap = confirmed_unseen(f, side, ack);

	if (gap <= 0 || half->state == HALF_OFF)
		return;
	half->next_seq += gap;
	if (half->state == HALF_LOST)
		half->missed = outstanding(f) > 0;
	else
		http2_gap(f, side, gap);
}

/* The last byte of a frame was seen: it may be the last one of a response. */
static always_inline void frame_end(struct walk *w, struct half *half)
{
	struct flow *f = w->flow;

	between_frames(half);
	if (w->a->side != SIDE_ACCEPTOR || half->frame.type != FRAME_DATA || !(half->frame.flags & FLAG_END_STREAM))
		return;
	struct exchange *ex = find_stream(f, half->frame.stream);
	if (ex)
		conclude_stream(f, ex, ENDING_RESPONSE, 0, w->a->now);
}

/* A DATA frame begins. What of it is in this segment is passed over at once. */
static always_inline void data(struct walk *w, struct half *half)
{
	struct flow *f = w->flow;
	struct exchange *ex = find_stream(f, half->frame.stream);
	__s32 left = w->a->end - position(w);
	__u64 n = half->remain < left ? half->remain : left, body = half->remain - half->frame.pad;

	half->remain -= n;
	advance(w, n);
	if (ex) {
		if (w->a->side == SIDE_OPENER)
			ex->request_body += body;
		else
			ex->response_body += body;
		ex->end_ns = w->a->now;
	}
	if (half->remain)
		return;
	between_frames(half);
	if (ex && w->a->side == SIDE_ACCEPTOR && half->frame.flags & FLAG_END_STREAM)
		conclude_stream(f, ex, ENDING_RESPONSE, 0, w->a->now);
}

static always_inline void reset(struct walk *w, struct half *half, __u32 error_code)
{
	struct exchange *ex = find_stream(w->flow, half->frame.stream);

	if (!ex)
		return;
	if (w->a->side == SIDE_OPENER)
		ex->flags |= EXCHANGE_RESET_BY_OPENER;
	conclude_stream(w->flow, ex, ENDING_STREAM_RESET, error_code, w->a->now);
}

/* The acceptor never looked at streams above last. An end in good order says so twice, the first time of none. */
__noinline int refuse_streams(struct flow *f, __u32 last, __u32 error_code, __u64 now)
{
	if (!f)
		return 0;
	struct fate fate = {
		.flow = f,
		.http2 = http2_of(f),
		.end_ns = now,
		.ending = ENDING_REFUSED,
		.error_code = error_code,
		.above = last,
	};

	if (!fate.http2 || last >= fate.http2->refused || fate.http2->goaways >= GOAWAYS_MAX)
		return 0;
	fate.http2->refused = last;
	fate.http2->refused_code = error_code;
	fate.http2->goaways++;
	end_streams(&fate);
	return 0;
}

/* The beginning of a frame is in the window, with the header and what else extra_of says. Answers 1 where it can't be. */
static always_inline long begin_frame(struct walk *w, struct half *half, struct reading *r)
{
	struct flow *f = w->flow;
	const __u8 *b = w->win->bytes;
	__u8 type = half->frame.type, flags = half->frame.flags;
	__u32 extra = extra_of(type, flags), pad = 0;

	if (extra && flags & FLAG_PADDED && type != FRAME_RST_STREAM && type != FRAME_GOAWAY)
		pad = b[FRAME_HEADER];
	half->remain -= extra;
	half->frame.pad = pad;
	if (pad > half->remain) {
		broken(f, w->a->side);
		return 1;
	}
	half->state = HALF_PAYLOAD;
	switch (type) {
	case FRAME_DATA:
		data(w, half);
		return 0;
	case FRAME_HEADERS:
	case FRAME_PUSH_PROMISE:
	case FRAME_CONTINUATION:
		half->state = HALF_FRAGMENT;
		if (type != FRAME_CONTINUATION && open_block(w, half, r)) {
			broken(f, w->a->side);
			return 1;
		}
		return 0;
	case FRAME_RST_STREAM:
		reset(w, half, bpf_ntohl(load32(b + FRAME_HEADER)));
		break;
	case FRAME_GOAWAY:
		if (w->a->side == SIDE_ACCEPTOR)
			refuse_streams(f, bpf_ntohl(load32(b + FRAME_HEADER)) & 0x7fffffff,
				       bpf_ntohl(load32(b + FRAME_HEADER + 4)), w->a->now);
		break;
	case FRAME_SETTINGS:
		half->state = HALF_SETTINGS;
		break;
	}
	if (!half->remain)
		frame_end(w, half);
	return 0;
}

static always_inline void read_setting(struct walk *w, const __u8 *b)
{
	if (b[0] != 0 || b[1] != SETTING_TABLE_SIZE)
		return;
	struct http2 *h = http2_of(w->flow);
	__u32 size = bpf_ntohl(load32(b + 2));
	/* Whoever sends it says what the other one's encoder may use; it may still use what it could before. */
	if (h && size > h->table[!w->a->side].limit)
		h->table[!w->a->side].limit = size;
}

/* Takes together what is read at once: the preface, a setting, or a frame's beginning. */
static always_inline long gather(struct walk *w, struct half *half, struct reading *r)
{
	struct flow *f = w->flow;
	__u8 *b = w->win->bytes;
	__s32 pos = position(w);
	__u32 left = w->a->end - pos, have = half->head, need, n;

	if (have >= PREFACE_LEN)
		return 1;
	if (!have && half->state == HALF_FRAME) {
		if (w->a->side == SIDE_OPENER) {
			f->begun_ns = w->a->now;
			f->begun_seq = w->a->seq + pos;
			f->begun_ack = w->a->ack;
		} else {
			f->response.first_ns = w->a->now;
		}
	}
	if (have) {
		struct http2 *h = http2_of(f);
		if (!h)
			return 1;
		const __u8 *part = h->block[w->a->side & 1].part;
		store64(b, load64(part));
		store64(b + 8, load64(part + 8));
		store64(b + 16, load64(part + 16));
	}
	n = PREFACE_LEN - have;
	if (n > left)
		n = left;
	n -= 1;
	opaque(n);
	opaque(have);
	if (n >= PREFACE_LEN || have >= PREFACE_LEN)
		return 1;
	n += 1;
	if ((w->a->loaded < n || w->a->loaded_at != pos || have) && load_bytes(w->packet, w->a->payload + pos, b + have, n))
		return 1;
	n += have;

	switch (half->state) {
	case HALF_PREFACE:
		need = half->remain;
		break;
	case HALF_SETTINGS:
		need = SETTING_LEN;
		break;
	default:
		need = FRAME_HEADER;
		if (n >= FRAME_HEADER)
			need += extra_of(b[3], b[4]);
	}
	if (n >= FRAME_HEADER && half->state == HALF_FRAME) {
		__u32 len = length_of(b), stream = bpf_ntohl(load32(b + 5)) & 0x7fffffff;
		bool goes_on = b[3] == FRAME_CONTINUATION;
		if (is_impossible(b[3], b[4], stream, len) || goes_on != half->frame.open ||
		    (goes_on && stream != half->frame.stream)) {
			broken(f, w->a->side);
			return 1;
		}
		half->frame.type = b[3];
		half->frame.flags = b[4];
		half->frame.stream = stream;
		half->remain = len;
	}
	if (n < need) {
		struct http2 *h = http2_of(f);
		if (!h)
			return 1;
		__u8 *part = h->block[w->a->side & 1].part;
		store64(part, load64(b));
		store64(part + 8, load64(b + 8));
		store64(part + 16, load64(b + 16));
		half->head = n;
		advance(w, left);
		return 1;
	}
	advance(w, need - have);
	half->head = 0;
	switch (half->state) {
	case HALF_PREFACE:
		if (!is_preface(b, need)) {
			broken(f, w->a->side);
			return 1;
		}
		between_frames(half);
		break;
	case HALF_SETTINGS:
		read_setting(w, b);
		half->remain -= need;
		if (!half->remain)
			frame_end(w, half);
		break;
	default:
		return begin_frame(w, half, r);
	}
	return 0;
}

/* A frame's beginning, or what of its payload is in this segment. Answers 1 when the segment is used up. */
static long http2_step(__u64 i, struct walk *w)
{
	struct half *half = &w->flow->half[w->a->side & 1];
	__s32 left = w->a->end - position(w);
	struct reading r = {};
	__u64 n;

	switch (half->state) {
	case HALF_PAYLOAD:
		if (left <= 0)
			return 1;
		n = half->remain < left ? half->remain : left;
		half->remain -= n;
		advance(w, n);
		if (!half->remain)
			frame_end(w, half);
		return 0;
	case HALF_PREFACE:
	case HALF_FRAME:
	case HALF_SETTINGS:
		if (left <= 0 || gather(w, half, &r))
			return 1;
		if (half->state != HALF_FRAGMENT)
			return 0;
		/* fall through */
	case HALF_FRAGMENT:
		return fragment(w, half, &r) || is_pending(w);
	}
	return 1;
}

/* Ends the streams whose last byte came before since. */
__noinline int http2_time_out(struct flow *f, __u64 since, __u64 now)
{
	if (!f)
		return 0;
	struct fate fate = { .flow = f, .http2 = http2_of(f), .end_ns = now, .ending = ENDING_IDLE, .idle_ns = since };

	if (fate.http2)
		end_streams(&fate);
	return 0;
}

/* Begins with a segment of a direction. Answers 1 where there is something to parse. */
__noinline int http2_enter(struct packet *packet, struct flow *f, const struct arrival *a)
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
	__s32 ahead = a->seq - half->next_seq;

	if (!w.win || half->state == HALF_OFF)
		return 0;
	if (ahead < 0 && half->next_seq - a->seq >= (__u32)a->end)
		return 0; /* seen before */
	w.win->origin = ahead < 0 ? -ahead : 0;
	w.win->idx = 0;
	w.win->filled = 0;
	/* On a busy connection a stream may be idle for long: the sweep, which looks at idle ones, never sees it. */
	if (a->now > f->looked_ns + idle_limit_ns / 4 && a->now > idle_limit_ns) {
		f->looked_ns = a->now;
		http2_time_out(f, a->now - idle_limit_ns, a->now);
	}
	http2_confirmed(f, !a->side, a->ack);
	if (ahead > 0 && half->state != HALF_LOST)
		http2_gap(f, a->side, ahead);
	half->next_seq = a->seq + a->end;
	half->last_ns = a->now;
	if (half->state == HALF_LOST) {
		if (ahead < 0 || !is_chain(packet, w.win, a->payload, a->end)) {
			if (a->side == SIDE_ACCEPTOR && outstanding(f))
				half->missed = 1;
			return 0;
		}
		/* Of what was asked meanwhile the answers may have passed. */
		if (half->missed || ahead > 0)
			drop_streams(f, STAT_DROP_GAP);
		half->missed = 0;
		half->resynced = 1;
		between_frames(half);
		count(STAT_RESYNC);
	} else {
		half->resynced = 0;
	}
	return 1;
}

/* Parses until the segment ends, or a request's head does: then f->pending says so. */
__noinline int http2_go(struct packet *packet, struct flow *f, const struct arrival *a)
{
	if (!f || !a)
		return 0;
	struct walk w = walk_of(packet, f, a);
	struct half *half = &f->half[a->side & 1];

	if (!w.win)
		return 0;
	bpf_loop(FRAMES_MAX, http2_step, &w, 0);
	if (f->pending && !f->rushes)
		return 0;
	f->pending = 0;
	if (half->resynced == RESYNC_FAILED ||
	    (half->state != HALF_LOST && half->state != HALF_OFF && position(&w) < a->end))
		http2_lose(f, a->side);
	return 0;
}

/* The stream whose request's head has ended. */
__noinline int http2_decide(struct flow *f)
{
	if (!f)
		return 0;
	struct exchange *ex = find_stream(f, f->pending);
	if (ex)
		decide_head(f, ex);
	f->pending = 0;
	return 0;
}

/* Takes one segment of a direction through the parser. The flow is locked. Requests are decided as http1_segment says. */
static always_inline void http2_segment(struct packet *packet, struct flow *f, const struct arrival *a)
{
	if (!http2_enter(packet, f, a))
		return;
	for (__u32 i = 0; i < DECISIONS_MAX; i++) {
		http2_go(packet, f, a);
		if (!f->pending)
			return;
		http2_decide(f);
	}
	f->rushes = 1;
	http2_go(packet, f, a);
	f->rushes = 0;
}

/* The connection is over. What still waits for a response won't get one, unless it passed unread. */
static always_inline void http2_over(struct flow *f, __u32 ending, __u64 now)
{
	struct half *half = &f->half[SIDE_ACCEPTOR];
	struct fate fate = { .flow = f, .http2 = http2_of(f), .end_ns = now, .ending = ending };

	if (!fate.http2)
		return;
	if (half->missed || half->state == HALF_LOST || (f->finned && half->next_seq != f->fin_seq))
		fate.drop = STAT_DROP_GAP;
	end_streams(&fate);
}

#endif
