/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Ethernet, VLAN, IP and TCP headers: where a segment's payload is, and between whom. */
#ifndef AMBIT_PARSE_H
#define AMBIT_PARSE_H

#include "../bpf/maps.h"

#define ETH_LEN 14
#define VLAN_LEN 4
#define VLANS_MAX 2
#define EXTENSIONS_MAX 6

static always_inline void endpoint_v4(struct endpoint *e, __u32 addr)
{
	*(__u64 *)e->addr = 0;
	/* One store: what reads it back, eight bytes at once, would wait for two. */
	*(__u64 *)(e->addr + 8) = (__u64)addr << 32 | bpf_htonl(0xffff);
}

static always_inline void endpoint_v6(struct endpoint *e, const void *addr)
{
	*(__u64 *)e->addr = load64(addr);
	*(__u64 *)(e->addr + 8) = load64(addr + 8);
}

static always_inline bool is_vlan(__u16 proto)
{
	return proto == bpf_htons(0x8100) || proto == bpf_htons(0x88a8);
}

static always_inline bool is_ip(__u16 proto)
{
	return proto == bpf_htons(0x0800) || proto == bpf_htons(0x86dd);
}

/* The packet's bytes that can be read directly. A driver may leave headers outside of them: pull them in, once. */
static always_inline bool headers_in_reach(struct __sk_buff *skb)
{
	__u32 want = skb->len < 128 ? skb->len : 128;

	if (skb->data_end - skb->data >= want)
		return true;
	/* The payload is outside on purpose; 54 bytes is the least that a TCP segment has over Ethernet and IPv4. */
	if (skb->data_end - skb->data >= 54)
		return true;
	return bpf_skb_pull_data(skb, want) == 0;
}

#define at(type, off)                                                                     \
	({                                                                                \
		type *__p = data + (off);                                                 \
		if ((void *)(__p + 1) > data_end)                                         \
			return false;                                                     \
		__p;                                                                      \
	})

struct ipv4 {
	__u8 version_ihl, tos;
	__u16 tot_len, id, frag_off;
	__u8 ttl, protocol;
	__u16 check;
	__u32 saddr, daddr;
};

struct ipv6 {
	__u32 version;
	__u16 payload_len;
	__u8 nexthdr, hop_limit;
	__u8 saddr[16], daddr[16];
};

struct tcp {
	__u16 source, dest;
	__u32 seq, ack_seq;
	__u8 doff, flags;
	__u16 window, check, urg_ptr;
};

/*
 * A device without link-layer header (a TUN, WireGuard) begins with the IP header, in whose addresses an Ethernet type may
 * be found too. Its first byte tells them apart, and where a hardware address begins alike, where the network header is:
 * the last byte that can be read directly is as far behind it as behind the packet's start, or nearer.
 */
static always_inline bool begins_with_ip(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u32 reach = skb->data_end - skb->data;
	__u8 *first = data, byte;

	if ((void *)(first + 1) > data_end)
		return false;
	if (*first >> 4 != (skb->protocol == bpf_htons(0x0800) ? 4 : 6) || !is_ip(skb->protocol))
		return false;
	return bpf_skb_load_bytes_relative(skb, reach - 1, &byte, 1, BPF_HDR_START_NET) == 0;
}

/*
 * Fills s and answers true for a TCP segment that carries bytes, or opens or ends a connection.
 * Fragments are no segments: TCP avoids them, and only their first part would have the ports.
 */
static always_inline bool parse_segment(struct __sk_buff *skb, struct segment *s)
{
	if (!headers_in_reach(skb))
		return false;

	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__u32 off = 0, total = 0;
	__u8 proto;

	__u16 type = *at(__u16, 12);
	if ((is_ip(type) || is_vlan(type)) && !begins_with_ip(skb)) {
		off = ETH_LEN;
		for (int i = 0; i < VLANS_MAX && is_vlan(type); i++) {
			type = *at(__u16, off + 2);
			off += VLAN_LEN;
		}
	} else {
		type = skb->protocol;
	}

	if (type == bpf_htons(0x0800)) {
		struct ipv4 *ip = at(struct ipv4, off);
		if (ip->version_ihl >> 4 != 4 || ip->frag_off & bpf_htons(0x3fff))
			return false;
		proto = ip->protocol;
		total = bpf_ntohs(ip->tot_len);
		total = total ? off + total : 0;
		endpoint_v4(&s->src, ip->saddr);
		endpoint_v4(&s->dst, ip->daddr);
		off += (ip->version_ihl & 15) * 4;
	} else if (type == bpf_htons(0x86dd)) {
		struct ipv6 *ip = at(struct ipv6, off);
		if ((*(__u8 *)ip) >> 4 != 6)
			return false;
		proto = ip->nexthdr;
		total = bpf_ntohs(ip->payload_len);
		total = total ? off + sizeof(*ip) + total : 0;
		endpoint_v6(&s->src, ip->saddr);
		endpoint_v6(&s->dst, ip->daddr);
		off += sizeof(*ip);
		for (int i = 0; i < EXTENSIONS_MAX && proto != 6; i++) {
			__u8 *ext = at(__u8, off);
			__u8 *len = at(__u8, off + 1);
			if (proto == 44) {
				__u16 *frag = at(__u16, off + 2);
				if (*frag & bpf_htons(0xfff9))
					return false;
				proto = *ext;
				off += 8;
			} else if (proto == 0 || proto == 43 || proto == 60) {
				proto = *ext;
				off += 8 + *len * 8;
			} else if (proto == 51) {
				proto = *ext;
				off += 8 + *len * 4;
			} else {
				return false;
			}
			/* The verifier wants to see that packet offsets stay small. */
			if (off > 2048)
				return false;
		}
	} else {
		return false;
	}
	if (proto != 6)
		return false;

	struct tcp *tcp = at(struct tcp, off);
	s->src.port = bpf_ntohs(tcp->source);
	s->dst.port = bpf_ntohs(tcp->dest);
	s->seq = bpf_ntohl(tcp->seq);
	s->ack = bpf_ntohl(tcp->ack_seq);
	s->flags = tcp->flags;
	off += (tcp->doff >> 4) * 4;
	/* Short frames are padded, so the IP length holds; it is 0 where a GSO packet outgrew it. */
	if (!total || total > skb->len)
		total = skb->len;
	s->payload = off;
	s->len = total > off ? total - off : 0;
	return s->len || s->flags & (TCP_FIN | TCP_SYN | TCP_RST);
}

#undef at

#endif
