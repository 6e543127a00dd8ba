package dispatcher

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"sync"

	"example.org/mediaproxy/internal/hangup"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// finished is one thing the finisher of a link does, in the order of arrival.
type finished struct {
	session report.Session
	cancels bool // the end of an allocation that was taken back
	pong    bool // no session: answer a ping of an old relay
}

// maxFinishQueue bounds what waits for the Finished hook of one link/2 relay,
// which repeats what is dropped here. What an old relay says is never dropped.
const maxFinishQueue = 50_000

// finishQueue keeps the Finished hook away from the goroutine that reads the
// link: answers must not wait for a disk.
type finishQueue struct {
	mu    sync.Mutex // guards what follows
	ready *sync.Cond
	items []finished
	ended bool
}

func (q *finishQueue) init() { q.ready = sync.NewCond(&q.mu) }

func (q *finishQueue) add(f finished, droppable bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || droppable && len(q.items) >= maxFinishQueue {
		return false
	}
	q.items = append(q.items, f)
	q.ready.Signal()
	return true
}

// end lets the finisher stop once it has worked everything off.
func (q *finishQueue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.ready.Broadcast()
}

// next takes so many of what waits, at least one. None: it has ended.
func (q *finishQueue) next(most int) []finished {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.ended {
		q.ready.Wait()
	}
	n := min(most, len(q.items))
	list := q.items[:n:n]
	if q.items = q.items[n:]; len(q.items) == 0 {
		q.items = nil // let go of what a burst needed
	}
	return list
}

// finishTogether is how many finished calls of a relay are handed over at once: while the
// disk keeps one, the next ones are on their way.
const finishTogether = 32

// finishLoop hands finished calls over, acknowledges them, and answers pings of
// old relays after all that came before them.
func (l *link) finishLoop() {
	for {
		list := l.finish.next(finishTogether)
		if len(list) == 0 {
			return
		}
		var group sync.WaitGroup
		for _, f := range list {
			if f.pong {
				group.Wait()
				l.write(relaylink.AppendPong(nil))
				continue
			}
			group.Go(func() { l.d.handOver(l, f) })
		}
		group.Wait()
		clear(list) // the queue may keep the array for a while
	}
}

// handOver gives one record to the Finished hook and acknowledges it. The record
// is claimed.
func (d *Dispatcher) handOver(l *link, f finished) {
	id := f.session.RecordID
	if f.cancels && f.session.StartTime == nil {
		d.records.done(id) // never was a call
	} else if err := d.callFinished(f.session); err != nil {
		d.count.finishErrors.Add(1)
		d.log.Error("finished call was not taken over, it will be tried again",
			"call_id", f.session.CallID, "record", id, "relay", l.relay.name, "error", err)
		if l.plain { // says it only once
			d.keepUntaken(f.session)
		}
		d.records.release(id)
		return
	} else {
		d.records.done(id)
		d.over(f.session)
	}
	l.ack(id)
}

// over notes a finished call that was taken over, however it ended.
func (d *Dispatcher) over(s report.Session) {
	d.count.finished.Add(1)
	d.log.Info("call over", "call_id", s.CallID, "reason", s.Reason, "duration", s.Duration, "streams", len(s.Streams),
		"relay", s.Relay, "record", s.RecordID)
}

// callFinished turns a panic of the hook into an error.
func (d *Dispatcher) callFinished(s report.Session) (err error) {
	defer d.recovered("finished call", s.CallID, &err)
	return d.cfg.Finished(s)
}

func (l *link) ack(id string) {
	if !l.plain {
		l.write(relaylink.AppendAck(nil, id))
	}
}

// expiredLine handles a relay's report that a call is over.
func (l *link) expiredLine(body []byte) {
	var s report.Session
	if err := json.Unmarshal(body, &s); err != nil {
		l.log.Error("report of an expired call cannot be read", "error", err, "report", clip(body))
		return
	}
	l.expired(s)
}

// expired takes note of a finished call that its relay reported and queues it
// for the Finished hook.
func (l *link) expired(s report.Session) {
	d := l.d
	if s.RecordID == "" {
		s.RecordID = newRecordID()
	}
	d.owed.reported(s.RecordID)
	switch d.records.claim(s.RecordID) {
	case recordDone:
		d.count.finishedAgain.Add(1)
		l.ack(s.RecordID)
		return
	case recordBusy:
		return // the relay repeats it until somebody has it
	}
	if s.Reason == "" {
		s.Reason = expiryReason(s)
	}
	s.Relay = l.relay.name
	if !d.calls.expire(&s, l.relay, d.cfg.Now(), awaitsRemove) {
		l.log.Debug("report of a call that is not known, or no longer", "call_id", s.CallID, "record", s.RecordID)
	}
	l.queue(finished{session: s})
	d.hangUp(s)
}

// hangUp has the SIP proxy end the dialog of a call that ended without it. One that was
// not answered yet is left to its parties: ringing may last, and proxies cannot end it.
func (d *Dispatcher) hangUp(s report.Session) {
	if d.cfg.Hangup == nil || !awaitsRemove(s) || s.ToTag == nil || *s.ToTag == "" || d.hungUp.claim(s.RecordID) != recordNew {
		return
	}
	d.hungUp.done(s.RecordID)
	d.cfg.Hangup.End(hangup.Dialog{CallID: s.CallID, FromTag: s.FromTag, ToTag: *s.ToTag, ID: s.DialogID})
}

func (l *link) queue(f finished) {
	if !l.finish.add(f, !l.plain) {
		l.d.records.release(f.session.RecordID)
	}
}

// awaitsRemove says whether the SIP proxy will still send a remove: it tracks the
// dialog, and the call ended without it.
func awaitsRemove(s report.Session) bool {
	return s.DialogID != "" && s.StartTime != nil && s.Reason != report.ReasonUnused && s.Reason != report.ReasonRemoved
}

// removedDoc queues the record in a relay's answer to remove. It is an error if
// there is none.
func (l *link) removedDoc(body []byte, reason, dialogID string, cancels bool) error {
	var s report.Session
	if err := json.Unmarshal(body, &s); err != nil {
		return err
	}
	if s.RecordID == "" {
		s.RecordID = newRecordID()
	}
	if s.Reason == "" {
		s.Reason = reason
	}
	if s.DialogID == "" {
		s.DialogID = dialogID
	}
	s.Relay = l.relay.name
	l.d.owed.reported(s.RecordID)
	if l.d.records.claim(s.RecordID) == recordNew {
		l.queue(finished{session: s, cancels: cancels})
	}
	return nil
}

func newRecordID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func clip(b []byte) string {
	const enough = 200
	if len(b) > enough {
		b = b[:enough]
	}
	return string(b)
}

// recordState is what is known of a record id.
type recordState uint8

const (
	recordNew recordState = iota
	recordBusy
	recordDone
)

// keptRecords is how many ids are remembered at least. A relay repeats a record
// at most until its first acknowledgement arrives, so this is hours of calls.
const keptRecords = 1 << 16

// records remembers which finished calls were handed over, in two generations,
// so that its memory is bounded.
type records struct {
	keep int // set when made: ids in a generation

	mu           sync.Mutex // guards what follows
	busy         map[string]struct{}
	young, older map[string]struct{}
}

func newRecords(keep int) *records {
	return &records{keep: keep, busy: map[string]struct{}{}, young: map[string]struct{}{}, older: map[string]struct{}{}}
}

// claim makes the caller the one who hands the record over, if it gets recordNew.
// It must then call done or release.
func (r *records) claim(id string) recordState {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.busy[id]; ok {
		return recordBusy
	}
	_, young := r.young[id]
	_, older := r.older[id]
	if young || older {
		return recordDone
	}
	r.busy[id] = struct{}{}
	return recordNew
}

func (r *records) release(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, id)
}

func (r *records) done(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, id)
	r.young[id] = struct{}{}
	if len(r.young) >= r.keep {
		r.older, r.young = r.young, map[string]struct{}{}
	}
}
