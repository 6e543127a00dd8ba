package relay

import (
	"errors"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

// placeholders until session and report land
type Finished struct {
	Owner  string
	Report report.Session
}
type Call struct{ CallID, FromTag, ToTag, DialogID, Owner string }
type Explanation struct{}

var errUnknownSession = errors.New("unknown session")

// Calls is the table of calls as the relay uses it. *session.Table is one.
type Calls interface {
	Update(u control.Update, owner string, mayCreate bool) (control.Answer, error)
	Remove(r control.Remove) (report.Session, error)
	Terminate(callID, fromTag string) []Finished
	Sweep() []Finished
	EndAll(reason string) []Finished
	Len() int
	Sessions() []report.Session
	Session(callID, fromTag string) []report.Session
	Explain(callID, fromTag string) []Explanation
	Calls() []Call
	StreamCount() map[string]int
}

// Media is what the relay wants to know of the engine that moves the packets.
// *media.Engine is one.
type Media interface {
	BytesRelayed() uint64
	PortsFree() int
	Capacity() int
	Mover() string
}
