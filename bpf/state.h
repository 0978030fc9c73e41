/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the kernel side keeps of connections, sockets and what it works on. Maps of these outlive a daemon that hands over
 * to the next one: whoever changes what a field means, and not only its place, raises ABI_VERSION.
 */
#ifndef AMBIT_STATE_H
#define AMBIT_STATE_H

#include "platform.h"
#include "abi.h"
#include "http2_state.h"

/* How far a direction of a connection has been parsed. Drawn in l7/message.h; HTTP/2 in l7/http2.h. */
struct half {
	__u64 remain; /* of a body or chunk, or of a frame's payload */
	__u64 body; /* bytes of the current message's body so far */
	__u64 last_ns; /* its last byte */
	__u32 next_seq; /* of the next byte */
	__u32 head; /* bytes of the current head so far; of a frame's beginning that a segment broke off */
	__u8 state; /* enum half_state */
	__u8 framing; /* enum framing, of the message whose head is read */
	__u8 carried; /* an unfinished line is in the map carries */
	__u8 skipping; /* inside a line that is longer than the window */
	__u8 resynced; /* the next start line has to prove itself */
	__u8 missed; /* bytes of a response passed unread */
	__u8 proving; /* inside a request line that is longer than the window: its version is still to come */
	__u8 unsure; /* the body that comes next may be spared, and a request come */
	union {
		__u64 tail; /* where proving: the last eight bytes so far */
		struct frame frame; /* HTTP/2 */
	};
};

/* The response that is being read; it becomes part of its exchange when it ends. */
struct response {
	__u64 first_ns;
	__u16 status; /* 0: its status line was not seen yet */
	__u16 grpc_status; /* or GRPC_STATUS_NONE; of gRPC-Web */
	__u8 headed; /* the head of the final response was seen whole */
	__u8 pad[3];
};

enum left {
	LEFT_NOT,
	LEFT_CLOSED,
	LEFT_RESET,
};

struct flow {
	/*
	 * The CPU that works on it, by its number + 1. What lies beside it is not written while it works, so that another
	 * one that waits does not take the cache line away from it.
	 */
	__u32 lock;
	__u32 isn[SIDES];
	__u32 pad;
	__u64 fingerprint; /* its key; tells a reused element from the one looked up */
	__u64 netns; /* cookie of the tapped namespace */
	struct endpoint wire[SIDES]; /* by sender: what the fingerprint is made of */
	__u64 id; /* in the keys of waiting and carries; no other flow has had it */
	__u32 first; /* number of the oldest exchange that waits for its response */
	__u32 next; /* number of the next one; at most PIPELINE_MAX ahead of first */
	__u32 held; /* number of the exchange in this struct, unless it was dropped */
	__u8 opened; /* isn holds: the connection was seen from its start */
	__u8 taken; /* it speaks HTTP: a request line or HTTP/2's preface was seen, or frames */
	__u8 trusted; /* headers are believed */
	__u8 may_force; /* x-envoy-force-trace is */
	__u8 opener_traced; /* the opener's CLIENT spans can exist */
	__u8 last_side; /* that sent the last segment; SIDES: none yet */
	__u8 sockets; /* socket storages that name this flow */
	__u8 ended; /* no more exchanges: the connection is closing */
	__u8 finned; /* fin_seq holds: the acceptor said that no more comes */
	__u8 left; /* enum left: a socket was closed while another CPU held the lock */
	__u32 fin_seq; /* behind its last byte */
	__u32 opener_fin; /* behind the opener's last byte, where its FIN overtook some */
	__u8 opener_finned; /* opener_fin holds */
	__u8 protocol; /* enum protocol; unknown is HTTP/1 until something else is found */
	__u8 rushes; /* too many heads in one segment: they are not decided where they end */
	__u8 h2c; /* the response that is read says that HTTP/2 follows */
	__u32 pending; /* the head of a request has ended, and is to be decided; HTTP/2: its stream */
	__u64 looked_ns; /* HTTP/2: when its streams were looked after */
	__u64 begun_ns; /* first byte of the request whose first line is read */
	__u32 begun_seq;
	__u32 begun_ack;
	__u64 heads; /* bit n%64: exchange n asked by HEAD */
	__u64 connects; /* bit n%64: exchange n asked by CONNECT */
	struct half half[SIDES]; /* by sender */
	struct response response;
	struct exchange exchange; /* the newest; older ones are in the map waiting */
};

/* What a socket tells of itself; lives and dies with it. */
struct sock_info {
	struct party party;
	__u64 flow; /* fingerprint of its flow */
	__u64 flow_id; /* and its id; 0: it has none yet */
	__u32 isn_local;
	__u32 isn_remote;
	__u32 misses; /* segments that began no message, on a connection joined in the middle */
	__u32 ended; /* enum left: its flow has ended, and late packets begin nothing */
	__u8 role; /* enum sock_role */
	__u8 not_http;
	__u8 opener_traced; /* of an acceptor: the opener's socket is here and traced */
	__u8 opener_untraced; /* it is here, and never traced: a proxy, or excluded */
};

enum sock_role {
	ROLE_UNKNOWN, /* open before ambit was */
	ROLE_OPENER,
	ROLE_ACCEPTOR,
};

/* A flow and one of its sides or exchanges. */
struct part_key {
	__u64 flow;
	__u64 part;
};

#define LINE_MAX 768
#define WINDOW_BYTES 1024

/* The bytes that are looked at. The slack lets words be read past the end. */
struct window {
	__u8 bytes[LINE_MAX];
	__u8 slack[WINDOW_BYTES - LINE_MAX];
	__u32 len;
	/*
	 * The cursor. It is here, not on the stack, because a loop whose state the verifier follows from
	 * iteration to iteration never converges.
	 */
	__s32 origin; /* position in the segment of bytes[0]; below 0 where a line was carried over */
	__u32 idx; /* of the next byte to parse */
	__u32 filled; /* bytes that hold something */
	__u32 zero; /* always; what the verifier does not know: see forget */
	__u32 found; /* what a search found: read back from here, the verifier forgets how */
};

/* Both initial sequence numbers: what the two ends of a connection see alike. */
struct isn_pair {
	__u32 opener;
	__u32 acceptor;
};

enum opener_kind {
	OPENER_TRACED = 1, /* it can have spans */
	OPENER_NEVER, /* it never has: a proxy, or excluded */
	OPENER_SELF, /* it is ambit: the acceptor has none either */
};

struct listener_key {
	__u64 netns;
	__u64 port;
};

struct cidr {
	__u32 prefix; /* bits */
	__u8 addr[16]; /* v4-mapped where IPv4 */
};

enum cidr_flags {
	CIDR_TRUSTED = 1, /* trust_context */
	CIDR_PEER = 2, /* peers */
	CIDR_FORCE = 4, /* sampling.forced.from */
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* A TCP segment: where its payload is, and between whom. */
struct segment {
	struct endpoint src;
	struct endpoint dst;
	__u32 payload; /* offset in the packet */
	__u32 len; /* of the payload */
	__u32 seq;
	__u32 ack;
	__u8 flags; /* TCP_* */
	__u8 pad[7];
};

/* What a parser is told of a segment. */
struct arrival {
	__u64 now;
	__u32 payload; /* offset of the payload in the packet */
	__s32 end; /* length of the payload */
	__u32 side; /* the sender */
	__u32 seq; /* of the first payload byte */
	__u32 ack;
	__u32 loaded_at; /* HTTP/2: from this byte of the payload on the window has */
	__u32 loaded; /* so many */
	__u32 pad;
};

/* The larger parts of a tap, for which the stack of 512 bytes is too small. */
struct tap_parts {
	/* Where the packet was met: written by the stub of the hook, in bpf/attach.go, which knows these two by their offsets. */
	__u64 netns; /* cookie of the tapped namespace */
	__u32 hook; /* enum hook */
	__u32 spare;
	struct segment seg;
	struct arrival arrival;
	struct endpoint remote; /* of the sender's socket */
	__u64 fingerprint; /* of the flow that is handed on, locked, to TAP_HTTP2 */
};

#define SUBJECT_ROWS 24

/* A request as rules and routes see it, while it is decided. */
struct subject {
	__u64 segment[SEGMENTS]; /* of the first ones, their hashes */
	__u64 path; /* hash of the template */
	/* Of the segment that is read; the loop's state is here, not on the stack, so that the verifier need not follow it. */
	__u64 hash;
	__u64 digits; /* it has some */
	__u32 at; /* of the next byte */
	__u32 begin;
	__u32 guess; /* segments may be placeholders */
	__u32 from; /* the path is [from, end) of the exchange's text */
	__u32 end;
	__u32 method; /* enum method */
	__u32 depth; /* segments, DEPTHS - 1 at most */
	__u32 last; /* the last segment is [last, last_end) of the text */
	__u32 last_end;
	__u32 rows; /* in use */
	__u32 path_rows; /* of those, what the path gave */
	__u32 shared_rows; /* and what both sides have alike */
	__u32 row[SUBJECT_ROWS];
	__u32 baggage[BAGGAGE_ROWS]; /* any of these */
	__u16 found[STATUS_CLASSES + 1]; /* rules by status class; the last one whatever the status */
};

struct splitting {
	struct subject *subject;
	const struct exchange *exchange;
};

#endif
