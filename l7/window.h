/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The bytes of a segment, seen through a window of LINE_MAX, and the line that begins there. */
#ifndef AMBIT_WINDOW_H
#define AMBIT_WINDOW_H

#include "exchange.h"
#include "traceparent.h"

/* One segment of one direction. */
struct arrival {
	__u64 now;
	__u32 payload; /* offset of the payload in the packet */
	__s32 end; /* length of the payload */
	__u32 side; /* the sender */
	__u32 seq; /* of the first payload byte */
	__u32 ack;
	__u32 pad;
};

/* Its way through a parser. Positions count from the first payload byte. */
struct walk {
	struct packet *packet; /* for load_bytes */
	struct flow *flow;
	struct window *win;
	__u64 now;
	__u32 payload;
	__s32 end;
	__u32 side;
	__u32 seq;
	__u32 ack;
};

#ifndef AMBIT_HOST
static always_inline long load_bytes(struct packet *packet, __u32 off, void *dst, __u32 len)
{
	return bpf_skb_load_bytes(packet, off, dst, len);
}

static always_inline long copy_bytes(void *dst, __u32 len, const void *src)
{
	return bpf_probe_read_kernel(dst, len, src);
}
#endif

static always_inline __s32 position(const struct walk *w)
{
	return w->win->origin + (__s32)w->win->idx;
}

/* Moves on by n bytes. */
static always_inline void advance(struct walk *w, __u32 n)
{
	if (w->win->idx + n <= w->win->filled) {
		w->win->idx += n;
		return;
	}
	w->win->origin += w->win->idx + n;
	w->win->idx = 0;
	w->win->filled = 0;
}

/* Loads the window from the next byte on. */
static always_inline bool refill(struct walk *w)
{
	__s32 pos = position(w);
	__u32 n = w->end - pos;

	if (pos < 0 || pos >= w->end)
		return false;
	if (n > LINE_MAX)
		n = LINE_MAX;
	w->win->found = n;
	n = *(volatile __u32 *)&w->win->found;
	if (n - 1 >= LINE_MAX)
		return false;
	n &= 1023;
	opaque(n);
	if (n > LINE_MAX || n == 0)
		return false;
	if (load_bytes(w->packet, w->payload + pos, w->win->bytes, n))
		return false;
	w->win->origin = pos;
	w->win->idx = 0;
	w->win->filled = n;
	return true;
}

/* Index of the first byte c in [from, to) of the window, else to. Eight bytes a step. */
static always_inline __u32 find(struct window *win, __u32 from, __u32 to, __u8 c)
{
	__u64 pattern = c * EACH;
	__u32 at = from;

	for (__u32 i = 0; i < LINE_MAX / 8; i++) {
		opaque(at);
		if (at >= to || at >= LINE_MAX)
			break;
		__u64 x = load64(win->bytes + at) ^ pattern;
		__u64 hit = (x - EACH) & ~x & 0x80 * EACH;
		if (hit) {
			at += first_byte(hit);
			break;
		}
		at += 8;
	}
	win->found = at < to ? at : to;
	return *(volatile __u32 *)&win->found;
}

/* The same as a global function: verified once, however many calls there are. */
__noinline __u32 find_byte(struct window *win, __u32 from, __u32 to, __u8 c)
{
	return win ? find(win, from, to, c) : to;
}

static always_inline __u64 to_lower(__u64 text)
{
	return text | (text & 0x40 * EACH) >> 1;
}

#endif
