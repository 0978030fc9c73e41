/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which rule holds for a side of an exchange. Each field that rules look at gives a row, with a bit for each rule that
 * accepts what was found; the lowest bit that all rows have is the first rule that matches. How rules become rows:
 * rulematch.go.
 */
#ifndef AMBIT_RULES_H
#define AMBIT_RULES_H

#include "route.h"

#define NO_RULE 0xffff

#define HASH_LOWER 256

static always_inline const struct rules *rules_in_force(void)
{
	__u32 zero = 0;
	void *set = bpf_map_lookup_elem(&rule_sets, &zero);

	return set ? bpf_map_lookup_elem(set, &zero) : 0;
}

/* Reads what the request asks for, into the subject of this CPU, for decide_sides. */
__noinline int read_path(const struct exchange *ex)
{
	__u32 zero = 0;
	struct subject *s = bpf_map_lookup_elem(&subjects, &zero);

	if (!ex || !s)
		return 0;
	find_path(s, ex);
	split_path(s, ex);
	return 0;
}

/* The row of a value by its hash. */
static always_inline __u32 find_row(const struct rules *r, __u32 field, __u64 hash, __u32 otherwise)
{
	__u64 key = mix(hash, r->seed + field);
	__u32 bucket = key >> (64 - MATCH_BUCKET_BITS);

	opaque(bucket);
	if (bucket >= MATCH_BUCKETS)
		return otherwise;
	for (__u32 i = 0; i < MATCH_SLOTS; i++) {
		__u64 other = r->table[bucket][i] ^ key;
		if (other >> 16 == 0)
			return (other ^ key) & 0xffff;
	}
	return otherwise;
}

static always_inline bool looks_at(const struct rules *r, __u32 field)
{
	return r->fields >> field & 1;
}

static always_inline void add_row(struct subject *s, __u32 row)
{
	__u32 n = s->rows;

	opaque(n);
	if (n >= SUBJECT_ROWS)
		return;
	s->row[n] = row;
	s->rows = n + 1;
}

#define HASH_WORDS 24 /* of the longest text that is hashed; what is behind does not count */

/* The hash of a text of the exchange, in lower case if so said; up to stop, if that is no 0. */
__noinline __u64 hash_text(const struct exchange *ex, __u32 slice, __u32 how)
{
	__u32 from = slice >> 16, len = slice & 0xffff, stop = how & 0xff;
	__u64 h = flow_seed;

	if (!ex)
		return 0;
	for (__u32 i = 0; i < HASH_WORDS; i++) {
		__u32 at = from + i * 8, left = len - i * 8;
		if (i * 8 >= len)
			break;
		opaque(at);
		if (at > EXCHANGE_TEXT - 8)
			break;
		__u64 text = load64(ex->text + at);
		if (how & HASH_LOWER)
			text = lower_case(text);
		__u64 end = stop ? hits(text, stop) : 0;
		__u32 n = left < 8 ? left : 8;
		if (end && first_byte(end) < n) {
			n = first_byte(end);
			len = i * 8 + n;
		}
		if (n)
			h = mix(h, head_of(text, n));
	}
	return mix(h, len);
}

static always_inline __u32 slice_of(const struct exchange *ex, __u32 field)
{
	return (__u32)ex->fields[field].off << 16 | ex->fields[field].len;
}

/* What is not a blank of a part of the text: both as hash_text takes them. */
__noinline __u32 without_blanks(const struct exchange *ex, __u32 slice)
{
	__u32 from = slice >> 16, end = from + (slice & 0xffff);

	if (!ex)
		return 0;
	for (__u32 i = 0; i < 4; i++) {
		__u32 at = from;
		opaque(at);
		if (at >= end || at >= EXCHANGE_TEXT || (ex->text[at] != ' ' && ex->text[at] != '\t'))
			break;
		from++;
	}
	for (__u32 i = 0; i < 4; i++) {
		__u32 last = end - 1;
		opaque(last);
		if (end <= from || last >= EXCHANGE_TEXT || (ex->text[last] != ' ' && ex->text[last] != '\t'))
			break;
		end--;
	}
	return from << 16 | (end - from);
}

/* The row of a header by its whole value, of a content type without parameters, or for being there. */
static always_inline __u32 header_row(const struct rules *r, const struct exchange *ex, __u32 field, __u32 match)
{
	__u32 slice = slice_of(ex, field), how = 0;

	if (!(slice & 0xffff))
		return r->default_row[match];
	if (match == MATCH_CONTENT_TYPE) {
		__u32 from = slice >> 16, end = find_in_text(ex, from, from + (slice & 0xffff), ';');
		slice = without_blanks(ex, from << 16 | (end - from));
		how = HASH_LOWER;
	}
	if ((slice & 0xffff) > r->longest[match])
		return r->present_row[match];
	return find_row(r, match, hash_text(ex, slice, how), r->present_row[match]);
}

/* The user agent by its whole value, by its product, which a / or a space ends, or for being there. */
static always_inline __u32 agent_row(const struct rules *r, const struct exchange *ex)
{
	__u32 slice = slice_of(ex, FIELD_USER_AGENT), present = r->present_row[MATCH_USER_AGENT];
	__u32 from = slice >> 16, len = slice & 0xffff, longest = r->longest[MATCH_USER_AGENT], first = len;

	if (!len)
		return r->default_row[MATCH_USER_AGENT];
	if (len <= longest) {
		__u32 whole = find_row(r, MATCH_USER_AGENT, hash_text(ex, slice, 0), ROWS_MAX);
		if (whole < ROWS_MAX)
			return whole;
	}
	for (__u32 i = 0; i < 8; i++) {
		__u32 at = from + i * 8;
		opaque(at);
		if (i * 8 >= len || i * 8 > longest || at > EXCHANGE_TEXT - 8)
			break;
		__u64 text = load64(ex->text + at), end = hits(text, '/') | hits(text, ' ');
		if (end) {
			first = i * 8 + first_byte(end);
			break;
		}
	}
	if (first >= len || first > longest)
		return present;
	return find_row(r, MATCH_USER_AGENT, hash_text(ex, from << 16 | first, 0), present);
}

/* What follows the last dot of the path's last segment, of up to 8 bytes. */
static always_inline __u32 extension_row(const struct subject *s, const struct exchange *ex, const struct rules *r)
{
	__u32 end = s->last_end, len = end - s->last, at = end < 8 ? 0 : end - 8, otherwise = r->default_row[MATCH_EXTENSION];

	opaque(at);
	if (!len || at > EXCHANGE_TEXT - 8)
		return otherwise;
	/* The segment's last bytes, the last one highest. */
	__u64 text = load64(ex->text + at);
	if (end < 8)
		text <<= 64 - 8 * end;
	if (len < 8)
		text &= ~FIRST(8 - len);
	__u64 dots = between(text, '.', '.');
	__u32 skip = 0; /* bytes up to the last dot */
	if (dots) {
		dots |= dots >> 8;
		dots |= dots >> 16;
		dots |= dots >> 32;
		skip = (dots >> 7) * EACH >> 56;
		if (skip == 8)
			return otherwise; /* it ends in one */
	} else {
		__u32 before = at - 1;
		opaque(before);
		if (len < 9 || before >= EXCHANGE_TEXT || ex->text[before] != '.')
			return otherwise;
	}
	__u64 h = mix(mix(flow_seed, lower_case(text >> (8 * skip))), 8 - skip);
	return find_row(r, MATCH_EXTENSION, h, otherwise);
}

/* The host without its port, or all behind its first label. */
static always_inline __u32 host_row(const struct rules *r, const struct exchange *ex)
{
	__u32 otherwise = r->default_row[MATCH_HOST], slice = slice_of(ex, FIELD_HOST);
	__u32 from = slice >> 16, len = slice & 0xffff;

	opaque(from);
	if (!len || from >= EXCHANGE_TEXT)
		return otherwise;
	/* An address of IPv6 has brackets, and colons of its own. */
	__u32 how = HASH_LOWER | (ex->text[from] == '[' ? ']' : ':');
	for (__u32 i = 0; i < 8; i++) {
		__u32 at = from + i * 8;
		opaque(at);
		if (i * 8 >= len || at > EXCHANGE_TEXT - 8)
			break;
		__u64 dot = hits(load64(ex->text + at), '.');
		if (!dot)
			continue;
		__u32 skip = i * 8 + first_byte(dot);
		if (skip < len)
			otherwise = find_row(r, MATCH_HOST, hash_text(ex, (from + skip) << 16 | (len - skip), how), otherwise);
		break;
	}
	return find_row(r, MATCH_HOST, hash_text(ex, slice, how), otherwise);
}

#define BAGGAGE_MEMBERS 16

/* The row of a member of baggage, by key=value or by key; ROWS_MAX where no rule names it. */
__noinline __u32 member_row(const struct exchange *ex, const struct rules *r, __u32 from, __u32 end)
{
	if (!ex || !r)
		return ROWS_MAX;
	end = find_in_text(ex, from, end, ';');
	__u32 row = find_row(r, MATCH_BAGGAGE, hash_text(ex, without_blanks(ex, from << 16 | (end - from)), 0), ROWS_MAX);
	if (row != ROWS_MAX)
		return row;
	end = find_in_text(ex, from, end, '=');
	return find_row(r, MATCH_BAGGAGE, hash_text(ex, without_blanks(ex, from << 16 | (end - from)), 0), ROWS_MAX);
}

/* Rows of the members of baggage that some rule names. */
static always_inline void match_baggage(struct subject *s, const struct exchange *ex, const struct rules *r)
{
	__u32 from = ex->fields[FIELD_BAGGAGE].off, end = from + ex->fields[FIELD_BAGGAGE].len, found = 0;
	__u32 otherwise = from < end ? r->present_row[MATCH_BAGGAGE] : r->default_row[MATCH_BAGGAGE];

	for (__u32 i = 0; i < BAGGAGE_ROWS; i++)
		s->baggage[i] = otherwise;
	for (__u32 i = 0; i < BAGGAGE_MEMBERS; i++) {
		if (from >= end)
			break;
		__u32 stop = find_in_text(ex, from, end, ','), row = member_row(ex, r, from, stop), place = found;
		from = stop + 1;
		if (row >= ROWS_MAX)
			continue;
		opaque(place);
		if (place >= BAGGAGE_ROWS)
			break;
		s->baggage[place] = row;
		found++;
	}
}

/* Collects the rows of everything that both sides of an exchange have alike. */
static always_inline void collect_rows(struct subject *s, const struct exchange *ex, const struct rules *r)
{
	__u32 grpc = ex->flags & EXCHANGE_GRPC ? 1 : 0, depth = s->depth, method = s->method & (METHODS - 1);

	s->rows = 0;
	for (__u32 i = 0; i < SEGMENTS; i++) {
		if (i >= r->segments || i >= s->depth)
			break;
		add_row(s, find_row(r, MATCH_SEGMENT + i, s->segment[i], r->default_row[MATCH_SEGMENT + i]));
	}
	opaque(depth);
	if (depth < DEPTHS)
		add_row(s, r->depth_row[depth]);
	s->path_rows = s->rows;
	add_row(s, r->method_row[method]);
	add_row(s, r->grpc_row[grpc]);
	if (looks_at(r, MATCH_EXTENSION))
		add_row(s, extension_row(s, ex, r));
	if (looks_at(r, MATCH_HOST))
		add_row(s, host_row(r, ex));
	if (looks_at(r, MATCH_USER_AGENT))
		add_row(s, agent_row(r, ex));
	if (looks_at(r, MATCH_REQUEST_ID))
		add_row(s, header_row(r, ex, FIELD_REQUEST_ID, MATCH_REQUEST_ID));
	if (looks_at(r, MATCH_CONTENT_TYPE))
		add_row(s, header_row(r, ex, FIELD_CONTENT_TYPE, MATCH_CONTENT_TYPE));
	if (looks_at(r, MATCH_FORCE_TRACE))
		add_row(s, header_row(r, ex, FIELD_FORCE_TRACE, MATCH_FORCE_TRACE));
	if (looks_at(r, MATCH_BAGGAGE))
		match_baggage(s, ex, r);
	s->shared_rows = s->rows;
}

/* And those of one side. */
static always_inline void collect_side(struct subject *s, const struct exchange *ex, const struct rules *r, __u32 side)
{
	const struct endpoint *client = side == SIDE_OPENER ? &ex->ends.local[SIDE_OPENER] : &ex->ends.remote[SIDE_ACCEPTOR];
	__u32 service = ex->ends.party[side & 1].service;

	s->rows = s->shared_rows;
	add_row(s, r->kind_row[side & 1]);
	opaque(service);
	if (service < SERVICES_MAX)
		add_row(s, r->service_row[service]);
	if (looks_at(r, MATCH_CLIENT)) {
		__u64 h = mix(mix(flow_seed, *(__u64 *)client->addr), *(__u64 *)(client->addr + 8));
		add_row(s, find_row(r, MATCH_CLIENT, mix(h, 16), r->default_row[MATCH_CLIENT]));
	}
}

static always_inline __u64 row_word(const struct rules *r, __u32 row, __u32 word)
{
	opaque(row);
	if (row >= ROWS_MAX)
		return 0;
	return r->rows[row][word & (RULE_WORDS - 1)];
}

static always_inline __u32 row_summary(const struct rules *r, __u32 row)
{
	opaque(row);
	return row < ROWS_MAX ? r->summary[row] : 0;
}

/* Index of the lowest bit of a word that is not 0. */
static always_inline __u32 lowest_bit(__u64 word)
{
	__u64 below = (word & -word) - 1;

	/* As many bits as are below it. */
	below = below - (below >> 1 & 0x5555555555555555ULL);
	below = (below & 0x3333333333333333ULL) + (below >> 2 & 0x3333333333333333ULL);
	below = (below + (below >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return below * EACH >> 56;
}

/* Rules of one word that every row has. A function of its own: what it answers is any number to the verifier. */
__noinline __u64 rules_hit(const struct subject *s, const struct rules *r, __u32 w)
{
	__u64 hit = ~0ULL;

	if (!s || !r)
		return 0;
	for (__u32 i = 0; i < SUBJECT_ROWS; i++) {
		if (i >= s->rows)
			break;
		hit &= row_word(r, s->row[i], w);
	}
	if (looks_at(r, MATCH_BAGGAGE))
		hit &= row_word(r, s->baggage[0], w) | row_word(r, s->baggage[1], w) | row_word(r, s->baggage[2], w);
	return hit;
}

/* Words in which the rows have a rule in common. */
__noinline __u32 words_hit(const struct subject *s, const struct rules *r)
{
	__u32 words = ~0U;

	if (!s || !r)
		return 0;
	for (__u32 i = 0; i < SUBJECT_ROWS; i++) {
		if (i >= s->rows)
			break;
		words &= row_summary(r, s->row[i]);
	}
	return words;
}

/* Finds in s->found the first rule by the class of the status, and the one that does not look at it. */
__noinline int match_rules(struct subject *s, const struct rules *r)
{
	if (!s || !r)
		return 0;
	__u32 words = r->words == 1 ? 1 : words_hit(s, r);

	for (__u32 i = 0; i <= STATUS_CLASSES; i++)
		s->found[i] = NO_RULE;
	for (__u32 w = 0; w < RULE_WORDS; w++) {
		if (!(words >> w & 1))
			continue;
		__u64 hit = rules_hit(s, r, w);
		if (!hit)
			continue;
		if (r->statuses) {
			for (__u32 c = 0; c < STATUS_CLASSES; c++) {
				__u64 of_class = hit & row_word(r, r->status_row[c], w);
				if (of_class && s->found[c] == NO_RULE)
					s->found[c] = w * 64 + lowest_bit(of_class);
			}
		}
		hit &= row_word(r, r->any_status_row, w);
		/* It matches with every status, so all classes have one by now. */
		if (hit) {
			s->found[STATUS_CLASSES] = w * 64 + lowest_bit(hit);
			break;
		}
	}
	return 0;
}

/* The same of the path alone, and of rules that name its route. */
__noinline __u64 templates_hit(const struct subject *s, const struct rules *r, __u32 w)
{
	if (!s || !r)
		return 0;
	__u64 hit = r->template_rules[w & (RULE_WORDS - 1)];

	for (__u32 i = 0; i <= SEGMENTS; i++) {
		if (i >= s->path_rows)
			break;
		hit &= row_word(r, s->row[i], w);
	}
	return hit;
}

/* The first rule that names the route of this path, whatever else it looks at; NO_RULE. */
__noinline int match_template(const struct subject *s, const struct rules *r)
{
	if (!s || !r)
		return NO_RULE;
	__u32 words = r->templates;

	for (__u32 i = 0; i <= SEGMENTS; i++) {
		if (i >= s->path_rows)
			break;
		words &= row_summary(r, s->row[i]);
	}
	for (__u32 w = 0; w < RULE_WORDS; w++) {
		if (!(words >> w & 1))
			continue;
		__u64 hit = templates_hit(s, r, w);
		if (hit)
			return w * 64 + lowest_bit(hit);
	}
	return NO_RULE;
}

#endif
