/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How an exchange ended: its status class, and whether that is an error of its side. */
#ifndef AMBIT_OUTCOME_H
#define AMBIT_OUTCOME_H

#include "../bpf/maps.h"

/* gRPC's codes that are errors on the acceptor's side: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. */
#define GRPC_SERVER_ERRORS (1 << 2 | 1 << 4 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15)

#define GRPC_LAST 16 /* what is above is no code */
#define GRPC_UNIMPLEMENTED 12

/* Why a stream was reset, in the words of RFC 9113, that is no error of the acceptor's. */
#define CANCEL 0x8
#define ENHANCE_YOUR_CALM 0xb
#define INADEQUATE_SECURITY 0xc

/* A call of gRPC; the table is in docs/spans.md. */
static always_inline bool is_call_error(const struct exchange *ex, bool opener)
{
	bool unknown = ex->flags & EXCHANGE_RESPONSE_UNKNOWN;
	__u32 code = ex->error_code;

	if (ex->grpc_status != GRPC_STATUS_NONE)
		return opener ? ex->grpc_status != 0 :
				ex->grpc_status > GRPC_LAST || GRPC_SERVER_ERRORS >> (ex->grpc_status & 31) & 1;
	if (!unknown && ex->status && ex->status != 200 && (opener || ex->status >= 500 || ex->status < 100))
		return true;
	switch (ex->ending) {
	case ENDING_STREAM_RESET:
		return opener || (code != CANCEL && code != ENHANCE_YOUR_CALM && code != INADEQUATE_SECURITY);
	case ENDING_RESPONSE:
		return opener && !unknown;
	}
	return true;
}

/* Its status is gRPC's, not HTTP's. */
static always_inline bool is_call(const struct exchange *ex)
{
	return ex->flags & EXCHANGE_GRPC || (ex->flags & EXCHANGE_GRPC_WEB && ex->grpc_status != GRPC_STATUS_NONE);
}

/* Its first digit; 0 for none, and for what is none. */
static always_inline __u32 status_class(const struct exchange *ex)
{
	__u32 class = ex->status / 100;

	opaque(class);
	return class < STATUS_CLASSES ? class : 0;
}

/* By the semantic conventions; the same answers as failureOf in exporter/failure.go. */
static always_inline bool is_error(const struct exchange *ex, __u32 side)
{
	if (is_call(ex))
		return is_call_error(ex, side == SIDE_OPENER);
	if (ex->ending != ENDING_RESPONSE || ex->status >= 500)
		return true;
	if (ex->status && ex->status < 100)
		return true;
	return side == SIDE_OPENER && ex->status >= 400;
}

#endif
