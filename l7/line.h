/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What a line of HTTP/1 does: the first one begins an exchange or a response, the empty one ends a head. */
#ifndef AMBIT_LINE_H
#define AMBIT_LINE_H

#include "header.h"
#include "http2.h"

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

	/* Linux 6.1 lost the bound on the way. */
	opaque(idx);
	if (idx >= LINE_MAX)
		return;
	__u64 text = load64(w->win->bytes + idx);

	if (text == WORD('P', 'R', 'I', ' ', '*', ' ', 'H', 'T') && whole && len == 14 && !f->taken &&
	    (load64(w->win->bytes + idx + 8) & FIRST(6)) == WORD('T', 'P', '/', '2', '.', '0', 0, 0)) {
		begin_http2(f, 8, f->opened);
		return;
	}
	if (!is_token_byte(text) || !begins_request(text, len) ||
	    (whole ? !ends_in_version(w->win, idx, len) : half->resynced)) {
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

	opaque(idx);
	if (idx >= LINE_MAX)
		return;
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
	f->response.grpc_status = GRPC_STATUS_NONE;
	f->h2c = 0;
	half->state = HALF_HEAD;
	half->framing = FRAMING_NONE;
	half->body = 0;
}

static always_inline void message_end(struct walk *w, struct half *half)
{
	half->state = HALF_START;
	half->head = 0;
	if (w->a->side != SIDE_ACCEPTOR)
		return;
	struct flow *f = w->flow;
	struct half *asked = &f->half[SIDE_OPENER];
	conclude_first(f, ENDING_RESPONSE, w->a->now);
	/* The client waited for a word before it sent its body, and this was another one. */
	if (!outstanding(f) && f->exchange.flags & EXCHANGE_EXPECT && !asked->body &&
	    (asked->state == HALF_BODY || asked->state == HALF_CHUNK_SIZE))
		asked->unsure = 1;
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
	head_done(&w->flow->exchange);
	w->flow->pending = 1;
	if (half->framing == FRAMING_CLOSE || half->framing == FRAMING_INVALID)
		malformed(w->flow, SIDE_OPENER);
	else
		enter_body(w, half);
}

/* With this response the connection leaves HTTP/1. For HTTP/2 the request becomes its first stream. */
static always_inline void upgraded(struct flow *f, __u64 now)
{
	struct exchange *ex = &f->exchange;

	if (f->h2c && outstanding(f) == 1 && f->held == f->first) {
		ex->request_body = f->half[SIDE_OPENER].body;
		begin_http2(f, PREFACE_LEN, f->opened);
		begin_upgraded(f);
		return;
	}
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

#endif
