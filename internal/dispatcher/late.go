package dispatcher

import "cmp"

// tookLate handles a relay's answer to a set-up that came when nobody waited for it any
// more: what it made is taken back, unless a message that came again has led the call there.
func (l *link) tookLate(callID, fromTag, record string) {
	defer l.d.recovered("late answer to update", callID, nil)
	c, here := l.d.calls.late(l, callID, fromTag, record)
	if here {
		return
	}
	l.d.count.cancelled.Add(1)
	l.log.Warn("relay took a call too late, taken back", "call_id", callID)
	l.takeBack(callID, fromTag, "")
	if c != nil {
		l.d.calls.placed(entry{callState: c, busy: c.placing}, false)
	}
}

// late says whether a call is on the relay that took it too late. If it is nowhere it is
// claimed: a message that comes again is not to reach the relay before it was taken back.
func (t *callTable) late(l *link, callID, fromTag, record string) (claimed *callState, here bool) {
	for {
		t.mu.Lock()
		c := t.exactLocked(callID, fromTag)
		switch {
		case c == nil:
			c = &callState{id: callID, fromTag: fromTag, placing: make(chan struct{})}
			t.addLocked(c)
			t.mu.Unlock()
			return c, false
		case c.placing == nil:
			if here = c.relay == l.relay; here {
				c.record = cmp.Or(record, c.record) // of the update that came first
			}
			t.mu.Unlock()
			return nil, here
		}
		placing := c.placing
		t.mu.Unlock()
		<-placing // ends by its deadline
	}
}
