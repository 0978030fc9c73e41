/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * IDs that nobody sent. Both ends of a connection, on one node or two, derive the same ones from what they
 * see alike: the initial sequence numbers, the request's place, and a key.
 */
#ifndef AMBIT_IDENTITY_H
#define AMBIT_IDENTITY_H

#include "../bpf/config.h"
#include "../bpf/maps.h"

/* Domains of the hash, so that one input gives unrelated values. */
enum domain {
	DOMAIN_REQUEST_ID_HIGH,
	DOMAIN_REQUEST_ID_LOW,
};

struct sip {
	__u64 v0, v1, v2, v3;
};

static always_inline __u64 rotl(__u64 x, int n)
{
	return x << n | x >> (64 - n);
}

static always_inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = rotl(s->v1, 13) ^ s->v0;
	s->v0 = rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotl(s->v1, 17) ^ s->v2;
	s->v2 = rotl(s->v2, 32);
}

static always_inline void sip_start(struct sip *s)
{
	__u64 k0 = id_key[0], k1 = id_key[1];

	s->v0 = k0 ^ 0x736f6d6570736575ULL;
	s->v1 = k1 ^ 0x646f72616e646f6dULL;
	s->v2 = k0 ^ 0x6c7967656e657261ULL;
	s->v3 = k1 ^ 0x7465646279746573ULL;
}

static always_inline void sip_word(struct sip *s, __u64 m)
{
	s->v3 ^= m;
	sip_round(s);
	s->v0 ^= m;
}

/* SipHash-1-3 over 64-bit words; the last word carries the domain. Never 0, which would be an invalid ID. */
static always_inline __u64 sip_end(struct sip *s, __u64 last)
{
	sip_word(s, last);
	s->v2 ^= 0xff;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	__u64 h = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
	return h ? h : 1;
}

/* SipHash-1-3-128 of an exchange's place: its first half, which is the lower one of a derived trace ID. */
static always_inline __u64 derive_low(struct sip *s, const __u64 place[2])
{
	sip_start(s);
	s->v1 ^= 0xee;
	sip_word(s, place[0]);
	sip_word(s, place[1]);
	sip_word(s, 16ULL << 56); /* bytes hashed */
	s->v2 ^= 0xee;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Its second half. */
static always_inline __u64 derive_high(struct sip *s)
{
	s->v1 ^= 0xdd;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* The span ID of one side: both halves of the hash, mixed with the side (the finalizer of SplitMix64). Never 0. */
static always_inline __u64 derive_span(__u64 low, __u64 high, __u32 side)
{
	__u64 h = (low ^ rotl(high, 32)) + (side + 1) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL;
	h = (h ^ (h >> 27)) * 0x94d049bb133111ebULL;
	h ^= h >> 31;
	return h ? h : 1;
}

/* The last 56 bits of a trace ID are its randomness. */
static always_inline __u64 randomness_of(const __u8 *trace_id)
{
	return bpf_be64_to_cpu(load64(trace_id + 8)) & 0x00ffffffffffffffULL;
}

#endif
