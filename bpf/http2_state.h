/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What is kept of a connection that speaks HTTP/2, beside its flow; the values of maps in maps.h. */
#ifndef AMBIT_HTTP2_STATE_H
#define AMBIT_HTTP2_STATE_H

#include "platform.h"
#include "abi.h"

/* Of a value that is kept in a table; the longest field has as much. */
#define VALUE_MAX 640

#define TABLE_SLOTS 128
#define TABLE_BYTES 4096

/* The frame that a direction is in. Part of its half: a segment inside of a frame's payload needs no more than that. */
struct frame {
	__u32 stream;
	__u8 type; /* enum frame_type */
	__u8 flags;
	__u8 pad; /* bytes of padding at its end */
	__u8 open; /* a header block goes on in the next frame */
};

struct hpack_entry {
	__u32 begin; /* hpack_table.total before it came */
	__u32 at; /* hpack_table.at of its value */
	__u16 len; /* of its value; VALUE_MAX bytes of it are kept */
	__u16 name_len;
	__u8 name; /* enum header_id */
	__u8 spare[3];
};

/*
 * A dynamic table, by the number of insertions: entry n is in slot n % TABLE_SLOTS, and the newest is count - 1. An entry
 * is charged 32 bytes and its text, so at a size of TABLE_BYTES no slot and no byte of a value that can still be named is
 * written over; in a larger table what was written over is unknown. Evicted is what begins more than max bytes before
 * total, and what is older than oldest.
 */
struct hpack_table {
	__u32 count; /* insertions that were seen */
	__u32 total; /* sizes of all of them, as RFC 7541 counts */
	__u32 oldest; /* what is older went when the table was made smaller, or was emptied */
	__u32 max; /* its size in force; TABLE_ANY where it is not known */
	__u32 limit; /* the largest that its reader ever allowed */
	__u32 at; /* where the next value goes, modulo TABLE_BYTES */
	__u32 complete; /* every insertion since the connection began was seen */
	struct hpack_entry entries[TABLE_SLOTS];
	__u8 bytes[TABLE_BYTES + VALUE_MAX + 64];
};

#define TABLE_ANY (~0U)

/* A header block, while it is open. */
struct open_block {
	__u8 part[24]; /* of a frame's beginning, that a segment broke off */
	__u32 stream;
	__u32 skip; /* bytes of a string that are passed over */
	__u32 len; /* bytes so far */
	__u8 ends; /* END_STREAM */
	__u8 kind; /* enum block_kind */
	__u8 fields; /* a field was read: the size can't change any more */
	__u8 carried; /* an unfinished field is in the map fragments */
	/* Of a response: what its exchange had before, as an interim one says nothing. */
	__u32 flags;
	__u16 used;
	__u16 cut;
};

#define STREAMS_MAX 256
#define SPARES_MAX 32

struct http2 {
	struct hpack_table table[SIDES]; /* by sender */
	struct open_block block[SIDES];
	__u32 last; /* newest stream of the opener */
	__u32 refused; /* GOAWAY: streams above this were never looked at, and never will be */
	__u32 refused_code; /* why */
	__u32 goaways; /* that changed refused */
	/*
	 * Streams that are in the map waiting, each in a slot. What a stream leaves there is used again by the next one: to
	 * make an element takes several times as long, most of all where another CPU than this one deletes it.
	 */
	__u32 waiting; /* streams */
	__u32 spares; /* slots whose element nobody uses; SPARES_MAX at the most */
	__u32 holes; /* slots that had an element */
	__u32 made; /* slots that ever had one */
	__u32 streams[STREAMS_MAX]; /* by slot: its stream, or 0 */
	__u8 hint[STREAMS_MAX]; /* by stream: most likely its slot */
	__u8 spare[STREAMS_MAX];
	__u8 hole[STREAMS_MAX];
};

/* An unfinished field of a header block, until the next segment comes. */
#define FRAGMENT_MAX 4096

struct fragment {
	__u8 bytes[FRAGMENT_MAX];
	__u32 len;
};

/* What of a header block is looked at: FRAGMENT_MAX that were carried over, and what comes in one frame and segment. */
#define PIECE_MAX 16384
#define BLOCK_BYTES (FRAGMENT_MAX + PIECE_MAX)

struct piece {
	__u8 bytes[BLOCK_BYTES];
	__u8 slack[VALUE_MAX + 64]; /* lets words be read past the end, and values */
	/* The cursor is here for the reason that struct window has. */
	__u32 idx;
	__u32 len;
	__u32 next; /* where the integer ended that was read last */
	__u32 verdict; /* enum verdict */
	__u32 last; /* the block ends with it */
	__u32 wanted; /* bit per enum header_id: which fields matter */
};

#endif
