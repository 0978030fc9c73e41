/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The sampling decision of each side of an exchange: at the head, when its request was read, and at the tail, when its
 * response ended. Steps that come first win; docs/sampling.md has them with their reasons.
 *
 *   safety, budget   what the valve leaves of every probability; below
 *   forced           kept, under no known probability
 *   rule drop        not kept, whatever follows
 *   parent           sampled, th=Tp, R >= Tp: T = Tp    sampled otherwise: kept, no th    not sampled: T = never
 *   rates set, rule, remote, default                    T = that rate's, the first one that there is
 *   anomaly, tail    T = min(T, theirs)
 *   floor            kept, under no known probability, where nothing else keeps it
 *
 * R is 56 bits of randomness, T = 2^56 (1 - p); R >= T keeps.
 */
#ifndef AMBIT_SAMPLE_H
#define AMBIT_SAMPLE_H

#include "identity.h"
#include "outcome.h"
#include "routes.h"
#include "rules.h"
#include "valve.h"

static always_inline bool is_app(const struct exchange *ex, __u32 side)
{
	return ex->ends.party[side].flags & PARTY_APP;
}

static always_inline void identify(struct exchange *ex)
{
	struct sip s;

	if (!(ex->flags & (EXCHANGE_TRACE_HEADER | EXCHANGE_TRACE_REQUEST_ID)))
		*(__u64 *)(ex->trace_id + 8) = derive_low(&s, ex->place);
	if (!(ex->flags & EXCHANGE_RANDOMNESS))
		ex->randomness = randomness_of(ex->trace_id);
}

/* What a rule does, if its set was not replaced too often since. */
static always_inline const struct action *action_at(__u32 place, __u32 generation)
{
	__u32 index = place & (ACTIONS_MAX - 1);
	const struct action *a = bpf_map_lookup_elem(&actions, &index);

	return a && *(volatile __u32 *)&a->generation == generation ? a : 0;
}

/* What asks to be kept: the threshold and whether it says how probable that is go into the decision, the reason is the answer. */
static always_inline __u8 ask_rates(const struct exchange *ex, struct decision *d, const struct action *a,
				    const struct base_rates *base, const struct route *route)
{
	__u64 threshold = THRESHOLD_NEVER;
	__u8 reason = REASON_HEAD, known = DECISION_THRESHOLD;

	if (ex->flags & EXCHANGE_PARENT_DECIDED && a->parent != PARENT_IGNORE) {
		if (ex->flags & EXCHANGE_PARENT_SAMPLED) {
			reason = REASON_PARENT;
			known = ex->flags & EXCHANGE_PARENT_THRESHOLD && ex->randomness >= ex->parent_threshold ?
					DECISION_THRESHOLD : 0;
			threshold = known ? ex->parent_threshold : 0;
			if (a->parent == PARENT_SCALE && a->flags & ACTION_RATE)
				threshold = shrink(threshold, (THRESHOLD_NEVER - a->threshold) >> 40);
		}
	} else if (base->set != THRESHOLD_NONE) {
		threshold = base->set;
	} else if (a->flags & ACTION_RATE) {
		threshold = a->threshold;
	} else if (route && route->threshold != THRESHOLD_NONE) {
		threshold = route->threshold;
	} else {
		threshold = base->base;
	}
	if (route && route->anomaly < threshold) {
		if (ex->randomness < threshold)
			reason = REASON_ANOMALY;
		threshold = route->anomaly;
	}
	d->threshold = threshold;
	d->flags |= known;
	return reason;
}

/* Whether a source that may force did, and the budget of forced spans allows it. */
static always_inline bool is_forced(const struct exchange *ex, const struct action *a, const struct base_rates *base, __u64 now)
{
	if (!(a->flags & ACTION_FORCE) && !(ex->flags & EXCHANGE_FORCE && base->force))
		return false;
	struct budget *forced = budget_at(BUDGET_FORCED), *node = budget_at(BUDGET_NODE);
	return forced && node && spend(forced, now) && spend(node, now);
}

/* A function of its own, as the next ones: each is verified once, and one after the other would be too much. */
__noinline int decide_side(struct exchange *ex, __u32 side, __u32 place)
{
	if (!ex)
		return 0;
	struct decision *d = &ex->decision[side & 1];
	const struct action *a = action_at(place, ex->generation);
	const struct base_rates *base = base_in_force();
	if (!a || !base)
		return 0;
	__u32 class = a->class;
	opaque(class);
	if (class >= TRAFFIC_CLASSES)
		class = CLASS_NORMAL;

	d->reason = REASON_NONE;
	d->flags = DECISION_RULED | DECISION_MADE;
	d->class = class;
	d->rule = a->rule;
	if ((a->flags & ACTION_FORCE || ex->flags & EXCHANGE_FORCE) && is_forced(ex, a, base, bpf_ktime_get_ns())) {
		d->reason = REASON_FORCED;
		return 0;
	}
	if (a->flags & ACTION_DROP) {
		d->flags |= DECISION_DROPPED;
		return 0;
	}
	__u8 reason = ask_rates(ex, d, a, base, find_route(d->route));
	if (ex->randomness < d->threshold)
		return 0;
	struct budget *node = budget_at(BUDGET_NODE), *cap = budget_at(a->cap & (BUDGETS - 1));
	if (!node || !cap)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	__u32 fraction = times(base->safety[class], share_of(class, filling(node, now)));
	if (a->cap)
		fraction = times(fraction, eased(filling(cap, now)));
	d->threshold = shrink(d->threshold, fraction);
	if (ex->randomness < d->threshold) {
		refuse(a->cap && filling(cap, now) < FULL ? cap : node);
		return 0;
	}
	if (spend(node, now) && (!a->cap || spend(cap, now)))
		d->reason = reason;
	return 0;
}

/* It failed in a way that its rule counts. */
static always_inline bool has_failed(const struct exchange *ex, const struct action *a, __u32 side)
{
	if (ex->ending != ENDING_RESPONSE && a->endings >> (ex->ending & 7) & 1)
		return true;
	if (is_call(ex)) {
		if (ex->ending != ENDING_RESPONSE)
			return false;
		if (a->flags & ACTION_GRPC_CODES)
			return ex->grpc_status <= GRPC_LAST && a->grpc_codes >> (ex->grpc_status & 31) & 1;
		return is_error(ex, side);
	}
	if (a->status_classes >> (status_class(ex) & 7) & 1)
		return true;
	for (__u32 i = 0; i < ACTION_STATUSES; i++)
		if (a->statuses[i] && a->statuses[i] == ex->status)
			return true;
	return false;
}

__noinline int tail_side(struct exchange *ex, __u32 side)
{
	if (!ex)
		return 0;
	struct decision *d = &ex->decision[side & 1];
	__u32 place = d->action[status_class(ex)], class = d->class;
	const struct action *a = action_at(place, ex->generation);
	const struct base_rates *base = base_in_force();

	if (!a || !base) {
		count(STAT_RULES_OUTDATED);
		return 0;
	}
	const struct route *route = find_route(d->route);
	if (d->flags & DECISION_DROPPED || a->tail_threshold == THRESHOLD_NEVER)
		return 0;
	__u64 ns = ex->end_ns - ex->start_ns;
	bool failed = has_failed(ex, a, side);
	if (!failed && ns <= a->slow_ns && !(route && ns > route->slow_ns))
		return 0;
	bool kept = d->reason != REASON_NONE;
	if (kept && !(d->flags & DECISION_THRESHOLD))
		return 0;
	if (!kept && ex->randomness < a->tail_threshold)
		return 0;
	struct budget *node = budget_at(BUDGET_NODE), *tail = budget_at(BUDGET_TAIL);
	if (!node || !tail)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	opaque(class);
	if (class >= TRAFFIC_CLASSES)
		class = CLASS_NORMAL;
	__u32 fraction = times(base->safety[class], share_of(CLASS_CRITICAL, filling(node, now)));
	fraction = times(fraction, share_of(class, filling(tail, now)));
	__u64 threshold = shrink(a->tail_threshold, fraction);
	if (kept) {
		/* It would have been kept either way. */
		if (threshold < d->threshold)
			d->threshold = threshold;
		return 0;
	}
	if (ex->randomness < threshold) {
		refuse(tail);
		return 0;
	}
	if (!spend(tail, now))
		return 0;
	spend(node, now);
	d->reason = failed ? REASON_ERROR : REASON_SLOW;
	d->rule = a->rule;
	d->threshold = threshold;
	d->flags |= DECISION_THRESHOLD;
	return 0;
}

/* What rules say of an exchange, for each of its sides. The path was read. */
__noinline int decide_sides(struct exchange *ex)
{
	__u32 zero = 0;
	const struct rules *r = rules_in_force();
	struct subject *s = bpf_map_lookup_elem(&subjects, &zero);
	__u64 named = 0;

	if (!ex || !s || !r)
		return 0;
	identify(ex);
	collect_rows(s, ex, r);
	ex->generation = r->generation;
	ex->method = s->method;
	if (r->templates) {
		__u32 rule = match_template(s, r);
		const struct action *a = rule == NO_RULE ? 0 : action_at(r->actions + rule, r->generation);
		if (a) {
			ex->template_rule = rule;
			named = a->route;
		}
	}
	ex->route_path = mix(named ? mix(flow_seed, named) : s->path, s->method) | 1;
	if (is_app(ex, SIDE_OPENER) || !is_app(ex, SIDE_ACCEPTOR))
		ex->route_target = target_key(ex);
	for (__u32 side = 0; side < SIDES; side++) {
		struct decision *d = &ex->decision[side];
		if (!is_app(ex, side) && is_app(ex, !side))
			continue;
		collect_side(s, ex, r, side);
		match_rules(s, r);
		__u32 rule = s->found[STATUS_CLASSES];
		for (__u32 class = 0; class < STATUS_CLASSES; class++)
			d->action[class] = r->actions + (r->statuses ? s->found[class] : rule);
		d->head_action = r->actions + rule;
		d->flags = DECISION_RULED;
		/* Whose socket is not there yet is decided when it is. */
		if (!is_app(ex, side))
			continue;
		d->route = route_key(ex, side);
		decide_side(ex, side, d->head_action);
	}
	return 0;
}

/* A head that never was read to its end: the last rule holds, which accepts everything, and it is of no route. */
static always_inline void decide_cut(struct exchange *ex)
{
	const struct rules *r = rules_in_force();

	if (!r)
		return;
	identify(ex);
	ex->generation = r->generation;
	for (__u32 side = 0; side < SIDES; side++) {
		struct decision *d = &ex->decision[side];
		if (!is_app(ex, side))
			continue;
		d->head_action = r->actions + r->count - 1;
		for (__u32 class = 0; class < STATUS_CLASSES; class++)
			d->action[class] = d->head_action;
		decide_side(ex, side, d->head_action);
	}
}

/* The tail: its response is over, or it was given up. Counts each side, and answers which are kept, a bit per side. */
static always_inline __u32 decide_tail(struct exchange *ex)
{
	__u32 kept = 0;

	for (__u32 side = 0; side < SIDES; side++) {
		struct decision *d = &ex->decision[side];
		if (!is_app(ex, side))
			continue;
		/* Its socket was found behind the head. Where no rules were asked for it, what holds for the other side does. */
		if (!(d->flags & DECISION_RULED)) {
			const struct decision *other = &ex->decision[!side];
			for (__u32 class = 0; class < STATUS_CLASSES; class++)
				d->action[class] = other->action[class];
			d->head_action = other->head_action;
		}
		if (!(d->flags & DECISION_MADE)) {
			d->route = route_key(ex, side);
			decide_side(ex, side, d->head_action);
		}
		if (ex->generation) {
			__u32 place = d->action[status_class(ex)];
			/* A rule that looks at the status stands before the head's. */
			if (place != d->head_action)
				decide_side(ex, side, place);
			tail_side(ex, side);
		}
		count_ended(ex, side);
		if (d->reason != REASON_NONE)
			kept |= 1 << side;
	}
	return kept;
}

#endif
