package dispatcher

import (
	"sync"

	"example.org/mediaproxy/internal/report"
)

// maxUntaken bounds what is kept for old relays while nobody takes it: a
// typical document is one kilobyte.
const maxUntaken = 50_000

// untaken are finished calls of old relays that the Finished hook refused. Their
// relays have forgotten them; relays that speak link/2 repeat theirs.
type untaken struct {
	mu       sync.Mutex // guards what follows
	sessions []report.Session
}

func (d *Dispatcher) keepUntaken(s report.Session) {
	u := &d.untaken
	u.mu.Lock()
	full := len(u.sessions) >= maxUntaken
	if !full {
		u.sessions = append(u.sessions, s)
	}
	u.mu.Unlock()
	if full {
		d.log.Error("finished call lost: too many wait to be taken over", "call_id", s.CallID, "record", s.RecordID)
	}
}

// retryFinished hands them over again, until the first that fails.
func (d *Dispatcher) retryFinished() {
	u := &d.untaken
	u.mu.Lock()
	list := u.sessions
	u.sessions = nil
	u.mu.Unlock()
	for i, s := range list {
		if err := d.callFinished(s); err != nil {
			d.count.finishErrors.Add(1)
			u.mu.Lock()
			u.sessions = append(list[i:len(list):len(list)], u.sessions...)
			u.mu.Unlock()
			d.log.Error("finished calls are still not taken over", "calls", len(list)-i, "error", err)
			return
		}
		d.over(s)
	}
}
