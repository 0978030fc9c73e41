/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Flows: a connection as one network namespace sees it, found from every packet of it.
 *
 * On lo the two directions carry different addresses where a redirect is in between (design: the table in
 * docs/architecture.md). What both can be brought to is (the packet's source, the remote address of the
 * sender's socket). On other interfaces both directions carry the addresses of the wire.
 */
#ifndef AMBIT_FLOW_H
#define AMBIT_FLOW_H

#include "../bpf/words.h"
#include "parse.h"
#include "socket.h"

/* Where a packet was met. The stub of each hook says so in tap_parts: skb->cb is for the neighbours at the hook. */
enum hook {
	HOOK_LO_EGRESS,
	HOOK_EGRESS,
	HOOK_INGRESS,
};

struct tap {
	struct __sk_buff *skb;
	struct bpf_sock *sk; /* the sender's, where it is of this namespace; else 0 */
	struct tap_parts *parts;
	__u64 netns; /* cookie of the tapped namespace */
	__u64 fingerprint; /* of the connection, as this namespace sees it */
	__u32 hook;
	__u32 pad;
};

static always_inline struct tap tap_of(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct tap t = {
		.skb = skb,
		.parts = bpf_map_lookup_elem(&tap_parts, &zero),
	};

	if (t.parts) {
		t.netns = t.parts->netns;
		t.hook = t.parts->hook;
	}
	return t;
}

static always_inline bool same_end(const struct endpoint *x, const struct endpoint *y)
{
	return *(__u64 *)(x->addr + 8) == *(__u64 *)(y->addr + 8) && x->port == y->port &&
	       *(__u64 *)x->addr == *(__u64 *)y->addr;
}

static always_inline __u64 hash_of(const struct endpoint *e)
{
	return mix(mix(*(__u64 *)e->addr ^ flow_seed, *(__u64 *)(e->addr + 8)), e->port);
}

/* The same for both directions. Never 0. */
static always_inline __u64 fingerprint_of(__u64 netns, const struct endpoint *x, const struct endpoint *y)
{
	return mix(netns, hash_of(x) + hash_of(y)) | 1;
}

static always_inline void local_of(struct bpf_sock *sk, struct endpoint *e)
{
	if (sk->family == AF_INET6) {
		__u32 addr[4] = { sk_field(sk, src_ip6[0]), sk_field(sk, src_ip6[1]),
				  sk_field(sk, src_ip6[2]), sk_field(sk, src_ip6[3]) };
		endpoint_v6(e, addr);
	} else {
		endpoint_v4(e, sk_field(sk, src_ip4));
	}
	e->port = sk->src_port;
}

static always_inline void remote_of(struct bpf_sock *sk, struct endpoint *e)
{
	if (sk->family == AF_INET6) {
		__u32 addr[4] = { sk_field(sk, dst_ip6[0]), sk_field(sk, dst_ip6[1]),
				  sk_field(sk, dst_ip6[2]), sk_field(sk, dst_ip6[3]) };
		endpoint_v6(e, addr);
	} else {
		endpoint_v4(e, sk_field(sk, dst_ip4));
	}
	e->port = bpf_ntohs(sk->dst_port);
}

static always_inline __u64 *ignored_slot(__u64 fingerprint)
{
	__u32 slot = (fingerprint >> 16) & (IGNORED_SLOTS - 1);

	return bpf_map_lookup_elem(&ignored, &slot);
}

static always_inline void ignore(__u64 fingerprint)
{
	__u64 *slot = ignored_slot(fingerprint);

	if (slot)
		*slot = fingerprint;
}

/*
 * The ingress of a connection, as a fingerprint of its own. Where ingress finds no socket the packets are most likely
 * forwarded, but egress knows better: behind a redirect the addresses of what comes in are not the socket's.
 */
static always_inline __u64 passing(__u64 fingerprint)
{
	return ~fingerprint;
}

static always_inline bool is_ignored(__u64 fingerprint)
{
	__u64 *slot = ignored_slot(fingerprint);

	return slot && *slot == fingerprint;
}

static always_inline void notice(__u64 fingerprint)
{
	__u64 *slot = ignored_slot(fingerprint);

	if (slot && *slot == fingerprint)
		*slot = 0;
}

struct spin {
	__u32 *lock;
	__u32 me;
	__u32 held;
};

static always_inline bool take_lock(__u32 *lock, __u32 me)
{
	return !__sync_val_compare_and_swap(lock, 0, me);
}

static long try_lock(__u64 i, struct spin *s)
{
	/* Looking before exchanging leaves the cache line with the CPU that holds the lock. */
	if (*(volatile __u32 *)s->lock || !take_lock(s->lock, s->me))
		return 0;
	s->held = 1;
	return 1;
}

/* Some ten milliseconds: whoever holds a flow may be at a hundred heads, or its processor taken away by a hypervisor. */
#define SPINS 1000000

/*
 * Waits until no other processor works on the flow. Where this one does, it is a sockops program that a softirq
 * interrupted, and to wait would be in vain.
 */
static always_inline bool lock_flow(struct flow *f, __u64 fingerprint)
{
	__u32 me = bpf_get_smp_processor_id() + 1;

	/* The element may have been deleted and used again since its look-up. */
	if (f->fingerprint != fingerprint && !f->lock)
		return false;
	if (!take_lock(&f->lock, me)) {
		struct spin s = { &f->lock, me };
		if (*(volatile __u32 *)&f->lock != me)
			bpf_loop(SPINS, try_lock, &s, 0);
		if (!s.held) {
			count(STAT_CONTENDED);
			return false;
		}
	}
	if (f->fingerprint == fingerprint)
		return true;
	/* Or since then. */
	__sync_lock_test_and_set(&f->lock, 0);
	return false;
}

static always_inline void unlock_flow(struct flow *f)
{
	__sync_lock_test_and_set(&f->lock, 0);
}

/* Which side sent this packet; SIDES where it is of another connection with the same fingerprint. */
static always_inline __u32 sender_of(const struct tap *t, const struct flow *f)
{
	const struct endpoint *from = &t->parts->seg.src, *to = &t->parts->remote;

	if (f->netns != t->netns)
		return SIDES;
	if (same_end(from, &f->wire[SIDE_OPENER]) && same_end(to, &f->wire[SIDE_ACCEPTOR]))
		return SIDE_OPENER;
	if (same_end(from, &f->wire[SIDE_ACCEPTOR]) && same_end(to, &f->wire[SIDE_OPENER]))
		return SIDE_ACCEPTOR;
	return SIDES;
}

/* Interns what a socket's RED counters belong to. */
static always_inline __u32 service_of(const struct party *p)
{
	struct service_key key = { .netns = p->netns, .cgroup = p->cgroup };
	__u32 zero = 0;

	__builtin_memcpy(key.comm, p->comm, sizeof(key.comm));
	__u32 *known = bpf_map_lookup_elem(&services, &key);
	if (known)
		return *known;
	__u32 *handed_out = bpf_map_lookup_elem(&service_count, &zero);
	if (!handed_out || *handed_out >= SERVICES_MAX - 1) {
		count(STAT_SERVICES_FULL);
		return 0;
	}
	__u32 index = __sync_fetch_and_add(handed_out, 1) + 1;
	if (index >= SERVICES_MAX)
		return 0;
	/* Two CPUs may hand out two indexes for one service: the first stays, the other is never used. */
	bpf_map_update_elem(&services, &key, &index, BPF_NOEXIST);
	known = bpf_map_lookup_elem(&services, &key);
	return known ? *known : 0;
}

/*
 * Notes whose socket a side is. The mark and the uid tell proxies from applications; only an
 * application's socket can have spans. The packet's own socket is the sender's alone.
 */
static always_inline void set_party(struct party *p, struct tap *t, struct bpf_sock *sk, const struct sock_info *info,
				    bool is_sender)
{
	__u32 flags = PARTY_KNOWN;

	if (info)
		*p = info->party;
	p->netns = t->netns;
	if (is_sender && !p->cgroup)
		p->cgroup = bpf_skb_cgroup_id(t->skb);
	if (is_sender && !p->cookie)
		p->cookie = bpf_get_socket_cookie(t->skb);
	if (is_ztunnel(sk) || (p->tgid && p->uid == SIDECAR_UID))
		flags |= PARTY_PROXY;
	else if (p->flags & PARTY_EXCLUDED || (is_sender && !p->tgid && excluded_cgroup_depths &&
					       in_excluded_cgroup(bpf_skb_ancestor_cgroup_id(t->skb, depth))))
		flags |= PARTY_EXCLUDED;
	else
		flags |= PARTY_APP;
	p->flags = flags;
	if (flags & PARTY_APP)
		p->service = service_of(p);
}

/* Joins a socket and its side of a flow; from then on the socket's end is the flow's. */
static __noinline void link_socket(struct tap *t, struct flow *f, __u32 side, struct bpf_sock *sk, bool is_sender)
{
	struct ends *ends = &f->exchange.ends;
	struct sock_info *info = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!info)
		count(STAT_STORAGE_NOMEM);
	if (side >= SIDES)
		return;
	/* With TCP Fast Open the acceptor's socket is there first. */
	if (info && info->role == ROLE_ACCEPTOR && !info->opener_traced && !info->opener_untraced)
		ask_opener(info);
	set_party(&ends->party[side], t, sk, info, is_sender);
	local_of(sk, &ends->local[side]);
	remote_of(sk, &ends->remote[side]);
	if (!info)
		return;
	if (info->role && info->flow_id != f->id) {
		info->flow = t->fingerprint;
		f->sockets++;
		/* The socket may be closed just now: of the two either sees what the other one wrote. */
		__sync_lock_test_and_set(&info->flow_id, f->id);
		if (*(volatile __u32 *)&info->ended)
			f->left = info->ended;
	}
	if (side == SIDE_ACCEPTOR && (info->opener_traced || info->opener_untraced))
		f->opener_traced = info->opener_traced;
}

/* Behind a redirect the ports of the wire and those that the sockets know are not the same: each counts. */
static always_inline bool has_excluded_port(const struct tap *t)
{
	return is_excluded_port(t->parts->seg.src.port) || is_excluded_port(t->parts->seg.dst.port) ||
	       is_excluded_port(t->parts->remote.port);
}

static always_inline __u8 cidr_of(const struct endpoint *e)
{
	struct cidr key = { .prefix = 128 };

	__builtin_memcpy(key.addr, e->addr, sizeof(key.addr));
	__u8 *flags = bpf_map_lookup_elem(&cidrs, &key);
	return flags ? *flags : 0;
}

#endif
