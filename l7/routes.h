/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The table of routes, and the counters of each: requests, errors, latency, sizes. */
#ifndef AMBIT_ROUTES_H
#define AMBIT_ROUTES_H

#include "outcome.h"
#include "rules.h"
#include "valve.h"

/* Where a CLIENT side's requests go: the host that it named, or the address. */
static always_inline __u64 target_key(const struct exchange *ex)
{
	const struct endpoint *to = &ex->ends.remote[SIDE_OPENER];
	__u32 host = slice_of(ex, FIELD_HOST);

	if (host & 0xffff)
		return hash_text(ex, host, HASH_LOWER) | 1;
	return mix(mix(mix(flow_seed, *(__u64 *)to->addr), *(__u64 *)(to->addr + 8)), to->port) | 1;
}

/* What one side counts as; 0 where that was not read. */
static always_inline __u64 route_key(const struct exchange *ex, __u32 side)
{
	__u64 h = mix(mix(ex->route_path, side & 1), ex->ends.party[side & 1].service);

	if (side == SIDE_OPENER)
		h = mix(h, ex->route_target);
	return ex->route_path && (side == SIDE_ACCEPTOR || ex->route_target) ? h | 1 : 0;
}

/* The route of what no other route counts; userspace knows it too. */
static always_inline __u64 other_route(__u32 service, __u32 side)
{
	return mix(mix(0x6f74686572, service), side) | 1;
}

/* Of one outcome there may be both: of a stream's reset the code says whether it is an error. */
static always_inline __u64 series_key(__u64 route, __u32 outcome, bool error)
{
	return mix(route, outcome | (__u32)error << 16) | 1;
}

static always_inline struct route_bucket *bucket_at(__u32 index)
{
	index &= ROUTE_BUCKETS - 1;
	return bpf_map_lookup_elem(&routes, &index);
}

static always_inline struct route *find_in(struct route_bucket *b, __u64 key)
{
	if (!b)
		return 0;
	for (__u32 i = 0; i < ROUTE_SLOTS; i++)
		if (*(volatile __u64 *)&b->slot[i].key == key)
			return &b->slot[i];
	return 0;
}

/* Of the key 0 there is none: a free slot has it. */
static always_inline struct route *find_route(__u64 key)
{
	if (!key)
		return 0;
	struct route *r = find_in(bucket_at(key >> 1), key);

	return r ? r : find_in(bucket_at(key >> 32), key);
}

static always_inline struct route *claim_in(struct route_bucket *b)
{
	if (!b)
		return 0;
	for (__u32 i = 0; i < ROUTE_SLOTS; i++)
		if (!*(volatile __u64 *)&b->slot[i].key && !__sync_val_compare_and_swap(&b->slot[i].key, 0, ROUTE_CLAIMED))
			return &b->slot[i];
	return 0;
}

static always_inline __u32 used_of(const struct route_bucket *b)
{
	__u32 used = 0;

	for (__u32 i = 0; b && i < ROUTE_SLOTS; i++)
		used += *(volatile __u64 *)&b->slot[i].key != 0;
	return used;
}

/*
 * A slot in the emptier of a key's two buckets. With the first one that has a slot 15 of 4,096 routes would find none, with
 * the emptier one none does, nearly always.
 */
static always_inline struct route *claim(__u64 key)
{
	struct route_bucket *first = bucket_at(key >> 1), *second = bucket_at(key >> 32);
	bool swap = used_of(second) < used_of(first);
	struct route *r = claim_in(swap ? second : first);

	return r ? r : claim_in(swap ? first : second);
}

static always_inline struct route_count *routes_of(__u32 service, __u32 side)
{
	__u32 index = service * SIDES + side;

	return bpf_map_lookup_elem(&route_counts, &index);
}

/* Whether a service and the table have a slot left for one more route. */
__noinline int has_room(const struct exchange *ex, __u32 side)
{
	if (!ex)
		return 0;
	__u32 service = ex->ends.party[side & 1].service;
	const struct route_count *all = routes_of(0, side & 1), *own = routes_of(service, side & 1);

	return all && own && *(volatile __u32 *)&all->routes < ROUTES_OF_KIND &&
	       (!service || *(volatile __u32 *)&own->routes < ROUTES_OF_SERVICE);
}

/* Gives a side's route, which was not there, a slot. Answers 0 where it has no room. */
__noinline int add_route(const struct exchange *ex, __u32 side)
{
	if (!ex)
		return 0;
	struct route *r = claim(ex->decision[side & 1].route);
	const struct base_rates *base = base_in_force();

	if (!r)
		return 0;
	r->threshold = THRESHOLD_NONE;
	r->anomaly = THRESHOLD_NONE;
	r->slow_ns = THRESHOLD_NONE;
	r->last_ns = ex->end_ns;
	r->announced_ns = 0;
	r->service = ex->ends.party[side & 1].service;
	r->kind = side & 1;
	r->state = ROUTE_NEW;
	r->outcomes = 0;
	r->floor = base ? base->floor : 0;
	__sync_lock_test_and_set(&r->key, ex->decision[side & 1].route);
	return 1;
}

/* Whether the answer says that there is such a route: what is not found must not fill the table, nor what nobody answers. */
static always_inline bool is_found(const struct exchange *ex)
{
	if (ex->flags & EXCHANGE_REQUEST_UNKNOWN || !ex->status || ex->status == 404)
		return false;
	return !is_call(ex) || ex->grpc_status != GRPC_UNIMPLEMENTED;
}

#define SECOND_NS 1000000000ULL

static always_inline __u16 outcome_of(const struct exchange *ex)
{
	if (is_call(ex)) {
		if (ex->grpc_status != GRPC_STATUS_NONE)
			return OUTCOME_GRPC + (ex->grpc_status <= GRPC_LAST ? ex->grpc_status : GRPC_LAST + 1);
		if (ex->ending != ENDING_RESPONSE || ex->flags & EXCHANGE_RESPONSE_UNKNOWN)
			return OUTCOME_GRPC_ENDING + ex->ending;
		return OUTCOME_GRPC_HTTP + ex->status;
	}
	return ex->ending == ENDING_RESPONSE ? ex->status : OUTCOME_ENDING + ex->ending;
}

/*
 * What nothing else keeps may be the one span that its route was granted: its floor. It carries no th, and as head and tail
 * were asked before, no estimate lacks it.
 */
__noinline int take_floor(struct decision *d)
{
	if (!d)
		return 0;
	struct route *r = find_route(d->route);
	struct budget *floor = budget_at(BUDGET_FLOOR), *node = budget_at(BUDGET_NODE);
	__u64 now = bpf_ktime_get_ns();
	if (!r || !floor || !node || !spend(floor, now) || !spend(node, now))
		return 0;
	/* Another CPU may have been quicker. */
	if (__sync_val_compare_and_swap(&r->floor, 1, 0) != 1)
		return 0;
	d->reason = REASON_FLOOR;
	d->flags &= ~DECISION_THRESHOLD;
	return 0;
}

/* An exchange side is of this route: what is new tells its name by a record. */
static always_inline __u64 use_route(struct decision *d, struct route *r, __u64 now)
{
	if (d->reason == REASON_NONE && !(d->flags & DECISION_DROPPED) && *(volatile __u32 *)&r->floor)
		d->flags |= DECISION_GRANTED;
	if (now > r->last_ns + SECOND_NS)
		r->last_ns = now;
	if (r->state == ROUTE_NEW && now > r->announced_ns + SECOND_NS) {
		r->announced_ns = now;
		d->flags |= DECISION_ANNOUNCE;
	}
	return d->route;
}

/* The key of the route that a side counts as; that of "other" where it has none. 0 where it is to get one, if so said. */
__noinline __u64 counted_route(struct exchange *ex, __u32 side, bool learn)
{
	if (!ex)
		return 0;
	struct decision *d = &ex->decision[side & 1];
	__u64 other = other_route(ex->ends.party[side & 1].service, side & 1);

	d->outcome = outcome_of(ex);
	if (!d->route)
		return other;
	struct route *r = find_route(d->route);
	if (!r)
		return learn && is_found(ex) ? 0 : other;
	return r->state == ROUTE_CLOSING ? other : use_route(d, r, ex->end_ns);
}

/* Counts a route that got a slot, or none. */
__noinline int count_route(const struct exchange *ex, __u32 side, bool placed)
{
	if (!ex)
		return 0;
	__u32 service = ex->ends.party[side & 1].service;
	struct route_count *all = routes_of(0, side & 1), *own = routes_of(service, side & 1);

	if (!all || !own)
		return 0;
	if (!placed) {
		__sync_fetch_and_add(&own->refused, 1);
		count(STAT_ROUTES_FULL);
		return 0;
	}
	__sync_fetch_and_add(&all->routes, 1);
	if (service)
		__sync_fetch_and_add(&own->routes, 1);
	return 0;
}

const volatile struct series new_series = {};

static always_inline bool add_series(const struct exchange *ex, __u64 route, __u32 side)
{
	__u32 outcome = ex->decision[side & 1].outcome;
	bool error = is_error(ex, side & 1);
	__u64 key = series_key(route, outcome, error);

	/* Another CPU may have been quicker. */
	bpf_map_update_elem(&counters, &key, (void *)&new_series, BPF_NOEXIST);
	struct series *s = bpf_map_lookup_elem(&counters, &key);
	if (!s)
		return false;
	s->outcome = outcome;
	s->service = ex->ends.party[side & 1].service;
	s->kind = side & 1;
	s->error = error;
	s->other = route != ex->decision[side & 1].route;
	s->route = route;
	return true;
}

/* Makes the counters of a route and outcome; answers the route that there are some of. */
__noinline __u64 make_series(struct exchange *ex, __u32 side, __u64 route)
{
	if (!ex)
		return 0;
	struct decision *d = &ex->decision[side & 1];
	struct route *r = find_route(route);
	__u64 other = other_route(ex->ends.party[side & 1].service, side & 1);

	if (r) {
		if (r->outcomes >= OUTCOMES_OF_ROUTE)
			d->outcome = OUTCOME_CLASS + status_class(ex);
		else
			r->outcomes++;
	}
	if (add_series(ex, route, side))
		return route;
	if (route != other && add_series(ex, other, side))
		return other;
	count(STAT_COUNTERS_FULL);
	/* Made at the start, so they are always there. */
	d->outcome = OUTCOME_CLASS + status_class(ex);
	return other_route(0, side & 1);
}

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

/* ns in units of 2^-30 s, with 27 bits behind the point of 2^30 / 10^9. */
#define NS_TO_2_30 144115188ULL

#define LATENCY_OCTAVES (LATENCY_BUCKETS / 8)

/* Where the buckets of the last octave begin, and where it ends: 2^(7 + i/8) s in ns, rounded down. Those below are half of it. */
const volatile __u64 eighths[9] = {
	128000000000, 139584989781, 152218510720, 165995462995, 181019335983,
	197402985652, 215269482304, 234753035060, 256000000000,
};

/* Answers the bucket, LATENCY_BUCKETS for the zero bucket. */
static always_inline __u32 latency_bucket(__u64 ns)
{
	if (ns <= eighths[0] >> (LATENCY_OCTAVES - 1))
		return LATENCY_BUCKETS;
	/* Above 2^36 ns the product would not fit; all that is in the last bucket anyway. */
	if (ns >> 38)
		return LATENCY_BUCKETS - 1;
	/* 2^-20 s is 1,024 of these. A little too small, so that what is just above an octave may be taken for the one before. */
	__u64 v = ns >> 32 ? (ns >> 8) * NS_TO_2_30 >> 19 : ns * NS_TO_2_30 >> 27;
	__u32 octave = log2_floor(v) - 10, bucket = octave * 8 - 1;

	if (octave >= LATENCY_OCTAVES)
		return LATENCY_BUCKETS - 1;
	for (__u32 k = 0; k <= 8; k++)
		bucket += above(ns, eighths[k] >> (LATENCY_OCTAVES - 1 - octave));
	return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

/* Answers the bucket, SIZE_BUCKETS for the zero bucket. */
static always_inline __u32 size_bucket(__u64 size)
{
	if (size < 2)
		return SIZE_BUCKETS;
	__u32 bucket = log2_floor(size - 1) / 2;
	return bucket < SIZE_BUCKETS ? bucket : SIZE_BUCKETS - 1;
}

static always_inline void count_size(struct series *s, __u32 which, __u64 size, __u64 *sum)
{
	if (size == BODY_UNKNOWN) {
		__sync_fetch_and_add(&s->sizes_unknown[which], 1);
		return;
	}
	__u32 bucket = size_bucket(size);
	if (size)
		__sync_fetch_and_add(sum, size);
	opaque(bucket);
	if (bucket < SIZE_BUCKETS)
		__sync_fetch_and_add(&s->sizes[which][bucket], 1);
	else
		__sync_fetch_and_add(&s->empty[which], 1);
}

/* Counts a side of an exchange that has ended. Answers 1 where there are no counters of this route and outcome yet. */
__noinline int count_side(const struct exchange *ex, __u32 side, __u64 route)
{
	if (!ex)
		return 0;
	const struct decision *d = &ex->decision[side & 1];
	__u64 key = series_key(route, d->outcome, is_error(ex, side & 1));
	struct series *s = bpf_map_lookup_elem(&counters, &key);

	if (!s)
		return 1;
	__u64 ns = ex->end_ns - ex->start_ns;
	__u32 bucket = latency_bucket(ns);
	__sync_fetch_and_add(&s->sum_ns, ns);
	opaque(bucket);
	if (bucket < LATENCY_BUCKETS)
		__sync_fetch_and_add(&s->latency[bucket], 1);
	else
		__sync_fetch_and_add(&s->below, 1);
	if (d->reason != REASON_NONE)
		__sync_fetch_and_add(&s->kept, 1);
	count_size(s, 0, ex->request_body, &s->request_bytes);
	count_size(s, 1, ex->response_body, &s->response_bytes);
	return 0;
}

/* The same, whatever it takes. */
static always_inline void count_ended(struct exchange *ex, __u32 side)
{
	__u64 route = counted_route(ex, side, true);
	struct decision *d = &ex->decision[side & 1];

	if (!route) {
		count_route(ex, side, has_room(ex, side) && add_route(ex, side));
		route = counted_route(ex, side, false);
	}
	if (d->flags & DECISION_GRANTED) {
		d->flags &= ~DECISION_GRANTED;
		take_floor(d);
	}
	if (!count_side(ex, side, route))
		return;
	route = make_series(ex, side, route);
	if (count_side(ex, side, route))
		count(STAT_UNCOUNTED);
}

#endif
