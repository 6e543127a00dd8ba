// SPDX-License-Identifier: Apache-2.0
//
// The flow table as kernel and user space see it. The Go side of the same layout
// is ../record.go; a test compares the two. A change of anything here is another
// version of the table: see table_version.
#pragma once
#include "kernel.h"

enum { table_version = 1 };

// What a port is. Whoever is neither open nor decided gets no service.
enum {
	port_off = 0,	  // the host's own stack has it
	port_open = 1,	  // user space decides about each datagram
	port_decided = 2, // datagrams of one source are moved here
	port_resting = 3, // late datagrams of a former call: dropped without a word
};

// flow is the entry of a local UDP port. Its first line is written by user space
// before state becomes port_decided, the second by whoever moves a datagram.
struct flow {
	__u32 state;
	__u16 generation; // grows with every change of the first line
	__u8 family;	  // 4 or 6, of the port
	__u8 out_family;
	__u32 source[4]; // the only sender that may use the port; IPv4 in the first word
	__u32 dest[4];
	__u16 source_port; // network byte order, as the three others
	__u16 dest_port;
	__u16 out_port;	   // the relay's port that dest hears it from
	__u16 hop;	   // index into hops
	__u32 addr_change; // what the new addresses add to a checksum
	__u32 port_change; // what the new ports add
	__u8 out_slot;	   // index into globals.locals
	__u8 reserved[7];

	__u64 packets;
	__u64 bytes;	   // with IP and UDP headers
	__u64 last_seen;   // any accepted datagram; nanoseconds of CLOCK_MONOTONIC, 0: never
	__u64 last_media;  // other than STUN and DTLS
	__u64 refused;	   // from elsewhere than source
	__u64 first_media; // of the first accepted media
	__u32 ssrc;
	__u16 sequence; // of the newest RTP packet
	__u8 has_rtp;
	__u8 reserved2;
	__s32 lost; // packets missing, over all SSRCs
	__u32 reserved3;
};

// side is what few packets need: one of eight looks at jitter and payload type.
struct side {
	__u64 prev_arrival;
	__u32 prev_stamp;
	__u32 unit;   // nanoseconds in a unit of the RTP timestamp, times 256; 0: unknown
	__u32 jitter; // nanoseconds
	__u16 prev_sequence;
	__u8 unit_type; // payload type that unit is for
	__u8 armed;	// prev_ is of the packet before
	__u64 types[4]; // payload types seen most often: type << 32 | times
	__u64 unsent;	// accepted, but there was nowhere to send it
	__u32 known[3][4];    // the party's addresses: learned, of its SDP, of its signalling
	__u64 next_stranger; // when one more datagram from elsewhere may go up to user space
	__u64 next_known;    // the same for the known addresses
};

// hop is how to reach a next router or host.
struct hop {
	__u32 ifindex; // 0: unused
	__u16 mtu;
	__u8 ready; // the link-layer addresses are confirmed
	__u8 family;
	__u8 dmac[6] __attribute__((aligned(8))); // read in one piece
	__u8 smac[6];
	__u32 gateway[4]; // whose dmac it is; zero: the destination itself, resolved by the kernel
	__u8 reserved[12];
};

struct local {
	__u32 addr[4];
	__u32 family; // 4 or 6; 0: unused
	__u32 reserved[3];
};

enum { max_locals = 8, max_hops = 4096, ports = 65536, max_sockets = 1024, cpus_per_slot = 128 };

struct globals {
	__u32 version;
	__u32 locals_used;
	__u64 heartbeat; // when the relay was last alive; nanoseconds of CLOCK_MONOTONIC
	__u64 lease;	 // flows end when the relay was silent for so long
	__u64 stranger_gap; // between datagrams of strangers that go up, of one port
	__u64 known_gap;
	__u64 crowd_gap; // the same for strangers at decided ports, of all ports and each processor
	__u64 reserved[2];
	struct local locals[max_locals];
};

// counts of one processor, over all ports
struct counts {
	__u64 packets; // moved
	__u64 bytes;
	__u64 refused;	// dropped here: from elsewhere than the party, too many to look at
	__u64 resting;	// dropped here: for a port that rests
	__u64 raised;	// passed up to user space
	__u64 orphaned; // not moved because the lease is over
	__u64 neigh;	// of packets: with the kernel's own search for the next hop
	__u64 next_stranger; // when one more stranger may go up from a decided port here; no count
};
