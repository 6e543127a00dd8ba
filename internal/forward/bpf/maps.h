// SPDX-License-Identifier: Apache-2.0
//
// What the program shares with user space. The sizes that depend on the host are set by
// the loader.
#pragma once
#include "table.h"

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, ports); // times the local addresses, set by the loader
	__uint(map_flags, F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, ports);
	__uint(map_flags, F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct side);
} sides SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, max_hops);
	__uint(map_flags, F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct globals);
} globals SEC(".maps");

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} stats SEC(".maps");

// sockets of user space, by local address and processor
struct {
	__uint(type, MAP_SOCKMAP);
	__uint(max_entries, max_sockets);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");
