package relay

import (
	"container/list"
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
)

// record is a finished call that no dispatcher has acknowledged yet.
type record struct {
	report report.Session
	owner  string    // dispatcher that created the call
	added  time.Time // when the call ended
	sentOn *conn     // last connection that carried it; nil: none that still lives
	sentAt time.Time
}

// records keeps finished calls until they are acknowledged, oldest first. It
// is bounded: a relay whose dispatchers stay away for days must not grow
// until it takes its calls down with it.
type records struct {
	// set in newRecords, read-only afterwards
	limit  int
	repeat time.Duration // an unanswered report is sent again after this

	mu      sync.Mutex // guards what follows
	order   list.List  // of *record
	byID    map[string]*list.Element
	carried map[*conn]int // unacknowledged records by the live connection that carries them
	dropped uint64
}

func newRecords(limit int, repeat time.Duration) *records {
	return &records{limit: limit, repeat: repeat, byID: make(map[string]*list.Element), carried: make(map[*conn]int)}
}

// add stores a finished call. sentOn is the connection that already carries it
// as the answer to `remove`, or nil. When the bound is passed the oldest
// record is dropped and returned, for the log.
func (p *records) add(doc report.Session, owner string, sentOn *conn, now time.Time) (dropped *record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.byID[doc.RecordID]; known {
		return nil
	}
	r := &record{report: doc, owner: owner, added: now, sentAt: now}
	p.sendLocked(r, sentOn)
	p.byID[doc.RecordID] = p.order.PushBack(r)
	if p.order.Len() <= p.limit {
		return nil
	}
	p.dropped++
	return p.removeLocked(p.order.Front())
}

// ack forgets a record. It reports whether the record was known, and how many
// its connection still carries.
func (p *records) ack(id string) (known bool, left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, known := p.byID[id]
	if !known {
		return false, 0
	}
	r := p.removeLocked(e)
	return true, p.carried[r.sentOn]
}

func (p *records) removeLocked(e *list.Element) *record {
	r := p.order.Remove(e).(*record)
	if n := p.carried[r.sentOn]; n > 0 {
		p.carried[r.sentOn] = n - 1
	}
	delete(p.byID, r.report.RecordID)
	return r
}

// attach lets c carry records; lost ends that.
func (p *records) attach(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.carried[c] = 0
}

// lost makes everything that c carried due again.
func (p *records) lost(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.carried, c)
	for e := p.order.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*record); r.sentOn == c {
			r.sentOn = nil
		}
	}
}

// take returns the records that are due on c and marks them as sent there: new
// ones as long as c carries fewer than window, and, if again is set, those
// that c itself carried long enough ago. eligible says whether c may carry a
// record at all.
func (p *records) take(c *conn, now time.Time, window int, again bool, eligible func(*record) bool) []report.Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var due []report.Session
	for e := p.order.Front(); e != nil; e = e.Next() {
		r := e.Value.(*record)
		if r.sentOn != nil && now.Sub(r.sentAt) < p.repeat || r.sentOn == c && !again || !eligible(r) {
			continue
		}
		if r.sentOn != c {
			if n, attached := p.carried[c]; !attached || n >= window {
				break
			}
			p.sendLocked(r, c)
		}
		r.sentAt = now
		due = append(due, r.report)
	}
	return due
}

// sendLocked moves a record to the connection that carries it from now on.
func (p *records) sendLocked(r *record, c *conn) {
	if n := p.carried[r.sentOn]; n > 0 {
		p.carried[r.sentOn] = n - 1
	}
	r.sentOn = nil
	if n, attached := p.carried[c]; attached {
		p.carried[c] = n + 1
		r.sentOn = c
	}
}

// ownedBy reports whether any record waits for an owner that match accepts.
func (p *records) ownedBy(match func(owner string) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.order.Front(); e != nil; e = e.Next() {
		if match(e.Value.(*record).owner) {
			return true
		}
	}
	return false
}

func (p *records) counts() (waiting int, dropped uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.order.Len(), p.dropped
}
