//go:build ignore
/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Records what TC and sockops programs can see of TCP: one record for each SYN, SYN-ACK and segment with data on
 * an interface, and for each connection that is established. Slow and complete; for tests alone.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET6 10

enum event {
	EVENT_SYN,
	EVENT_SYN_ACK,
	EVENT_DATA,
	EVENT_ACTIVE, /* sockops: connect() has succeeded */
	EVENT_PASSIVE, /* sockops: a connection can be accepted */
};

/* What skb->sk is. */
enum socket_kind {
	SOCKET_NONE,
	SOCKET_REQUEST, /* a connection that is being accepted */
	SOCKET_OTHER, /* in TIME_WAIT */
	SOCKET_FULL,
};

struct address {
	__u8 ip[16]; /* network byte order; IPv4 is v4-mapped */
	__u16 port; /* host byte order */
	__u16 pad;
};

struct sighting {
	__u64 netns; /* sockops: the socket's namespace, by cookie */
	__u32 point; /* TC: the attachment's number */
	__u32 payload; /* bytes */
	__u32 skb_mark;
	__u32 sk_mark;
	__u32 sk_family;
	__u8 event; /* enum event */
	__u8 socket; /* enum socket_kind */
	__u8 kept; /* bytes of first */
	__u8 pad;
	struct address source, destination; /* of the packet */
	struct address local, remote; /* of the socket */
	__u8 first[16]; /* of the payload */
};

/* These keep the types in BTF. */
const struct address *unused_address __attribute__((unused));
const struct sighting *unused_sighting __attribute__((unused));
const enum event *unused_event __attribute__((unused));
const enum socket_kind *unused_socket_kind __attribute__((unused));

/* The attachment's number, set before loading. */
const volatile __u32 point;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} sightings SEC(".maps");

/* Sightings that did not fit. */
__u64 lost;

static __always_inline void map_v4(struct address *to, __u32 ip)
{
	to->ip[10] = to->ip[11] = 0xff;
	__builtin_memcpy(to->ip + 12, &ip, 4);
}

static __always_inline void describe(struct sighting *s, struct bpf_sock *sk)
{
	s->socket = SOCKET_FULL;
	s->sk_mark = sk->mark;
	s->sk_family = sk->family;
	s->local.port = sk->src_port;
	s->remote.port = bpf_ntohs(sk->dst_port);
	if (s->sk_family == AF_INET6) {
		__u32 *local = (__u32 *)s->local.ip, *remote = (__u32 *)s->remote.ip;

		local[0] = sk->src_ip6[0];
		local[1] = sk->src_ip6[1];
		local[2] = sk->src_ip6[2];
		local[3] = sk->src_ip6[3];
		remote[0] = sk->dst_ip6[0];
		remote[1] = sk->dst_ip6[1];
		remote[2] = sk->dst_ip6[2];
		remote[3] = sk->dst_ip6[3];
	} else {
		map_v4(&s->local, sk->src_ip4);
		map_v4(&s->remote, sk->dst_ip4);
	}
}

/* Fills in the packet's part. False: it is nothing to be recorded. */
static __always_inline bool parse(struct __sk_buff *skb, struct sighting *s)
{
	__u32 at = ETH_HLEN, tcp, end;
	__u8 protocol, first_byte, flags, offset;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, at, &first_byte, 1) || bpf_skb_load_bytes(skb, at + 9, &protocol, 1) ||
		    bpf_skb_load_bytes(skb, at + 12, s->source.ip + 12, 4) ||
		    bpf_skb_load_bytes(skb, at + 16, s->destination.ip + 12, 4))
			return false;
		s->source.ip[10] = s->source.ip[11] = 0xff;
		s->destination.ip[10] = s->destination.ip[11] = 0xff;
		tcp = at + (first_byte & 0xf) * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, at + 6, &protocol, 1) || bpf_skb_load_bytes(skb, at + 8, s->source.ip, 16) ||
		    bpf_skb_load_bytes(skb, at + 24, s->destination.ip, 16))
			return false;
		tcp = at + 40;
	} else {
		return false;
	}
	if (protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, tcp, &s->source.port, 2) ||
	    bpf_skb_load_bytes(skb, tcp + 2, &s->destination.port, 2) ||
	    bpf_skb_load_bytes(skb, tcp + 12, &offset, 1) || bpf_skb_load_bytes(skb, tcp + 13, &flags, 1))
		return false;
	s->source.port = bpf_ntohs(s->source.port);
	s->destination.port = bpf_ntohs(s->destination.port);
	end = tcp + (offset >> 4) * 4;
	if (skb->len < end)
		return false;
	s->payload = skb->len - end;
	if (flags & 2) {
		s->event = flags & 16 ? EVENT_SYN_ACK : EVENT_SYN;
		return true;
	}
	s->event = EVENT_DATA;
	if (s->payload >= 16) {
		s->kept = 16;
		return bpf_skb_load_bytes(skb, end, s->first, 16) == 0;
	}
	return s->payload > 0;
}

SEC("tc")
int record_packet(struct __sk_buff *skb)
{
	struct sighting s = {}, *kept;
	struct bpf_sock *sk, *full;

	if (!parse(skb, &s))
		return -1; /* TCX_NEXT, TC_ACT_UNSPEC */
	s.point = point;
	s.skb_mark = skb->mark;
	sk = skb->sk;
	if (sk) {
		s.socket = sk->state == BPF_TCP_NEW_SYN_RECV ? SOCKET_REQUEST : SOCKET_OTHER;
		full = bpf_sk_fullsock(sk);
		if (full)
			describe(&s, full);
	}
	kept = bpf_ringbuf_reserve(&sightings, sizeof(*kept), 0);
	if (!kept) {
		__sync_fetch_and_add(&lost, 1);
		return -1;
	}
	*kept = s;
	bpf_ringbuf_submit(kept, 0);
	return -1;
}

SEC("sockops")
int record_socket(struct bpf_sock_ops *ops)
{
	struct sighting *s;
	struct bpf_sock *sk = ops->sk;

	if (!sk || (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB))
		return 1;
	s = bpf_ringbuf_reserve(&sightings, sizeof(*s), 0);
	if (!s) {
		__sync_fetch_and_add(&lost, 1);
		return 1;
	}
	__builtin_memset(s, 0, sizeof(*s));
	s->event = ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB ? EVENT_ACTIVE : EVENT_PASSIVE;
	s->netns = bpf_get_netns_cookie(ops);
	describe(s, sk);
	bpf_ringbuf_submit(s, 0);
	return 1;
}

char __license[] SEC("license") = "Dual BSD/GPL";
