/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Ends what nothing else ends: exchanges past the idle limit, flows whose sockets told nothing of their end. */
#ifndef AMBIT_SWEEP_H
#define AMBIT_SWEEP_H

#include "classify.h"

struct sweep {
	__u64 now;
};

/* When the last byte came, or the flow was taken up. */
static always_inline __u64 last_of(const struct flow *f)
{
	__u64 opener = f->half[SIDE_OPENER].last_ns, acceptor = f->half[SIDE_ACCEPTOR].last_ns;

	return opener > acceptor ? opener : acceptor;
}

static long sweep_flow(void *map, __u64 *key, struct flow *f, struct sweep *s)
{
	/* Bytes that came since the sweep began are newer than now. */
	if (!f->left && s->now < last_of(f) + idle_limit_ns)
		return 0;
	/* It is idle between two requests, and its sockets will tell when they end. */
	if (!f->left && !outstanding(f) && f->sockets)
		return 0;
	if (!lock_flow(f, *key))
		return 0;
	bool ends = true;
	if (f->left) {
		over(f, f->left == LEFT_RESET ? ENDING_RESET : ENDING_CLOSED, s->now);
	} else if (s->now < last_of(f) + idle_limit_ns) {
		ends = false;
	} else {
		ends = !f->sockets;
		if (outstanding(f))
			time_out(f, s->now);
	}
	if (ends)
		end_flow(f, key);
	else
		unlock_flow(f);
	return 0;
}

/* Nobody will see what comes of it. */
static long abandon_flow(void *map, __u64 *key, struct flow *f, void *unused)
{
	if (!lock_flow(f, *key))
		return 0;
	drop_flow(f, STAT_DROP_PAUSED);
	end_flow(f, key);
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
