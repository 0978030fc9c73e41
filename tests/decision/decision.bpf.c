//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * The decision without a packet: what ambit's own programs do with an exchange, done with one that userspace has put here.
 * Rules, rates, budgets, routes and counters are ambit's own maps. For tests alone.
 */
#include "../../l7/sample.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct exchange);
} exchanges SEC(".maps");

static always_inline struct exchange *given(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&exchanges, &zero);
}

/* The head of its request is whole: decide_head. */
SEC("syscall")
int head(void *ctx)
{
	struct exchange *ex = given();

	if (!ex)
		return 1;
	read_path(ex);
	decide_sides(ex);
	return 0;
}

/* It is over: conclude, without the record. */
SEC("syscall")
int tail(void *ctx)
{
	struct exchange *ex = given();

	if (!ex)
		return 1;
	if (!ex->generation)
		decide_cut(ex);
	ex->kept = decide_tail(ex);
	return 0;
}

static long head_and_tail(__u64 i, void *ends)
{
	__u32 index = i;
	struct exchange *ex = bpf_map_lookup_elem(&exchanges, &index);

	if (!ex)
		return 1;
	for (__u32 side = 0; side < SIDES; side++) {
		ex->decision[side].flags = 0;
		ex->decision[side].reason = REASON_NONE;
	}
	read_path(ex);
	decide_sides(ex);
	ex->kept = decide_tail(ex);
	return 0;
}

/* Head and tail of all exchanges, one after the other: what that costs. */
SEC("syscall")
int everyone(void *ctx)
{
	bpf_loop(256, head_and_tail, 0, 0);
	return 0;
}

/* Types that only the tests name, so that the object's BTF has them. */
const enum exchange_flags *unused_exchange_flags __attribute__((unused));
const enum party_flags *unused_party_flags __attribute__((unused));
const enum decision_flags *unused_decision_flags __attribute__((unused));

char __license[] SEC("license") = "Dual BSD/GPL";
