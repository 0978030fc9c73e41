/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Constants that load.go sets before the programs are verified. */
#ifndef AMBIT_CONFIG_H
#define AMBIT_CONFIG_H

#include "platform.h"

#ifdef AMBIT_HOST
#define SETTING
#else
#define SETTING const volatile
#endif

/* Key of the derived IDs: nodes that shall agree on them have the same one. */
SETTING __u64 id_key[2] = { 0x6d61206e6f697473, 0x7373656c72656469 };

/* Random: nobody outside can choose addresses of which two connections have one fingerprint. */
SETTING __u64 flow_seed = 0;

/*
 * The ring buffer wakes its reader at each multiple of this that what waits comes to; below, the reader looks by itself.
 * A power of two, and a part of the ring buffer: where a wake-up is missed the next multiple has one. Not with every
 * record: the reader may be at work, and a wake-up takes a microsecond here and ten there.
 */
SETTING __u64 wake_bytes = 65536;

/* How long an exchange waits for its next byte. */
SETTING __u64 idle_limit_ns = 60000000000ULL;

/* The headers of every source are believed; else those of addresses in the map cidrs. */
SETTING bool trust_all = true;

/* The map cidrs has peers. */
SETTING bool have_peers = false;

/* The map cidrs has sources whose x-envoy-force-trace is believed. */
SETTING bool have_forcers = false;

/* bpf_get_netns_cookie serves TC programs (since 6.13): it gives the namespace of the packet's socket. */
SETTING bool netns_from_packet = false;

/* Bit n: an excluded cgroup is at depth n of the hierarchy (the root is 0). */
SETTING __u32 excluded_cgroup_depths = 0;

/* Ports are excluded: consult the map excluded_ports. */
SETTING bool have_excluded_ports = false;

/*
 * ambit's own process, as the kernel numbers it, which in a container is not what the process itself is told: the program
 * who_am_i writes it. What ambit sends to a collector must not become spans, which it would send, and so on.
 */
__u32 own_tgid = 0;

#endif
