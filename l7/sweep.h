/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Ends what nothing else ends: exchanges past the idle limit, flows whose sockets told nothing of their end. */
#ifndef AMBIT_SWEEP_H
#define AMBIT_SWEEP_H

#include "classify.h"

struct sweep {
	__u64 now;
};

static long sweep_flow(void *map, __u64 *key, struct flow *f, struct sweep *s)
{
	__u64 last = f->half[SIDE_OPENER].last_ns;

	if (f->left) {
		if (!lock_flow(f, *key))
			return 0;
		http1_over(f, f->left == LEFT_RESET ? ENDING_RESET : ENDING_CLOSED, s->now);
		forget_line(f, SIDE_OPENER);
		forget_line(f, SIDE_ACCEPTOR);
		f->ended = 1;
		unlock_flow(f);
		count(STAT_FLOWS_ENDED);
		bpf_map_delete_elem(&flows, key);
		return 0;
	}
	if (f->half[SIDE_ACCEPTOR].last_ns > last)
		last = f->half[SIDE_ACCEPTOR].last_ns;
	/* Bytes that came since the sweep began are newer than now. */
	if (s->now < last + idle_limit_ns)
		return 0;
	if (outstanding(f)) {
		if (!lock_flow(f, f->fingerprint))
			return 0;
		if (f->half[SIDE_OPENER].proving)
			disprove(f);
		conclude_all(f, ENDING_IDLE, s->now);
		f->half[SIDE_OPENER].state = HALF_LOST;
		f->half[SIDE_ACCEPTOR].state = HALF_LOST;
		forget_line(f, SIDE_OPENER);
		forget_line(f, SIDE_ACCEPTOR);
		unlock_flow(f);
	}
	if (!f->sockets) {
		count(STAT_FLOWS_ENDED);
		bpf_map_delete_elem(&flows, key);
	}
	return 0;
}

/* Nobody will see what comes of it. */
static long abandon_flow(void *map, __u64 *key, struct flow *f, void *unused)
{
	if (!lock_flow(f, *key))
		return 0;
	drop_all(f, STAT_DROP_PAUSED);
	forget_line(f, SIDE_OPENER);
	forget_line(f, SIDE_ACCEPTOR);
	f->ended = 1;
	unlock_flow(f);
	count(STAT_FLOWS_ENDED);
	bpf_map_delete_elem(&flows, key);
	return 0;
}

/* Once nothing is attached any more. */
static always_inline void abandon_flows(void)
{
	bpf_for_each_map_elem(&flows, abandon_flow, 0, 0);
}

static always_inline void sweep_flows(void)
{
	struct sweep s = { bpf_ktime_get_ns() };

	bpf_for_each_map_elem(&flows, sweep_flow, &s, 0);
}

#endif
