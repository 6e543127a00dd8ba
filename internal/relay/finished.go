package relay

import (
	"log/slog"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/session"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// place is what deliver needs to know of one link.
type place struct {
	conn  *conn // nil: away
	addr  string
	name  string
	since time.Time // of being connected, or away
}

// finished stores calls that ended and makes their reports due.
func (r *Relay) finished(list []session.Finished) {
	for _, f := range list {
		r.keep(r.named(f.Report), f.Owner, nil)
	}
	if len(list) > 0 {
		r.dirty.Store(true)
	}
}

// keep stores one finished call until a dispatcher has it.
func (r *Relay) keep(doc report.Session, owner string, sentOn *conn) {
	r.count.ended.Add(1)
	dropped := r.records.add(doc, owner, sentOn, r.cfg.Now())
	if dropped != nil {
		r.calls.Acknowledged(dropped.report.RecordID)
		r.complain(r.log, slog.LevelError, "the report of a finished call is lost: too many wait for a dispatcher",
			"call_id", dropped.report.CallID, "owner", dropped.owner, "limit", r.cfg.MaxRecords)
	}
}

// acknowledged forgets a finished call that a dispatcher has.
func (r *Relay) acknowledged(id string) (known bool, left int) {
	known, left = r.records.ack(id)
	if known {
		r.calls.Acknowledged(id)
		r.count.acknowledged.Add(1)
		if r.stopping.Load() {
			r.wake() // it waits for this
		}
	}
	return known, left
}

// deliverPending reports calls that ended since it last ran.
func (r *Relay) deliverPending() {
	if !r.dirty.Swap(false) {
		return
	}
	for _, c := range r.connections() {
		r.deliver(c)
	}
}

// deliver sends what is due on c. A finished call goes to the dispatcher that
// owns it. When that one has been away for a repeat interval (or we stop) any
// other on link/2 gets it; one of the original would not know the call and
// throw the report away.
func (r *Relay) deliver(c *conn) {
	now := r.cfg.Now()
	places := r.places()
	stopping := r.stopping.Load()
	eligible := func(rec *record) bool {
		awaySince := rec.added
		elsewhere := false
		for _, p := range places {
			switch {
			case rec.owner != p.addr && (p.name == "" || rec.owner != p.name):
			case p.conn == c:
				return true
			case p.conn != nil:
				elsewhere = true
			case p.since.After(awaySince):
				awaySince = p.since
			}
		}
		return !c.plain && !elsewhere && (stopping || now.Sub(awaySince) >= r.cfg.RepeatInterval)
	}
	limit := window
	if c.plain || stopping { // stopping: no time for rounds
		limit = plainWindow
	}
	if docs := r.records.take(c, now, limit, !c.plain, eligible); len(docs) > 0 {
		if err := c.send(docs); err != nil {
			c.log.Debug("reports of finished calls have to wait", "error", err)
		}
	}
}

// places lists the links as they are now.
func (r *Relay) places() []place {
	var out []place
	for _, l := range r.allLinks() {
		l.mu.Lock()
		out = append(out, place{conn: l.conn, addr: l.addr.String(), name: l.peer.Name, since: l.since})
		l.mu.Unlock()
	}
	return out
}

// named puts the relay's name into a document.
func (r *Relay) named(doc report.Session) report.Session {
	if doc.Relay == "" {
		doc.Relay = r.cfg.Name
	}
	return doc
}

// release tells the former owner of a call that another dispatcher serves it now, or has
// ended it: its memory of the call would never be set right by anything else.
func (r *Relay) release(before session.Call, by string) {
	if before.Owner == "" || before.Owner == by {
		return
	}
	for _, l := range r.allLinks() {
		if c := l.connected(); c != nil && !c.plain && l.owns(before.Owner) && !l.owns(by) && l.hears(relaylink.FeatureReleased) {
			c.released(before)
		}
	}
}

// released says on this connection that a call is no longer its dispatcher's.
func (c *conn) released(call session.Call) {
	body, err := report.Append(nil, relaylink.Call{CallID: report.Text(call.CallID), FromTag: report.Text(call.FromTag)})
	if err == nil {
		err = c.out.add(relaylink.AppendReleased(nil, body))
	}
	if err != nil { // the dispatcher compares its calls with ours when it is back
		c.log.Debug("the former dispatcher of a call does not know that it has another one", "call_id", call.CallID, "error", err)
		return
	}
	c.out.flush()
}

// owned counts the calls and unacknowledged records of the dispatcher behind a
// link that is no longer wanted.
func (r *Relay) owned(l *link) bool {
	for _, call := range r.calls.Calls() {
		if l.owns(call.Owner) {
			return true
		}
	}
	return l.connected() != nil && r.records.ownedBy(l.owns)
}
