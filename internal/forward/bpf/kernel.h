// SPDX-License-Identifier: Apache-2.0
//
// The few kernel structures and helpers that flow.c needs. Their layout and
// numbers are part of the kernel's stable interface to programs, so neither its
// headers nor a library are needed to build.
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ntohs(x) __builtin_bswap16(x)
#define ntohl(x) __builtin_bswap32(x)
#else
#define ntohs(x) (x)
#define ntohl(x) (x)
#endif
#define htons(x) ntohs(x)
#define htonl(x) ntohl(x)

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define barrier() asm volatile("" ::: "memory")

enum { MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_SOCKMAP = 15 };
enum { F_MMAPABLE = 1 << 10 };
enum { F_PSEUDO_HDR = 1 << 4, F_MARK_MANGLED_0 = 1 << 5 };
enum { AF_INET = 2, AF_INET6 = 10, PROTO_UDP = 17 };
enum { ETH_IPV4 = 0x0800, ETH_IPV6 = 0x86dd };

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

struct bpf_sk_lookup {
	__u64 sk;
	__u32 family;
	__u32 protocol;
	__u32 remote_ip4;
	__u32 remote_ip6[4];
	__u16 remote_port;
	__u16 : 16;
	__u32 local_ip4;
	__u32 local_ip6[4];
	__u32 local_port;
	__u32 ingress_ifindex;
};

struct ethhdr {
	__u8 dest[6];
	__u8 source[6];
	__u16 proto;
};

struct iphdr {
	__u8 version_ihl;
	__u8 tos;
	__u16 tot_len;
	__u16 id;
	__u16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__u32 saddr;
	__u32 daddr;
};

struct ip6hdr {
	__u32 flow;
	__u16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__u32 saddr[4];
	__u32 daddr[4];
};

struct udphdr {
	__u16 source;
	__u16 dest;
	__u16 len;
	__u16 check;
};

static void *(*map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u64 (*ktime_get_ns)(void) = (void *)5;
static __u32 (*get_smp_processor_id)(void) = (void *)8;
static long (*l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
static long (*redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)39;
static long (*sk_release)(void *sk) = (void *)86;
static long (*sk_assign)(void *ctx, void *sk, __u64 flags) = (void *)124;
static long (*redirect_neigh)(__u32 ifindex, void *params, int plen, __u64 flags) = (void *)152;
static __u64 (*ktime_get_coarse_ns)(void) = (void *)160;
