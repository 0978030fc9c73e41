// Package bpf is the Go face of the kernel side: it loads the programs, reads their records and
// counters, and sets their rates.
package bpf

// The object is built for one byte order: every platform that ambit runs on is little-endian. The headers of
// linux-libc-dev and libbpf-dev are looked for where Debian has them.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type exchange -type sock_info -type abi -type stat -type field -type ending -type reason -type protocol -type side_index -type party_flags -type exchange_flags -type cidr_flags -type hook -type tap_program -type service_key -type cidr -type base_rates -type rules -type action -type route -type route_bucket -type route_count -type series -type budget -type decision -type traffic_class -type parent_rule -type action_flags -type match_field -type method -type placeholder -type route_state -type decision_flags -type party -type endpoint ambit ambit.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -Wno-unused-function -I/usr/include/x86_64-linux-gnu
