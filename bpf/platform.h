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

/* Loads at any address: every machine that BPF maps run on allows it. The host build has its own, for the sanitizers. */
#ifndef AMBIT_HOST
static always_inline __u64 load64(const void *p)
{
	return *(const __u64 *)p;
}

static always_inline __u32 load32(const void *p)
{
	return *(const __u32 *)p;
}
#endif

#endif
