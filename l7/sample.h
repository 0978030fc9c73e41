/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The sampling decision, once per request, when its head is whole.
 *
 * R is 56 bits of randomness, T = 2^56 * (1 - p) the threshold of a rate p; R >= T keeps.
 *
 *   parent says                     what follows
 *   sampled, th=Tp, R >= Tp         kept, T = Tp
 *   sampled, no th, or R < Tp       kept, no th
 *   not sampled                     not kept
 *   nothing                         T = base
 */
#ifndef AMBIT_SAMPLE_H
#define AMBIT_SAMPLE_H

#include "identity.h"

static always_inline void identify(struct exchange *ex)
{
	struct sip s;

	if (!(ex->flags & (EXCHANGE_TRACE_HEADER | EXCHANGE_TRACE_REQUEST_ID)))
		*(__u64 *)(ex->trace_id + 8) = derive_low(&s, ex->place);
	if (!(ex->flags & EXCHANGE_RANDOMNESS))
		ex->randomness = randomness_of(ex->trace_id);
}

static always_inline void sample(struct exchange *ex)
{
	__u32 base = 0;

	identify(ex);
	ex->reason = REASON_NONE;
	if (ex->flags & EXCHANGE_PARENT_DECIDED) {
		if (!(ex->flags & EXCHANGE_PARENT_SAMPLED))
			return;
		ex->reason = REASON_PARENT;
		if (ex->flags & EXCHANGE_PARENT_THRESHOLD && ex->randomness >= ex->parent_threshold) {
			ex->threshold = ex->parent_threshold;
			ex->flags |= EXCHANGE_HAS_THRESHOLD;
		}
		return;
	}
	struct base_rates *r = bpf_map_lookup_elem(&rates, &base);
	if (!r)
		return;
	ex->threshold = r->base;
	if (ex->randomness >= ex->threshold) {
		ex->reason = REASON_HEAD;
		ex->flags |= EXCHANGE_HAS_THRESHOLD;
	}
}

#endif
