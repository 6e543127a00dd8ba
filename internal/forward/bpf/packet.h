// SPDX-License-Identifier: Apache-2.0
//
// A datagram on its way, and what its first bytes say.
#pragma once
#include "table.h"

enum { min_header = 12, stun_cookie = 0x2112A442 };

// packet is what look finds.
struct packet {
	struct ethhdr *eth;
	__u32 *source; // in the packet
	__u32 words;   // of an address: 1 or 4
	struct udphdr *udp;
	__u8 *payload;
	__u32 payload_len;
	__u32 ip_len;
	struct flow *flow;
	__u32 index; // of flow
	__u64 head;  // state and generation, as they were when flow was looked at
};

// own is a pointer whose way to its field the compiler does not share with those to
// other fields. A process without CAP_PERFMON may not load a program that adds another
// number to a pointer depending on how it came there.
#define own(pointer)                                              \
	({                                                        \
		typeof(pointer) own_ = (pointer);                 \
		asm volatile("# " number(__COUNTER__) : "+r"(own_));   \
		own_;                                             \
	})
#define number(n) number_(n)
#define number_(n) #n

// is_media is rtp.Classify of the Go side: neither STUN nor DTLS.
static __always_inline int is_media(struct packet *p, void *end)
{
	__u8 *b = p->payload;
	if (p->payload_len == 0 || (void *)(b + 1) > end)
		return 1;
	if (b[0] < 4) {
		if (p->payload_len < 20 || (void *)(b + 8) > end)
			return 1;
		return *(__u32 *)(b + 4) != htonl(stun_cookie);
	}
	if (b[0] >= 20 && b[0] <= 63) {
		if (p->payload_len < 13 || (void *)(b + 3) > end)
			return 1;
		return !(b[1] == 0xfe && (b[2] == 0xff || b[2] == 0xfd));
	}
	return 1;
}

static __always_inline int is_rtp(struct packet *p, void *end)
{
	__u8 *b = p->payload;
	if (p->payload_len < min_header || (void *)(b + min_header) > end)
		return 0;
	if ((b[0] & 0xc0) != 0x80)
		return 0;
	__u8 type = b[1] & 0x7f;
	return type < 64 || type > 95; // RFC 5761 section 4
}
