package dispatcher

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// listPage is how many calls are asked for at once: some 150 kB, so that the
// answers to set-ups never wait long behind a page.
const listPage = 1000

// resync compares what we remember of a relay's calls with what it has: calls
// it no longer has are dropped, calls we do not know are remembered. It runs
// when a relay connects, and again for relays that need not tell us how a call
// ended.
func (l *link) resync(again bool) {
	d := l.d
	defer d.recovered("comparing calls with a relay", "", nil)
	defer d.registry.synced(l) // also on failure: nobody shall wait for it
	d.calls.beginListing()
	defer d.calls.endListing()
	doubtful := d.calls.of(l.relay, func(c *callState) bool {
		return c.placing == nil && c.expired.IsZero() && (c.link != l || c.unsure)
	})
	calls, paged, err := l.listCalls()
	if err != nil {
		l.log.Warn("list of the relay's calls was not answered; what we remember of it stays", "error", err)
		return
	}
	has := make(map[[2]string]relaylink.Call, len(calls))
	for _, c := range calls {
		has[nameOf(c.CallID, c.FromTag)] = c
		l.adopt(c)
	}
	purged := 0
	for _, c := range doubtful {
		if listed, ok := has[nameOf(c.id, c.fromTag)]; ok {
			if l.foreign(listed) && d.calls.release(listed, l.relay) { // while we did not hear this relay
				d.count.released.Add(1)
			}
			continue
		}
		if paged && l.has(c) { // moved between pages while we turned them
			continue
		}
		if left, ok := d.calls.purge(c, l); ok {
			purged++
			d.owe(left, l.relay.lastSeen(d.registry))
			l.log.Warn("call dropped: its relay no longer has it", "call_id", c.id)
		}
	}
	d.count.purged.Add(uint64(purged))
	if !again || purged > 0 {
		l.log.Info("calls of the relay compared", "calls", len(calls), "dropped", purged)
	}
}

// purge drops a call unless it was confirmed on this link, or went elsewhere,
// in the meantime. left is what to account unless the relay reports it.
func (t *callTable) purge(c *callState, l *link) (left lostRecord, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.relay != l.relay || c.placing != nil || c.link == l && !c.unsure || !c.expired.IsZero() {
		return left, false
	}
	if !c.unsure { // else somebody else may have accounted it
		left = c.lostRecordLocked()
	}
	return left, t.deleteLocked(c)
}

// listCalls asks for all calls, on link/2 page by page.
func (l *link) listCalls() (calls []relaylink.Call, paged bool, err error) {
	if l.plain {
		calls, err = l.listPlain()
		return calls, false, err
	}
	for {
		body, err := l.query(relaylink.List, []control.Header{
			{Name: relaylink.HeaderLimit, Value: strconv.Itoa(listPage)},
			{Name: relaylink.HeaderOffset, Value: strconv.Itoa(len(calls))},
		})
		if err != nil {
			return nil, false, err
		}
		var page relaylink.CallList
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, false, fmt.Errorf("answer to list: %w", err)
		}
		calls = append(calls, page.Calls...)
		if len(page.Calls) == 0 || len(calls) >= page.Total {
			return calls, paged, nil
		}
		paged = true
	}
}

func (l *link) listPlain() ([]relaylink.Call, error) {
	body, err := l.query(relaylink.Sessions, nil)
	if err != nil {
		return nil, err
	}
	var sessions []struct {
		CallID  string  `json:"call_id"`
		FromTag string  `json:"from_tag"`
		ToTag   *string `json:"to_tag"`
	}
	if err := json.Unmarshal(body, &sessions); err != nil {
		return nil, fmt.Errorf("answer to sessions: %w", err)
	}
	calls := make([]relaylink.Call, len(sessions))
	for i, s := range sessions {
		calls[i] = relaylink.Call{CallID: s.CallID, FromTag: s.FromTag}
		if s.ToTag != nil {
			calls[i].ToTag = *s.ToTag
		}
	}
	return calls, nil
}

// query asks for a document.
func (l *link) query(command string, hs []control.Header) ([]byte, error) {
	body, err := l.ask(command, hs, time.Now().Add(l.d.cfg.RelayTimeout), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	if word, reason, bad := relaylink.CutReason(body); bad {
		return nil, fmt.Errorf("%s: relay answered %s %s", command, word, reason)
	}
	return body, nil
}

// has asks for one call. In doubt it has it.
func (l *link) has(c *callState) bool {
	body, err := l.query(relaylink.Session, callHeaders(c.id, c.fromTag))
	if err != nil {
		return true
	}
	var found []json.RawMessage
	return json.Unmarshal(body, &found) != nil || len(found) > 0
}

// foreign says whether a call is another dispatcher's. An address is the owner of calls that
// were made before this relay, or we, spoke link/2: perhaps ours.
func (l *link) foreign(listed relaylink.Call) bool {
	_, err := netip.ParseAddrPort(listed.Owner)
	return !l.plain && listed.Owner != "" && listed.Owner != l.d.cfg.Name && err != nil
}

// adopt takes note of a call that the relay has. A call that was placed
// elsewhere while this relay was away, or was hung up, is ended here.
func (l *link) adopt(listed relaylink.Call) {
	if listed.CallID == "" || !l.plain && listed.Owner != "" && listed.Owner != l.d.cfg.Name {
		return // another dispatcher's
	}
	t := l.d.calls
	t.mu.Lock()
	c := t.exactLocked(listed.CallID, listed.FromTag)
	_, ended := t.ended[nameOf(listed.CallID, listed.FromTag)]
	switch {
	case c == nil && ended: // since the list was written
	case c == nil && l.d.unheard.has(listed):
		t.mu.Unlock()
		l.log.Info("call was hung up before its relay was connected, ended now", "call_id", listed.CallID)
		l.takeBack(listed.CallID, listed.FromTag, listed.DialogID)
		return
	case c == nil:
		c = &callState{id: listed.CallID, fromTag: listed.FromTag, toTag: listed.ToTag, dialogID: listed.DialogID, unsure: l.plain, account: accountOf(listed)}
		t.addLocked(c)
		c.setRelayLocked(l.relay)
		if t.shared != nil && !l.plain { // by the former process
			c.noted = l.relay.name
		}
		l.d.count.adopted.Add(1)
	case c.hungUp && c.relay == l.relay:
		t.deleteLocked(c)
		t.mu.Unlock()
		l.takeBack(listed.CallID, listed.FromTag, c.dialogID)
		return
	case c.placing != nil:
	case c.relay == l.relay:
		c.record = cmp.Or(listed.RecordID, c.record)
		if c.link == nil || c.link != l && !l.plain {
			c.link = l
		}
	case c.relay != nil && c.relay.isUp() && c.link != nil:
		if listed.Owner != l.d.cfg.Name {
			break // perhaps the same call's way through another dispatcher
		}
		t.mu.Unlock()
		l.log.Info("call goes over another relay by now, ended here", "call_id", listed.CallID)
		l.takeBack(listed.CallID, listed.FromTag, "")
		return
	case c.expired.IsZero(): // its relay is gone, or it came back under another name
		c.setRelayLocked(l.relay)
		c.link = nil
		c.account = accountOf(listed)
	}
	t.mu.Unlock()
}

func accountOf(listed relaylink.Call) account {
	a := account{record: listed.RecordID, fromURI: listed.FromURI, toURI: listed.ToURI, username: listed.Username}
	if listed.StartTime > 0 {
		a.start = time.UnixMicro(int64(listed.StartTime * 1e6))
	}
	return a
}

// takeBack ends a call on this relay that is not wanted there. What it used is
// reported if it was ever answered.
func (l *link) takeBack(callID, fromTag, dialogID string) {
	handle := func(r result) {
		if r.err == nil && len(r.body) > 0 && r.body[0] == '{' {
			if err := l.removedDoc(r.body, report.ReasonRemoved, dialogID, true); err != nil {
				l.log.Error("answer to remove cannot be read", "call_id", callID, "error", err)
			}
		}
	}
	_, p, err := l.send(relaylink.Remove, callHeaders(callID, fromTag))
	if err != nil {
		return // the link is gone: the relay lists the call when it is back
	}
	l.mu.Lock()
	select {
	case r := <-p.answer: // already answered
		l.mu.Unlock()
		handle(r)
	default:
		p.late = handle
		l.mu.Unlock()
	}
}
