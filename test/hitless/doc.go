// Package hitless restarts the relay under calls whose packets are numbered: nothing
// that was established may be lost, however the process ends.
//
//	callers ──▶ one socket ── hub ── relay (and its dispatcher) ── hub ── one socket ◀── callees
//
// All callers share a socket and all callees another, so that what the phones cost
// stays small; a packet says in its payload to which call it belongs and its number.
package hitless
