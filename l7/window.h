/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The bytes of a segment, seen through a window of LINE_MAX, and the line that begins there. */
#ifndef AMBIT_WINDOW_H
#define AMBIT_WINDOW_H

#include "exchange.h"
#include "traceparent.h"

/* One segment's way through a parser. Positions count from the first payload byte. */
struct walk {
	struct packet *packet; /* for load_bytes */
	const struct arrival *a;
	struct flow *flow;
	struct window *win;
};

static always_inline __s32 position(const struct walk *w)
{
	return w->win->origin + (__s32)w->win->idx;
}

/* The key of the look-up, a zero, is where its answer will be: the stack is scarce. */
static always_inline struct walk walk_of(struct packet *packet, struct flow *f, const struct arrival *a)
{
	struct walk w = { packet, a, f, 0 };

	w.win = bpf_map_lookup_elem(&windows, &w.win);
	return w;
}

/* The head of a request ended, and is to be decided before anything else is read. */
static always_inline bool is_pending(const struct walk *w)
{
	return w->flow->pending && !w->flow->rushes;
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

/*
 * Makes the verifier forget what it knows of an index into the window, so that every iteration of a loop looks the
 * same to it and is verified once. zero is window.zero, read before the loop.
 */
#define forget(index, zero) ((index) = ((index) ^ (zero)) & 1023)

/* Loads the window from the next byte on. */
static always_inline bool refill(struct walk *w)
{
	__s32 pos = position(w);
	__u32 n = w->a->end - pos;

	if (pos < 0 || pos >= w->a->end)
		return false;
	if (n > LINE_MAX)
		n = LINE_MAX;
	/* Linux 6.1 learns from a comparison of n - 1 alone that n is neither 0 nor too large. */
	n -= 1;
	opaque(n);
	if (n >= LINE_MAX)
		return false;
	n += 1;
	if (load_bytes(w->packet, w->a->payload + pos, w->win->bytes, n))
		return false;
	*(w->win->bytes + n) = '\n'; /* n may be the first of the slack */
	w->win->origin = pos;
	w->win->idx = 0;
	w->win->filled = n;
	return true;
}

/* Index of the first byte c in [from, to) of the window, else to. A global function: verified once. */
__noinline __u32 find_byte(struct window *win, __u32 from, __u32 to, __u8 c)
{
	__u32 at = from;

	if (!win)
		return to;
	for (__u32 i = 0; i < LINE_MAX / 8; i++) {
		opaque(at);
		if (at >= to || at >= LINE_MAX)
			break;
		__u64 hit = hits(load64(win->bytes + at), c);
		if (hit) {
			at += first_byte(hit);
			break;
		}
		at += 8;
	}
	return at < to ? at : to;
}

static always_inline __u64 to_lower(__u64 text)
{
	return text | (text & 0x40 * EACH) >> 1;
}

#endif
