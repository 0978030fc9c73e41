/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Counters of every exchange, kept or not: requests, errors and latency. */
#ifndef AMBIT_RED_H
#define AMBIT_RED_H

#include "../bpf/maps.h"

/* 1 where a is above b; both below 2^63. Without a branch, of which the verifier would follow both ways. */
static always_inline __u32 above(__u64 a, __u64 b)
{
	return (b - a) >> 63;
}

/* Of a number below 2^63; of 0 it is 0. */
static always_inline __u32 log2_floor(__u64 v)
{
	__u32 n = above(v, 0xffffffff) << 5, more;

	v >>= n;
	more = above(v, 0xffff) << 4;
	v >>= more;
	n += more;
	more = above(v, 0xff) << 3;
	v >>= more;
	n += more;
	more = above(v, 0xf) << 2;
	v >>= more;
	n += more;
	more = above(v, 3) << 1;
	v >>= more;
	return n + more + above(v, 1);
}

static always_inline __u32 red_bucket(__u64 ns)
{
	__u64 us = ns / 1000;

	if (!us)
		return 0;
	__u32 octave = log2_floor(us);
	/* In halves of a microsecond the bit below the leading one is the step, in octave 0 too. */
	__u32 step = (ns / 500 >> octave) & 1;
	__u32 bucket = 1 + 2 * octave + step;
	return bucket < RED_BUCKETS ? bucket : RED_BUCKETS - 1;
}

/* gRPC's codes that are errors on the acceptor's side: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. */
#define GRPC_SERVER_ERRORS (1 << 2 | 1 << 4 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15)

#define GRPC_LAST 16 /* what is above is no code */
#define GRPC_UNIMPLEMENTED 12

/* Why a stream was reset, in the words of RFC 9113, that is no error of the acceptor's. */
#define CANCEL 0x8
#define ENHANCE_YOUR_CALM 0xb
#define INADEQUATE_SECURITY 0xc

/* A call of gRPC; the table is in docs/spans.md. */
static always_inline bool is_call_error(const struct exchange *ex, bool opener)
{
	bool unknown = ex->flags & EXCHANGE_RESPONSE_UNKNOWN;
	__u32 code = ex->error_code;

	if (ex->grpc_status != GRPC_STATUS_NONE)
		return opener ? ex->grpc_status != 0 :
				ex->grpc_status > GRPC_LAST || GRPC_SERVER_ERRORS >> (ex->grpc_status & 31) & 1;
	if (!unknown && ex->status && ex->status != 200 && (opener || ex->status >= 500 || ex->status < 100))
		return true;
	switch (ex->ending) {
	case ENDING_STREAM_RESET:
		return opener || (code != CANCEL && code != ENHANCE_YOUR_CALM && code != INADEQUATE_SECURITY);
	case ENDING_RESPONSE:
		return opener && !unknown;
	}
	return true;
}

/* Its status is gRPC's, not HTTP's. */
static always_inline bool is_call(const struct exchange *ex)
{
	return ex->flags & EXCHANGE_GRPC || (ex->flags & EXCHANGE_GRPC_WEB && ex->grpc_status != GRPC_STATUS_NONE);
}

/* Its first digit; 0 for none, and for what is none. */
static always_inline __u32 status_class(const struct exchange *ex)
{
	__u32 class = ex->status / 100;

	opaque(class);
	return class < STATUS_CLASSES ? class : 0;
}

/* By the semantic conventions; the same answers as failureOf in exporter/failure.go. */
static always_inline bool is_error(const struct exchange *ex, __u32 side)
{
	if (is_call(ex))
		return is_call_error(ex, side == SIDE_OPENER);
	if (ex->ending != ENDING_RESPONSE || ex->status >= 500)
		return true;
	if (ex->status && ex->status < 100)
		return true;
	return side == SIDE_OPENER && ex->status >= 400;
}

static always_inline void red_add(__u32 index, __u64 ns, __u32 bucket, bool error)
{
	struct red *r = bpf_map_lookup_elem(&reds, &index);

	if (!r)
		return;
	__sync_fetch_and_add(&r->sum_ns, ns);
	if (error)
		__sync_fetch_and_add(&r->errors, 1);
	opaque(bucket);
	if (bucket < RED_BUCKETS)
		__sync_fetch_and_add(&r->buckets[bucket], 1);
}

/* Counts an exchange that has ended, for each side that is an application's. */
__noinline int red_count(const struct exchange *ex)
{
	if (!ex)
		return 0;
	__u64 ns = ex->end_ns - ex->start_ns;
	__u32 class = status_class(ex), bucket = red_bucket(ns);

	for (__u32 side = 0; side < SIDES; side++) {
		const struct party *p = &ex->ends.party[side];
		if (p->flags & PARTY_APP)
			red_add((p->service * SIDES + side) * RED_CLASSES + class, ns, bucket,
				is_error(ex, side));
	}
	return 0;
}

#endif
