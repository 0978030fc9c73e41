// Package decision holds the kernel's sampling decision to a plain reference: which rule decides an exchange, in what
// order its steps come, under which threshold it is kept, and what it is counted as.
package decision

// With the same compiler and warnings as ambit's own programs.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type route -type exchange_flags -type party_flags -type decision_flags decision decision.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -Wno-unused-function -I/usr/include/x86_64-linux-gnu
