// Package scenario plays the twelve test scenarios of the original MediaProxy against
// this program. Its test scripts took the part of the SIP proxy: they spoke to the
// dispatcher's socket and had two phones send random bytes through the relay. The calls
// here have the same headers in the same order, the same ports and the same course; a
// run with signaling_ip, which the scripts never sent, comes beside them. What the
// scripts waited for takes a moment here: the clock is the test's.
//
// The scripts left it to their reader to look for an accounting record and for the end
// of the dialog. Here the finished call that comes out of the dispatcher stands for the
// first, and its reason for the second: only a call that timed out is to be hung up.
package scenario
