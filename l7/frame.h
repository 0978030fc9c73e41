/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Frames of HTTP/2 (RFC 9113), as bytes: what can be one, and what a chain of them is. */
#ifndef AMBIT_FRAME_H
#define AMBIT_FRAME_H

#include "text.h"

enum frame_type {
	FRAME_DATA,
	FRAME_HEADERS,
	FRAME_PRIORITY,
	FRAME_RST_STREAM,
	FRAME_SETTINGS,
	FRAME_PUSH_PROMISE,
	FRAME_PING,
	FRAME_GOAWAY,
	FRAME_WINDOW_UPDATE,
	FRAME_CONTINUATION,
};

#define FLAG_ACK 0x01 /* of SETTINGS and PING */
#define FLAG_END_STREAM 0x01
#define FLAG_END_HEADERS 0x04
#define FLAG_PADDED 0x08
#define FLAG_PRIORITY 0x20

#define FRAME_HEADER 9
#define PREFACE_LEN 24
#define SETTING_LEN 6

/* Of the payload, by the frame's header. */
static always_inline __u32 length_of(const __u8 *b)
{
	return (__u32)b[0] << 16 | b[1] << 8 | b[2];
}

/* The bytes of a frame that are read with its header. */
static always_inline __u32 extra_of(__u8 type, __u8 flags)
{
	switch (type) {
	case FRAME_DATA:
		return flags & FLAG_PADDED ? 1 : 0;
	case FRAME_HEADERS:
		return (flags & FLAG_PADDED ? 1 : 0) + (flags & FLAG_PRIORITY ? 5 : 0);
	case FRAME_PUSH_PROMISE:
		return (flags & FLAG_PADDED ? 1 : 0) + 4;
	case FRAME_RST_STREAM:
		return 4;
	case FRAME_GOAWAY:
		return 8;
	}
	return 0;
}

/* Whether a frame can't be one, whatever came before it. */
static always_inline bool is_impossible(__u8 type, __u8 flags, __u32 stream, __u32 len)
{
	switch (type) {
	case FRAME_DATA:
	case FRAME_HEADERS:
	case FRAME_CONTINUATION:
	case FRAME_PUSH_PROMISE:
		return !stream || len < extra_of(type, flags);
	case FRAME_PRIORITY:
		return !stream || len != 5;
	case FRAME_RST_STREAM:
		return !stream || len != 4;
	case FRAME_SETTINGS:
		return stream || len % SETTING_LEN || (flags & FLAG_ACK && len);
	case FRAME_PING:
		return stream || len != 8;
	case FRAME_GOAWAY:
		return stream || len < 8;
	case FRAME_WINDOW_UPDATE:
		return len != 4;
	}
	return false;
}

static always_inline bool is_preface(const __u8 *b, __u32 len)
{
	if (len == PREFACE_LEN && (load64(b) != WORD('P', 'R', 'I', ' ', '*', ' ', 'H', 'T') ||
				   load64(b + 8) != WORD('T', 'P', '/', '2', '.', '0', '\r', '\n')))
		return false;
	return load64(b + (len == PREFACE_LEN ? 16 : 0)) == WORD('\r', '\n', 'S', 'M', '\r', '\n', '\r', '\n');
}

/* A chain of frames that ends where the segment does. */
struct chain {
	struct packet *packet;
	struct window *win;
	__u32 payload;
	__u32 end;
	__u32 pos;
	__u32 whole;
	__u32 open; /* a header block goes on */
};

static long next_link(__u64 i, struct chain *c)
{
	__u8 *b = c->win->bytes;

	if (c->pos == c->end) {
		c->whole = 1;
		return 1;
	}
	if (c->pos > c->end || c->end - c->pos < FRAME_HEADER || load_bytes(c->packet, c->payload + c->pos, b, FRAME_HEADER))
		return 1;
	__u32 len = length_of(b), stream = bpf_ntohl(load32(b + 5));
	/* Stricter than a receiver has to be: what nobody sends is no sign of frames. */
	if (len > PIECE_MAX || stream >> 31 || b[3] > FRAME_CONTINUATION || b[4] & ~0x2d ||
	    is_impossible(b[3], b[4], stream, len) || (b[3] == FRAME_CONTINUATION) != c->open)
		return 1;
	if (b[3] == FRAME_DATA && !len && !(b[4] & FLAG_END_STREAM))
		return 1;
	if (b[3] == FRAME_HEADERS || b[3] == FRAME_PUSH_PROMISE || b[3] == FRAME_CONTINUATION)
		c->open = !(b[4] & FLAG_END_HEADERS);
	c->pos += FRAME_HEADER + len;
	return 0;
}

#define LINKS_MAX 4096

/* Whether a segment is made of whole frames. The window is used. */
__noinline int is_chain(struct packet *packet, struct window *win, __u32 payload, __u32 end)
{
	struct chain c = { .packet = packet, .win = win, .payload = payload, .end = end };

	if (!win || end < FRAME_HEADER)
		return 0;
	bpf_loop(LINKS_MAX, next_link, &c, 0);
	return c.whole;
}

#endif
