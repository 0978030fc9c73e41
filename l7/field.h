/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Fields of HTTP/2's header blocks, one by one, and what of them goes into an exchange. */
#ifndef AMBIT_FIELD_H
#define AMBIT_FIELD_H

#include "hpack.h"

/* Whose fields a header block has. */
enum block_kind {
	BLOCK_NOBODYS, /* of no exchange: it is read for the table alone */
	BLOCK_REQUEST,
	BLOCK_RESPONSE,
	BLOCK_TRAILERS, /* behind a response */
	BLOCK_TRUSTED = 8, /* beside one of these: context is believed */
	BLOCK_FORCES = 16, /* and x-envoy-force-trace */
};

#define METHOD_MAX 32
#define SCHEME_MAX 16
#define GRPC_MESSAGE_MAX 128

#define WANTED(id) (1U << HEADER_##id)
#define WANTED_CONTEXT                                                                    \
	(WANTED(TRACEPARENT) | WANTED(TRACESTATE) | WANTED(B3) | WANTED(B3_TRACE) | WANTED(B3_SPAN) | \
	 WANTED(B3_SAMPLED) | WANTED(B3_FLAGS))

static always_inline __u32 wanted_of(__u32 kind)
{
	switch (kind & 7) {
	case BLOCK_REQUEST:
		return WANTED(METHOD) | WANTED(PATH) | WANTED(SCHEME) | WANTED(AUTHORITY) | WANTED(HOST) |
		       WANTED(CONTENT_TYPE) | WANTED(USER_AGENT) | WANTED(REQUEST_ID) | WANTED(BAGGAGE) | WANTED(FORCE_TRACE) |
		       (kind & BLOCK_TRUSTED ? WANTED_CONTEXT : 0);
	case BLOCK_RESPONSE:
		return WANTED(STATUS) | WANTED(CONTENT_TYPE) | WANTED(GRPC_STATUS) | WANTED(GRPC_MESSAGE);
	case BLOCK_TRAILERS:
		return WANTED(GRPC_STATUS) | WANTED(GRPC_MESSAGE);
	}
	return 0;
}

/* By what name take_b3 knows a header. */
static always_inline __u64 b3_name(__u32 id)
{
	switch (id) {
	case HEADER_B3:
		return NAME_B3;
	case HEADER_B3_TRACE:
		return NAME_B3_TRACE;
	case HEADER_B3_SPAN:
		return NAME_B3_SPAN;
	case HEADER_B3_SAMPLED:
		return NAME_B3_SAMPLED;
	case HEADER_B3_FLAGS:
		return NAME_B3_FLAGS;
	}
	return 0;
}

static always_inline __u16 read_status(const __u8 *v, __u32 len)
{
	__u32 hundreds = v[0] - '0', tens = v[1] - '0', ones = v[2] - '0';

	if (len != 3 || hundreds > 9 || tens > 9 || ones > 9)
		return 0;
	return hundreds * 100 + tens * 10 + ones;
}

/* How much is kept of a value that is kept as it is. */
const volatile __u16 plain_fields[32] = {
	[HEADER_METHOD] = FIELD_MAX(FIELD_METHOD, METHOD_MAX),
	[HEADER_PATH] = FIELD_MAX(FIELD_PATH, REQUEST_LINE_MAX),
	[HEADER_SCHEME] = FIELD_MAX(FIELD_SCHEME, SCHEME_MAX),
	[HEADER_AUTHORITY] = FIELD_MAX(FIELD_HOST, HOST_MAX),
	[HEADER_HOST] = FIELD_MAX(FIELD_HOST, HOST_MAX),
	[HEADER_USER_AGENT] = FIELD_MAX(FIELD_USER_AGENT, USER_AGENT_MAX),
	[HEADER_CONTENT_TYPE] = FIELD_MAX(FIELD_CONTENT_TYPE, TYPE_MAX),
	[HEADER_BAGGAGE] = FIELD_MAX(FIELD_BAGGAGE, BAGGAGE_MAX),
};

/* A field that matters, whose value of len bytes begins the window. */
__noinline int take_field(struct exchange *ex, struct window *win, __u32 id, __u32 len, __u32 kind)
{
	__u32 field;

	if (!ex || !win || !len)
		return 0;
	switch (id) {
	case HEADER_REQUEST_ID:
		field = FIELD_MAX(FIELD_REQUEST_ID, REQUEST_ID_MAX);
		break;
	case HEADER_CONTENT_TYPE:
		field = (kind & 7) == BLOCK_REQUEST ? FIELD_CONTENT_TYPE : FIELD_RESPONSE_TYPE;
		if (!ex->fields[field].len)
			read_content_type(ex, win->bytes, len);
		field = FIELD_MAX(field, TYPE_MAX);
		break;
	case HEADER_GRPC_MESSAGE:
		field = FIELD_MAX(FIELD_GRPC_MESSAGE, GRPC_MESSAGE_MAX);
		break;
	case HEADER_FORCE_TRACE:
		if (kind & BLOCK_FORCES)
			read_force_trace(ex, win->bytes, len);
		field = FIELD_MAX(FIELD_FORCE_TRACE, FORCE_TRACE_MAX);
		break;
	case HEADER_TRACESTATE:
		field = ex->fields[FIELD_TRACESTATE].len ? FIELD_MAX(FIELD_TRACESTATE_MORE, TRACESTATE_MAX) :
							   FIELD_MAX(FIELD_TRACESTATE, TRACESTATE_MAX);
		break;
	case HEADER_STATUS:
		if (!ex->status)
			ex->status = read_status(win->bytes, len);
		return 0;
	case HEADER_GRPC_STATUS:
		if (ex->grpc_status == GRPC_STATUS_NONE)
			ex->grpc_status = read_grpc_status(win, 0, len);
		return 0;
	default:
		field = plain_fields[id & 31];
	}
	if (field)
		keep(ex, win, 0, len, field);
	return 0;
}

/* A piece of a header block on its way. */
struct fields {
	struct piece *piece;
	struct hpack_table *table;
	struct open_block *block;
	struct exchange *ex;
	struct window *win;
};

/* A field that matters, as above, and what it says of the trace. */
static always_inline void use_field(struct fields *f, __u32 id, __u32 len)
{
	take_field(f->ex, f->win, id, len, f->block->kind);
	if (id < HEADER_TRACESTATE || !(f->block->kind & BLOCK_TRUSTED))
		return;
	if (len > VALUE_MAX)
		len = VALUE_MAX;
	if (id == HEADER_TRACESTATE)
		read_tracestate(f->ex, f->win, 0, len);
	else if (id == HEADER_TRACEPARENT)
		take_traceparent(f->ex, f->win, 0, len);
	else if (id == HEADER_REQUEST_ID)
		take_request_id(f->ex, f->win, 0, len);
	else
		take_b3(f->ex, f->win, b3_name(id), len);
}

static always_inline long broken_field(struct fields *f)
{
	f->piece->verdict = VERDICT_BROKEN;
	return 1;
}

/* A field refers to what was never seen: one of those that matter may be missing. */
static always_inline void unknown_field(struct fields *f)
{
	__u32 kind = f->block->kind & 7;

	if (kind == BLOCK_NOBODYS)
		return;
	f->ex->flags |= kind == BLOCK_REQUEST ? EXCHANGE_REQUEST_UNKNOWN : EXCHANGE_RESPONSE_UNKNOWN;
	count(STAT_HPACK_UNKNOWN);
}

/* Where a short value of a field goes in the text, with the field set; EXCHANGE_TEXT where keep has to look at it. */
static always_inline __u32 place_text(struct exchange *ex, __u32 field_max, __u32 len)
{
	__u32 field = field_max & 15, used = ex->used;

	opaque(field);
	if (len > 64 || len > field_max >> 4 || used > EXCHANGE_TEXT - 64 || field >= FIELDS || ex->fields[field].len)
		return EXCHANGE_TEXT;
	ex->fields[field].off = used;
	ex->fields[field].len = len;
	ex->used = used + len;
	return used;
}

/* Most values of a table are short, and kept as they are: without a way through the window. Answers 0 where it is not so. */
__noinline int keep_entry(struct exchange *ex, const struct hpack_table *t, __u32 at, __u32 len, __u32 id_kind)
{
	if (!ex || !t)
		return 0;
	__u32 id = id_kind & 31, field_max = plain_fields[id];

	at &= TABLE_BYTES - 1;
	opaque(at);
	if (!field_max || !len || at >= TABLE_BYTES)
		return 0;
	if (id == HEADER_CONTENT_TYPE && (id_kind >> 8 & 7) == BLOCK_RESPONSE)
		field_max = FIELD_MAX(FIELD_RESPONSE_TYPE, TYPE_MAX);
	__u32 to = place_text(ex, field_max, len);
	opaque(to);
	if (to > EXCHANGE_TEXT - 64)
		return 0;
	copy_value(ex->text + to, t->bytes + at, len);
	if (id == HEADER_CONTENT_TYPE)
		read_content_type(ex, t->bytes + at, len);
	return 1;
}

/* A field whose name and value are in the static table. */
__noinline int keep_static(struct exchange *ex, __u32 n)
{
	if (!ex || n > STATIC_ENTRIES)
		return 0;
	const volatile struct static_entry *s = &static_table[n];

	if (s->name == HEADER_STATUS) {
		if (!ex->status)
			ex->status = s->number;
		return 0;
	}
	__u32 to = place_text(ex, plain_fields[s->name & 31], s->len);
	opaque(to);
	if (to > EXCHANGE_TEXT - 64)
		return 0;
	store64(ex->text + to, *(const volatile __u64 *)s->text);
	store64(ex->text + to + 8, *(const volatile __u64 *)(s->text + 8));
	return 0;
}

/* Name and value are in a table. */
static always_inline long indexed_field(struct fields *f, __u32 n)
{
	f->block->fields = 1;
	if (n <= STATIC_ENTRIES) {
		opaque(n);
		if (!n || n > STATIC_ENTRIES)
			return broken_field(f);
		const volatile struct static_entry *s = &static_table[n];
		if (f->piece->wanted >> (s->name & 31) & 1 && s->len)
			keep_static(f->ex, n);
		return 0;
	}
	n -= STATIC_ENTRIES + 1;
	switch (find_entry(f->table, n)) {
	case ENTRY_GONE:
		return broken_field(f);
	case ENTRY_UNSEEN:
		unknown_field(f);
		return 0;
	}
	const struct hpack_entry *e = entry_at(f->table, n);
	if (e->name == HEADER_UNKNOWN) {
		unknown_field(f);
	} else if (f->piece->wanted >> (e->name & 31) & 1) {
		if (keep_entry(f->ex, f->table, e->at, e->len, e->name | (__u32)f->block->kind << 8))
			return 0;
		load_value(f->table, f->win, e->at, e->len);
		use_field(f, e->name, e->len);
	}
	return 0;
}

/* The next bytes of the piece are not all there. */
static always_inline long short_field(struct fields *f)
{
	if (f->piece->last)
		f->piece->verdict = VERDICT_BROKEN;
	return 1;
}

/* The header of a field with a literal value: its enum header_id, with the name's length in *len. */
static always_inline __u32 named_field(struct fields *f, __u32 n, __u32 *len)
{
	if (n <= STATIC_ENTRIES) {
		opaque(n);
		if (n > STATIC_ENTRIES)
			return HEADER_UNKNOWN;
		*len = static_table[n].name_len;
		return static_table[n].name;
	}
	n -= STATIC_ENTRIES + 1;
	switch (find_entry(f->table, n)) {
	case ENTRY_GONE:
		broken_field(f);
		return HEADER_UNKNOWN;
	case ENTRY_UNSEEN:
		/* Its length is not known either. A sum that is too small takes nothing for evicted that is there. */
		return HEADER_UNKNOWN;
	}
	const struct hpack_entry *e = entry_at(f->table, n);
	*len = e->name_len;
	return e->name;
}

#define INDEXED_AT_ONCE 4

/* A few fields that are in a table, or another one, or a change of the table's size. Answers 1 where the piece ends, or is wrong. */
static long hpack_field(__u64 i, struct fields *f)
{
	struct piece *piece = f->piece;
	__u32 idx = piece->idx, len = piece->len;

	opaque(idx);
	if (idx >= len || idx >= BLOCK_BYTES)
		return 1;
	__u8 c = piece->bytes[idx];
	/* Each callback costs as much as one of these. */
	for (__u32 n = 0; n < INDEXED_AT_ONCE; n++) {
		if (c <= 0x80 || c == 0xff)
			break;
		idx++;
		piece->idx = idx;
		if (indexed_field(f, c & 0x7f))
			return 1;
		opaque(idx);
		if (idx >= len || idx >= BLOCK_BYTES)
			return 1;
		c = piece->bytes[idx];
		if (n == INDEXED_AT_ONCE - 1)
			return 0;
	}

	bool insert = (c & 0xc0) == 0x40;
	__u32 n = read_int(piece, idx, c & 0x80 ? 0x7f : insert ? 0x3f : c & 0x20 ? 0x1f : 0x0f);
	if (n == INT_SHORT)
		return short_field(f);
	if (n == INT_BAD)
		return broken_field(f);
	__u32 next = piece->next;
	if (c & 0x80) {
		piece->idx = next;
		return indexed_field(f, n);
	}
	if ((c & 0xe0) == 0x20) {
		piece->idx = next;
		if (n > f->table->limit || (f->block->fields && !is_empty(f->table)))
			return broken_field(f);
		resize_table(f->table, n);
		return 0;
	}

	__u32 id, name_len = 0;
	if (n) {
		id = named_field(f, n, &name_len);
		if (piece->verdict)
			return 1;
	} else {
		name_len = read_int(piece, next, 0x7f);
		if (name_len == INT_SHORT)
			return short_field(f);
		if (name_len == INT_BAD)
			return broken_field(f);
		opaque(next);
		if (next >= BLOCK_BYTES)
			return 1;
		bool huffman = piece->bytes[next] & 0x80;
		next = piece->next;
		if (name_len > len - next)
			return short_field(f);
		__u32 end = next + name_len;
		if (huffman) {
			name_len = huffman_decode(piece, f->win, next, name_len, 1);
			if (name_len == HUFFMAN_BAD)
				return broken_field(f);
			id = header_id(load64(f->win->bytes), load64(f->win->bytes + 8), name_len);
		} else {
			opaque(next);
			if (next >= BLOCK_BYTES)
				return 1;
			id = header_id(load64(piece->bytes + next), load64(piece->bytes + next + 8), name_len);
		}
		next = end;
	}

	__u32 value_len = read_int(piece, next, 0x7f);
	if (value_len == INT_SHORT)
		return short_field(f);
	if (value_len == INT_BAD)
		return broken_field(f);
	opaque(next);
	if (next >= BLOCK_BYTES)
		return 1;
	bool huffman = piece->bytes[next] & 0x80;
	next = piece->next;
	bool dull = id == HEADER_DULL || id == HEADER_UNKNOWN, wanted = f->piece->wanted >> (id & 31) & 1;
	if (value_len > len - next) {
		if (!dull || insert || piece->last)
			return short_field(f);
		/* Nobody needs it: the rest is passed over. */
		f->block->skip = value_len - (len - next);
		piece->idx = len;
		f->block->fields = 1;
		if (id == HEADER_UNKNOWN)
			unknown_field(f);
		return 1;
	}
	piece->idx = next + value_len;
	f->block->fields = 1;
	if (id == HEADER_UNKNOWN)
		unknown_field(f);
	if (!insert && !wanted)
		return 0;
	if (huffman) {
		value_len = huffman_decode(piece, f->win, next, value_len, !dull);
		if (value_len == HUFFMAN_BAD)
			return broken_field(f);
	} else if (!dull) {
		load_string(piece, f->win, next, value_len);
	}
	if (insert)
		insert_entry(f->table, f->win, id, name_len, value_len);
	if (wanted)
		use_field(f, id, value_len);
	return 0;
}

#endif
