/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the parser's sources find in the place of the kernel: maps and helpers under the same names and with the
 * same meaning. Every element of a map is an allocation of its own, so that the address sanitizer sees a use
 * behind a deletion, or a step over an element's end.
 */
#ifndef AMBIT_HOST_H
#define AMBIT_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/types.h>

#define __noinline __attribute__((noinline))

#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohs(x) __builtin_bswap16(x)
#define bpf_htonl(x) __builtin_bswap32(x)
#define bpf_ntohl(x) __builtin_bswap32(x)
#define bpf_be64_to_cpu(x) __builtin_bswap64(x)

#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_RB_AVAIL_DATA 0
#define BPF_RB_RING_SIZE 1
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2

static inline void store64(void *p, __u64 v)
{
	memcpy(p, &v, sizeof(v));
}

static inline __u64 load64(const void *p)
{
	__u64 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline __u32 load32(const void *p)
{
	__u32 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* A packet is its payload; len is the end of what may be loaded. */
struct packet {
	const __u8 *bytes;
	__u32 len;
};

/* What the driver reports beside the parser's own counters. */
struct host_report {
	__u64 steps; /* of all bpf_loop calls */
	__u64 most_steps; /* of one segment, beyond what its length allows */
	__u64 bad_loads; /* asked for bytes that the packet does not have */
	__u64 live; /* elements in the maps waiting and carries */
	__u64 outstanding; /* exchanges that wait for a response */
};

extern struct host_report report;

static inline long load_bytes(struct packet *packet, __u32 off, void *dst, __u32 len)
{
	if (!len || off > packet->len || len > packet->len - off) {
		report.bad_loads++;
		return -14;
	}
	memcpy(dst, packet->bytes + off, len);
	return 0;
}

static inline long copy_bytes(void *dst, __u32 len, const void *src)
{
	memcpy(dst, src, len);
	return 0;
}

#define HOST_MAP_MAX 300

/* A hash map of few elements, or an array. */
struct host_map {
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries; /* at most HOST_MAP_MAX for a hash map */
	__u32 is_array;
	__u32 used;
	__u8 *keys[HOST_MAP_MAX];
	__u8 *values[HOST_MAP_MAX];
	__u8 *array;
};

extern struct host_map waiting, carries, windows, rates, http2s, fragments, pieces;
extern struct host_map subjects, rule_sets, actions, routes, route_counts, counters, budgets;

/* The ring buffer: each record is written to standard output. */
struct host_ring {
	__u32 full; /* refuse everything */
};

extern struct host_ring records;

static inline void *bpf_map_lookup_elem(struct host_map *m, const void *key)
{
	if (m->is_array) {
		__u32 i = load32(key);
		return i < m->max_entries ? m->array + (size_t)i * m->value_size : NULL;
	}
	for (__u32 i = 0; i < m->used; i++)
		if (!memcmp(m->keys[i], key, m->key_size))
			return m->values[i];
	return NULL;
}

static inline long bpf_map_update_elem(struct host_map *m, const void *key, const void *value, __u64 flags)
{
	void *old = bpf_map_lookup_elem(m, key);

	(void)flags;
	if (old) {
		memcpy(old, value, m->value_size);
		return 0;
	}
	if (m->used >= m->max_entries)
		return -7;
	m->keys[m->used] = malloc(m->key_size);
	m->values[m->used] = malloc(m->value_size);
	if (!m->keys[m->used] || !m->values[m->used])
		abort();
	memcpy(m->keys[m->used], key, m->key_size);
	memcpy(m->values[m->used], value, m->value_size);
	m->used++;
	return 0;
}

static inline long bpf_map_delete_elem(struct host_map *m, const void *key)
{
	for (__u32 i = 0; i < m->used; i++) {
		if (memcmp(m->keys[i], key, m->key_size))
			continue;
		free(m->keys[i]);
		free(m->values[i]);
		m->used--;
		m->keys[i] = m->keys[m->used];
		m->values[i] = m->values[m->used];
		return 0;
	}
	return -2;
}

/* Bound before it is called: the callbacks differ in their second argument's type. */
#define bpf_loop(n, callback, ctx, flags)                                                 \
	({                                                                                \
		long __i = 0;                                                             \
		while (__i < (long)(n)) {                                                 \
			report.steps++;                                                   \
			if ((callback)(__i++, ctx))                                       \
				break;                                                    \
		}                                                                         \
		__i;                                                                      \
	})

/* No test here depends on it: there is no budget. */
static inline __u64 bpf_ktime_get_ns(void)
{
	return 0;
}

static inline __u64 bpf_ringbuf_query(struct host_ring *r, __u64 what)
{
	(void)r;
	/* It is always empty. */
	return what == BPF_RB_RING_SIZE ? 1 << 22 : 0;
}

long bpf_ringbuf_output(struct host_ring *r, const void *data, __u64 size, __u64 flags);
void count_n(__u32 stat, __u64 n);

#endif
