/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Exchanges: from the first byte of a request to the record that leaves the kernel. Protocols call begin,
 * decide_head and conclude; nothing else makes or ends an exchange.
 */
#ifndef AMBIT_EXCHANGE_H
#define AMBIT_EXCHANGE_H

#include "sample.h"

/* Counts an exchange as begun for each side that is known to be an application's and was not counted yet. */
static always_inline void see(struct exchange *ex)
{
	__u32 n = 0;

	for (__u32 side = 0; side < SIDES; side++) {
		if (!is_app(ex, side) || ex->seen & (1 << side))
			continue;
		ex->seen |= 1 << side;
		n++;
	}
	if (n)
		count_n(STAT_SEEN, n);
}

static always_inline __u32 sides_of(__u8 mask)
{
	return (mask & 1) + (mask >> 1 & 1);
}

__noinline int drop(struct exchange *ex, __u32 stat)
{
	if (!ex)
		return 0;
	see(ex);
	if (ex->seen)
		count_n(stat, sides_of(ex->seen));
	return 0;
}

/* Its record tells the name of a new route. */
static always_inline bool is_announced(const struct exchange *ex)
{
	return (ex->decision[SIDE_OPENER].flags | ex->decision[SIDE_ACCEPTOR].flags) & DECISION_ANNOUNCE;
}

/*
 * The ring buffer as a valve, in its last eighth: what is lost there is lost by raised thresholds, so the spans that come
 * through still tell how many they stand for. What has no threshold enters no estimate, and may use all of the buffer.
 */
static always_inline void press(struct exchange *ex, __u64 room, __u64 eighth)
{
	__u32 kept = ex->kept;

	for (__u32 side = 0; side < SIDES; side++) {
		struct decision *d = &ex->decision[side];
		if (!(kept >> side & 1) || !(d->flags & DECISION_THRESHOLD))
			continue;
		d->threshold = shrink(d->threshold, room * FULL / eighth);
		if (ex->randomness < d->threshold)
			kept &= ~(1 << side);
	}
	__u32 lost = sides_of(ex->kept & ~kept);
	ex->kept = kept;
	if (lost) {
		count_n(STAT_UNSAMPLED, lost);
		count_n(STAT_RING_PRESSED, lost);
	}
}

static always_inline void submit(struct exchange *ex)
{
	__u32 size = offsetof(struct exchange, text) + ex->used;
	__u64 waits = bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA);

	__u64 all = bpf_ringbuf_query(&records, BPF_RB_RING_SIZE);
	__u64 room = waits + sizeof(*ex) < all ? all - waits - sizeof(*ex) : 0;

	if (room && room < all / 8) {
		press(ex, room, all / 8);
		if (!ex->kept && !is_announced(ex))
			return;
	}
	opaque(size);
	if (size > sizeof(*ex))
		size = sizeof(*ex);
	__u64 wake = (waits & (wake_bytes - 1)) + size >= wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
	/* Full is where the longest record has no room: a short one is no likelier to be kept. */
	__u32 stat = !room || bpf_ringbuf_output(&records, ex, size, wake) ? STAT_DROP_RING_FULL : STAT_SUBMITTED;
	if (ex->kept)
		count_n(stat, sides_of(ex->kept));
}

/* Fills in the IDs that only a span needs. */
static always_inline void name(struct exchange *ex)
{
	struct sip s;
	__u64 low = derive_low(&s, ex->place), high = derive_high(&s);

	if (!(ex->flags & (EXCHANGE_TRACE_HEADER | EXCHANGE_TRACE_REQUEST_ID)))
		*(__u64 *)ex->trace_id = high ? high : 1; /* an ID of zeros would be none */
	*(__u64 *)ex->span_id[SIDE_OPENER] = derive_span(low, high, SIDE_OPENER);
	*(__u64 *)ex->span_id[SIDE_ACCEPTOR] = derive_span(low, high, SIDE_ACCEPTOR);
}

/* The one end of every exchange that was not dropped: counters for all, a record for what is kept. */
__noinline int conclude(struct flow *f, struct exchange *ex, __u32 ending, __u64 end_ns)
{
	if (!f || !ex)
		return 0;
	ex->ending = ending;
	ex->end_ns = end_ns > ex->start_ns ? end_ns : ex->start_ns;
	if (ex != &f->exchange)
		ex->ends = f->exchange.ends;
	if (!ex->stream) {
		/* Of HTTP/1 one response is read at a time, and one request. */
		ex->status = f->response.status;
		if (ex->status)
			ex->grpc_status = f->response.grpc_status;
		ex->first_ns = f->response.first_ns;
		ex->response_body = f->half[SIDE_ACCEPTOR].body;
		if (ex == &f->exchange)
			ex->request_body = f->half[SIDE_OPENER].body;
	}
	see(ex);
	/* A head that the connection's end cut off still gets its decision. */
	if (!ex->generation) {
		if (ex->flags & EXCHANGE_HEAD_DONE)
			count_n(STAT_RUSHED, sides_of(ex->seen));
		decide_cut(ex);
	}
	ex->kept = decide_tail(ex);
	__u32 lost = ex->seen & ~ex->kept;
	if (lost)
		count_n(STAT_UNSAMPLED, sides_of(lost));
	if (!ex->kept && !is_announced(ex))
		return 0;
	if (f->opener_traced)
		ex->flags |= EXCHANGE_OPENER_TRACED;
	name(ex);
	submit(ex);
	return 0;
}

/* The head of a request is whole. */
static always_inline void head_done(struct exchange *ex)
{
	ex->flags |= EXCHANGE_HEAD_DONE;
	if (!(ex->flags & EXCHANGE_TRACE_HEADER))
		ex->flags &= ~EXCHANGE_PARENT_HEADER;
}

/* Heads of one segment that are decided by rules; those behind get what decide_cut gives, and are counted. */
#define DECISIONS_MAX 1024

/* The one place where the head of an exchange is decided, once it was read. */
static always_inline void decide_head(struct flow *f, struct exchange *ex)
{
	f->pending = 0;
	read_path(ex);
	decide_sides(ex);
}

static always_inline __u32 outstanding(const struct flow *f)
{
	return f->next - f->first;
}

/* Linux 6.1 takes no argument of a global function as a map's value, but a constant. */
const volatile struct exchange new_exchange = {};

static always_inline void make_room(struct flow *f, struct exchange *ex)
{
	struct part_key key = { f->id, f->held };
	struct exchange *moved = 0;

	ex->request_body = f->half[SIDE_OPENER].body;
	if (outstanding(f) <= PIPELINE_MAX && !bpf_map_update_elem(&waiting, &key, (void *)&new_exchange, BPF_ANY))
		moved = bpf_map_lookup_elem(&waiting, &key);
	if (!moved || copy_bytes(moved, sizeof(*moved), ex))
		drop(ex, STAT_DROP_PIPELINE);
}

/* What makes a request's place unlike any other's, above the 32 bits of an offset or a stream. */
#define PLACE_JOINED (1ULL << 32)
#define PLACE_STREAM (2ULL << 32)

/* A request begins with the byte seq; place tells it from others of its connection. */
static always_inline void reset_exchange(struct flow *f, struct exchange *ex, __u64 now, __u32 seq, __u32 ack,
					 __u32 stream, __u64 place)
{
	ex->start_ns = now;
	ex->flags = f->opened ? 0 : EXCHANGE_JOINED;
	ex->place[0] = (__u64)(f->opened ? f->isn[SIDE_OPENER] : seq) << 32 |
		       (f->opened ? f->isn[SIDE_ACCEPTOR] : ack);
	ex->place[1] = place;
	ex->request_body = 0;
	ex->randomness = 0;
	ex->stream = stream;
	ex->error_code = 0;
	ex->grpc_status = GRPC_STATUS_NONE;
	ex->cut = 0;
	ex->used = 0;
	ex->seen = 0;
	ex->kept = 0;
	ex->trace_flags = 0;
	ex->method = METHOD_OTHER;
	ex->template_rule = NO_RULE;
	ex->generation = 0;
	ex->route_path = 0;
	ex->route_target = 0;
	ex->protocol = stream ? PROTOCOL_HTTP2 : PROTOCOL_HTTP1;
	__builtin_memset(ex->header_parent, 0, sizeof(ex->header_parent));
	__builtin_memset(ex->decision, 0, sizeof(ex->decision));
	__builtin_memset(ex->fields, 0, sizeof(ex->fields));
}

/*
 * A request begins. The exchange before it, if it still waits for its response, makes room.
 * Where it can't be kept it is lost alone: its number stays, so the others keep their responses.
 */
static always_inline struct exchange *begin(struct flow *f, __u64 now, __u32 seq, __u32 ack)
{
	struct exchange *ex = &f->exchange;

	if (outstanding(f)) {
		/* Unless it was dropped before. */
		if (f->held == f->next - 1)
			make_room(f, ex);
	} else {
		f->response.status = 0;
		f->response.first_ns = 0;
		f->response.headed = 0;
		f->half[SIDE_ACCEPTOR].missed = 0;
	}
	__u64 bit = 1ULL << (f->next & 63);
	f->heads &= ~bit;
	f->connects &= ~bit;
	f->held = f->next++;

	reset_exchange(f, ex, now, seq, ack, 0, f->opened ? seq - f->isn[SIDE_OPENER] : PLACE_JOINED);
	return ex;
}

/* The oldest exchange is over. */
static always_inline void conclude_first(struct flow *f, __u8 ending, __u64 end_ns)
{
	if (!outstanding(f))
		return;
	struct part_key key = { f->id, f->first };
	if (f->first == f->held) {
		conclude(f, &f->exchange, ending, end_ns);
	} else {
		struct exchange *ex = bpf_map_lookup_elem(&waiting, &key);
		if (ex) {
			conclude(f, ex, ending, end_ns);
			bpf_map_delete_elem(&waiting, &key);
		}
	}
	f->first++;
	f->response.status = 0;
	f->response.first_ns = 0;
	f->response.headed = 0;
	f->half[SIDE_ACCEPTOR].body = 0;
}

static always_inline void drop_first(struct flow *f, __u32 stat)
{
	struct part_key key = { f->id, f->first };

	if (f->first == f->held) {
		drop(&f->exchange, stat);
	} else {
		struct exchange *ex = bpf_map_lookup_elem(&waiting, &key);
		if (ex) {
			drop(ex, stat);
			bpf_map_delete_elem(&waiting, &key);
		}
	}
	f->first++;
	f->response.status = 0;
	f->response.first_ns = 0;
	f->response.headed = 0;
	f->half[SIDE_ACCEPTOR].body = 0;
}

struct many {
	struct flow *flow;
	__u64 end_ns;
	__u32 what; /* an ending, or a stat */
	__u32 pad;
};

static long conclude_next(__u64 i, struct many *m)
{
	if (!outstanding(m->flow))
		return 1;
	conclude_first(m->flow, m->what, m->end_ns);
	return 0;
}

static long drop_next(__u64 i, struct many *m)
{
	if (!outstanding(m->flow))
		return 1;
	drop_first(m->flow, m->what);
	return 0;
}

/* Numbers without an exchange behind them count too, so the bound is above PIPELINE_MAX. */
#define MANY_MAX 256

static always_inline void conclude_all(struct flow *f, __u8 ending, __u64 end_ns)
{
	struct many m = { f, end_ns, ending };

	if (outstanding(f))
		bpf_loop(MANY_MAX, conclude_next, &m, 0);
	/* The newest is there, however many numbers before it have no exchange any more. */
	if (outstanding(f) && f->held == f->next - 1) {
		f->first = f->held;
		conclude_first(f, ending, end_ns);
	}
	f->first = f->next;
}

static always_inline void drop_all(struct flow *f, __u32 stat)
{
	struct many m = { f, 0, stat };

	if (outstanding(f))
		bpf_loop(MANY_MAX, drop_next, &m, 0);
	if (outstanding(f) && f->held == f->next - 1) {
		f->first = f->held;
		drop_first(f, stat);
	}
	f->first = f->next;
}

/* Drops the newest exchange alone: its head never became whole. */
static always_inline void drop_newest(struct flow *f, __u32 stat)
{
	/* Where it was dropped before, the newest is another one, which waits for its response. */
	if (!outstanding(f) || f->held != f->next - 1 || f->exchange.flags & EXCHANGE_HEAD_DONE)
		return;
	drop(&f->exchange, stat);
	f->next--;
}

#endif
