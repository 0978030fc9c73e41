// Package record shows what TC and sockops programs see of the TCP traffic of a few network namespaces. Tests
// compare it with what was recorded of the real ztunnel.
package record

// With the same compiler as ambit's own programs.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type sighting -type address -type event -type socket_kind record record.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
