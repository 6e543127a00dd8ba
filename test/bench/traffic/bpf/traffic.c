// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Phones for measurements: a program that makes RTP packets and one that takes
// them away behind a relay. Neither wakes a thread for a packet, so nearly all
// that the relay's processor does is the relay's.
#include "../../../../internal/forward/bpf/kernel.h"

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

static long (*redirect_frame)(__u32 ifindex, __u64 flags) = (void *)23;

enum { max_streams = 65536, payload_len = 172, max_spins = 20000 };
enum { xdp_drop = 1, xdp_redirect = 4, tc_pass = -1, tc_stolen = 4 };

// stream is one direction of a call, in the byte order of a packet.
struct stream {
	__u32 source;
	__u32 dest;
	__u16 source_port;
	__u16 dest_port;
	__u16 ip_check;
	__u16 udp_check;
	__u32 ssrc;
	__u32 reserved;
};

struct sender {
	__u64 began; // nanoseconds of CLOCK_MONOTONIC, 0: with the next packet
	__u64 gap;   // nanoseconds between packets, 0: as fast as it goes
	__u64 limit; // packets of this turn
	__u64 turn;  // packets sent in it
	__u64 sent;  // in all turns
	__u32 streams;
	__u32 ifindex;
	__u8 dmac[6];
	__u8 smac[6];
	__u32 reserved;
};

struct arrivals {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, max_streams);
	__uint(map_flags, F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct stream);
} streams SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sender);
} senders SEC(".maps");

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrivals);
} arrived SEC(".maps");

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__u8 rtp[2];
	__u16 sequence;
	__u32 stamp;
	__u32 ssrc;
	// The complements of what changes keep the checksum the same for all packets
	// of a stream.
	__u16 not_sequence;
	__u16 pad;
	__u32 not_stamp;
} __attribute__((packed));

// A sender that was held up for longer goes on with its pace from there: making
// up for it in a burst would overflow the cable's ring of 256 frames.
enum { patience_ns = 200000 };

// wait spins until the packet's time has come.
static __always_inline void wait(struct sender *s)
{
	__u64 now = ktime_get_ns();
	if (!s->began)
		s->began = now;
	__u64 due = s->began + s->turn * s->gap;
	for (int i = 0; i < max_spins && now < due; i++)
		now = ktime_get_ns();
	if (now > due + patience_ns)
		s->began += now - due;
}

// generate turns a frame into the next packet and sends it to the relay. Frames
// come back as the relay left them, so every header is written anew.
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct frame *f = (void *)(long)ctx->data;
	struct sender *s = map_lookup_elem(&senders, &zero);
	if (!s || (void *)f + sizeof(*f) > (void *)(long)ctx->data_end || s->turn >= s->limit || !s->streams)
		return xdp_drop;
	if (s->gap)
		wait(s);
	__u32 index = s->sent % s->streams, round = s->sent / s->streams;
	struct stream *to = map_lookup_elem(&streams, &index);
	if (!to)
		return xdp_drop;
	s->turn++;
	s->sent++;
	__builtin_memcpy(f->eth.dest, s->dmac, 6);
	__builtin_memcpy(f->eth.source, s->smac, 6);
	f->eth.proto = htons(ETH_IPV4);
	f->ip.version_ihl = 0x45;
	f->ip.tos = 0;
	f->ip.tot_len = htons(sizeof(struct iphdr) + sizeof(struct udphdr) + payload_len);
	f->ip.id = 0;
	f->ip.frag_off = 0;
	f->ip.ttl = 64;
	f->ip.protocol = PROTO_UDP;
	f->ip.check = to->ip_check;
	f->ip.saddr = to->source;
	f->ip.daddr = to->dest;
	f->udp.source = to->source_port;
	f->udp.dest = to->dest_port;
	f->udp.len = htons(sizeof(struct udphdr) + payload_len);
	f->udp.check = to->udp_check;
	f->rtp[0] = 0x80;
	f->rtp[1] = 8; // G.711
	f->sequence = htons((__u16)round);
	f->stamp = htonl(round * 160);
	f->ssrc = to->ssrc;
	f->not_sequence = ~f->sequence;
	f->pad = 0;
	f->not_stamp = ~f->stamp;
	return redirect_frame(s->ifindex, 0) == xdp_redirect ? xdp_redirect : xdp_drop;
}

// The phones' network, 198.18.0.0/15, is set aside for measurements (RFC 2544).
enum { phones = 0xc6120000, phones_mask = 0xfffe0000 };

// collect takes away what the relay sends to phones.
SEC("tc")
int collect(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	struct iphdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > (void *)(long)skb->data_end || eth->proto != htons(ETH_IPV4) || ip->protocol != PROTO_UDP)
		return tc_pass;
	if ((ip->daddr & htonl(phones_mask)) != htonl(phones))
		return tc_pass;
	__u32 zero = 0;
	struct arrivals *a = map_lookup_elem(&arrived, &zero);
	if (a) {
		a->packets++;
		a->bytes += skb->len;
	}
	return tc_stolen;
}

// refuse ends packets at the relay's door: what is left is the way to it.
SEC("xdp")
int refuse(struct xdp_md *ctx)
{
	return xdp_drop;
}

char licence[] SEC("license") = "Apache-2.0";
