/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Every map. Each is bounded; load.go may lower or raise max_entries by the configuration. */
#ifndef AMBIT_MAPS_H
#define AMBIT_MAPS_H

#include "platform.h"
#include "state.h"

#define PIPELINE_MAX 32
#define IGNORED_SLOTS 32768

#ifndef AMBIT_HOST

/* By fingerprint: hashing and comparing all of both ends' addresses for each packet takes longer. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct flow);
} flows SEC(".maps");

/*
 * Exchanges behind which the client has already sent another request, by their number in the flow; of HTTP/2 by their
 * slot in the connection.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct part_key);
	__type(value, struct exchange);
} waiting SEC(".maps");

/* Connections that speak HTTP/2, by the id of their flow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct http2);
} http2s SEC(".maps");

/* Fields of header blocks that a segment broke off, by flow and side. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct part_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct piece);
} pieces SEC(".maps");

/* Lines of heads that a segment broke off, until the next segment comes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct part_key);
	__type(value, struct window);
} carries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct window);
} windows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tap_parts);
} tap_parts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct subject);
} subjects SEC(".maps");

/*
 * Fingerprints of connections that are not traced, at some bits of their own. A collision costs the one that was
 * there a look at its socket; a SYN clears its slot, since ports are used again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IGNORED_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} ignored SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct sock_info);
} sockets SEC(".maps");

/*
 * Connections that a socket of this kernel just opened: the acceptor's socket, a moment later, asks who it
 * was. The value is an enum opener_kind.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct isn_pair);
	__type(value, __u8);
} openers SEC(".maps");

/*
 * Local addresses of sockets behind a redirect in their own namespace, by the fingerprint of the wire: noted when a
 * connection is answered, taken when its first data comes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct endpoint);
} redirects SEC(".maps");

/* Owners of MPTCP listeners that were there before ambit: what they accept inherits nothing from them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct listener_key);
	__type(value, struct party);
} listeners SEC(".maps");

/* Network namespaces that are tapped, by cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u8);
} tapped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct cidr);
	__type(value, __u8);
} cidrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, __u8);
} excluded_cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u16);
	__type(value, __u8);
} excluded_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct base_rates);
} rates SEC(".maps");

/* The rules in force are the only element of the map that is the only element: both are replaced at once. */
struct rule_set {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rules);
} no_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct rule_set);
} rule_sets SEC(".maps") = {
	.values = { &no_rules },
};

/* What rules do. Those of an older set stay until a newer one comes round, for the exchanges that it decided. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ACTIONS_MAX);
	__type(key, __u32);
	__type(value, struct action);
} actions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ROUTE_BUCKETS);
	__type(key, __u32);
	__type(value, struct route_bucket);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SERVICES_MAX * SIDES);
	__type(key, __u32);
	__type(value, struct route_count);
} route_counts SEC(".maps");

/* By series_key. Memory is taken as they come. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * ROUTES_MAX);
	__type(key, __u64);
	__type(value, struct series);
} counters SEC(".maps");

/* Userspace's own, for its next process: when each element of counters was made, as the wall clock had it. Key 0: the last reading. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * ROUTES_MAX + 1);
	__type(key, __u64);
	__type(value, __u64);
} series_begun SEC(".maps");

/* The same: of those whose counters of 32 bits have gone round, how often. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * ROUTES_MAX);
	__type(key, __u64);
	__type(value, struct series);
} series_rounds SEC(".maps");

/* The same: what the maps were made by, and what became of records. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct heritage);
} heritage SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BUDGETS);
	__type(key, __u32);
	__type(value, struct budget);
} budgets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STATS);
	__type(key, __u32);
	__type(value, __u64);
} stats SEC(".maps");

/* Services that have had traffic; the value is the number by which decisions and counters know them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, struct service_key);
	__type(value, __u32);
} services SEC(".maps");

/* Index 0: the number of services, the last index handed out. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} service_count SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} records SEC(".maps");

/* The programs that tail calls go to; index: enum tap_program. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, TAP_PROGRAMS);
	__type(key, __u32);
	__type(value, __u32);
} taps SEC(".maps");

static always_inline void count_n(__u32 stat, __u64 n)
{
	__u64 *v = bpf_map_lookup_elem(&stats, &stat);

	/* Atomic though per CPU: a softirq may interrupt a sockops program of a process. */
	if (v)
		__sync_fetch_and_add(v, n);
}

#endif /* AMBIT_HOST */

static always_inline void count(__u32 stat)
{
	count_n(stat, 1);
}

#endif
