/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The valve: a budget is a bucket, and the emptier it is the higher the threshold of what asks to be kept:
 * p = p_wanted * eased(filling). So what is kept has a known probability, that of the threshold in force.
 *
 *   filling   1         0.65        0.25        0
 *             |background|  normal    | critical |     who is throttled where: background from 1 on, and to nothing at
 *             +----------+------------+----------+     0.65, and so on
 */
#ifndef AMBIT_VALVE_H
#define AMBIT_VALVE_H

#include "../bpf/maps.h"

/* 2^56 (1 - p f), of T = 2^56 (1 - p) and a fraction f of FULL. */
static always_inline __u64 shrink(__u64 threshold, __u32 fraction)
{
	if (fraction >= FULL)
		return threshold;
	return THRESHOLD_NEVER - ((THRESHOLD_NEVER - threshold) >> 16) * fraction;
}

static always_inline const struct base_rates *base_in_force(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rates, &zero);
}

static always_inline struct budget *budget_at(__u32 index)
{
	return bpf_map_lookup_elem(&budgets, &index);
}

/* How full a budget is, of FULL. */
static always_inline __u32 filling(const struct budget *b, __u64 now)
{
	__u64 due = *(volatile __u64 *)&b->due_ns;

	if (!b->interval_ns || due <= now)
		return FULL;
	due -= now;
	return due >= BUDGET_BURST_NS ? 0 : FULL - (due * FULL) / BUDGET_BURST_NS;
}

static always_inline __u32 times(__u32 a, __u32 b)
{
	return (__u64)a * b / FULL;
}

/*
 * The share that a filling leaves. In proportion to it a flood of 60 times the budget would live within one span of the
 * bottom, where each span that is kept makes the next ones impossible: they would count for nothing, and estimates fall
 * short by half at 100 spans a second. The fourth power keeps the balance well above the bottom, whatever the flood.
 */
static always_inline __u32 eased(__u32 full)
{
	__u32 square = times(full, full);

	return times(square, square);
}

/* What a class gets of a budget that is so full. */
static always_inline __u32 share_of(__u32 class, __u32 full)
{
	__u32 empty = class == CLASS_CRITICAL ? 0 : class == CLASS_NORMAL ? FULL / 4 : FULL * 65 / 100;
	__u32 whole = class == CLASS_CRITICAL ? FULL / 4 : class == CLASS_NORMAL ? FULL * 65 / 100 : FULL;

	if (full >= whole)
		return FULL;
	if (full <= empty)
		return 0;
	return eased((__u64)(full - empty) * FULL / (whole - empty));
}

#define SPEND_TRIES 8

/* Takes one span out of a budget; false where there is none left: the hard stop. */
static always_inline bool spend(struct budget *b, __u64 now)
{
	__u64 interval = b->interval_ns;

	if (!interval) {
		__sync_fetch_and_add(&b->kept, 1);
		return true;
	}
	for (__u32 i = 0; i < SPEND_TRIES; i++) {
		__u64 due = *(volatile __u64 *)&b->due_ns, from = due > now ? due : now;
		if (from - now >= BUDGET_BURST_NS)
			break;
		if (__sync_val_compare_and_swap(&b->due_ns, due, from + interval) != due)
			continue;
		__sync_fetch_and_add(&b->kept, 1);
		return true;
	}
	__sync_fetch_and_add(&b->stopped, 1);
	return false;
}

static always_inline void refuse(struct budget *b)
{
	__sync_fetch_and_add(&b->refused, 1);
	if (b->interval_ns && *(volatile __u64 *)&b->due_ns > bpf_ktime_get_ns() + BUDGET_BURST_NS)
		__sync_fetch_and_add(&b->stopped, 1);
}

#endif
