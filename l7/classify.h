/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* From a packet to its flow, and into the parser of the flow's protocol. */
#ifndef AMBIT_CLASSIFY_H
#define AMBIT_CLASSIFY_H

#include "takeup.h"

/* The packet's socket is of the tapped namespace. */
static always_inline bool sent_here(struct tap *t, struct bpf_sock *sk)
{
	if (netns_from_packet)
		return bpf_get_netns_cookie(t->skb) == t->netns;
	struct sock_info *info = bpf_sk_storage_get(&sockets, sk, 0, 0);
	return info && info->party.netns == t->netns;
}

/* A socket of TCP with a peer; what answers for one that is being opened, or is closed, is none. */
static always_inline bool is_connection(struct bpf_sock *sk)
{
	return (sk->family == AF_INET || sk->family == AF_INET6) && sk->dst_port && sk->state != BPF_TCP_TIME_WAIT &&
	       sk->state != BPF_TCP_NEW_SYN_RECV;
}

/* The sender's socket, where it is one of this namespace. Bridges and veths also pass packets of others. */
static always_inline struct bpf_sock *sender_here(struct tap *t)
{
	if (t->hook == HOOK_INGRESS || !t->skb->sk)
		return 0;
	struct bpf_sock *sk = t->skb->sk;
	if (!is_connection(sk))
		return 0;
	if (t->hook == HOOK_EGRESS && !sent_here(t, sk))
		return 0;
	return sk;
}

/* What both directions of a connection can be brought to; see tc/flow.h. */
static always_inline void find_ends(struct tap *t)
{
	if (t->hook == HOOK_LO_EGRESS && t->sk)
		remote_of(t->sk, &t->parts->remote);
	else
		t->parts->remote = t->parts->seg.dst;
	t->fingerprint = fingerprint_of(t->netns, &t->parts->seg.src, &t->parts->remote);
}

static always_inline void feed(struct tap *t, struct flow *f)
{
	__u32 side = sender_of(t, f);
	struct ends *ends = &f->exchange.ends;

	if (side >= SIDES) {
		count(STAT_FLOWS_FULL);
		return;
	}
	if (t->sk && !(ends->party[side & 1].flags & PARTY_KNOWN)) {
		struct bpf_sock *full = bpf_sk_fullsock(t->sk);
		if (full)
			link_socket(t, f, side, full, true);
	}
	if (t->parts->seg.len && !f->ended) {
		struct arrival *a = &t->parts->arrival;
		/* On lo it is TCP's own time of sending, by the same clock. */
		a->now = t->hook == HOOK_LO_EGRESS ? t->skb->tstamp : 0;
		if (!a->now)
			a->now = bpf_ktime_get_ns();
		a->payload = t->parts->seg.payload;
		a->end = t->parts->seg.len;
		a->side = side;
		a->seq = t->parts->seg.seq;
		a->ack = t->parts->seg.ack;
		if (f->protocol != PROTOCOL_HTTP2)
			http1_segment(t->skb, f, a);
		/* HTTP/1 may have found it to be HTTP/2, and left the rest. */
		if (f->protocol == PROTOCOL_HTTP2) {
			__u32 zero = 0;
			struct window *win = bpf_map_lookup_elem(&windows, &zero);
			t->parts->fingerprint = t->fingerprint;
			if (win && !pass_data(t->skb, f, a, win))
				bpf_tail_call(t->skb, &taps, TAP_HTTP2);
		}
	}
	if (t->parts->seg.flags & (TCP_FIN | TCP_RST) || f->finned)
		closing(f, side, t->parts->seg.seq + t->parts->seg.len, t->parts->seg.flags, bpf_ktime_get_ns());
}

/* The end of a flow that is locked, and over. */
static always_inline void end_flow(struct flow *f, __u64 *key)
{
	retire(f);
	unlock_flow(f);
	bpf_map_delete_elem(&flows, key);
}

/* A connection that is not worth a look any more makes room. */
static always_inline void release(struct tap *t)
{
	ignore(t->fingerprint);
	if (t->sk) {
		struct sock_info *info = bpf_sk_storage_get(&sockets, t->sk, 0, 0);
		if (info)
			info->not_http = 1;
	}
	bpf_map_delete_elem(&flows, &t->fingerprint);
}

/* A new connection, though the ports may be those of an old one whose end nobody saw. */
static always_inline void new_connection(struct tap *t)
{
	notice(t->fingerprint);
	notice(passing(t->fingerprint));
	if (t->parts->seg.flags & TCP_ACK)
		return;
	if (t->parts->seg.len)
		count(STAT_SYN_DATA);
	struct flow *f = bpf_map_lookup_elem(&flows, &t->fingerprint);
	/* A SYN that came twice is not another connection's. */
	if (!f || (f->opened && f->isn[SIDE_OPENER] == t->parts->seg.seq) || !lock_flow(f, t->fingerprint))
		return;
	over(f, ENDING_CLOSED, bpf_ktime_get_ns());
	end_flow(f, &t->fingerprint);
}

/* The packet was read. */
static always_inline void let_go(struct tap *t, struct flow *f)
{
	bool ended = f->ended;
	if (ended)
		retire(f);
	unlock_flow(f);
	if (ended)
		release(t);
}

static always_inline void feed_locked(struct tap *t, struct flow *f)
{
	if (!lock_flow(f, t->fingerprint))
		return;
	feed(t, f);
	let_go(t, f);
}

/* One packet at one hook of a tapped namespace. */
static always_inline void tap_packet(struct tap *t)
{
	if (!parse_segment(t->skb, &t->parts->seg))
		return;
	t->sk = sender_here(t);
	if (t->hook == HOOK_EGRESS && !t->sk && !(t->parts->seg.flags & TCP_RST)) {
		if ((t->parts->seg.flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
			note_redirect(t);
		return;
	}
	find_ends(t);
	if (t->parts->seg.flags & TCP_SYN) {
		new_connection(t);
		return;
	}
	if (is_ignored(t->fingerprint) || (t->hook == HOOK_INGRESS && is_ignored(passing(t->fingerprint))))
		return;
	struct flow *f = bpf_map_lookup_elem(&flows, &t->fingerprint);
	if (f)
		feed_locked(t, f);
	else if (t->parts->seg.len)
		bpf_tail_call(t->skb, &taps, TAP_TAKE_UP);
}

/*
 * The same packet, whose segment is in the parts, where no flow was found for it. It is a program of its own so that neither
 * is too much for the verifier.
 */
static always_inline void tap_unknown_packet(struct tap *t)
{
	t->sk = sender_here(t);
	find_ends(t);
	if (take_up(t))
		bpf_tail_call(t->skb, &taps, TAP_PACKET);
}

/* A function of its own: what it needs on the stack must not add to what the parser does. */
static __noinline int let_go_last(struct __sk_buff *skb, struct flow *f)
{
	struct tap t = tap_of(skb);

	if (!t.parts)
		return 0;
	t.fingerprint = t.parts->fingerprint;
	t.sk = sender_here(&t);
	let_go(&t, f);
	return 0;
}

/*
 * The same packet, where its flow speaks HTTP/2. The flow is locked; what was found out about both is in the parts. It is a
 * program of its own for the same reason.
 */
static always_inline void tap_http2_packet(struct __sk_buff *skb, struct tap_parts *parts)
{
	const struct arrival *a = &parts->arrival;
	__u64 fingerprint = parts->fingerprint;
	struct flow *f = bpf_map_lookup_elem(&flows, &fingerprint);

	if (!f)
		return;
	http2_segment(skb, f, a);
	if (parts->seg.flags & (TCP_FIN | TCP_RST) || f->finned)
		closing(f, a->side, a->seq + a->end, parts->seg.flags, bpf_ktime_get_ns());
	if (f->ended)
		let_go_last(skb, f);
	else
		unlock_flow(f);
}

/* The last of a socket: what still waits for a response will not get one. */
static always_inline void socket_closed(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	__u32 was = ops->args[0];
	struct sock_info *info = bpf_sk_storage_get(&sockets, sk, 0, 0);

	if (!info)
		return;
	/* From these two a socket only goes straight to CLOSE when the connection was reset or aborted. */
	bool reset = was == BPF_TCP_ESTABLISHED || was == BPF_TCP_CLOSE_WAIT;
	__sync_lock_test_and_set(&info->ended, reset ? LEFT_RESET : LEFT_CLOSED);
	if (!*(volatile __u64 *)&info->flow_id)
		return;
	struct flow *f = bpf_map_lookup_elem(&flows, &info->flow);
	if (!f)
		return;
	if (!lock_flow(f, info->flow)) {
		/* The sweep looks after it. */
		if (f->id == info->flow_id)
			f->left = info->ended;
		return;
	}
	/* A new connection may have its ports by now. */
	if (f->id != info->flow_id) {
		unlock_flow(f);
		return;
	}
	/* What the acceptor sent, by this socket's own account; a FIN has a number too. */
	__u32 here = sk_field(ops, snd_nxt), there = sk_field(ops, rcv_nxt);
	__u32 sent = info->role == ROLE_ACCEPTOR ? here : there;
	if ((__s32)(sent - f->half[SIDE_ACCEPTOR].next_seq) > 1)
		f->half[SIDE_ACCEPTOR].missed = 1;
	over(f, reset ? ENDING_RESET : ENDING_CLOSED, bpf_ktime_get_ns());
	if (f->sockets > 1) {
		f->sockets--;
		unlock_flow(f);
	} else {
		end_flow(f, &info->flow);
	}
}

#endif
