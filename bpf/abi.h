/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Every struct that the kernel side and userspace share, once. bpf2go makes the Go types from the
 * compiled object's BTF, so nothing is mirrored by hand. All integers are in host byte order unless a
 * comment says otherwise; all times are nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef AMBIT_ABI_H
#define AMBIT_ABI_H

/*
 * Raised when a struct that userspace or the next daemon's programs read changes its meaning. Where what a map holds has
 * another form the next daemon sees it by itself.
 */
enum abi {
	ABI_VERSION = 1,
};

/* What a daemon leaves beside the maps that the next one takes over. */
struct heritage {
	__u32 abi; /* ABI_VERSION */
	__u32 spare;
	__u64 seed; /* flow_seed */
	__u8 form[32]; /* digest of the form of all maps that are handed over */
	__u8 rules[32]; /* digest of the names of the rules in force */
	__u64 taken; /* exchange sides that userspace took from the ring buffer */
	__u64 exported; /* of those, what left as spans */
	__u64 lost; /* and what did not */
};

/* An IP address and TCP port. IPv4 is v4-mapped (::ffff:a.b.c.d), so one form serves both. */
struct endpoint {
	__u8 addr[16]; /* network byte order */
	__u16 port;
	__u8 pad[6];
} __attribute__((aligned(8))); /* as it is: clang would take two, and copy addresses in pieces of that */

/* The two ends of a connection. The index of every array of sides. */
enum side_index {
	SIDE_OPENER, /* called connect(); its spans are CLIENT spans */
	SIDE_ACCEPTOR, /* called accept(); its spans are SERVER spans */
	SIDES,
};

enum party_flags {
	PARTY_KNOWN = 1, /* the socket was found in this namespace */
	PARTY_APP = 2, /* it is an application's, so the side is a potential span */
	PARTY_PROXY = 4, /* ztunnel's (sk->mark 0x539) or a sidecar's (uid 1337) */
	PARTY_EXCLUDED = 8, /* the configuration excludes it */
};

/* Who a socket belongs to: the process that made it, or its listener's. Zero is unknown. */
struct party {
	__u64 cookie; /* socket cookie */
	__u64 cgroup; /* cgroup v2 id */
	__u64 netns; /* network namespace cookie */
	__u64 started_ns; /* process start, CLOCK_BOOTTIME: tells a reused pid from its predecessor */
	__u32 tgid; /* in the initial pid namespace */
	__u32 uid;
	__u32 service; /* index into the RED counters, 0 is "other" */
	__u32 flags; /* enum party_flags */
	char comm[16]; /* of the thread group leader when the socket was made */
};

/* What a set of RED counters belongs to; the kernel interns it as party.service. */
struct service_key {
	__u64 netns;
	__u64 cgroup;
	char comm[16];
};

/* Text that is kept of a request. Values index exchange.fields. */
enum field {
	FIELD_REQUEST_LINE, /* HTTP/1, whole: method, target, version */
	FIELD_HOST, /* or :authority */
	FIELD_USER_AGENT,
	FIELD_REQUEST_ID, /* x-request-id */
	FIELD_TRACESTATE,
	FIELD_TRACESTATE_MORE, /* of a second header: both are one list */
	FIELD_METHOD, /* HTTP/2, as the next two */
	FIELD_PATH,
	FIELD_SCHEME,
	FIELD_CONTENT_TYPE, /* of the request */
	FIELD_RESPONSE_TYPE, /* HTTP/2: content-type of the response */
	FIELD_GRPC_MESSAGE, /* grpc-message, percent-encoded as it was sent */
	FIELD_BAGGAGE, /* for rules; it never leaves ambit */
	FIELD_FORCE_TRACE, /* x-envoy-force-trace, the same */
	FIELDS,
};

struct slice {
	__u16 off; /* into exchange.text */
	__u16 len; /* 0 is absent */
};

enum protocol {
	PROTOCOL_UNKNOWN,
	PROTOCOL_HTTP1,
	PROTOCOL_HTTP2,
};

/* How an exchange ended. */
enum ending {
	ENDING_RESPONSE, /* with the last byte of its response */
	ENDING_CLOSED, /* the connection was closed before the response was whole */
	ENDING_RESET, /* the connection was reset */
	ENDING_IDLE, /* ambit's idle limit passed without a byte */
	ENDING_STREAM_RESET, /* HTTP/2: RST_STREAM, by the side that EXCHANGE_RESET_BY_OPENER tells; error_code says why */
	ENDING_REFUSED, /* HTTP/2: the acceptor's GOAWAY says that it never looked at the stream; error_code is GOAWAY's */
};

#include "sampling_abi.h"

enum exchange_flags {
	EXCHANGE_TRACE_HEADER = 1, /* trace_id came from traceparent or b3 */
	EXCHANGE_TRACE_REQUEST_ID = 2, /* trace_id is a hash of x-request-id */
	EXCHANGE_PARENT_HEADER = 4, /* header_parent is set */
	EXCHANGE_OPENER_TRACED = 8, /* the opener's CLIENT span can exist: the SERVER span's parent */
	EXCHANGE_FORCE = 16, /* x-envoy-force-trace, of a source that may */
	EXCHANGE_PARENT_SAMPLED = 32, /* the caller's sampled flag, when PARENT_DECIDED */
	EXCHANGE_PARENT_DECIDED = 64,
	EXCHANGE_EXPECT = 128, /* Expect: a final response may spare it the body */
	EXCHANGE_TRACEPARENTS = 256, /* there were several: none holds */
	EXCHANGE_JOINED = 512, /* the connection was open before ambit saw it */
	EXCHANGE_RANDOMNESS = 1024, /* randomness came from tracestate ot=rv */
	EXCHANGE_PARENT_THRESHOLD = 2048, /* the caller sent ot=th */
	EXCHANGE_HEAD_DONE = 4096, /* the request's head was seen whole */
	EXCHANGE_TRACEPARENT = 8192, /* a valid traceparent was read: b3 says nothing more */
	EXCHANGE_GRPC = 1 << 14, /* content-type application/grpc: grpc_status decides */
	EXCHANGE_GRPC_WEB = 1 << 15, /* content-type application/grpc-web: its status is most often in the body */
	EXCHANGE_REQUEST_UNKNOWN = 1 << 16, /* the request's head refers to table entries that were never seen */
	EXCHANGE_RESPONSE_UNKNOWN = 1 << 17, /* the response's head or trailers do */
	EXCHANGE_RESET_BY_OPENER = 1 << 18, /* with ENDING_STREAM_RESET */
};

/* No grpc-status was seen. */
#define GRPC_STATUS_NONE 0xffff

#define EXCHANGE_TEXT 1024

/* A body of which bytes were never seen, so that its size is not known. */
#define BODY_UNKNOWN (~0ULL)

/* The two sockets of a connection, as far as they are in the tapped namespace. */
struct ends {
	struct endpoint local[SIDES]; /* each side's address, as its own socket sees it */
	struct endpoint remote[SIDES]; /* of the opener: the original destination */
	struct party party[SIDES];
};

/*
 * One request and its response. The record that leaves through the ring buffer is this struct, cut after the used
 * part of text. It carries both sides of a connection whose two sockets are in one namespace; kept says
 * which of them become spans.
 */
struct exchange {
	__u64 start_ns; /* first byte of the request */
	__u64 first_ns; /* first byte of the final response, 0 is none */
	__u64 end_ns; /* last byte of the response, or when the exchange was given up */
	__u64 request_body; /* bytes until end_ns, without chunk framing; or BODY_UNKNOWN */
	__u64 response_body; /* as request_body */
	__u64 randomness; /* R, 56 bits */
	__u64 parent_threshold; /* the caller's T, 56 bits */
	__u64 route_path; /* hash of the path's template and the method, of which routes' keys are made; 0: not read */
	__u64 route_target; /* hash of where it went, the same for a CLIENT side */
	__u8 trace_id[16];
	__u8 header_parent[8]; /* from traceparent or b3 */
	__u8 span_id[SIDES][8]; /* derived, per side */
	__u64 place[2]; /* the connection's initial sequence numbers; the request's place in it */
	struct ends ends;
	__u32 flags; /* enum exchange_flags */
	__u32 stream; /* HTTP/2: its number */
	__u32 error_code; /* HTTP/2: of RST_STREAM or GOAWAY */
	__u16 status; /* 0 is none */
	__u16 grpc_status; /* or GRPC_STATUS_NONE */
	__u16 cut; /* bit per enum field: the value is longer than what was kept */
	__u8 protocol; /* enum protocol */
	__u8 ending; /* enum ending */
	__u8 method; /* enum method */
	__u8 kept; /* bit per side: becomes a span */
	__u8 seen; /* bit per side: counted as seen */
	__u8 trace_flags; /* of traceparent */
	__u8 progress; /* HTTP/2: enum stream_progress, of no meaning to userspace */
	__u8 slot; /* HTTP/2: where the connection has its number, the same */
	__u16 template_rule; /* names the route: its place; NO_RULE: the route is guessed */
	__u32 generation; /* of the rules that decided */
	struct decision decision[SIDES];
	__u16 used; /* bytes of text */
	struct slice fields[FIELDS];
	__u8 text[EXCHANGE_TEXT];
};

/*
 * Counters. The unit of the first group is the exchange side:
 * seen = unsampled + submitted + (drops) + in flight, and userspace goes on from submitted.
 */
enum stat {
	STAT_SEEN, /* exchange sides begun */
	STAT_UNSAMPLED, /* ended, not kept */
	STAT_SUBMITTED, /* ended, kept, handed to userspace */
	STAT_DROP_RING_FULL, /* kept, but the ring buffer was full */
	STAT_DROP_GAP, /* bytes of a head were never seen: lost, reordered or contended */
	STAT_DROP_MALFORMED, /* what came could not be HTTP */
	STAT_DROP_PIPELINE, /* more requests outstanding than are kept */
	STAT_DROP_HEAD_TOO_LONG, /* a head of more than 16 KiB */
	STAT_DROP_LIMIT, /* more messages in one segment than are parsed, or split heads than are held */
	STAT_DROP_STREAMS, /* more streams at once than are kept, of a connection or of all */
	STAT_DROP_PAUSED, /* in flight when ambit was paused */

	/* The rest counts events, not exchange sides. */
	STAT_FLOWS, /* connections taken up */
	STAT_FLOWS_FULL, /* connections not taken up: the table was full, or another one has the same fingerprint */
	STAT_FLOWS_ENDED, /* of those, not followed any more */
	STAT_NOT_HTTP, /* connections that speak something else */
	STAT_ORPHAN_RESPONSE, /* responses without a request */
	STAT_DESYNC, /* times a direction lost its place */
	STAT_RESYNC, /* times it found it again */
	STAT_CONTENDED, /* segments given up because another CPU held the connection */
	STAT_CARRY_FULL, /* heads given up because the table of split lines was full */
	STAT_FIELD_CUT, /* values longer than what is kept */
	STAT_SERVICES_FULL, /* sockets counted under "other": the table of services was full */
	STAT_STORAGE_NOMEM, /* socket storage refused by the kernel */
	STAT_NO_SOCKET, /* segments for which no established socket was found */
	STAT_UPGRADED, /* connections that left HTTP/1 by Upgrade or CONNECT */
	STAT_SYN_DATA, /* connections whose first bytes came with the SYN, unread (TCP Fast Open) */
	STAT_HTTP2, /* connections that speak HTTP/2 */
	STAT_HTTP2_FULL, /* of those, not taken up: the table of HTTP/2's state was full */
	STAT_HTTP2_BROKEN, /* of those, given up: frames or a header block that no receiver accepts */
	STAT_HPACK_UNKNOWN, /* fields of heads that refer to a table's entry that was never seen */
	STAT_RULES_OUTDATED, /* exchange sides whose rules were replaced too often to ask them at the response */
	STAT_RUSHED, /* exchange sides that the last rule decided, as too many heads came in one segment */
	STAT_ROUTES_FULL, /* exchange sides counted as "other": the quota of their service, or the table, was full */
	STAT_COUNTERS_FULL, /* exchange sides counted as "other" of all services: the table of counters was full */
	STAT_UNCOUNTED, /* exchange sides that no counter took */
	STAT_RING_PRESSED, /* exchange sides not kept, among the unsampled, by a threshold raised as the ring buffer filled up */
	STAT_HPACK_LIMIT, /* header blocks that were given up: too long, or a field that no carry holds */
	STATS,
};

enum tap_program {
	TAP_PACKET, /* the stubs of each namespace call it */
	TAP_TAKE_UP, /* it calls this where it finds no flow */
	TAP_HTTP2, /* and this where the flow speaks HTTP/2 */
	TAP_PROGRAMS,
};

#endif
