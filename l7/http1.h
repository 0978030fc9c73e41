/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* A segment of HTTP/1.0 or 1.1, line by line; the states of a direction are in message.h. */
#ifndef AMBIT_HTTP1_H
#define AMBIT_HTTP1_H

#include "line.h"

#define HEAD_MAX 16384
#define STEPS_MAX 4096

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

	if (left <= 0 || f->protocol == PROTOCOL_HTTP2)
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
		return 0; /* the last line that was passed ends with the window */
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
		if (half->proving && prove(f, w->win, idx, len, ended)) {
			disprove(f);
			malformed(f, SIDE_OPENER);
		}
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
	return position(w) >= w->a->end || is_pending(w);
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

/* Where the body was to begin a request may: a whole first line proves it. */
static always_inline void spare_body(struct walk *w, struct half *half)
{
	half->unsure = 0;
	if (!refill(w))
		return;
	__u32 len = find_byte(w->win, 0, w->win->filled, '\n'), last = len - 1;
	if (len >= w->win->filled)
		return;
	opaque(last);
	if (last < LINE_MAX && w->win->bytes[last] == '\r')
		len--;
	if (!begins_request(load64(w->win->bytes), len) || !ends_in_version(w->win, 0, len))
		return;
	half->state = HALF_START;
	half->head = 0;
}

/* Begins with a segment of a direction. Answers 1 where there is something to parse. */
__noinline int http1_enter(struct packet *packet, struct flow *f, const struct arrival *a)
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
				miss(f, STAT_DROP_GAP);
			return 0;
		}
		half->missed = 0;
	}
	if (ahead < 0)
		w.win->origin = -ahead;
	if (half->unsure && a->side == SIDE_OPENER)
		spare_body(&w, half);
	half->next_seq = a->seq + a->end;
	half->last_ns = a->now;
	if (half->carried)
		resume(&w, half);
	return 1;
}

/* Parses until the segment ends, or a request's head does: then f->pending says so. */
__noinline int http1_go(struct packet *packet, struct flow *f, const struct arrival *a)
{
	if (!f || !a)
		return 0;
	struct walk w = walk_of(packet, f, a);
	struct half *half = &f->half[a->side & 1];

	if (!w.win)
		return 0;
	bpf_loop(STEPS_MAX, http1_step, &w, 0);
	if (f->pending && !f->rushes)
		return 0;
	f->pending = 0;
	if (f->protocol == PROTOCOL_HTTP2) {
		/* What is left of the segment is for another parser. */
		half->next_seq = a->seq + position(&w);
		return 0;
	}
	if (half->state != HALF_LOST && half->state != HALF_OFF && position(&w) < a->end)
		lose(f, a->side, STAT_DROP_LIMIT);
	return 0;
}

/*
 * Takes one segment of a direction through the parser. The flow is locked. Requests are decided here, not where their heads
 * end: down there is no stack left for it.
 */
static always_inline void http1_segment(struct packet *packet, struct flow *f, const struct arrival *a)
{
	if (!http1_enter(packet, f, a))
		return;
	for (__u32 i = 0; i < DECISIONS_MAX; i++) {
		http1_go(packet, f, a);
		if (!f->pending)
			return;
		decide_head(f, &f->exchange);
	}
	f->rushes = 1;
	http1_go(packet, f, a);
	f->rushes = 0;
}

/* The connection is over. What still waits for a response won't get one, unless it passed unread. */
__noinline int http1_over(struct flow *f, __u32 ending, __u64 now)
{
	if (!f)
		return 0;
	struct half *half = &f->half[SIDE_ACCEPTOR];
	if (f->half[SIDE_OPENER].proving)
		disprove(f);
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

#endif
