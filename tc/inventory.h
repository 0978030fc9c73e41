/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Whose the sockets are that were open before the programs were attached: every process's files are looked at once. */
#ifndef AMBIT_INVENTORY_H
#define AMBIT_INVENTORY_H

#include "socket.h"

/* The parts of kernel types that are walked, under names that the verifier checks against the kernel's own. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	__u64 net_cookie;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup_subsys_state {
	struct cgroup_subsys_state *parent;
};

/* A cgroup begins with the state that names its parent's. */
struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct possible_net {
	struct net *net;
};

struct sock_common {
	unsigned short skc_family;
	__u16 skc_num;
	struct possible_net skc_net;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket {
	struct sock *sk;
};

struct kuid {
	__u32 val;
};

struct cred {
	struct kuid uid;
};

struct task_struct {
	struct task_struct *group_leader;
	const struct cred *cred;
	int tgid;
	__u64 start_boottime;
	char comm[16];
};

struct file;

struct bpf_iter__task_file {
	void *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

#define MPTCP_PROTOCOL 262

static always_inline bool cgroup_is_excluded(struct cgroup *cgroup)
{
	for (int depth = 0; depth < CGROUP_DEPTHS && cgroup; depth++) {
		__u64 id = BPF_CORE_READ(cgroup, kn, id);
		if (bpf_map_lookup_elem(&excluded_cgroups, &id))
			return true;
		/* Read, not followed: to the verifier the parent is no cgroup. */
		cgroup = (struct cgroup *)BPF_CORE_READ(cgroup, self.parent);
	}
	return false;
}

static always_inline void take_inventory(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!task || !file)
		return;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return;
	struct sock *sk = socket->sk;
	if (!sk || sk->sk_type != SOCK_STREAM)
		return;
	__u16 family = sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6)
		return;
	struct sock_info *info = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!info) {
		count(STAT_STORAGE_NOMEM);
		return;
	}
	/*
	 * A socket that several processes share is the first one's that is met: the oldest. Those of a daemon that takes over
	 * were met by an earlier one's programs, which did not know it for ambit.
	 */
	__u32 tgid = task->tgid;
	if (info->party.tgid && tgid != own_tgid)
		return;
	struct task_struct *leader = task->group_leader;
	info->party.tgid = tgid;
	if (tgid == own_tgid)
		info->party.flags |= PARTY_EXCLUDED;
	info->party.uid = task->cred->uid.val;
	info->party.started_ns = leader->start_boottime;
	info->party.netns = sk->__sk_common.skc_net.net->net_cookie;
	info->party.cgroup = sk->sk_cgrp_data.cgroup->kn->id;
	BPF_CORE_READ_INTO(&info->party.comm, leader, comm);
	if (excluded_cgroup_depths && cgroup_is_excluded(sk->sk_cgrp_data.cgroup))
		info->party.flags |= PARTY_EXCLUDED;
	/* A process that listens by MPTCP, as every Go server does, holds a socket around the one that accepts. */
	if (sk->sk_protocol == MPTCP_PROTOCOL) {
		struct listener_key key = { info->party.netns, sk->__sk_common.skc_num };
		bpf_map_update_elem(&listeners, &key, &info->party, BPF_ANY);
	}
}

#endif
