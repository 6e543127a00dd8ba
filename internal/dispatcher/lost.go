package dispatcher

import (
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
)

// reportGrace is how long a relay that is not connected, or just came back, may take to
// report a call that is over, before a partial record stands in for its report.
const reportGrace = 30 * time.Second

// lostRecord is what can be said of a call without its relay.
type lostRecord struct {
	account
	callID, fromTag, toTag, dialogID string
	relay                            string
	end                              time.Time
}

func (c *callState) lostRecordLocked() lostRecord {
	r := lostRecord{account: c.account, callID: c.id, fromTag: c.fromTag, toTag: c.toTag, dialogID: c.dialogID}
	if c.relay != nil {
		r.relay = c.relay.name
	}
	return r
}

// session is the partial record: without streams, because only the relay counted.
func (r lostRecord) session() report.Session {
	start := float64(r.start.UnixMicro()) / 1e6
	s := report.Session{
		CallID: report.Text(r.callID), FromTag: report.Text(r.fromTag), FromURI: report.Text(r.fromURI), ToURI: report.Text(r.toURI),
		StartTime: &start, Duration: int64(max(r.end.Sub(r.start), 0) / time.Second), CallerUA: report.Unknown, CalleeUA: report.Unknown,
		Streams: []report.Stream{}, RecordID: r.record, Reason: report.ReasonRelayLost, Partial: true,
		DialogID: report.Text(r.dialogID), Relay: r.relay,
	}
	if r.toTag != "" {
		tag := report.Text(r.toTag)
		s.ToTag = &tag
	}
	if r.username != "" {
		name := report.Text(r.username)
		s.Username = &name
	}
	return s
}

// owed are the calls that are over, and whose relays have not reported them.
type owed struct {
	mu       sync.Mutex // guards what follows
	byRecord map[string]owedRecord
}

type owedRecord struct {
	lostRecord
	due time.Time
}

// owe notes a call that ended then, as far as is known, on a relay that is lost. One that
// nobody answered has no record.
func (d *Dispatcher) owe(r lostRecord, end time.Time) {
	if r.start.IsZero() {
		return
	}
	if r.record == "" {
		r.record = newRecordID()
	}
	r.end = end
	d.owed.mu.Lock()
	defer d.owed.mu.Unlock()
	if _, noted := d.owed.byRecord[r.record]; !noted {
		d.owed.byRecord[r.record] = owedRecord{r, d.cfg.Now().Add(reportGrace)}
	}
}

// reported notes that a relay has reported a call after all.
func (o *owed) reported(record string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byRecord, record)
}

// payOwed hands partial records over whose time has come.
func (d *Dispatcher) payOwed(now time.Time) {
	d.owed.mu.Lock()
	var due []owedRecord
	for record, o := range d.owed.byRecord {
		if !now.Before(o.due) {
			delete(d.owed.byRecord, record)
			due = append(due, o)
		}
	}
	d.owed.mu.Unlock()
	for i, o := range due {
		s := o.session()
		if err := d.callFinished(s); err != nil {
			d.count.finishErrors.Add(1)
			d.log.Error("partial record of a call was not taken over, it will be tried again", "call_id", s.CallID, "record", s.RecordID, "error", err)
			d.owed.mu.Lock()
			defer d.owed.mu.Unlock()
			for _, later := range due[i:] {
				d.owed.byRecord[later.record] = later
			}
			return
		}
		d.count.finished.Add(1)
		d.count.partial.Add(1)
		d.log.Warn("call accounted without its relay, which has not reported it", "call_id", s.CallID, "relay", s.Relay, "record", s.RecordID, "duration", s.Duration)
	}
}

// lastSeen is when the relay was connected last.
func (r *relayState) lastSeen(g *registry) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return r.lostAt
}
