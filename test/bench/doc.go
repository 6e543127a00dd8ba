// Command bench measures the real program against bounds and peers:
//
//	commands per second      50 connections, through dispatcher, TLS link and relay;
//	                         peer: a server that only echoes
//	time of an update        p99 at 500 per second; peer: the same server
//	CPU for a relayed packet user-space loop; peer: rtpengine without kernel table
//	memory for a session     of the relay, and of the kernel for it
//	reading all statistics   p99 of relaying while it happens; peer: while it does not
//
// Machines differ and are shared, so a figure stands beside its peer of the same
// run, measured in turns; each is the median of its rounds. The table is all that
// is printed, the exit code 1 says that a bound failed.
//
//	go run ./test/bench             everything, about five minutes
//	go run ./test/bench -only cpu   one of: commands, latency, cpu, memory, stall
package main
