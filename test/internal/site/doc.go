// Package site runs dispatchers and relays inside the process of a test, put together
// as the program does it: a UNIX socket for the module, TLS with certificates of their
// own between dispatcher and relay, real UDP ports on loopback. Only the clock is the
// test's, so that hours of silence take a moment.
//
//	Line ──UNIX──▶ Dispatcher ◀──TLS── Relay ◀──UDP──▶ Phone
//	                   │ Finished hook        └─ Clock
//	                   ▼
//	                Records
//
// Every site may use addresses of its own in 127/8, so tests with well-known port
// numbers run beside each other.
package site
