/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* A segment of HTTP/1.0 or 1.1, line by line; the states of a direction are in message.h. */
#ifndef AMBIT_HTTP1_H
#define AMBIT_HTTP1_H

#include "header.h"

#define HEAD_MAX 16384
#define STEPS_MAX 4096

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
 * put together from the parts; a CR at a part's end is the line end's. Answers 1 where it is none.
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
		see(&f->exchange);
		return 0;
	}
	return 1;
}

/* The bits of heads and connects are used again: which response has no body can't be told any more. */
static always_inline void overrun(struct flow *f)
{
	drop_all(f, STAT_DROP_PIPELINE);
	give_up(f);
}

static always_inline void request_line(struct walk *w, struct half *half, __u32 idx, __u32 len, bool whole)
{
	struct flow *f = w->flow;
	__u64 text = load64(w->win->bytes + idx);

	if (!is_token_byte(text) || !begins_request(text, len) || (whole ? !ends_in_version(w->win, idx, len) : half->resynced)) {
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
	if (whole) {
		see(ex);
	} else {
		ex->cut |= 1 << FIELD_REQUEST_LINE;
		half->proving = 1;
	}
	__u64 bit = 1ULL << (f->held & 63);
	if ((text & FIRST(5)) == WORD('H', 'E', 'A', 'D', ' ', 0, 0, 0))
		f->heads |= bit;
	else if (text == WORD('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '))
		f->connects |= bit;
	if (outstanding(f) > 64 && (f->heads | f->connects))
		overrun(f);
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

/* With this response the connection leaves HTTP/1. */
static always_inline void upgraded(struct flow *f, __u64 now)
{
	conclude_first(f, ENDING_RESPONSE, now);
	drop_all(f, STAT_DROP_MALFORMED);
	count(STAT_UPGRADED);
	give_up(f);
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
		upgraded(f, w->a->now);
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
	return position(w) >= w->a->end;
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
