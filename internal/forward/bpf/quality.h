// SPDX-License-Identifier: Apache-2.0
//
// What is counted of a datagram that is moved: bytes, loss, jitter, payload types. The Go
// side of the same rules is ../quality.go.
#pragma once
#include "maps.h"
#include "packet.h"

enum { max_dropout = 3000, max_misorder = 100 };

// sample is done for two packets in a row of eight: the second knows what the
// first left. Jitter is that of RFC 3550 A.8 over these pairs.
static __always_inline void sample(__u32 index, __u8 *rtp, __u64 turn)
{
	struct side *s = map_lookup_elem(&sides, &index);
	if (!s)
		return;
	__u8 type = rtp[1] & 0x7f;
	__u16 sequence = ntohs(*(__u16 *)(rtp + 2));
	__u32 stamp = ntohl(*(__u32 *)(rtp + 4));
	__u64 now = ktime_get_ns();
	if (turn == 0) {
		s->prev_arrival = now;
		s->prev_stamp = stamp;
		s->prev_sequence = sequence;
		s->armed = 1;
#pragma unroll
		for (int i = 0; i < 4; i++) {
			if ((__u32)s->types[i] != 0 && (__u8)(s->types[i] >> 32) == type) {
				if ((__u32)s->types[i] < 0xfffffff0)
					s->types[i] += 8;
				return;
			}
		}
		// A new type: the rarest gives way.
		int rarest = 0;
		__u32 fewest = (__u32)s->types[0];
#pragma unroll
		for (int i = 1; i < 4; i++) {
			if ((__u32)s->types[i] < fewest) {
				fewest = (__u32)s->types[i];
				rarest = i;
			}
		}
		__u64 fresh = (__u64)type << 32 | 8;
		if (rarest == 0)
			*own(&s->types[0]) = fresh;
		else if (rarest == 1)
			*own(&s->types[1]) = fresh;
		else if (rarest == 2)
			*own(&s->types[2]) = fresh;
		else
			*own(&s->types[3]) = fresh;
		return;
	}
	if (s->armed && s->unit && s->unit_type == type && sequence == (__u16)(s->prev_sequence + 1)) {
		__s64 sent = ((__s64)(__s32)(stamp - s->prev_stamp) * s->unit) >> 8;
		__s64 d = (__s64)(now - s->prev_arrival) - sent;
		if (d < 0)
			d = -d;
		if (d < 1000000000) {
			__s64 j = s->jitter;
			s->jitter = j + ((d - j) >> 4);
		}
	}
	s->armed = 0;
}

// account counts a datagram that is moved.
static __always_inline void account(struct packet *p, struct counts *c, __u64 now, void *end)
{
	struct flow *f = p->flow;
	__u64 turn = __sync_fetch_and_add(&f->packets, 1) & 7;
	__sync_fetch_and_add(&f->bytes, p->ip_len);
	if (f->last_seen != now)
		f->last_seen = now;
	c->packets++;
	c->bytes += p->ip_len;
	if (!is_media(p, end))
		return;
	if (f->last_media != now)
		f->last_media = now;
	if (!f->first_media)
		f->first_media = now;
	if (!is_rtp(p, end))
		return;
	__u8 *b = p->payload;
	__u16 sequence = ntohs(*(__u16 *)(b + 2));
	__u32 ssrc = *(__u32 *)(b + 8);
	ssrc = ntohl(ssrc);
	if (!f->has_rtp || f->ssrc != ssrc) {
		f->ssrc = ssrc;
		f->sequence = sequence;
		f->has_rtp = 1;
	} else {
		__u16 step = sequence - f->sequence;
		if (step == 0) {
			// a duplicate
		} else if (step < max_dropout) {
			if (step > 1)
				f->lost += step - 1;
			f->sequence = sequence;
		} else if (step > 65536 - max_misorder) {
			if (f->lost > 0)
				f->lost--; // late: it is not lost after all
		} else {
			f->sequence = sequence; // the sender began anew (RFC 3550 A.1)
		}
	}
	if (turn <= 1)
		sample(p->index, b, turn);
}

// same_stream says whether a datagram may be of the party's RTP stream: its SSRC is a
// number that nobody can guess who does not see the stream.
static __always_inline int same_stream(struct packet *p, void *end)
{
	return p->flow->has_rtp && is_rtp(p, end) && ntohl(*(__u32 *)(p->payload + 8)) == p->flow->ssrc;
}
