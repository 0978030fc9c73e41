/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Sockets: whose they are, who opened them, and when they end. */
#ifndef AMBIT_SOCKET_H
#define AMBIT_SOCKET_H

#include <bpf/bpf_core_read.h>

#include "../bpf/config.h"
#include "../bpf/maps.h"

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define TCP_PROTOCOL 6

#define ZTUNNEL_MARK 0x539
#define ZTUNNEL_MASK 0xfff
#define SIDECAR_UID 1337
#define PORT_HBONE 15008

#define CGROUP_DEPTHS 16

/* The parts of kernel types that are read, relocated when the programs are loaded. */
struct task_struct___ambit {
	struct task_struct___ambit *group_leader;
	int tgid;
	__u64 start_boottime;
	char comm[16];
} __attribute__((preserve_access_index));

/* Asks for the cgroup id at each depth where one is excluded. */
#define in_excluded_cgroup(ancestor_at)                                                   \
	({                                                                                \
		bool __excluded = false;                                                  \
		for (int depth = 0; depth < CGROUP_DEPTHS; depth++) {                     \
			if (!(excluded_cgroup_depths & (1U << depth)))                    \
				continue;                                                 \
			__u64 id = ancestor_at;                                           \
			if (id && bpf_map_lookup_elem(&excluded_cgroups, &id))            \
				__excluded = true;                                        \
		}                                                                         \
		__excluded;                                                               \
	})

static always_inline struct sock_info *sock_info_of(void *sk)
{
	struct sock_info *info = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!info)
		count(STAT_STORAGE_NOMEM);
	return info;
}

/* A field of a socket is read where it is named: the verifier allows no pointer into it, which clang would make. */
#define sk_field(sk, field)                                                               \
	({                                                                                \
		__u32 __v = *(volatile __u32 *)&(sk)->field;                              \
		opaque(__v);                                                              \
		__v;                                                                      \
	})

/* The process that makes a socket is current: the only moment when it can be known. */
static always_inline void socket_created(struct bpf_sock *sk)
{
	if ((sk->family != AF_INET && sk->family != AF_INET6) || sk->type != SOCK_STREAM)
		return;
	struct sock_info *info = sock_info_of(sk);
	if (!info)
		return;
	struct task_struct___ambit *task = (void *)bpf_get_current_task();
	struct task_struct___ambit *leader = BPF_CORE_READ(task, group_leader);
	info->party.tgid = bpf_get_current_pid_tgid() >> 32;
	if (info->party.tgid == own_tgid)
		info->party.flags |= PARTY_EXCLUDED;
	info->party.uid = (__u32)bpf_get_current_uid_gid();
	info->party.cgroup = bpf_get_current_cgroup_id();
	info->party.netns = bpf_get_netns_cookie(sk);
	info->party.started_ns = BPF_CORE_READ(leader, start_boottime);
	BPF_CORE_READ_INTO(&info->party.comm, leader, comm);
	if (excluded_cgroup_depths && in_excluded_cgroup(bpf_get_current_ancestor_cgroup_id(depth)))
		info->party.flags |= PARTY_EXCLUDED;
}

static always_inline bool is_excluded_port(__u16 port)
{
	return port == PORT_HBONE || (have_excluded_ports && bpf_map_lookup_elem(&excluded_ports, &port));
}

static always_inline bool socket_has_excluded_port(struct bpf_sock *sk)
{
	return is_excluded_port(sk->src_port) || is_excluded_port(bpf_ntohs(sk->dst_port));
}

static always_inline bool is_ztunnel(struct bpf_sock *sk)
{
	return (sk->mark & ZTUNNEL_MASK) == ZTUNNEL_MARK;
}

/* A process is known wherever a socket's maker is. */
static always_inline bool is_proxy(struct bpf_sock *sk, const struct sock_info *info)
{
	return is_ztunnel(sk) || (info && info->party.tgid && info->party.uid == SIDECAR_UID);
}

/* What the opener's socket, if it is one of this kernel, left for the acceptor's. */
static always_inline void ask_opener(struct sock_info *info)
{
	struct isn_pair pair = { info->isn_remote, info->isn_local };
	__u8 *kind = bpf_map_lookup_elem(&openers, &pair);

	if (!kind)
		return;
	info->opener_traced = *kind == OPENER_TRACED;
	info->opener_untraced = *kind == OPENER_NEVER;
	if (*kind == OPENER_SELF)
		info->party.flags |= PARTY_EXCLUDED;
	bpf_map_delete_elem(&openers, &pair);
}

/*
 * A connection is established, seen from one of its sockets. The initial sequence numbers are what both ends see alike,
 * whatever NAT is between them; the opener's socket leaves them for the acceptor's, which asks a moment later.
 */
static always_inline void socket_established(struct bpf_sock_ops *ops, struct bpf_sock *sk, __u8 role)
{
	struct sock_info *info = sock_info_of(sk);
	if (!info)
		return;

	info->role = role;
	/* All that was confirmed so far is the SYN and what it carried (TCP Fast Open); of an acceptor it is nothing yet. */
	info->isn_local = role == ROLE_OPENER ? sk_field(ops, snd_una) - (__u32)ops->bytes_acked : sk_field(ops, snd_nxt) - 1;
	info->isn_remote = ops->rcv_nxt - 1;
	info->party.cookie = bpf_get_socket_cookie(ops);
	__u64 netns = bpf_get_netns_cookie(ops);
	info->party.netns = netns;
	bool here = bpf_map_lookup_elem(&tapped, &netns);

	if (role == ROLE_OPENER) {
		struct isn_pair pair = { info->isn_local, info->isn_remote };
		bool never = is_ztunnel(sk) || info->party.uid == SIDECAR_UID ||
			     info->party.flags & PARTY_EXCLUDED || socket_has_excluded_port(sk);
		__u8 kind = info->party.tgid == own_tgid ? OPENER_SELF :
			    never			   ? OPENER_NEVER :
			    here			   ? OPENER_TRACED :
							     0;
		if (kind)
			bpf_map_update_elem(&openers, &pair, &kind, BPF_ANY);
	} else {
		if (!info->party.tgid) {
			struct listener_key key = { netns, ops->local_port };
			struct party *owner = bpf_map_lookup_elem(&listeners, &key);
			if (owner) {
				info->party = *owner;
				info->party.cookie = bpf_get_socket_cookie(ops);
			}
		}
		ask_opener(info);
	}
	if (here)
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

#endif
