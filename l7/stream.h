/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Streams of HTTP/2, each an exchange. One is in the flow itself, as the only one of a connection most often is; the others
 * are in the map waiting, each in a slot of its connection.
 */
#ifndef AMBIT_STREAM_H
#define AMBIT_STREAM_H

#include "frame.h"
#include "message.h"

/* Linux 6.1 takes no argument of a global function as a map's value, but a constant. */
const volatile struct http2 new_http2 = {
	.refused = ~0U,
};
const volatile struct fragment new_fragment = {};

enum stream_progress {
	STREAM_ASKED, /* the response's head is to come */
	STREAM_HEADED, /* the head of the final response was seen whole */
};

static always_inline struct http2 *http2_of(struct flow *f)
{
	__u64 id = f->id;

	return bpf_map_lookup_elem(&http2s, &id);
}

struct slot_search {
	struct http2 *h;
	__u32 stream;
	__u32 found;
};

static long try_slot(__u64 i, struct slot_search *s)
{
	if (s->h->streams[i & (STREAMS_MAX - 1)] != s->stream)
		return 0;
	s->found = i;
	return 1;
}

/* The slot of a stream; STREAMS_MAX where it has none. Numbers come in order, so few share a hint. */
static always_inline __u32 slot_of(struct http2 *h, __u32 stream)
{
	__u32 hint = h->hint[stream >> 1 & (STREAMS_MAX - 1)];

	if (h->streams[hint & (STREAMS_MAX - 1)] == stream)
		return hint;
	struct slot_search s = { h, stream, STREAMS_MAX };
	bpf_loop(STREAMS_MAX, try_slot, &s, 0);
	return s.found;
}

static __noinline struct exchange *find_waiting(struct flow *f, __u32 stream)
{
	struct http2 *h = http2_of(f);

	if (!h || !h->waiting)
		return 0;
	struct part_key key = { f->id, slot_of(h, stream) };
	if (key.part >= STREAMS_MAX)
		return 0;
	return bpf_map_lookup_elem(&waiting, &key);
}

static always_inline struct exchange *find_stream(struct flow *f, __u32 stream)
{
	if (f->exchange.stream == stream)
		return &f->exchange;
	/* Nothing is in the map but for others than the one in the flow. */
	if (outstanding(f) == (f->exchange.stream != 0))
		return 0;
	return find_waiting(f, stream);
}

static always_inline void add_hole(struct http2 *h, __u32 slot)
{
	h->hole[h->holes & (STREAMS_MAX - 1)] = slot;
	h->holes++;
}

static always_inline struct exchange *add_stream(struct flow *f, struct http2 *h, __u32 stream)
{
	struct part_key key = { f->id };
	struct exchange *ex = 0;
	__u32 slot;

	if (h->waiting >= STREAMS_MAX)
		return 0;
	if (h->spares) {
		h->spares--;
		slot = h->spare[h->spares & (STREAMS_MAX - 1)];
		key.part = slot;
	} else {
		if (h->holes) {
			h->holes--;
			slot = h->hole[h->holes & (STREAMS_MAX - 1)];
		} else {
			slot = h->made & (STREAMS_MAX - 1);
			h->made++;
		}
		key.part = slot;
		if (bpf_map_update_elem(&waiting, &key, (void *)&new_exchange, BPF_ANY)) {
			add_hole(h, slot);
			return 0;
		}
	}
	ex = bpf_map_lookup_elem(&waiting, &key);
	if (!ex) {
		add_hole(h, slot);
		return 0;
	}
	h->streams[slot & (STREAMS_MAX - 1)] = stream;
	h->hint[stream >> 1 & (STREAMS_MAX - 1)] = slot;
	h->waiting++;
	ex->slot = slot;
	ex->ends = f->exchange.ends;
	return ex;
}

static always_inline void await_response(struct exchange *ex)
{
	ex->first_ns = 0;
	ex->response_body = 0;
	ex->status = 0;
	ex->progress = STREAM_ASKED;
}

/* A request begins on a new stream. Where it can't be kept it is counted, and lost alone. */
static always_inline struct exchange *begin_stream(struct flow *f, struct http2 *h, __u32 stream)
{
	struct exchange *ex = f->exchange.stream ? add_stream(f, h, stream) : &f->exchange;

	if (!ex) {
		miss(f, STAT_DROP_STREAMS);
		return 0;
	}
	f->next++;
	reset_exchange(f, ex, f->begun_ns, f->begun_seq, f->begun_ack, stream, PLACE_STREAM | stream);
	await_response(ex);
	ex->end_ns = f->begun_ns;
	return ex;
}

static always_inline void between_frames(struct half *half)
{
	half->state = HALF_FRAME;
	half->head = 0;
	half->remain = 0;
}

/* Bytes that a DATA frame announced count from its beginning on; those that never came don't. */
static always_inline void uncount(const struct half *half, const struct exchange *ex, __u64 *body)
{
	__u64 left = half->remain > half->frame.pad ? half->remain - half->frame.pad : 0;

	if (half->state == HALF_PAYLOAD && half->frame.type == FRAME_DATA && half->frame.stream == ex->stream && *body >= left)
		*body -= left;
}

/* A stream has no exchange any more. */
static always_inline void remove_stream(struct flow *f, struct exchange *ex)
{
	f->first++;
	ex->stream = 0;
	if (ex == &f->exchange)
		return;
	struct part_key key = { f->id, ex->slot };
	struct http2 *h = http2_of(f);
	if (!h)
		return;
	h->streams[ex->slot & (STREAMS_MAX - 1)] = 0;
	h->waiting--;
	if (h->spares < SPARES_MAX) {
		h->spare[h->spares & (STREAMS_MAX - 1)] = ex->slot;
		h->spares++;
	} else {
		add_hole(h, ex->slot);
		bpf_map_delete_elem(&waiting, &key);
	}
}

/* All streams of a connection have ended: what they left goes. */
static always_inline void forget_streams(struct flow *f, struct http2 *h)
{
	for (__u32 i = 0; i < SPARES_MAX; i++) {
		struct part_key key = { f->id, h->spare[i] };
		if (i >= h->spares)
			break;
		bpf_map_delete_elem(&waiting, &key);
	}
	h->spares = 0;
}

/* The response of a stream is over, or it was given up. */
__noinline int conclude_stream(struct flow *f, struct exchange *ex, __u32 ending, __u32 error_code, __u64 now)
{
	if (!f || !ex)
		return 0;
	uncount(&f->half[SIDE_OPENER], ex, &ex->request_body);
	uncount(&f->half[SIDE_ACCEPTOR], ex, &ex->response_body);
	ex->error_code = error_code;
	/* Where the acceptor's bytes are not read its answer may have passed. */
	if (f->half[SIDE_ACCEPTOR].state == HALF_LOST)
		drop(ex, STAT_DROP_GAP);
	else
		conclude(f, ex, ending, now);
	remove_stream(f, ex);
	return 0;
}

/* What becomes of the streams of a connection, of all where it says nothing else. */
struct fate {
	struct flow *flow;
	struct http2 *http2;
	__u64 end_ns;
	__u64 idle_ns; /* those whose last byte came behind this stay, unless it is 0 */
	__u32 ending;
	__u32 drop; /* enum stat: instead of ending they are dropped */
	__u32 above; /* streams up to this one stay */
	__u32 error_code;
	__u32 left; /* streams in the map waiting that were not looked at */
};

static always_inline void meet_fate(struct fate *fate, struct exchange *ex)
{
	if (ex->stream <= fate->above || (fate->idle_ns && ex->end_ns > fate->idle_ns))
		return;
	if (fate->drop) {
		drop(ex, fate->drop);
		remove_stream(fate->flow, ex);
	} else {
		conclude_stream(fate->flow, ex, fate->ending, fate->error_code, fate->end_ns);
	}
}

static long end_waiting(__u64 i, struct fate *fate)
{
	struct part_key key = { fate->flow->id, i & (STREAMS_MAX - 1) };

	if (!fate->left)
		return 1;
	if (!fate->http2->streams[i & (STREAMS_MAX - 1)])
		return 0;
	fate->left--;
	struct exchange *ex = bpf_map_lookup_elem(&waiting, &key);
	if (ex)
		meet_fate(fate, ex);
	return 0;
}

static always_inline void end_streams(struct fate *fate)
{
	struct flow *f = fate->flow;

	if (f->exchange.stream)
		meet_fate(fate, &f->exchange);
	fate->left = fate->http2->waiting;
	if (fate->left)
		bpf_loop(STREAMS_MAX, end_waiting, fate, 0);
}

__noinline int drop_streams(struct flow *f, __u32 stat)
{
	if (!f)
		return 0;
	struct fate fate = { .flow = f, .http2 = http2_of(f), .drop = stat };

	if (fate.http2)
		end_streams(&fate);
	return 0;
}

#endif
