/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How a connection becomes a flow. */
#ifndef AMBIT_TAKEUP_H
#define AMBIT_TAKEUP_H

#include "../tc/flow.h"
#include "protocol.h"

const volatile struct flow new_flow = {
	.lock = ~0U,
	.last_side = SIDES,
};

/* How many segments of a connection that was open before are looked at for the beginning of a message. */
#define MISSES_MAX 65536

/* The receiver's socket, by the addresses that it has itself; 0 where none is known to the kernel. */
static always_inline struct bpf_sock *receiver_at(struct tap *t, const struct endpoint *dst)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = sizeof(tuple.ipv4);
	const struct endpoint *src = &t->parts->seg.src;

	if (*(__u64 *)src->addr == 0 && *(__u32 *)(src->addr + 8) == bpf_htonl(0xffff)) {
		tuple.ipv4.saddr = *(__u32 *)(src->addr + 12);
		tuple.ipv4.daddr = *(__u32 *)(dst->addr + 12);
		tuple.ipv4.sport = bpf_htons(src->port);
		tuple.ipv4.dport = bpf_htons(dst->port);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, src->addr, 16);
		__builtin_memcpy(tuple.ipv6.daddr, dst->addr, 16);
		tuple.ipv6.sport = bpf_htons(src->port);
		tuple.ipv6.dport = bpf_htons(dst->port);
		size = sizeof(tuple.ipv6);
	}
	return bpf_skc_lookup_tcp(t->skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
}

/*
 * The receiver's established socket; 0 where there is none. Sets unborn where this very segment, the first with data,
 * makes it: TCP_DEFER_ACCEPT, or a lost ACK.
 */
static always_inline struct bpf_sock *receiver_of(struct tap *t, const struct endpoint *dst, bool *unborn)
{
	struct bpf_sock *sk = receiver_at(t, dst);

	if (sk && (sk->state == BPF_TCP_LISTEN || sk->state == BPF_TCP_NEW_SYN_RECV)) {
		*unborn = sk->state == BPF_TCP_NEW_SYN_RECV;
		bpf_sk_release(sk);
		return 0;
	}
	return sk;
}

/*
 * A connection is answered. Where the address that answers is not the socket's own, a redirect of this namespace is in
 * between, which what comes in has not passed yet when it is seen.
 */
static always_inline void note_redirect(struct tap *t)
{
	struct endpoint *src = &t->parts->seg.src, *local = &t->parts->remote;
	struct bpf_sock *sk = t->skb->sk;

	if (!sk || sk->state != BPF_TCP_NEW_SYN_RECV)
		return;
	/* The family is the listener's, the addresses that are filled in are those of the packet's. */
	if (*(__u64 *)src->addr == 0 && *(__u32 *)(src->addr + 8) == bpf_htonl(0xffff)) {
		endpoint_v4(local, sk_field(sk, src_ip4));
	} else {
		__u32 addr[4] = { sk_field(sk, src_ip6[0]), sk_field(sk, src_ip6[1]),
				  sk_field(sk, src_ip6[2]), sk_field(sk, src_ip6[3]) };
		endpoint_v6(local, addr);
	}
	local->port = sk->src_port;
	if (same_end(local, src))
		return;
	__u64 wire = fingerprint_of(t->netns, src, &t->parts->seg.dst);
	bpf_map_update_elem(&redirects, &wire, local, BPF_ANY);
}

static always_inline void begin_halves(struct tap *t, struct flow *f, __u32 sender, const struct sock_info *info,
				       bool unborn)
{
	f->half[sender & 1].next_seq = t->parts->seg.seq;
	f->half[!sender].next_seq = t->parts->seg.ack;
	if (info && info->role) {
		bool opener = info->role == ROLE_OPENER;
		f->isn[SIDE_OPENER] = opener ? info->isn_local : info->isn_remote;
		f->isn[SIDE_ACCEPTOR] = opener ? info->isn_remote : info->isn_local;
		f->opened = 1;
		/* No message of it was seen; but that none was sent is only known while there is nothing before this. */
		if (t->parts->seg.seq == f->isn[sender & 1] + 1 && t->parts->seg.ack == f->isn[!sender] + 1)
			return;
	}
	if (unborn) {
		f->isn[SIDE_OPENER] = t->parts->seg.seq - 1;
		f->isn[SIDE_ACCEPTOR] = t->parts->seg.ack - 1;
		f->opened = 1;
		return;
	}
	f->half[SIDE_OPENER].state = HALF_LOST;
	f->half[SIDE_ACCEPTOR].state = HALF_LOST;
}

/*
 * A connection is taken up with the first segment that could begin a request or a response. Everything that is not an
 * application's, or not HTTP, is remembered as ignored; so the next segment costs a look at one array.
 */
static __noinline struct flow *take_up(struct tap *t)
{
	__u32 ingress = t->hook == HOOK_INGRESS;
	struct sock_info *info = 0;
	struct bpf_sock *receiver = 0, *local;
	struct flow *f = 0;
	__u64 text = 0;
	__u32 n = t->parts->seg.len < 8 ? t->parts->seg.len : 8, sender;
	bool wanted = false, fresh = false;
	bool unborn = false;
	__u32 http2 = HTTP2_NOT;

	if (has_excluded_port(t)) {
		ignore(t->fingerprint);
		return 0;
	}
	if (t->hook != HOOK_EGRESS)
		receiver = receiver_of(t, &t->parts->seg.dst, &unborn);
	if (ingress && !receiver && !unborn) {
		struct endpoint *behind = bpf_map_lookup_elem(&redirects, &t->fingerprint);
		if (behind)
			receiver = receiver_of(t, behind, &unborn);
	}
	unborn = unborn && ingress;
	local = ingress ? receiver : t->sk;
	struct bpf_sock *full = local ? bpf_sk_fullsock(local) : 0;
	if (full && full->protocol != TCP_PROTOCOL)
		goto out;
	if (full) {
		info = bpf_sk_storage_get(&sockets, full, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!info)
			count(STAT_STORAGE_NOMEM);
		if ((info && (info->ended || info->not_http)) || socket_has_excluded_port(full)) {
			ignore(t->fingerprint);
			goto out;
		}
		/* Off the wire the other end is another namespace's: only on lo it may be an application's socket. */
		if (t->hook != HOOK_LO_EGRESS && is_proxy(full, info)) {
			ignore(t->fingerprint);
			goto out;
		}
		fresh = info && info->role;
	} else if (!unborn) {
		if (ingress)
			ignore(passing(t->fingerprint));
		else
			count(STAT_NO_SOCKET);
		goto out;
	}

	if (n == 8) {
		if (bpf_skb_load_bytes(t->skb, t->parts->seg.payload, &text, 8))
			goto out;
	} else if (n) {
		for (__u32 i = 0; i < 7; i++)
			if (i < n && bpf_skb_load_bytes(t->skb, t->parts->seg.payload + i, (__u8 *)&text + i, 1))
				goto out;
	}
	/* Who asks is the opener; where it is not known who opened, the bytes say it. */
	if (fresh)
		sender = (info->role == ROLE_OPENER) == !ingress ? SIDE_OPENER : SIDE_ACCEPTOR;
	else
		sender = !unborn && begins_response(text, n) ? SIDE_ACCEPTOR : SIDE_OPENER;
	wanted = sender == SIDE_OPENER ? begins_request(text, n) : begins_response(text, n) && !fresh;
	/* It is the first byte that anybody sent. */
	bool begun = fresh && t->parts->seg.seq == (ingress ? info->isn_remote : info->isn_local) + 1 &&
		     t->parts->seg.ack == (ingress ? info->isn_local : info->isn_remote) + 1;
	if (!wanted && begun && sender == SIDE_ACCEPTOR && n == 8 && begins_settings(text)) {
		/* The server of HTTP/2 may be the first to speak. */
		wanted = true;
		http2 = HTTP2_BEGINS;
	}
	if (!wanted && !begun && n == 8 && !(text & 0xff)) {
		__u32 from = http2_sender(t->skb, t->parts->seg.payload, t->parts->seg.len);
		if (from < SIDES && (from == sender || !fresh)) {
			wanted = true;
			sender = from;
			http2 = HTTP2_JOINED;
		}
	}
	if (!wanted) {
		if (begun || (info && ++info->misses >= MISSES_MAX)) {
			count(STAT_NOT_HTTP);
			if (info)
				info->not_http = 1;
			ignore(t->fingerprint);
		}
		goto out;
	}

	if (bpf_map_update_elem(&flows, &t->fingerprint, (void *)&new_flow, BPF_NOEXIST)) {
		f = bpf_map_lookup_elem(&flows, &t->fingerprint);
		if (!f)
			count(STAT_FLOWS_FULL);
		goto out;
	}
	f = bpf_map_lookup_elem(&flows, &t->fingerprint);
	if (!f)
		goto out;
	f->fingerprint = t->fingerprint;
	notice(passing(t->fingerprint));
	__u64 now = bpf_ktime_get_ns();
	f->id = t->fingerprint ^ now;
	f->half[SIDE_OPENER].last_ns = now;
	f->half[SIDE_ACCEPTOR].last_ns = now;
	f->looked_ns = now;
	f->netns = t->netns;
	f->wire[sender & 1] = t->parts->seg.src;
	f->wire[!sender] = t->parts->remote;
	begin_halves(t, f, sender, info, unborn);
	if (http2 != HTTP2_NOT)
		begin_http2(f, http2 == HTTP2_BEGINS ? PREFACE_LEN : 0, http2 == HTTP2_BEGINS);
	if (full)
		link_socket(t, f, ingress ? !sender : sender, full, !ingress);
	if (!ingress && receiver) {
		struct bpf_sock *peer = bpf_sk_fullsock(receiver);
		if (peer)
			link_socket(t, f, !sender, peer, false);
	}

	struct ends *ends = &f->exchange.ends;
	struct endpoint *opener = sender == SIDE_OPENER ? &t->parts->seg.src : &t->parts->seg.dst;
	__u8 about = trust_all && !have_peers && !have_forcers ? CIDR_TRUSTED : cidr_of(opener);
	f->trusted = trust_all || about & CIDR_TRUSTED;
	f->may_force = about & CIDR_FORCE ? 1 : 0;
	if (ends->party[SIDE_OPENER].flags & PARTY_KNOWN)
		f->opener_traced = !!(ends->party[SIDE_OPENER].flags & PARTY_APP);
	else if (about & CIDR_PEER && !(info && info->opener_untraced))
		f->opener_traced = 1;

	if (f->ended || (!unborn && !((ends->party[SIDE_OPENER].flags | ends->party[SIDE_ACCEPTOR].flags) & PARTY_APP))) {
		/* Two proxies, or excluded: nothing here can become a span. Or there was no room. */
		ignore(t->fingerprint);
		retire(f);
		unlock_flow(f);
		bpf_map_delete_elem(&flows, &t->fingerprint);
		f = 0;
		goto out;
	}
	unlock_flow(f);
out:
	if (receiver)
		bpf_sk_release(receiver);
	return f;
}

#endif
