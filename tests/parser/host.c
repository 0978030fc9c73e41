//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * The parser of the kernel as a process: segments come in on standard input, records and counters leave on standard
 * output, behind a greeting. Integers are little-endian. One letter says what follows:
 *
 *   N  u8 joined, u32 isn of the opener, u32 of the acceptor    a new connection; joined: open before it was seen, 2: and
 *                                                               speaks HTTP/2
 *   S  u8 side, u8 ending, u32 seq, u32 ack, u32 len, bytes     a segment; ending: TCP_FIN, TCP_RST
 *   E  u8 reset                                                 the first of its sockets is closed
 *   R  u64 threshold                                            the base rate
 *   T  u8                                                       headers are believed
 *   L  u32 waiting, u32 carries, u8 full                        elements of the maps; the ring buffer is full
 *   Q                                                           answer: the counters since the last Q, then flush
 *
 * Answers: X u32 size, struct exchange as far as it is used; K, then the counters and struct host_report.
 */
#include <unistd.h>

#include "../../l7/protocol.h"

struct host_report report;
struct host_map waiting, carries, windows, rates, http2s, fragments, pieces;
struct host_map subjects, rule_sets, actions, routes, route_counts, counters, budgets;
static struct host_map set_in_force;
struct host_ring records;

/* The names under which the tests know the counters. */
static const char *const names[STATS] = {
	[STAT_SEEN] = "seen",
	[STAT_UNSAMPLED] = "unsampled",
	[STAT_SUBMITTED] = "submitted",
	[STAT_DROP_RING_FULL] = "drop_ring_full",
	[STAT_DROP_GAP] = "drop_gap",
	[STAT_DROP_MALFORMED] = "drop_malformed",
	[STAT_DROP_PIPELINE] = "drop_pipeline",
	[STAT_DROP_HEAD_TOO_LONG] = "drop_head_too_long",
	[STAT_DROP_LIMIT] = "drop_limit",
	[STAT_FLOWS] = "flows",
	[STAT_FLOWS_ENDED] = "flows_ended",
	[STAT_NOT_HTTP] = "not_http",
	[STAT_ORPHAN_RESPONSE] = "orphan_response",
	[STAT_DESYNC] = "desync",
	[STAT_RESYNC] = "resync",
	[STAT_CARRY_FULL] = "carry_full",
	[STAT_FIELD_CUT] = "field_cut",
	[STAT_UPGRADED] = "upgraded",
	[STAT_DROP_STREAMS] = "drop_streams",
	[STAT_HTTP2] = "http2",
	[STAT_HTTP2_FULL] = "http2_full",
	[STAT_HTTP2_BROKEN] = "http2_broken",
	[STAT_HPACK_UNKNOWN] = "hpack_unknown",
	[STAT_HPACK_LIMIT] = "hpack_limit",
};

static __u64 tally[STATS];
static struct flow *flow;
static __u64 now;
static __u8 trusted = 1;

void count_n(__u32 stat, __u64 n)
{
	if (stat >= STATS)
		abort();
	tally[stat] += n;
}

static void put(const void *data, size_t len)
{
	if (len && fwrite(data, len, 1, stdout) != 1)
		exit(1);
}

static void put32(__u32 v)
{
	put(&v, sizeof(v));
}

long bpf_ringbuf_output(struct host_ring *r, const void *data, __u64 size, __u64 flags)
{
	(void)flags;
	if (r->full)
		return -11;
	if (size > sizeof(struct exchange))
		abort();
	put("X", 1);
	put32(size);
	put(data, size);
	return 0;
}

static void get(void *data, size_t len)
{
	if (len && fread(data, len, 1, stdin) != 1)
		exit(0);
}

static __u8 get8(void)
{
	__u8 v;

	get(&v, sizeof(v));
	return v;
}

static __u32 get32(void)
{
	__u32 v;

	get(&v, sizeof(v));
	return v;
}

/* u32 size of struct exchange, u32 of struct host_report, u32 n, n times u32 length and the counter's name. */
static void greet(void)
{
	put32(sizeof(struct exchange));
	put32(sizeof(struct host_report));
	put32(STATS);
	for (__u32 i = 0; i < STATS; i++) {
		const char *name = names[i] ? names[i] : "";
		put32(strlen(name));
		put(name, strlen(name));
	}
	fflush(stdout);
}

static void make_map(struct host_map *m, __u32 key_size, __u32 value_size, __u32 max_entries, __u32 is_array)
{
	m->key_size = key_size;
	m->value_size = value_size;
	m->max_entries = max_entries;
	m->is_array = is_array;
	if (is_array && !(m->array = calloc(max_entries, value_size)))
		abort();
}

static void clear_map(struct host_map *m)
{
	while (m->used) {
		m->used--;
		free(m->keys[m->used]);
		free(m->values[m->used]);
	}
}

/* A connection whose two ends are applications here, as classify.h takes one up. */
static void connect_flow(void)
{
	__u8 joined = get8();
	__u32 isn[SIDES] = { get32(), get32() };

	free(flow);
	clear_map(&waiting);
	clear_map(&carries);
	clear_map(&http2s);
	clear_map(&fragments);
	clear_map(&counters);
	memset(routes.array, 0, (size_t)routes.max_entries * routes.value_size);
	memset(route_counts.array, 0, (size_t)route_counts.max_entries * route_counts.value_size);
	flow = calloc(1, sizeof(*flow));
	if (!flow)
		abort();
	flow->lock = 1;
	flow->last_side = SIDES;
	flow->id = 1;
	flow->trusted = trusted;
	flow->sockets = SIDES;
	for (__u32 side = 0; side < SIDES; side++) {
		flow->exchange.ends.party[side].flags = PARTY_KNOWN | PARTY_APP;
		flow->half[side].next_seq = isn[side] + 1;
		if (joined)
			flow->half[side].state = HALF_LOST;
		else
			flow->isn[side] = isn[side];
	}
	flow->opened = !joined;
	if (joined == 2)
		begin_http2(flow, 0, 0);
	flow->opener_traced = 1;
	now = 1000000;
}

/* One rule that accepts everything and has no tail: the base rate alone decides. */
static void accept_all(void)
{
	struct rules *r = (struct rules *)set_in_force.array;
	struct action *a = (struct action *)actions.array;
	struct base_rates *base = (struct base_rates *)rates.array;

	r->generation = 1;
	r->count = 1;
	r->words = 1;
	r->rows[0][0] = 1;
	r->summary[0] = 1;
	a->generation = 1;
	a->class = CLASS_NORMAL;
	a->slow_ns = ~0ULL;
	a->tail_threshold = THRESHOLD_NEVER;
	base->set = THRESHOLD_NONE;
	for (__u32 i = 0; i < TRAFFIC_CLASSES; i++)
		base->safety[i] = FULL;
}

/* Before each segment the window has what another connection left there: it must not matter. */
static void stain_window(void)
{
	static const char stains[] = "\r\nGET / HTTP/1.1\r\nhost: a:b;,-0123456789abcdef chunked \xff";
	static __u64 state = 0x9e3779b97f4a7c15ULL;

	for (size_t i = 0; i < offsetof(struct window, len); i++) {
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		windows.array[i] = stains[(state >> 33) % (sizeof(stains) - 1)];
	}
}

/* As feed in classify.h: what a packet does to its flow. */
static void feed_segment(void)
{
	struct arrival a = { .side = get8() & 1 };
	__u8 ending = get8();

	a.seq = get32();
	a.ack = get32();
	a.end = get32();
	if (!flow || a.end < 0)
		abort();
	now += 1000;
	a.now = now;
	__u8 *bytes = malloc(a.end ? a.end : 1);
	if (!bytes)
		abort();
	get(bytes, a.end);
	if (a.end && !flow->ended) {
		struct packet p = { bytes, a.end };
		__u64 before = report.steps;
		stain_window();
		if (flow->protocol != PROTOCOL_HTTP2)
			http1_segment(&p, flow, &a);
		if (flow->protocol == PROTOCOL_HTTP2 && !pass_data(&p, flow, &a, (struct window *)windows.array))
			http2_segment(&p, flow, &a);
		/* A byte is looked at twice at most: in the window, and again where its line began late in it. */
		__u64 took = report.steps - before, allowed = 2 * (__u64)a.end + 300;
		/* What ends streams looks at all there may be, and GOAWAY does it a few times. */
		if (flow->protocol == PROTOCOL_HTTP2)
			allowed += (GOAWAYS_MAX + 1) * STREAMS_MAX;
		if (took > allowed && took - allowed > report.most_steps)
			report.most_steps = took - allowed;
	}
	free(bytes);
	if (ending & (TCP_FIN | TCP_RST) || flow->finned)
		closing(flow, a.side, a.seq + a.end, ending, now);
}

/* As socket_closed in classify.h. */
static void close_socket(void)
{
	__u8 reset = get8();

	over(flow, reset ? ENDING_RESET : ENDING_CLOSED, now);
	retire(flow);
}

static void answer(void)
{
	report.live = waiting.used + carries.used + fragments.used;
	report.outstanding = flow ? outstanding(flow) : 0;
	put("K", 1);
	put(tally, sizeof(tally));
	put(&report, sizeof(report));
	memset(tally, 0, sizeof(tally));
	memset(&report, 0, sizeof(report));
	fflush(stdout);
}

int main(void)
{
	static char in[1 << 16], out[1 << 16];

	setvbuf(stdin, in, _IOFBF, sizeof(in));
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	make_map(&waiting, sizeof(struct part_key), sizeof(struct exchange), HOST_MAP_MAX, 0);
	make_map(&carries, sizeof(struct part_key), sizeof(struct window), HOST_MAP_MAX, 0);
	make_map(&http2s, sizeof(__u64), sizeof(struct http2), 1, 0);
	make_map(&fragments, sizeof(struct part_key), sizeof(struct fragment), HOST_MAP_MAX, 0);
	make_map(&pieces, sizeof(__u32), sizeof(struct piece), 1, 1);
	make_map(&windows, sizeof(__u32), sizeof(struct window), 1, 1);
	make_map(&rates, sizeof(__u32), sizeof(struct base_rates), 1, 1);
	make_map(&subjects, sizeof(__u32), sizeof(struct subject), 1, 1);
	make_map(&set_in_force, sizeof(__u32), sizeof(struct rules), 1, 1);
	make_map(&actions, sizeof(__u32), sizeof(struct action), ACTIONS_MAX, 1);
	make_map(&routes, sizeof(__u32), sizeof(struct route_bucket), ROUTE_BUCKETS, 1);
	make_map(&route_counts, sizeof(__u32), sizeof(struct route_count), SERVICES_MAX * SIDES, 1);
	make_map(&budgets, sizeof(__u32), sizeof(struct budget), BUDGETS, 1);
	make_map(&counters, sizeof(__u64), sizeof(struct series), HOST_MAP_MAX, 0);
	rule_sets = (struct host_map){
		.key_size = sizeof(__u32), .value_size = sizeof(set_in_force), .max_entries = 1, .is_array = 1,
		.array = (__u8 *)&set_in_force,
	};
	accept_all();
	greet();
	for (;;) {
		switch (get8()) {
		case 'N':
			connect_flow();
			break;
		case 'S':
			feed_segment();
			break;
		case 'E':
			close_socket();
			break;
		case 'R':
			get(rates.array, sizeof(__u64));
			break;
		case 'T':
			trusted = get8();
			break;
		case 'L':
			waiting.max_entries = get32();
			carries.max_entries = get32();
			if (waiting.max_entries > HOST_MAP_MAX || carries.max_entries > HOST_MAP_MAX)
				abort();
			records.full = get8();
			break;
		case 'Q':
			answer();
			break;
		default:
			abort();
		}
	}
}
