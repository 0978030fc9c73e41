/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Header blocks of HTTP/2: whose they are, and how their pieces come together. */
#ifndef AMBIT_BLOCK_H
#define AMBIT_BLOCK_H

#include "field.h"
#include "stream.h"

#define BLOCK_MAX 65536
#define FIELDS_AT_ONCE (BLOCK_BYTES + 1)

static always_inline void forget_block(struct flow *f, struct open_block *block, __u32 side)
{
	struct part_key key = { f->id, side };

	if (block->carried)
		bpf_map_delete_elem(&fragments, &key);
	block->carried = 0;
	block->skip = 0;
}

/* Bytes of a direction were never seen. What its streams had is not known, nor what was inserted into its table. */
__noinline int http2_lose(struct flow *f, __u32 side)
{
	if (!f)
		return 0;
	struct half *half = &f->half[side & 1];
	struct http2 *h = http2_of(f);

	half->state = HALF_LOST;
	half->frame.open = 0;
	count(STAT_DESYNC);
	if (h) {
		forget_table(&h->table[side & 1]);
		forget_block(f, &h->block[side & 1], side);
	}
	drop_streams(f, STAT_DROP_GAP);
	return 0;
}

#define RESYNC_FAILED 2

/*
 * What came is no HTTP/2, or what ends its connection: nobody could read on. Where it only looked like a chain of frames the
 * direction is as lost as it was.
 */
static always_inline void broken(struct flow *f, __u32 side)
{
	if (f->half[side & 1].resynced) {
		f->half[side & 1].resynced = RESYNC_FAILED;
		return;
	}
	drop_streams(f, STAT_DROP_MALFORMED);
	count(STAT_HTTP2_BROKEN);
	give_up(f);
}

/* Where the header block is that is read: looked up once in a step. */
struct reading {
	struct http2 *http2;
	struct exchange *exchange; /* 0: of no exchange */
};

/* A header block begins, and says by its frame whose it is. Answers 1 where none may. */
static always_inline int open_block(struct walk *w, struct half *half, struct reading *r)
{
	struct flow *f = w->flow;
	struct http2 *h = http2_of(f);
	__u32 stream = half->frame.stream;
	struct exchange *ex;

	if (!h)
		return 1;
	r->http2 = h;
	struct open_block *block = &h->block[w->a->side & 1];
	block->stream = stream;
	block->ends = half->frame.type == FRAME_HEADERS && half->frame.flags & FLAG_END_STREAM;
	block->kind = BLOCK_NOBODYS;
	block->fields = 0;
	block->len = 0;
	if (half->frame.type == FRAME_PUSH_PROMISE)
		return w->a->side == SIDE_OPENER;
	if (w->a->side == SIDE_OPENER) {
		if (!(stream & 1))
			return 1;
		if (stream <= h->last)
			return 0;
		h->last = stream;
		ex = begin_stream(f, h, stream);
		if (ex)
			block->kind = BLOCK_REQUEST | (f->trusted ? BLOCK_TRUSTED : 0) | (f->may_force ? BLOCK_FORCES : 0);
		r->exchange = ex;
		return 0;
	}
	ex = find_stream(f, stream);
	if (!ex)
		return 0;
	r->exchange = ex;
	ex->end_ns = w->a->now;
	if (ex->progress == STREAM_HEADED) {
		block->kind = BLOCK_TRAILERS;
		return 0;
	}
	block->kind = BLOCK_RESPONSE;
	block->flags = ex->flags;
	block->used = ex->used;
	block->cut = ex->cut;
	ex->first_ns = f->response.first_ns;
	return 0;
}

/* Trailers have no pseudo-header. */
static always_inline bool is_head(const struct exchange *ex)
{
	return ex->fields[FIELD_METHOD].len || ex->fields[FIELD_PATH].len || ex->fields[FIELD_SCHEME].len ||
	       ex->fields[FIELD_HOST].len;
}

/* The last byte of a block was seen. */
static always_inline void close_block(struct walk *w, struct http2 *h, struct open_block *block, struct exchange *ex)
{
	switch (block->kind & 7) {
	case BLOCK_REQUEST:
		if (!h->table[SIDE_OPENER].complete && !is_head(ex)) {
			/* Of a request that was there before the connection was joined. */
			remove_stream(w->flow, ex);
			return;
		}
		see(ex);
		head_done(ex);
		w->flow->pending = block->stream;
		if (block->stream > h->refused)
			conclude_stream(w->flow, ex, ENDING_REFUSED, h->refused_code, w->a->now);
		return;
	case BLOCK_RESPONSE:
		if (ex->status >= 100 && ex->status < 200) {
			ex->status = 0;
			ex->grpc_status = GRPC_STATUS_NONE;
			ex->first_ns = 0;
			ex->flags = block->flags;
			ex->used = block->used;
			ex->cut = block->cut;
			ex->fields[FIELD_RESPONSE_TYPE].len = 0;
			ex->fields[FIELD_GRPC_MESSAGE].len = 0;
			return;
		}
		ex->progress = STREAM_HEADED;
		break;
	case BLOCK_NOBODYS:
		return;
	}
	if (block->ends)
		conclude_stream(w->flow, ex, ENDING_RESPONSE, 0, w->a->now);
}

/* Keeps the field that the piece broke off. */
static __noinline bool carry_field(struct walk *w, struct open_block *block, const struct piece *piece)
{
	struct part_key key = { w->flow->id, w->a->side };
	__u32 idx = piece->idx, n = piece->len - idx;

	if (!n)
		return true;
	if (n > FRAGMENT_MAX || bpf_map_update_elem(&fragments, &key, (void *)&new_fragment, BPF_ANY))
		return false;
	block->carried = 1;
	struct fragment *kept = bpf_map_lookup_elem(&fragments, &key);
	if (!kept)
		return false;
	opaque(idx);
	opaque(n);
	/* The copy could reach as far as that behind idx. */
	if (idx > BLOCK_BYTES - FRAGMENT_MAX || n > FRAGMENT_MAX)
		return false;
	copy_bytes(kept->bytes, n, piece->bytes + idx);
	kept->len = n;
	return true;
}

/* Puts what was carried over before the new bytes; answers how many bytes that is. */
static __noinline __u32 resume_field(struct walk *w, struct open_block *block, struct piece *piece)
{
	struct part_key key = { w->flow->id, w->a->side };
	__u32 n = 0;

	if (!block->carried)
		return 0;
	block->carried = 0;
	struct fragment *kept = bpf_map_lookup_elem(&fragments, &key);
	if (!kept)
		return 0;
	n = kept->len;
	opaque(n);
	if (n > FRAGMENT_MAX)
		return 0;
	copy_bytes(piece->bytes, n, kept->bytes);
	bpf_map_delete_elem(&fragments, &key);
	return n;
}

/* Decodes the next n bytes of a block, of which at are in the piece already. */
static always_inline __u32 decode_piece(struct walk *w, struct http2 *h, struct open_block *block, struct piece *piece,
					struct exchange *ex, __u32 n, bool last)
{
	__u32 at = resume_field(w, block, piece);

	if (n) {
		__u32 m = n - 1;
		opaque(m);
		opaque(at);
		if (m >= PIECE_MAX || at > FRAGMENT_MAX)
			return VERDICT_LIMIT;
		m += 1;
		if (load_bytes(w->packet, w->a->payload + position(w), piece->bytes + at, m))
			return VERDICT_LIMIT;
	}
	piece->idx = 0;
	piece->len = at + n;
	piece->last = last;
	piece->verdict = VERDICT_FINE;
	piece->wanted = wanted_of(block->kind);
	struct fields f = {
		.piece = piece,
		.table = &h->table[w->a->side & 1],
		.block = block,
		.ex = ex,
		.win = w->win,
	};
	bpf_loop(FIELDS_AT_ONCE, hpack_field, &f, 0);
	if (piece->verdict)
		return piece->verdict;
	if (last)
		return block->skip || piece->idx != piece->len ? VERDICT_BROKEN : VERDICT_FINE;
	return carry_field(w, block, piece) ? VERDICT_FINE : VERDICT_LIMIT;
}

/* A block can't be read to its end: nobody knows what it inserted. Its exchange is dropped. */
static always_inline void abandon_block(struct walk *w, struct half *half, struct http2 *h, struct open_block *block)
{
	struct flow *f = w->flow;

	count(STAT_HPACK_LIMIT);
	forget_block(f, block, w->a->side);
	forget_table(&h->table[w->a->side & 1]);
	half->state = HALF_LOST;
	half->frame.open = 0;
	drop_streams(f, STAT_DROP_HEAD_TOO_LONG);
}

/* What of a header block is in this frame and segment. Answers 1 when the segment is used up. */
static always_inline long fragment(struct walk *w, struct half *half, struct reading *r)
{
	struct flow *f = w->flow;
	struct http2 *h = r->http2;
	struct exchange *ex = r->exchange;
	__u32 zero = 0, left = w->a->end - position(w), room = half->remain - half->frame.pad;
	struct piece *piece = bpf_map_lookup_elem(&pieces, &zero);
	bool end = half->frame.flags & FLAG_END_HEADERS;

	if (!left && room)
		return 1;
	if (!h) {
		h = http2_of(f);
		if (!h)
			return 1;
		if (h->block[w->a->side & 1].kind)
			ex = find_stream(f, h->block[w->a->side & 1].stream);
	}
	if (!piece)
		return 1;
	struct open_block *block = &h->block[w->a->side & 1];
	__u32 n = room < left ? room : left;
	if (n > PIECE_MAX)
		n = PIECE_MAX;
	__u32 passed = block->skip < n ? block->skip : n;
	advance(w, passed);
	block->skip -= passed;
	n -= passed;
	half->remain -= passed;
	room -= passed;
	bool last = end && n == room;

	if (!ex) {
		block->kind = BLOCK_NOBODYS;
		ex = &f->exchange;
	}
	__u32 verdict = VERDICT_FINE;
	block->len += n;
	if (block->len > BLOCK_MAX)
		verdict = VERDICT_LIMIT;
	else if (n || last)
		verdict = decode_piece(w, h, block, piece, ex, n, last);
	if (verdict == VERDICT_BROKEN) {
		broken(f, w->a->side);
		return 1;
	}
	if (verdict == VERDICT_LIMIT) {
		abandon_block(w, half, h, block);
		return 1;
	}
	advance(w, n);
	half->remain -= n;
	if (half->remain > half->frame.pad)
		return 0;
	half->frame.open = !end;
	if (end)
		close_block(w, h, block, ex);
	half->state = half->remain ? HALF_PAYLOAD : HALF_FRAME;
	return 0;
}

#endif
