/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which headers of HTTP/2 matter, and HPACK's static table (RFC 7541, appendix A). */
#ifndef AMBIT_STATIC_TABLE_H
#define AMBIT_STATIC_TABLE_H

#include "huffman.h"
#include "header.h"

/* What a table's entry is called. */
enum header_id {
	HEADER_DULL, /* it does not matter */
	HEADER_UNKNOWN, /* its name was in an entry that was never seen */
	HEADER_METHOD,
	HEADER_PATH,
	HEADER_SCHEME,
	HEADER_AUTHORITY,
	HEADER_HOST,
	HEADER_STATUS,
	HEADER_CONTENT_TYPE,
	HEADER_USER_AGENT,
	HEADER_GRPC_STATUS,
	HEADER_GRPC_MESSAGE,
	HEADER_BAGGAGE,
	HEADER_FORCE_TRACE,
	HEADER_TRACESTATE, /* this and what follows says something of the trace */
	HEADER_TRACEPARENT,
	HEADER_REQUEST_ID,
	HEADER_B3,
	HEADER_B3_TRACE,
	HEADER_B3_SPAN,
	HEADER_B3_SAMPLED,
	HEADER_B3_FLAGS,
};

/* Which header has this name of len bytes, of which a and b are the first sixteen. */
static always_inline __u32 header_id(__u64 a, __u64 b, __u32 len)
{
	switch (len) {
	case 2:
		return (a & FIRST(2)) == WORD('b', '3', 0, 0, 0, 0, 0, 0) ? HEADER_B3 : HEADER_DULL;
	case 4:
		return (a & FIRST(4)) == WORD('h', 'o', 's', 't', 0, 0, 0, 0) ? HEADER_HOST : HEADER_DULL;
	case 5:
		return (a & FIRST(5)) == WORD(':', 'p', 'a', 't', 'h', 0, 0, 0) ? HEADER_PATH : HEADER_DULL;
	case 7:
		a &= FIRST(7);
		return a == WORD('b', 'a', 'g', 'g', 'a', 'g', 'e', 0) ? HEADER_BAGGAGE :
		       a == WORD(':', 'm', 'e', 't', 'h', 'o', 'd', 0) ? HEADER_METHOD :
		       a == WORD(':', 's', 'c', 'h', 'e', 'm', 'e', 0) ? HEADER_SCHEME :
		       a == WORD(':', 's', 't', 'a', 't', 'u', 's', 0) ? HEADER_STATUS :
									 HEADER_DULL;
	case 10:
		b &= FIRST(2);
		if (a == WORD(':', 'a', 'u', 't', 'h', 'o', 'r', 'i') && b == WORD('t', 'y', 0, 0, 0, 0, 0, 0))
			return HEADER_AUTHORITY;
		if (a == NAME_USER_AGENT && b == WORD('n', 't', 0, 0, 0, 0, 0, 0))
			return HEADER_USER_AGENT;
		if (a == NAME_TRACESTATE && b == WORD('t', 'e', 0, 0, 0, 0, 0, 0))
			return HEADER_TRACESTATE;
		return a == NAME_B3_FLAGS && b == WORD('g', 's', 0, 0, 0, 0, 0, 0) ? HEADER_B3_FLAGS : HEADER_DULL;
	case 11:
		b &= FIRST(3);
		if (a == NAME_TRACEPARENT && b == WORD('e', 'n', 't', 0, 0, 0, 0, 0))
			return HEADER_TRACEPARENT;
		if (a == WORD('g', 'r', 'p', 'c', '-', 's', 't', 'a') && b == WORD('t', 'u', 's', 0, 0, 0, 0, 0))
			return HEADER_GRPC_STATUS;
		return a == NAME_B3_SPAN && b == WORD('n', 'i', 'd', 0, 0, 0, 0, 0) ? HEADER_B3_SPAN : HEADER_DULL;
	case 12:
		b &= FIRST(4);
		if (a == NAME_LENGTH && b == WORD('t', 'y', 'p', 'e', 0, 0, 0, 0))
			return HEADER_CONTENT_TYPE;
		if (a == WORD('g', 'r', 'p', 'c', '-', 'm', 'e', 's') && b == WORD('s', 'a', 'g', 'e', 0, 0, 0, 0))
			return HEADER_GRPC_MESSAGE;
		if (a == NAME_REQUEST_ID && b == WORD('t', '-', 'i', 'd', 0, 0, 0, 0))
			return HEADER_REQUEST_ID;
		if (a == NAME_B3_TRACE && b == WORD('c', 'e', 'i', 'd', 0, 0, 0, 0))
			return HEADER_B3_TRACE;
		return a == NAME_B3_SAMPLED && b == WORD('p', 'l', 'e', 'd', 0, 0, 0, 0) ? HEADER_B3_SAMPLED : HEADER_DULL;
	case 19:
		/* The last three letters are taken on trust: no header is known that differs in them alone. */
		return a == NAME_FORCE_TRACE && b == WORD('f', 'o', 'r', 'c', 'e', '-', 't', 'r') ? HEADER_FORCE_TRACE : HEADER_DULL;
	}
	return HEADER_DULL;
}

struct static_entry {
	__u8 name_len;
	__u8 name; /* enum header_id */
	__u8 len;
	__u8 pad;
	__u16 number; /* of :status */
	__u16 more_pad;
	char text[16]; /* of headers that matter */
};

#define STATIC_ENTRIES 61

const volatile struct static_entry static_table[STATIC_ENTRIES + 1] = {
	[1] = { .name_len = 10, .name = HEADER_AUTHORITY },
	[2] = { .name_len = 7, .name = HEADER_METHOD, .len = 3, .text = "GET" },
	[3] = { .name_len = 7, .name = HEADER_METHOD, .len = 4, .text = "POST" },
	[4] = { .name_len = 5, .name = HEADER_PATH, .len = 1, .text = "/" },
	[5] = { .name_len = 5, .name = HEADER_PATH, .len = 11, .text = "/index.html" },
	[6] = { .name_len = 7, .name = HEADER_SCHEME, .len = 4, .text = "http" },
	[7] = { .name_len = 7, .name = HEADER_SCHEME, .len = 5, .text = "https" },
	[8] = { .name_len = 7, .name = HEADER_STATUS, .len = 3, .number = 200, .text = "200" },
	[9] = { .name_len = 7, .name = HEADER_STATUS, .len = 3, .number = 204, .text = "204" },
	[10] = { .name_len = 7, .name = HEADER_STATUS, .len = 3, .number = 206, .text = "206" },
	[11] = { .name_len = 7, .name = HEADER_STATUS, .len = 3, .number = 304, .text = "304" },
	[12] = { .name_len = 7, .name = HEADER_STATUS, .len = 3, .number = 400, .text = "400" },
	[13] = { .name_len = 7, .name = HEADER_STATUS, .len = 3, .number = 404, .text = "404" },
	[14] = { .name_len = 7, .name = HEADER_STATUS, .len = 3, .number = 500, .text = "500" },
	[15] = { .name_len = 14 }, /* accept-charset */
	[16] = { .name_len = 15 }, /* accept-encoding */
	[17] = { .name_len = 15 }, /* accept-language */
	[18] = { .name_len = 13 }, /* accept-ranges */
	[19] = { .name_len = 6 }, /* accept */
	[20] = { .name_len = 27 }, /* access-control-allow-origin */
	[21] = { .name_len = 3 }, /* age */
	[22] = { .name_len = 5 }, /* allow */
	[23] = { .name_len = 13 }, /* authorization */
	[24] = { .name_len = 13 }, /* cache-control */
	[25] = { .name_len = 19 }, /* content-disposition */
	[26] = { .name_len = 16 }, /* content-encoding */
	[27] = { .name_len = 16 }, /* content-language */
	[28] = { .name_len = 14 }, /* content-length */
	[29] = { .name_len = 16 }, /* content-location */
	[30] = { .name_len = 13 }, /* content-range */
	[31] = { .name_len = 12, .name = HEADER_CONTENT_TYPE },
	[32] = { .name_len = 6 }, /* cookie */
	[33] = { .name_len = 4 }, /* date */
	[34] = { .name_len = 4 }, /* etag */
	[35] = { .name_len = 6 }, /* expect */
	[36] = { .name_len = 7 }, /* expires */
	[37] = { .name_len = 4 }, /* from */
	[38] = { .name_len = 4, .name = HEADER_HOST },
	[39] = { .name_len = 8 }, /* if-match */
	[40] = { .name_len = 17 }, /* if-modified-since */
	[41] = { .name_len = 13 }, /* if-none-match */
	[42] = { .name_len = 8 }, /* if-range */
	[43] = { .name_len = 19 }, /* if-unmodified-since */
	[44] = { .name_len = 13 }, /* last-modified */
	[45] = { .name_len = 4 }, /* link */
	[46] = { .name_len = 8 }, /* location */
	[47] = { .name_len = 12 }, /* max-forwards */
	[48] = { .name_len = 18 }, /* proxy-authenticate */
	[49] = { .name_len = 19 }, /* proxy-authorization */
	[50] = { .name_len = 5 }, /* range */
	[51] = { .name_len = 7 }, /* referer */
	[52] = { .name_len = 7 }, /* refresh */
	[53] = { .name_len = 11 }, /* retry-after */
	[54] = { .name_len = 6 }, /* server */
	[55] = { .name_len = 10 }, /* set-cookie */
	[56] = { .name_len = 25 }, /* strict-transport-security */
	[57] = { .name_len = 17 }, /* transfer-encoding */
	[58] = { .name_len = 10, .name = HEADER_USER_AGENT },
	[59] = { .name_len = 4 }, /* vary */
	[60] = { .name_len = 3 }, /* via */
	[61] = { .name_len = 16 }, /* www-authenticate */
};

#endif
