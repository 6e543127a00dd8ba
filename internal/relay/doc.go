// Package relay is the part of a relay that talks: it keeps links to the
// dispatchers, turns their commands into calls of the session table, tells
// them what became of finished calls, and drains and stops in good order. It
// moves no packets and stores nothing on disk.
//
//	dispatchers setting ──▶ target ──look up──▶ choice ──▶ link ──dial──▶ conn
//	                                                                   │
//	          session table ◀── commands ◀── reader ◀─────────────────┤
//	                 │                                                 │
//	          finished calls ──▶ pending records ──▶ outbox ──▶ writer ┘
//
// What it promises:
//
//   - A finished call is reported until a dispatcher says that it has it: with
//     `ack` on link/2, and to a dispatcher of the original by the `pong` that
//     answers a `ping` sent behind the report. What is not acknowledged is
//     repeated on every new connection and every repeat interval.
//   - Losing a dispatcher, its name in the DNS, or all of them disturbs no
//     call. The last good answer of the resolver stays in use.
//   - A command that fails, even by a bug, answers `error` and touches nothing
//     but itself.
//
// Draining has two forms. HUP (Drain) refuses new calls and ends the process
// when the last call has ended, as the original does. The `drain` command
// refuses new calls too but stays up when idle, so that it can be cancelled
// and the relay used again; cancelling also undoes HUP.
package relay
