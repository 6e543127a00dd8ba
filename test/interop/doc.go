// Package interop holds this program to the protocol of the original, byte for byte and
// over real sockets, with a peer made of text on the other side of each: an old relay
// on our dispatcher, an old dispatcher on our relay, the module of a SIP proxy, and a
// program that reads the management port.
package interop
