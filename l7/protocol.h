/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the end of a connection means to the protocol that it speaks. */
#ifndef AMBIT_PROTOCOL_H
#define AMBIT_PROTOCOL_H

#include "data.h"
#include "http1.h"

/* The connection is over. */
__noinline int over(struct flow *f, __u32 ending, __u64 now)
{
	if (!f)
		return 0;
	if (f->protocol == PROTOCOL_HTTP2)
		http2_over(f, ending, now);
	else
		http1_over(f, ending, now);
	return 0;
}

/*
 * A segment with FIN or RST, or one behind a FIN that came too early; seq is the number behind its bytes. What overtook
 * bytes that are still to come ends nothing yet, and at the latest the end of a socket does.
 */
static always_inline void closing(struct flow *f, __u32 side, __u32 seq, __u32 flags, __u64 now)
{
	struct half *half = &f->half[side & 1];

	if (flags & TCP_RST) {
		if (half->next_seq == seq || !f->sockets)
			over(f, ENDING_RESET, now);
		return;
	}
	if (side != SIDE_ACCEPTOR) {
		if (flags & TCP_FIN) {
			f->opener_finned = 1;
			f->opener_fin = seq;
		}
		return;
	}
	if (flags & TCP_FIN) {
		/* It came once more. */
		if (half->next_seq == seq + 1)
			return;
		f->finned = 1;
		f->fin_seq = seq;
	}
	if (half->next_seq != f->fin_seq)
		return;
	over(f, ENDING_CLOSED, now);
	half->next_seq++;
	f->finned = 0;
}

/* What waits is over: no byte of it came for as long as the idle limit says. */
static always_inline void time_out(struct flow *f, __u64 now)
{
	if (f->protocol == PROTOCOL_HTTP2) {
		http2_time_out(f, now - idle_limit_ns, now);
		return;
	}
	if (f->half[SIDE_OPENER].proving)
		disprove(f);
	conclude_all(f, ENDING_IDLE, now);
	/* Where a direction's next message begins is not known any more. */
	f->half[SIDE_OPENER].state = HALF_LOST;
	f->half[SIDE_ACCEPTOR].state = HALF_LOST;
	forget_line(f, SIDE_OPENER);
	forget_line(f, SIDE_ACCEPTOR);
}

/* Drops all that waits. */
static always_inline void drop_flow(struct flow *f, __u32 stat)
{
	if (f->protocol == PROTOCOL_HTTP2)
		drop_streams(f, stat);
	else
		drop_all(f, stat);
}

/*
 * The flow is about to be deleted, and its memory used for another one. Who waits for its lock meanwhile finds it under no
 * fingerprint that he knows.
 */
static always_inline void retire(struct flow *f)
{
	if (f->taken)
		count(STAT_FLOWS_ENDED);
	forget_line(f, SIDE_OPENER);
	forget_line(f, SIDE_ACCEPTOR);
	struct http2 *h = f->protocol == PROTOCOL_HTTP2 ? http2_of(f) : 0;
	if (h) {
		forget_block(f, &h->block[SIDE_OPENER], SIDE_OPENER);
		forget_block(f, &h->block[SIDE_ACCEPTOR], SIDE_ACCEPTOR);
		forget_streams(f, h);
		__u64 id = f->id;
		bpf_map_delete_elem(&http2s, &id);
	}
	f->fingerprint = 0;
}

#endif
