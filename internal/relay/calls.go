package relay

import (
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/session"
	"example.org/mediaproxy/internal/wire/control"
)

// Calls is the table of calls as the relay uses it. *session.Table is one.
type Calls interface {
	// Update applies one message and answers with ports, or with an error that
	// wraps session.ErrUnknown when there is no call and none may be created.
	// before is the call as it was, with the owner that it had.
	Update(u control.Update, owner string, mayCreate bool) (answer control.Answer, before session.Call, err error)
	Remove(r control.Remove) (session.Finished, error)
	Terminate(callID, fromTag string) []session.Finished // fromTag "": all of that Call-ID
	Sweep() []session.Finished                           // once a second: what timed out
	EndAll(reason string) []session.Finished
	Len() int
	Sessions() []report.Session
	// Page gives each the documents of at most limit calls, in the order of their
	// creation, and returns where the next call goes on; 0: there are no more.
	Page(after uint64, limit int, each func(*report.Session)) (next uint64)
	Session(callID, fromTag string) []report.Session
	Explain(callID, fromTag string) []report.Explanation
	Calls() []session.Call
	StreamCount() map[string]int // live streams by media type
	OneWay() int                 // streams in which one party is not heard

	// Flush keeps for the next process what packets have changed; all: every call.
	Flush(all bool)
	// Acknowledged says that a finished call need not be reported by the next process.
	Acknowledged(recordID string)
}

var _ Calls = (*session.Table)(nil)

// Media is what the relay wants to know of the engine that moves the packets.
// *media.Engine is one.
type Media interface {
	BytesRelayed() uint64
	PortsFree() int
	Capacity() int
	Moved() report.Moved
}
