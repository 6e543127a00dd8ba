package dispatcher

import (
	"strings"
	"time"

	"example.org/mediaproxy/internal/wire/control"
)

// entry is what an update found in the table of calls.
type entry struct {
	*callState
	relay *relayState   // of a known call
	busy  chan struct{} // ours to close for a new call, else to wait for
	left  lostRecord    // on the relay that it moves away from
}

// enterState says what an update has to do next.
type enterState uint8

const (
	callUnknown enterState = iota // look for it elsewhere first
	callNone                      // not known, and this message cannot make it
	callBusy                      // another message places it now
	callNew                       // ours to place
	callKnown                     // on a relay
)

// enter finds the call of an update, or makes it. A new call is claimed: until
// placed is called, other messages of it wait.
func (t *callTable) enter(u control.Update, mayMake bool) (entry, enterState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.findLocked(u.CallID, u.FromTag, u.ToTag)
	switch {
	case c != nil && c.placing != nil:
		return entry{callState: c, busy: c.placing}, callBusy
	case c != nil && c.removing != nil:
		return entry{callState: c, busy: c.removing.done}, callBusy
	case c != nil && c.expired.IsZero() && !c.hungUp:
		return entry{callState: c, relay: c.relay}, callKnown
	case !mayMake:
		return entry{}, callUnknown
	case !u.HasMedia:
		return entry{}, callNone
	}
	if c != nil { // expired, and now begun anew
		t.deleteLocked(c)
	}
	// Copies: the update's strings are parts of the whole request, which they would keep.
	c = &callState{id: strings.Clone(u.CallID), fromTag: strings.Clone(u.FromTag), placing: make(chan struct{}),
		account: account{fromURI: strings.Clone(u.FromURI), toURI: strings.Clone(u.ToURI), username: strings.Clone(u.Signaling.Username)}}
	t.addLocked(c)
	return entry{callState: c, busy: c.placing}, callNew
}

// move claims a known call whose relay is gone, to be placed anew. What it leaves behind
// there is e.left.
func (t *callTable) move(e *entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := e.callState
	if c.placing != nil || c.removing != nil || c.relay != e.relay {
		return false
	}
	c.placing = make(chan struct{})
	e.busy, e.left = c.placing, c.lostRecordLocked()
	c.start = time.Time{} // on the next relay it begins anew
	return true
}

// placed ends a claim. A new call that no relay took is forgotten; one that was
// to be moved stays with the relay it had.
func (t *callTable) placed(e entry, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, busy := e.callState, e.busy
	c.placing = nil
	switch {
	case !ok && c.relay == nil:
		t.deleteLocked(c)
	case !ok:
		c.start = e.left.start
	}
	close(busy)
}
