/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * HPACK's Huffman code (RFC 7541, appendix B). It is canonical: codes of one length are consecutive numbers in the order
 * of their symbols, and longer codes are greater than shorter ones. So codes of up to eight bits are looked up by their
 * first byte, and a longer one by the length whose range it falls in.
 */
#ifndef AMBIT_HUFFMAN_H
#define AMBIT_HUFFMAN_H

#include "window.h"

/* By the next eight bits: the code's length in the upper half and its symbol in the lower; 0 for a longer code. */
const volatile __u16 huffman_short[256] = {
	0x0530, 0x0530, 0x0530, 0x0530, 0x0530, 0x0530, 0x0530, 0x0530,
	0x0531, 0x0531, 0x0531, 0x0531, 0x0531, 0x0531, 0x0531, 0x0531,
	0x0532, 0x0532, 0x0532, 0x0532, 0x0532, 0x0532, 0x0532, 0x0532,
	0x0561, 0x0561, 0x0561, 0x0561, 0x0561, 0x0561, 0x0561, 0x0561,
	0x0563, 0x0563, 0x0563, 0x0563, 0x0563, 0x0563, 0x0563, 0x0563,
	0x0565, 0x0565, 0x0565, 0x0565, 0x0565, 0x0565, 0x0565, 0x0565,
	0x0569, 0x0569, 0x0569, 0x0569, 0x0569, 0x0569, 0x0569, 0x0569,
	0x056f, 0x056f, 0x056f, 0x056f, 0x056f, 0x056f, 0x056f, 0x056f,
	0x0573, 0x0573, 0x0573, 0x0573, 0x0573, 0x0573, 0x0573, 0x0573,
	0x0574, 0x0574, 0x0574, 0x0574, 0x0574, 0x0574, 0x0574, 0x0574,
	0x0620, 0x0620, 0x0620, 0x0620, 0x0625, 0x0625, 0x0625, 0x0625,
	0x062d, 0x062d, 0x062d, 0x062d, 0x062e, 0x062e, 0x062e, 0x062e,
	0x062f, 0x062f, 0x062f, 0x062f, 0x0633, 0x0633, 0x0633, 0x0633,
	0x0634, 0x0634, 0x0634, 0x0634, 0x0635, 0x0635, 0x0635, 0x0635,
	0x0636, 0x0636, 0x0636, 0x0636, 0x0637, 0x0637, 0x0637, 0x0637,
	0x0638, 0x0638, 0x0638, 0x0638, 0x0639, 0x0639, 0x0639, 0x0639,
	0x063d, 0x063d, 0x063d, 0x063d, 0x0641, 0x0641, 0x0641, 0x0641,
	0x065f, 0x065f, 0x065f, 0x065f, 0x0662, 0x0662, 0x0662, 0x0662,
	0x0664, 0x0664, 0x0664, 0x0664, 0x0666, 0x0666, 0x0666, 0x0666,
	0x0667, 0x0667, 0x0667, 0x0667, 0x0668, 0x0668, 0x0668, 0x0668,
	0x066c, 0x066c, 0x066c, 0x066c, 0x066d, 0x066d, 0x066d, 0x066d,
	0x066e, 0x066e, 0x066e, 0x066e, 0x0670, 0x0670, 0x0670, 0x0670,
	0x0672, 0x0672, 0x0672, 0x0672, 0x0675, 0x0675, 0x0675, 0x0675,
	0x073a, 0x073a, 0x0742, 0x0742, 0x0743, 0x0743, 0x0744, 0x0744,
	0x0745, 0x0745, 0x0746, 0x0746, 0x0747, 0x0747, 0x0748, 0x0748,
	0x0749, 0x0749, 0x074a, 0x074a, 0x074b, 0x074b, 0x074c, 0x074c,
	0x074d, 0x074d, 0x074e, 0x074e, 0x074f, 0x074f, 0x0750, 0x0750,
	0x0751, 0x0751, 0x0752, 0x0752, 0x0753, 0x0753, 0x0754, 0x0754,
	0x0755, 0x0755, 0x0756, 0x0756, 0x0757, 0x0757, 0x0759, 0x0759,
	0x076a, 0x076a, 0x076b, 0x076b, 0x0771, 0x0771, 0x0776, 0x0776,
	0x0777, 0x0777, 0x0778, 0x0778, 0x0779, 0x0779, 0x077a, 0x077a,
	0x0826, 0x082a, 0x082c, 0x083b, 0x0858, 0x085a, 0x0000, 0x0000,
};

/* The symbols of longer codes, in the order of their codes. */
const volatile __u8 huffman_long[256] = {
	33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126,
	94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162, 184, 194, 224, 226,
	153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133,
	134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187,
	189, 190, 196, 198, 228, 232, 233, 1, 135, 137, 138, 139, 140, 141, 143, 147,
	149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183, 188,
	191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237,
	199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240,
	242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247,
	248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14,
	15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31,
	127, 220, 249, 10, 13, 22,
};

#define HUFFMAN_END 0xffff /* the code that ends a string, which no string may have */

/* The code that begins 32 bits and is longer than eight: its length in the upper half, its symbol in the lower. */
__noinline __u32 huffman_long_code(__u32 bits)
{
	__u32 len, at;

	if (bits < 0xff400000) {
		len = 10;
		at = (bits >> 22) - 0x3f8 + 0;
	} else if (bits < 0xffa00000) {
		len = 11;
		at = (bits >> 21) - 0x7fa + 5;
	} else if (bits < 0xffc00000) {
		len = 12;
		at = (bits >> 20) - 0xffa + 8;
	} else if (bits < 0xfff00000) {
		len = 13;
		at = (bits >> 19) - 0x1ff8 + 10;
	} else if (bits < 0xfff80000) {
		len = 14;
		at = (bits >> 18) - 0x3ffc + 16;
	} else if (bits < 0xfffe0000) {
		len = 15;
		at = (bits >> 17) - 0x7ffc + 18;
	} else if (bits < 0xfffe6000) {
		len = 19;
		at = (bits >> 13) - 0x7fff0 + 21;
	} else if (bits < 0xfffee000) {
		len = 20;
		at = (bits >> 12) - 0xfffe6 + 24;
	} else if (bits < 0xffff4800) {
		len = 21;
		at = (bits >> 11) - 0x1fffdc + 32;
	} else if (bits < 0xffffb000) {
		len = 22;
		at = (bits >> 10) - 0x3fffd2 + 45;
	} else if (bits < 0xffffea00) {
		len = 23;
		at = (bits >> 9) - 0x7fffd8 + 71;
	} else if (bits < 0xfffff600) {
		len = 24;
		at = (bits >> 8) - 0xffffea + 100;
	} else if (bits < 0xfffff800) {
		len = 25;
		at = (bits >> 7) - 0x1ffffec + 112;
	} else if (bits < 0xfffffbc0) {
		len = 26;
		at = (bits >> 6) - 0x3ffffe0 + 116;
	} else if (bits < 0xfffffe20) {
		len = 27;
		at = (bits >> 5) - 0x7ffffde + 131;
	} else if (bits < 0xfffffff0) {
		len = 28;
		at = (bits >> 4) - 0xfffffe2 + 150;
	} else if (bits < 0xfffffffc) {
		len = 30;
		at = (bits >> 2) - 0x3ffffffc + 179;
	} else {
		return HUFFMAN_END;
	}
	return len << 8 | huffman_long[at & 255];
}

/* A string on its way from a piece of a header block to the window. */
struct huffman {
	const struct piece *piece;
	struct window *win;
	__u32 bit; /* of the piece: where the next code begins */
	__u32 end; /* of the piece: behind the string's last bit */
	__u32 len; /* symbols so far */
	__u32 bad;
};

/* A callback costs as much as two symbols. */
#define HUFFMAN_AT_ONCE 8

/*
 * Decodes the next symbols; where keep says so they go to the window, which has room for 1,024. Answers 1 behind the last
 * one. The bits are loaded anew for each symbol: what is left of a word would be one more thing for the verifier to follow.
 */
static always_inline long huffman_symbols(struct huffman *h, bool keep)
{
	__u32 bit = h->bit, end = h->end, len = h->len;

	for (__u32 n = 0; n < HUFFMAN_AT_ONCE; n++) {
		__u32 at = bit >> 3;
		opaque(at);
		if (at >= BLOCK_BYTES)
			return 1;
		__u64 bits = bpf_be64_to_cpu(load64(h->piece->bytes + at)) << (bit & 7);
		__u32 code = huffman_short[bits >> 56];
		if (!code)
			code = huffman_long_code(bits >> 32);
		__u32 next = bit + (code >> 8);
		if (next > end) {
			/* What is left is the beginning of a code: the padding, less than a byte of ones. */
			__u32 left = end - bit;
			h->bad = left > 7 || (~bits >> 1) >> (63 - (left & 7)) != 0;
			h->len = len;
			return 1;
		}
		if (keep) {
			__u32 to = len & (WINDOW_BYTES - 1);
			opaque(to);
			if (to < WINDOW_BYTES)
				*(h->win->bytes + to) = code; /* or in the slack */
		}
		bit = next;
		len++;
	}
	h->bit = bit;
	h->len = len;
	return 0;
}

static long huffman_keep(__u64 i, struct huffman *h)
{
	return huffman_symbols(h, true);
}

static long huffman_pass(__u64 i, struct huffman *h)
{
	return huffman_symbols(h, false);
}

#define HUFFMAN_BAD (~0U)

/*
 * Decodes the string of len bytes at idx of the piece, to the window where keep says so. The answer is how many bytes it
 * has, or HUFFMAN_BAD; the window gets WINDOW_BYTES of them at the most.
 */
__noinline __u32 huffman_decode(const struct piece *piece, struct window *win, __u32 idx, __u32 len, __u32 keep)
{
	/* Until it has its end it is not whole. */
	struct huffman h = { .piece = piece, .win = win, .bit = 8 * idx, .end = 8 * (idx + len), .bad = 2 };

	if (!piece || !win || len > BLOCK_BYTES || idx > BLOCK_BYTES)
		return HUFFMAN_BAD;
	if (keep)
		bpf_loop(WINDOW_BYTES / HUFFMAN_AT_ONCE, huffman_keep, &h, 0);
	/* Five bits are the shortest code. */
	if (h.bad == 2)
		bpf_loop(BLOCK_BYTES * 8 / 5 / HUFFMAN_AT_ONCE + 1, huffman_pass, &h, 0);
	return h.bad ? HUFFMAN_BAD : h.len;
}

#endif
