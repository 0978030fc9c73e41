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
#ifndef AMBIT_MESSAGE_H
#define AMBIT_MESSAGE_H

#include "text.h"

enum half_state {
	HALF_START, /* between messages */
	HALF_HEAD, /* in the lines of a head */
	HALF_BODY, /* remain bytes are left */
	HALF_CHUNK_SIZE, /* the next line is a chunk's size */
	HALF_CHUNK, /* remain bytes are left of a chunk and its line end */
	HALF_TRAILER, /* behind the last chunk */
	HALF_UNTIL_CLOSE, /* a body that the connection's end ends */
	HALF_PREFACE, /* HTTP/2, as the next four; see http2.h: remain bytes of the preface are left */
	HALF_FRAME, /* the next frame's beginning is to come */
	HALF_PAYLOAD, /* remain bytes of a payload are left to pass over */
	HALF_SETTINGS, /* remain bytes of settings are left */
	HALF_FRAGMENT, /* remain bytes are left of a frame with a part of a header block */
	HALF_LOST, /* it is not known where the next message or frame begins */
	HALF_OFF, /* nothing that is read follows */
};

enum framing {
	FRAMING_NONE,
	FRAMING_LENGTH,
	FRAMING_CHUNKED,
	FRAMING_CLOSE, /* transfer-encoding without chunked at its end */
	FRAMING_INVALID,
};

/* It speaks HTTP. */
static always_inline void take(struct flow *f)
{
	if (f->taken)
		return;
	f->taken = 1;
	count(STAT_FLOWS);
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

/* What was read as the start of a request is none, or nobody will know. */
static always_inline void disprove(struct flow *f)
{
	f->half[SIDE_OPENER].proving = 0;
	if (f->taken)
		drop_newest(f, STAT_DROP_MALFORMED);
	else
		f->next = f->first; /* it is the connection's only one */
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
	half->body = BODY_UNKNOWN;
	forget_line(f, side);
	count(STAT_DESYNC);
	if (side == SIDE_OPENER && half->proving)
		disprove(f);
	else if (side == SIDE_OPENER)
		drop_newest(f, stat);
	else if (outstanding(f) != 1 || !f->response.headed)
		drop_all(f, stat);
	return 0;
}

/* Counts a request that began no exchange: nothing was seen of it, or it is none. */
static always_inline void miss(struct flow *f, __u32 stat)
{
	__u32 n = is_app(&f->exchange, SIDE_OPENER) + is_app(&f->exchange, SIDE_ACCEPTOR);

	count_n(STAT_SEEN, n);
	count_n(stat, n);
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

/* What came could not be HTTP. */
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
		if (side == SIDE_OPENER && half->state == HALF_START)
			miss(f, STAT_DROP_MALFORMED);
		lose(f, side, STAT_DROP_MALFORMED);
	}
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
		miss(f, STAT_DROP_GAP);
	lose(f, side, STAT_DROP_GAP);
	return 0;
}

/* How many bytes of a side its peer confirms that were not seen. */
static always_inline __s32 confirmed_unseen(const struct flow *f, __u32 side, __u32 ack)
{
	__s32 gap = ack - f->half[side & 1].next_seq;

	/* A FIN has a number of its own. */
	return side == SIDE_OPENER && f->opener_finned && ack == f->opener_fin + 1 ? gap - 1 : gap;
}

/* The peer confirms bytes of this side that were never seen, and so never will be. */
static always_inline void confirmed(struct flow *f, __u32 side, __u32 ack)
{
	struct half *half = &f->half[side & 1];
	__s32 gap = confirmed_unseen(f, side, ack);

	if (gap <= 0 || half->state == HALF_LOST || half->state == HALF_OFF)
		return;
	half->next_seq += gap;
	miss_bytes(f, side, gap);
}

#endif
