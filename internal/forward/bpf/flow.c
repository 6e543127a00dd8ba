// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// The kernel's part of the flow table: datagrams that a decided flow covers are
// rewritten and sent on here, everything else goes up to user space, which
// decides. No policy lives here.
//
//	look    which port, which entry; is it a plain datagram that can be moved
//	judge   source is the flow's: move. Else up to user space, not too often
//	account counters, loss, one packet of eight for jitter and payload type: quality.h
//
// The entry points differ in how they rewrite: tc (this file), XDP (planned).
#include "maps.h"
#include "packet.h"
#include "quality.h"

// Processors that may see writes of another out of order need a barrier between
// reading state and what it guards; the loader says so, and elsewhere the
// verifier removes it.
const volatile __u8 weakly_ordered = 0;

enum { pass = -1, drop = 2, moved = 7 }; // TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT

// A cached next hop is trusted while the relay lives that keeps it true.
enum { hop_trust_ns = 5000000000ULL };

static __always_inline int same(const __u32 *a, const __u32 *b, __u32 words)
{
	if (a[0] != b[0])
		return 0;
	return words == 1 || (a[1] == b[1] && a[2] == b[2] && a[3] == b[3]);
}

// slot_of finds the local address. There are few: comparing beats hashing.
static __always_inline int slot_of(struct globals *g, const __u32 *addr, __u32 words)
{
	__u32 family = words == 1 ? 4 : 6;
#pragma unroll
	for (int i = 0; i < max_locals; i++) {
		if (i >= g->locals_used)
			return -1;
		if (g->locals[i].family == family && same(g->locals[i].addr, addr, words))
			return i;
	}
	return -1;
}

// head_of reads state and generation, before whatever is read of f afterwards.
static __always_inline __u64 head_of(struct flow *f)
{
	__u64 head = weakly_ordered ? __sync_fetch_and_or((__u64 *)f, 0) : *(volatile __u64 *)f;
	barrier();
	return head;
}

static __always_inline __u32 state_of(__u64 head)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (__u32)head;
#else
	return (__u32)(head >> 32);
#endif
}

// early says whether a turn has not come yet; one in the far future is of a clock that
// began anew since.
static __always_inline int early(__u64 turn, __u64 now) { return now < turn && turn - now < 1000000000; }

// raise lets a datagram of nobody's flow go up to user space, unless its port had one a
// moment ago, or all decided ports together. The party's known addresses and its stream
// have a turn of their own, so that a phone that moved is heard behind a sprayer.
static __always_inline int raise(struct globals *g, struct packet *p, struct counts *c, __u64 now, __u32 state, void *end)
{
	struct side *s = map_lookup_elem(&sides, &p->index);
	if (!s)
		return pass;
	__u32 somebody = p->source[0]; // the unspecified address is how sides say that none is known
	if (p->words == 4)
		somebody |= p->source[1] | p->source[2] | p->source[3];
	int known = 0;
#pragma unroll
	for (int i = 0; i < 3; i++)
		known |= somebody && same(s->known[i], p->source, p->words);
	if (known && state == port_open)
		goto up; // user space moves this party's media
	known |= same_stream(p, end);
	__u64 *next = known ? own(&s->next_known) : own(&s->next_stranger);
	int crowd = !known && state == port_decided;
	if (early(*next, now) || (crowd && early(*own(&c->next_stranger), now))) {
		__sync_fetch_and_add(&p->flow->refused, 1);
		++*own(&c->refused);
		return drop;
	}
	*next = now + (known ? *own(&g->known_gap) : *own(&g->stranger_gap));
	if (crowd)
		*own(&c->next_stranger) = now + *own(&g->crowd_gap);
up:
	++*own(&c->raised);
	return pass;
}

// judge says what becomes of a datagram for one of the table's ports.
static __always_inline int judge(struct globals *g, struct packet *p, struct counts *c, struct hop **via, __u64 now, void *end)
{
	struct flow *f = p->flow;
	__u32 state = state_of(p->head);
	__u64 silent = now - g->heartbeat;
	if ((__s64)silent > 0 && silent > g->lease) {
		++*own(&c->orphaned);
		return pass;
	}
	if (state == port_resting) {
		++*own(&c->resting);
		return drop;
	}
	if (state != port_decided)
		return raise(g, p, c, now, state, end);
	if (!same(f->source, p->source, p->words) || f->source_port != p->udp->source)
		return raise(g, p, c, now, state, end);
	__u32 key = f->hop;
	struct hop *h = map_lookup_elem(&hops, &key);
	if (!h || !h->ifindex || p->ip_len > h->mtu || f->family != f->out_family)
		return pass;
	*via = h;
	return moved;
}

// find completes p with the entry of its port, if the port is the table's.
static __always_inline int find(struct globals *g, struct packet *p, const __u32 *dest, __u16 port)
{
	int slot = slot_of(g, dest, p->words);
	if (slot < 0)
		return 0;
	p->index = (__u32)slot * ports + ntohs(port);
	p->flow = map_lookup_elem(&flows, &p->index);
	if (!p->flow)
		return 0;
	p->head = head_of(p->flow);
	return state_of(p->head) != port_off;
}

// headers that have to lie in the linear part of a packet: link, network, UDP, RTP
enum { eth_len = sizeof(struct ethhdr), need4 = eth_len + 20 + 8 + 20, need6 = eth_len + 40 + 8 + 20 };

static __always_inline void pull(struct __sk_buff *skb, __u32 need)
{
	if ((void *)(long)skb->data + need > (void *)(long)skb->data_end) {
		if (skb->len < need)
			need = skb->len;
		skb_pull_data(skb, need);
	}
}

// look4 and look6 find a plain datagram: no options, no fragment, a time to live
// that lasts, lengths that agree. The rest is for the kernel and user space.
static __always_inline int look4(struct __sk_buff *skb, struct globals *g, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + eth_len;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end || ip->version_ihl != 0x45 || ip->protocol != PROTO_UDP)
		return 0;
	if ((ip->frag_off & htons(0x3fff)) || ip->ttl <= 1)
		return 0;
	p->words = 1;
	p->eth = data;
	if (!find(g, p, &ip->daddr, udp->dest))
		return 0;
	p->source = &ip->saddr;
	p->udp = udp;
	p->payload = (void *)(udp + 1);
	p->ip_len = ntohs(ip->tot_len);
	__u32 udp_len = ntohs(udp->len);
	if (udp_len < sizeof(*udp) || udp_len + sizeof(*ip) != p->ip_len || p->ip_len + eth_len > skb->len)
		return 0;
	p->payload_len = udp_len - sizeof(*udp);
	return 1;
}

static __always_inline int look6(struct __sk_buff *skb, struct globals *g, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ip6hdr *ip = data + eth_len;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end || (*(__u8 *)ip >> 4) != 6 || ip->nexthdr != PROTO_UDP)
		return 0;
	if (ip->hop_limit <= 1 || udp->check == 0)
		return 0;
	p->words = 4;
	p->eth = data;
	if (!find(g, p, ip->daddr, udp->dest))
		return 0;
	p->source = ip->saddr;
	p->udp = udp;
	p->payload = (void *)(udp + 1);
	__u32 udp_len = ntohs(udp->len);
	p->ip_len = ntohs(ip->payload_len) + sizeof(*ip);
	if (udp_len < sizeof(*udp) || udp_len + sizeof(*ip) != p->ip_len || p->ip_len + eth_len > skb->len)
		return 0;
	p->payload_len = udp_len - sizeof(*udp);
	return 1;
}

// change is what the first line of an entry says, copied before it is believed.
struct change {
	__u32 dest[4], local[4];
	__u16 dest_port, out_port;
	__u32 addr_change, port_change;
};

static __always_inline int take(struct globals *g, struct packet *p, struct change *to)
{
	struct flow *f = p->flow;
	// Whole words first: part of one that held a pointer may not be written without
	// CAP_PERFMON, and the compiler uses the same stack for both.
	__builtin_memset(to, 0, sizeof(*to));
	asm volatile("" : : "r"(to) : "memory");
	__builtin_memcpy(to->dest, f->dest, sizeof(to->dest));
	to->dest_port = f->dest_port;
	to->out_port = f->out_port;
	to->addr_change = f->addr_change;
	to->port_change = f->port_change;
	__u32 slot = f->out_slot;
	if (slot >= max_locals)
		return 0;
	__builtin_memcpy(to->local, g->locals[slot].addr, sizeof(to->local));
	barrier();
	return head_of(f) == p->head; // it was not changed meanwhile
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)(sum + (sum >> 16));
}

static __always_inline void rewrite4(struct iphdr *ip, struct change *to)
{
	__u32 sum = (__u16)~ip->check + to->addr_change;
	__u16 *life = (__u16 *)&ip->ttl; // with the protocol
	sum += (__u16)~*life;
	ip->ttl--;
	sum += *life;
	ip->check = ~fold(sum);
	ip->saddr = to->local[0];
	ip->daddr = to->dest[0];
}

static __always_inline void rewrite6(struct ip6hdr *ip, struct change *to)
{
	ip->hop_limit--;
	__builtin_memcpy(ip->saddr, to->local, 16);
	__builtin_memcpy(ip->daddr, to->dest, 16);
}

static __always_inline int send(struct __sk_buff *skb, struct hop *via, struct counts *c, __u32 ip_size, struct change *to,
				int fresh, struct ethhdr *eth)
{
	__u32 ifindex = via->ifindex;
	int ready = fresh && via->ready;
	if (ready) {
		// In one piece: a neighbour that gets another address meanwhile has the old
		// or the new one here. The own address begins behind it.
		__u64 first = *(volatile __u64 *)via->dmac;
		__builtin_memcpy(eth->dest, &first, 8);
		__builtin_memcpy(eth->source + 2, via->smac + 2, 4);
	}
	__u32 check = eth_len + ip_size + __builtin_offsetof(struct udphdr, check);
	l4_csum_replace(skb, check, 0, to->addr_change, F_PSEUDO_HDR | F_MARK_MANGLED_0);
	l4_csum_replace(skb, check, 0, to->port_change, F_MARK_MANGLED_0);
	if (ready)
		return redirect(ifindex, 0);
	c->neigh++;
	return redirect_neigh(ifindex, 0, 0, 0);
}

static __always_inline int move(struct __sk_buff *skb, int ip_version)
{
	__u32 zero = 0;
	struct packet p = {};
	struct change to;
	struct hop *via = 0;
	struct globals *g = map_lookup_elem(&globals, &zero);
	if (!g)
		return pass;
	if (!(ip_version == 4 ? look4(skb, g, &p) : look6(skb, g, &p)))
		return pass;
	struct counts *c = map_lookup_elem(&stats, &zero);
	if (!c)
		return pass;
	__u64 now = ktime_get_coarse_ns();
	int verdict = judge(g, &p, c, &via, now, (void *)(long)skb->data_end);
	if (verdict != moved || !via)
		return verdict;
	if (!take(g, &p, &to))
		return pass;
	account(&p, c, now, (void *)(long)skb->data_end);
	int fresh = now - g->heartbeat < hop_trust_ns || (__s64)(now - g->heartbeat) < 0;
	p.udp->source = to.out_port;
	p.udp->dest = to.dest_port;
	if (ip_version == 4) {
		rewrite4((void *)(p.eth + 1), &to);
		return send(skb, via, c, sizeof(struct iphdr), &to, fresh, p.eth);
	}
	rewrite6((void *)(p.eth + 1), &to);
	return send(skb, via, c, sizeof(struct ip6hdr), &to, fresh, p.eth);
}

SEC("tcx/ingress")
int flow_tc(struct __sk_buff *skb)
{
	// Segments that the device put together, frames for others and tags that the
	// device took off (the VLAN's own interface sees the packet again) go up.
	if (skb->gso_size || skb->pkt_type || skb->vlan_present)
		return pass;
	if (skb->protocol == htons(ETH_IPV4)) {
		pull(skb, need4);
		return move(skb, 4);
	}
	if (skb->protocol == htons(ETH_IPV6)) {
		pull(skb, need6);
		return move(skb, 6);
	}
	return pass;
}

enum { sk_pass = 1 };

// flow_lookup steers datagrams for ports of the table to the sockets of user
// space: one for each local address and processor.
SEC("sk_lookup")
int flow_lookup(volatile struct bpf_sk_lookup *ctx) // volatile: fields of it are read one by one, at fixed offsets
{
	if (ctx->protocol != PROTO_UDP)
		return sk_pass;
	__u32 zero = 0, addr[4];
	struct packet p = {};
	struct globals *g = map_lookup_elem(&globals, &zero);
	if (!g)
		return sk_pass;
	if (ctx->family == AF_INET) {
		p.words = 1;
		addr[0] = ctx->local_ip4;
	} else {
		p.words = 4;
		addr[0] = ctx->local_ip6[0];
		addr[1] = ctx->local_ip6[1];
		addr[2] = ctx->local_ip6[2];
		addr[3] = ctx->local_ip6[3];
	}
	int slot = slot_of(g, addr, p.words);
	if (slot < 0)
		return sk_pass;
	p.index = (__u32)slot * ports + (ctx->local_port & 0xffff);
	p.flow = map_lookup_elem(&flows, &p.index);
	if (!p.flow || state_of(head_of(p.flow)) == port_off)
		return sk_pass;
	__u32 key = (__u32)slot * cpus_per_slot + (get_smp_processor_id() & (cpus_per_slot - 1));
	void *sk = map_lookup_elem(&sockets, &key);
	if (!sk) {
		key = (__u32)slot * cpus_per_slot;
		sk = map_lookup_elem(&sockets, &key);
	}
	if (!sk)
		return sk_pass;
	sk_assign((void *)ctx, sk, 0);
	sk_release(sk);
	return sk_pass;
}

char licence[] SEC("license") = "Apache-2.0";
