//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/* Every program, a table of contents: each hook calls one inline function. */
#include "../l7/classify.h"
#include "../l7/sweep.h"
#include "../tc/inventory.h"

/* TCX_NEXT and TC_ACT_UNSPEC: whatever else is attached runs too. */
#define PASS -1

/* All taps of all namespaces, by way of their stubs, which leave in tap_parts where they are. */
SEC("tc")
int tap(struct __sk_buff *skb)
{
	struct tap t = tap_of(skb);

	if (t.parts)
		tap_packet(&t);
	return PASS;
}

/* What tap finds no flow for. */
SEC("tc")
int tap_unknown(struct __sk_buff *skb)
{
	struct tap t = tap_of(skb);

	if (t.parts)
		tap_unknown_packet(&t);
	return PASS;
}

/* What tap finds to be HTTP/2. */
SEC("tc")
int tap_http2(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct tap_parts *parts = bpf_map_lookup_elem(&tap_parts, &zero);

	if (parts)
		tap_http2_packet(skb, parts);
	return PASS;
}

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *sk)
{
	socket_created(sk);
	return 1;
}

/* The socket inside of an MPTCP one is made by the kernel, but bound by the process. */
SEC("cgroup/post_bind4")
int bound4(struct bpf_sock *sk)
{
	socket_created(sk);
	return 1;
}

SEC("cgroup/post_bind6")
int bound6(struct bpf_sock *sk)
{
	socket_created(sk);
	return 1;
}

SEC("sockops")
int established(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	if (!sk)
		return 1;
	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		socket_established(ops, sk, ROLE_OPENER);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		socket_established(ops, sk, ROLE_ACCEPTOR);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == BPF_TCP_CLOSE)
			socket_closed(ops, sk);
		break;
	}
	return 1;
}

/* Run by userspace every second. */
SEC("syscall")
int sweep(void *ctx)
{
	sweep_flows();
	return 0;
}

/* Run by userspace when it has detached the taps. */
SEC("syscall")
int abandon(void *ctx)
{
	abandon_flows();
	return 0;
}

/* Run once by userspace, before anything is attached. */
SEC("syscall")
int who_am_i(void *ctx)
{
	own_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}

/* Run once at the start, for the sockets that were there before. */
SEC("iter/task_file")
int inventory(struct bpf_iter__task_file *ctx)
{
	take_inventory(ctx);
	return 0;
}

/* Types that only userspace names, so that the object's BTF has them. */
const enum abi *unused_abi __attribute__((unused));
const enum stat *unused_stat __attribute__((unused));
const enum field *unused_field __attribute__((unused));
const enum ending *unused_ending __attribute__((unused));
const enum reason *unused_reason __attribute__((unused));
const enum protocol *unused_protocol __attribute__((unused));
const enum side_index *unused_side __attribute__((unused));
const enum party_flags *unused_party_flags __attribute__((unused));
const enum exchange_flags *unused_exchange_flags __attribute__((unused));
const enum cidr_flags *unused_cidr_flags __attribute__((unused));
const enum hook *unused_hook __attribute__((unused));
const enum tap_program *unused_tap_program __attribute__((unused));
const enum traffic_class *unused_traffic_class __attribute__((unused));
const enum parent_rule *unused_parent_rule __attribute__((unused));
const enum action_flags *unused_action_flags __attribute__((unused));
const enum match_field *unused_match_field __attribute__((unused));
const enum method *unused_method __attribute__((unused));
const enum placeholder *unused_placeholder __attribute__((unused));
const enum route_state *unused_route_state __attribute__((unused));
const enum decision_flags *unused_decision_flags __attribute__((unused));
const struct decision *unused_decision __attribute__((unused));

char _license[] SEC("license") = "Dual BSD/GPL";
