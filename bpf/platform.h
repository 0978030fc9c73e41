/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the parser needs of its surroundings. In the kernel that is the BPF helpers; the host build, which feeds the
 * same sources from tests and fuzzers, defines AMBIT_HOST and brings its own host.h.
 */
#ifndef AMBIT_PLATFORM_H
#define AMBIT_PLATFORM_H

#ifdef AMBIT_HOST
#include "host.h"
#else
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#endif

/* What a parser reads from. */
#ifndef AMBIT_HOST
#define packet __sk_buff
#endif

/* Keeps clang from moving or dropping the bound that the verifier has to see. */
#define opaque(var) asm volatile("" : "+r"(var))

#define always_inline inline __attribute__((always_inline))

/* The one way to a packet's bytes, and a copy whose length is not constant. */
#ifndef AMBIT_HOST
static always_inline long load_bytes(struct packet *packet, __u32 off, void *dst, __u32 len)
{
	return bpf_skb_load_bytes(packet, off, dst, len);
}

static always_inline long copy_bytes(void *dst, __u32 len, const void *src)
{
	return bpf_probe_read_kernel(dst, len, src);
}
#endif

/* Loads and stores at any address: every machine that BPF maps run on allows it. The host build has its own, for the sanitizers. */
#ifndef AMBIT_HOST
static always_inline __u64 load64(const void *p)
{
	return *(const __u64 *)p;
}

static always_inline void store64(void *p, __u64 v)
{
	*(__u64 *)p = v;
}

static always_inline __u32 load32(const void *p)
{
	return *(const __u32 *)p;
}
#endif

#endif
