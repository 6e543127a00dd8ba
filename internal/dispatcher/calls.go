package dispatcher

import (
	"strings"
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

// callState is what the dispatcher remembers of one call. The relay that
// carries the call is the truth about it; this is a cache of where to ask.
// Call-ID and tags are kept as they came; they are compared as report.Text,
// the form in which relays write them into documents.
type callState struct {
	// set when made, read-only afterwards
	id      string
	fromTag string

	// guarded by callTable.mu
	next     *callState // same Call-ID, other tags
	after    *callState // the neighbours among the calls of its relay
	before   *callState
	toTag    string // the latest seen
	dialogID string
	relay    *relayState   // nil only while the first placement runs
	link     *link         // connection on which the relay confirmed it last; nil: not yet
	unsure   bool          // its end need not be told to us: verified by cleanup
	gone     bool          // no longer in the table
	noted    string        // name of the relay that the shared map has; empty: it has none of ours
	hungUp   bool          // removed while its relay was away: to be taken back there
	expired  time.Time     // when the relay gave it up and the proxy's remove is awaited; zero: alive
	placing  chan struct{} // closed when the placement that runs ends
	removing *removal      // the remove that runs
	account
}

// account is what the record of a call needs whose relay is lost.
type account struct {
	record                   string    // id of the report that its relay will send; empty: not known
	start                    time.Time // first answer; zero: none
	fromURI, toURI, username string
}

// removal is a remove in progress. Others for the same call wait for it.
type removal struct {
	done  chan struct{} // closed after reply is set
	reply string
}

// callTable is the memory of calls.
type callTable struct {
	shared Map // set when made; nil: none

	mu   sync.Mutex // guards what follows, and the calls; held for look-ups only
	byID map[string]*callState

	// While relays list their calls, those that end are noted: a list that was
	// written before must not bring them back.
	listing int
	ended   map[[2]string]struct{}
}

func newCallTable(shared Map) *callTable {
	return &callTable{shared: shared, byID: map[string]*callState{}, ended: map[[2]string]struct{}{}}
}

// beginListing and endListing enclose the use of a relay's list.
func (t *callTable) beginListing() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listing++
}

func (t *callTable) endListing() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listing--; t.listing == 0 {
		clear(t.ended)
	}
}

// nameOf is what identifies a call in relays' documents.
func nameOf(id, fromTag string) [2]string { return [2]string{report.Text(id), report.Text(fromTag)} }

func (t *callTable) noteEndLocked(id, fromTag string) {
	if t.listing > 0 {
		t.ended[nameOf(id, fromTag)] = struct{}{}
	}
}

// findLocked finds the call that a message with these tags belongs to. Messages
// of the callee have the tags swapped, and a remove may miss either.
func (t *callTable) findLocked(id, from, to string) *callState {
	id, from, to = report.Text(id), report.Text(from), report.Text(to)
	head := t.byID[id]
	for c := head; c != nil; c = c.next {
		if from != "" && report.Text(c.fromTag) == from {
			return c
		}
	}
	for c := head; c != nil; c = c.next {
		if to != "" && report.Text(c.fromTag) == to || to == "" && from != "" && report.Text(c.toTag) == from {
			return c
		}
	}
	if head != nil && head.next == nil && (from == "" || head.fromTag == "") {
		return head
	}
	return nil
}

// exactLocked finds a call by its own From tag, as relays name it.
func (t *callTable) exactLocked(id, from string) *callState {
	for c := t.byID[report.Text(id)]; c != nil; c = c.next {
		if report.Text(c.fromTag) == report.Text(from) {
			return c
		}
	}
	return nil
}

func (t *callTable) addLocked(c *callState) {
	id := report.Text(c.id)
	c.next = t.byID[id]
	t.byID[id] = c
}

// deleteLocked forgets a call; it may be gone already.
func (t *callTable) deleteLocked(c *callState) bool {
	id := report.Text(c.id)
	var before *callState
	for at := t.byID[id]; at != nil; before, at = at, at.next {
		if at != c {
			continue
		}
		switch {
		case before != nil:
			before.next = c.next
		case c.next != nil:
			t.byID[id] = c.next
		default:
			delete(t.byID, id)
		}
		c.gone = true
		if c.noted != "" {
			t.shared.Delete(c.id)
		}
		t.noteEndLocked(c.id, c.fromTag)
		c.setRelayLocked(nil)
		return true
	}
	return false
}

func (t *callTable) delete(c *callState) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deleteLocked(c)
}

// abandon forgets a call whose relay did not report it. ok: one has to be made up for it.
func (t *callTable) abandon(c *callState) (left lostRecord, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left = c.lostRecordLocked()
	return left, t.deleteLocked(c) && c.expired.IsZero()
}

// setRelayLocked attributes the call to a relay and keeps the relays' counts and lists.
func (c *callState) setRelayLocked(r *relayState) {
	if c.relay == r {
		return
	}
	if c.relay != nil {
		c.relay.calls.Add(-1)
		if c.before != nil {
			c.before.after = c.after
		} else {
			c.relay.first = c.after
		}
		if c.after != nil {
			c.after.before = c.before
		}
		c.before, c.after = nil, nil
	}
	if c.relay = r; r == nil {
		return
	}
	r.calls.Add(1)
	if c.after = r.first; c.after != nil {
		c.after.before = c
	}
	r.first = c
}

// of returns the calls of a relay for which want is true. When hundreds of relays come
// back at once each looks at its own calls only.
func (t *callTable) of(r *relayState, want func(*callState) bool) []*callState {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*callState
	for c := r.first; c != nil; c = c.after {
		if want(c) {
			list = append(list, c)
		}
	}
	return list
}

// confirm notes that the relay of this link has served an update of the call.
func (t *callTable) confirm(c *callState, l *link, u control.Update, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.gone { // removed or expired while its update was on the way
		return
	}
	c.setRelayLocked(l.relay)
	c.link, c.unsure = l, l.plain
	t.noteLocked(c)
	if u.ToTag != "" && u.ToTag != c.fromTag {
		keep(&c.toTag, u.ToTag)
	}
	if u.DialogID != "" {
		keep(&c.dialogID, u.DialogID)
	}
	if u.RecordID != "" {
		c.record = u.RecordID
	}
	if c.start.IsZero() && u.Kind == control.KindReply && u.HasMedia {
		c.start = now
	}
}

// noteLocked tells the other dispatchers where a call is. Those on old relays, which cannot
// be asked for one call, are of no use to them.
func (t *callTable) noteLocked(c *callState) {
	if name := c.relay.name; t.shared != nil && !c.relay.plain && c.noted != name {
		c.noted = name
		t.shared.Put(c.id, []byte(name))
	}
}

// keep notes a part of a request without keeping the request.
func keep(to *string, part string) {
	if *to != part {
		*to = strings.Clone(part)
	}
}

// expire takes note of a finished call that its relay reported. keep leaves it
// for the proxy's remove. It fills in the dialog id, which only we may know.
func (t *callTable) expire(s *report.Session, r *relayState, now time.Time, keep func(report.Session) bool) (known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteEndLocked(s.CallID, s.FromTag)
	c := t.exactLocked(s.CallID, s.FromTag)
	if c == nil || c.relay != r || !c.expired.IsZero() {
		return false
	}
	if s.DialogID == "" {
		s.DialogID = c.dialogID
	}
	if !keep(*s) {
		t.deleteLocked(c)
		return true
	}
	c.expired = now
	return true
}

// snapshot returns the calls for which want is true. It holds the lock while
// asking, so want must be quick.
func (t *callTable) snapshot(want func(*callState) bool) []*callState {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*callState
	for _, head := range t.byID {
		for c := head; c != nil; c = c.next {
			if want(c) {
				list = append(list, c)
			}
		}
	}
	return list
}

// counts returns how many calls are alive, and how many of them are lost.
func (t *callTable) counts() (alive, lost int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, head := range t.byID {
		for c := head; c != nil; c = c.next {
			if !c.expired.IsZero() {
				continue
			}
			alive++
			if c.lostLocked() {
				lost++
			}
		}
	}
	return alive, lost
}

// lostLocked says whether the call is alive for all we know while its relay is
// not connected.
func (c *callState) lostLocked() bool {
	return c.expired.IsZero() && !c.hungUp && c.relay != nil && !c.relay.isUp()
}
