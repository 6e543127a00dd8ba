// Package chain has calls pass two relays, each with a dispatcher and a SIP proxy of
// its own, as between two providers; and it ties relays into loops, which have to end.
package chain
