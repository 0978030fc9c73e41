// Package tc puts programs on the traffic of network namespaces. It finds the namespaces of the host,
// follows them and their interfaces as they come and go, locks each against a second daemon, and attaches
// the programs that it is handed: by tcx where the kernel has it (6.6), else as a direct-action cls_bpf
// filter of a clsact qdisc.
//
//	finder   which namespaces exist (own, named files, processes)     finder.go
//	watcher  when to look again (inotify, link events, wake-ups)      watch.go
//	Taps     which of them are tapped, what is attached in each       taps.go, pass.go
//	visit    a thread inside a namespace                              netns.go
//	tap      the interfaces of one namespace and their hooks          attach.go, tcx.go, clsact.go
//	locks    one daemon for each namespace                            lock.go
//
// On lo the egress alone is tapped, since each of its packets also passes ingress. On every other
// interface that is up both directions are, whatever its type, except those types that carry no IP (see
// noIP). A program handed in must return -1 (TCX_NEXT, TC_ACT_UNSPEC), so that other programs on the same
// hook go on working. Ours are appended behind those that are there: what they drop, ours do not see.
//
// Nothing here keeps a namespace alive: file descriptors and sockets inside one are closed before a visit
// ends, a tcx link and a filter do not hold their namespace, and locks are files. Two kinds of namespace
// are not found: one that only a thread (not its process) is in, and one held by nothing but an open file
// descriptor or socket. A tapped one is released when it comes to that.
package tc
