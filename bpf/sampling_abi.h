/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What kernel and userspace share of sampling: rules, routes, counters and budgets. Part of abi.h, and under its rules.
 *
 * Thresholds are OpenTelemetry's, 56 bits: T = 2^56 (1 - p). THRESHOLD_NEVER keeps nothing; THRESHOLD_NONE says that
 * whoever could give one gives none.
 */
#ifndef AMBIT_SAMPLING_ABI_H
#define AMBIT_SAMPLING_ABI_H

#define THRESHOLD_NEVER (1ULL << 56)
#define THRESHOLD_NONE (~0ULL)

/* Why a span was kept; design: docs/sampling.md. */
enum reason {
	REASON_NONE, /* not kept */
	REASON_HEAD, /* the rate of a rule, of the route, of "rates set", or the default */
	REASON_PARENT, /* the caller's decision */
	REASON_SLOW, /* tail: it took longer than its rule or its route allows */
	REASON_ERROR, /* tail: it failed */
	REASON_FORCED, /* by a header, or "ambit trace" */
	REASON_FLOOR, /* the first of its route for a while */
	REASON_ANOMALY, /* its route behaves unlike itself */
};

/* Who loses first under pressure: background, then normal, and critical last. */
enum traffic_class {
	CLASS_CRITICAL,
	CLASS_NORMAL,
	CLASS_BACKGROUND,
	TRAFFIC_CLASSES,
};

/* What a rule says of the caller's decision. */
enum parent_rule {
	PARENT_HONOUR,
	PARENT_IGNORE, /* as if there were none */
	PARENT_SCALE, /* of what the caller kept, the rule's rate is kept */
};

enum action_flags {
	ACTION_DROP = 1, /* never kept, not by the tail either */
	ACTION_RATE = 2, /* threshold holds */
	ACTION_FORCE = 4, /* kept under no known probability, within the budget of forced spans */
	ACTION_GRPC_CODES = 8, /* grpc_codes holds; else the semantic conventions say which codes are errors */
	ACTION_HTTP_ROUTE = 16, /* the rule's path is a template: it names the route */
};

#define ACTION_STATUSES 4

/* What a rule does. Userspace writes generation last, and clears it first. */
struct action {
	__u32 generation; /* of the rules that it is of */
	__u16 rule; /* its place among them */
	__u8 class; /* enum traffic_class */
	__u8 parent; /* enum parent_rule */
	__u32 flags; /* enum action_flags */
	__u32 cap; /* index of the rule's own budget, 0 is none */
	__u64 threshold; /* of the head; also what PARENT_SCALE scales by */
	__u64 slow_ns; /* tail: slower than this is slow; ~0: nothing is */
	__u64 tail_threshold; /* of what is slow or failed, before the tail's budget; THRESHOLD_NEVER: no tail */
	__u64 route; /* with ACTION_HTTP_ROUTE: hash of the template, in the place of the path's */
	__u32 grpc_codes; /* bit per code, 17 bits */
	__u16 statuses[ACTION_STATUSES]; /* chosen statuses that count as failed; 0 is none */
	__u8 status_classes; /* bit per class (status / 100) that counts as failed */
	__u8 endings; /* bit per enum ending that counts as failed */
	__u8 spare[2];
};

#define RULES_MAX 1024
#define RULE_WORDS (RULES_MAX / 64)
#define ACTIONS_MAX 8192 /* a power of two: used in a ring, by rules of several generations */

/* Segments of a path that rules look at. */
#define SEGMENTS 8

/* What rules look at; each gives a row of bits, one for each rule that accepts what was found. */
enum match_field {
	MATCH_SEGMENT, /* SEGMENTS of them */
	MATCH_EXTENSION = MATCH_SEGMENT + SEGMENTS, /* of the last segment, lower case, up to 8 bytes */
	MATCH_HOST, /* lower case, without the port */
	MATCH_CLIENT, /* the address of the opener's end, as the span's side sees it */
	MATCH_USER_AGENT,
	MATCH_REQUEST_ID,
	MATCH_CONTENT_TYPE, /* of the request */
	MATCH_FORCE_TRACE, /* x-envoy-force-trace */
	MATCH_BAGGAGE, /* up to BAGGAGE_ROWS members that some rule names */
	MATCH_FIELDS,
};

#define BAGGAGE_ROWS 3
#define METHODS 16
#define DEPTHS (SEGMENTS + 2) /* 0 to SEGMENTS, and more */
#define STATUS_CLASSES 6 /* none, 1xx, 2xx, 3xx, 4xx, 5xx */

/* The index of method_row and a part of the route's key. */
enum method {
	METHOD_OTHER, /* one that is not known, or unknown */
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_PUT,
	METHOD_DELETE,
	METHOD_CONNECT,
	METHOD_OPTIONS,
	METHOD_TRACE,
	METHOD_PATCH,
	METHOD_QUERY,
};

#define MATCH_BUCKET_BITS 12
#define MATCH_BUCKETS (1 << MATCH_BUCKET_BITS)
#define MATCH_SLOTS 4 /* a key in its upper 48 bits, a row in the others; 0: free */
#define ROWS_MAX 2048

/*
 * Rules in the form in which they are matched: the AND of the rows of all fields has a bit for each rule that accepts the
 * exchange, and the lowest bit is the rule that holds. The last rule accepts everything.
 *
 * A value is found by its key, match_key(seed, field, its hash), whose highest bits are its bucket. Where it is not there the
 * field's present row holds: the rules that don't look at the field, or want nothing but that it is there; where the request
 * has no such field the default row does, of the former alone. A value that is there has the rules of the present row too.
 */
struct rules {
	__u32 generation; /* counts the changes, from 1 */
	__u32 count; /* rules */
	__u32 words; /* of a row, in use */
	__u32 segments; /* of a path that some rule looks at: the others need not be looked up */
	__u32 fields; /* bit per enum match_field from MATCH_EXTENSION on, that some rule looks at */
	__u32 statuses; /* some rule looks at the status class */
	__u32 templates; /* bit per word of template_rules that is not 0 */
	__u32 actions; /* in the ring of actions, of the first rule */
	__u64 seed; /* of the keys; the hashes' own is flow_seed */
	__u32 default_row[MATCH_FIELDS];
	__u32 present_row[MATCH_FIELDS];
	__u32 longest[MATCH_FIELDS]; /* bytes of the longest value that some rule names: longer ones are none of them */
	__u32 kind_row[2]; /* by enum side_index */
	__u32 method_row[METHODS];
	__u32 depth_row[DEPTHS]; /* by the number of segments */
	__u32 grpc_row[2]; /* no gRPC, gRPC */
	__u32 status_row[STATUS_CLASSES];
	__u32 any_status_row; /* rules that don't look at the status */
	__u32 service_row[512]; /* by party.service; userspace changes it as services come */
	__u64 template_rules[RULE_WORDS]; /* rules with ACTION_HTTP_ROUTE */
	__u64 table[MATCH_BUCKETS][MATCH_SLOTS];
	__u16 summary[ROWS_MAX]; /* bit per word of the row that is not 0 */
	__u64 rows[ROWS_MAX][RULE_WORDS];
};

/* Placeholders of guessed templates: what a segment must be like is in l7/route.h. */
enum placeholder {
	PLACEHOLDER_NONE,
	PLACEHOLDER_NUMBER, /* {number}: up to 128 digits, with . , - between them */
	PLACEHOLDER_UUID, /* {uuid} */
	PLACEHOLDER_HEX, /* {hex}: 16 to 128 hex digits, one of them 0 to 9 */
	PLACEHOLDER_TOKEN, /* {token}: 20 to 128 of A-Z a-z 0-9 - _ = +, with upper and lower case and a digit */
};

enum route_state {
	ROUTE_NEW, /* userspace has not learned its name */
	ROUTE_NAMED,
	ROUTE_CLOSING, /* it counts as "other" from now on, and is about to be deleted */
};

/* A route: what the head is told about it, and where its tail begins. */
struct route {
	__u64 key; /* 0: free */
	__u64 threshold; /* its base rate, where a controller or a remote source gives one; THRESHOLD_NONE */
	__u64 anomaly; /* of a boost; THRESHOLD_NONE */
	__u64 slow_ns; /* tail: slower is slow, a multiple of its own p99; ~0 */
	__u64 last_ns; /* it was used, CLOCK_MONOTONIC, to about a second */
	__u64 announced_ns; /* its name was sent */
	__u16 service; /* party.service */
	__u8 kind; /* enum side_index */
	__u8 state; /* enum route_state */
	__u32 outcomes; /* series that it has */
	__u32 floor; /* 1: userspace grants it a span; 0 again when an exchange has taken it */
	__u32 spare;
};

/* A slot that is being filled has this key, which no route has. */
#define ROUTE_CLAIMED 2

#define ROUTES_MAX 4096
#define ROUTES_OF_KIND (ROUTES_MAX / 2)
#define ROUTE_SLOTS 4
#define ROUTE_BUCKETS 2048 /* twice as many slots as routes */
#define SERVICES_MAX 512 /* 0 stands for what is of none, or of too many */
#define ROUTES_OF_SERVICE 256 /* of one kind */

/* A route is in bucket (key >> 1) % ROUTE_BUCKETS or (key >> 32) % ROUTE_BUCKETS. */
struct route_bucket {
	struct route slot[ROUTE_SLOTS];
};

/* Routes by service and kind: index service * SIDES + kind. Those of service 0, "other", count the routes of all. */
struct route_count {
	__u32 routes;
	__u32 refused; /* exchange sides counted as "other", as the quota or the table was full */
};

/*
 * What an exchange came to. HTTP: its status, or OUTCOME_ENDING and how it ended without a whole response. gRPC: OUTCOME_GRPC
 * and its code, or, where none was seen, OUTCOME_GRPC_HTTP and the HTTP status (not 200), or OUTCOME_GRPC_ENDING.
 */
#define OUTCOME_ENDING 1000
#define OUTCOME_GRPC 2000
#define OUTCOME_GRPC_ENDING 3000
#define OUTCOME_GRPC_HTTP 4000
#define OUTCOME_CLASS 5000 /* and the class of the status: what a route has more than OUTCOMES_OF_ROUTE of */
#define OUTCOMES_OF_ROUTE 16

/*
 * Latency in the buckets of OpenTelemetry's exponential histogram of scale 3, in seconds: bucket i holds durations above
 * 2^(-20 + i/8) s and up to 2^(-20 + (i+1)/8) s, so their middle is off by 4.4 % at most. Below 0.95 us is the zero bucket;
 * what is above the last one, 256 s, is counted in it.
 */
#define LATENCY_BUCKETS 224
#define LATENCY_SCALE 3
#define LATENCY_LOWEST (-20)

/* Body sizes, scale -1: bucket i holds sizes above 4^i and up to 4^(i+1) bytes; 0 and 1 byte are in the zero bucket. */
#define SIZE_BUCKETS 16

/*
 * Counters of one route and outcome. Those of 32 bits go round: userspace reads them every second, and adds up the
 * differences. The number of exchange sides is that of the latencies.
 */
struct series {
	__u64 route; /* its key; "other" has one too: other_route() in l7/routes.h */
	__u64 sum_ns;
	__u64 request_bytes;
	__u64 response_bytes;
	__u16 outcome;
	__u16 service; /* party.service */
	__u8 kind; /* enum side_index */
	__u8 error; /* an error by the semantic conventions */
	__u8 other; /* it is of the route "other" */
	__u8 spare;
	__u32 kept; /* became spans */
	__u32 below; /* the zero bucket of latency */
	__u32 latency[LATENCY_BUCKETS];
	__u32 sizes_unknown[2]; /* request, response: bytes of the body were never seen */
	__u32 empty[2]; /* zero bucket */
	__u32 sizes[2][SIZE_BUCKETS];
};

/*
 * A budget, as a bucket of a fifth of a second: filled as time passes, emptied by what is kept. due is the time at which it
 * would be full again.
 */
struct budget {
	__u64 due_ns;
	__u64 interval_ns; /* of one span; 0: no limit */
	__u64 kept;
	__u64 refused; /* what the raised threshold refused, that would have been kept without */
	__u64 stopped; /* of those, at an empty bucket */
	__u64 spare[3];
};

#define BUDGET_NODE 0
#define BUDGET_TAIL 1
#define BUDGET_FORCED 2
#define BUDGET_FLOOR 3
#define BUDGET_CAPS 4 /* from here on rules' own */
#define BUDGETS 256
#define BUDGET_BURST_NS 200000000ULL

#define FULL 65536 /* of fractions */

/* Written by userspace, read at each decision. */
struct base_rates {
	__u64 base; /* threshold of the default rate */
	__u64 set; /* of "rates set": instead of the rules' and all below; THRESHOLD_NONE */
	__u64 generation; /* counts the changes */
	__u32 safety[TRAFFIC_CLASSES]; /* what remains of every probability, of FULL */
	__u32 force; /* x-envoy-force-trace is believed, of sources that the map cidrs says */
	__u32 floor; /* 1: a new route is granted a floor at once */
	__u32 spare;
};

enum decision_flags {
	DECISION_THRESHOLD = 1, /* threshold holds: tracestate carries ot=th */
	DECISION_DROPPED = 2, /* by a rule: the tail is not asked */
	DECISION_ANNOUNCE = 4, /* the record tells the name of a new route */
	DECISION_RULED = 8, /* action and head_action hold */
	DECISION_MADE = 16, /* by that rule */
	DECISION_GRANTED = 32, /* nothing keeps it, and its route is granted a span */
};

/* Of one side of an exchange. */
struct decision {
	__u64 threshold; /* in force, where it is kept and DECISION_THRESHOLD */
	__u64 route; /* its key; made of the path, the method, the service, and of a CLIENT side where it went */
	__u16 action[STATUS_CLASSES]; /* places in the ring, by the class of the status to come */
	__u16 head_action; /* of the rule that the head used */
	__u16 rule; /* that decided: its place among the rules of exchange.generation */
	__u16 outcome; /* OUTCOME_ */
	__u8 reason; /* enum reason */
	__u8 flags; /* enum decision_flags */
	__u8 class; /* enum traffic_class */
	__u8 spare[3];
};

#endif
