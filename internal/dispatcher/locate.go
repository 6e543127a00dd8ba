package dispatcher

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// search gives a call that is not known two chances: its relay has connected
// but not told its calls yet; or another dispatcher made it, then the relays
// that speak link/2 are asked, all at once.
func (d *Dispatcher) search(ctx context.Context, callID, fromTag, toTag string, deadline time.Time) {
	half := deadline.Add(-d.cfg.SetupTimeout / 2)
	for {
		synced, changed := d.registry.allSynced()
		if synced || d.registry.connected() == 0 && d.cfg.Now().Sub(d.started) > longAway {
			break
		}
		if waitUntil(ctx, changed, half) != nil {
			break
		}
	}
	d.calls.mu.Lock()
	known := d.calls.findLocked(callID, fromTag, toTag) != nil
	d.calls.mu.Unlock()
	if !known {
		d.locate(callID, fromTag, toTag)
	}
}

// located is a call that a relay has.
type located struct {
	link    *link
	session report.Session
}

// locate looks for a call: first on the relay that the shared map names, then on all. The
// first that has it gets it attributed.
func (d *Dispatcher) locate(callID, fromTag, toTag string) {
	deadline := time.Now().Add(d.cfg.LocateTimeout)
	var left []*link
	for _, l := range d.registry.links() {
		if !l.plain {
			left = append(left, l)
		}
	}
	if named := d.hint(callID, left); named != nil {
		// Half of the time for it: in the worst case all the others have the other half.
		if found := d.askForCall([]*link{named}, callID, fromTag, toTag, deadline.Add(-d.cfg.LocateTimeout/2)); found.link != nil {
			d.count.hinted.Add(1)
			d.adoptLocated(found, callID)
			return
		}
		left = slices.DeleteFunc(left, func(l *link) bool { return l == named })
	}
	if found := d.askForCall(left, callID, fromTag, toTag, deadline); found.link != nil {
		d.adoptLocated(found, callID)
	}
}

// hintShare of the time for a search is what the shared map has to answer.
const hintShare = 5

// hint returns the one of the relays that the shared map names, which is no proof.
func (d *Dispatcher) hint(callID string, links []*link) *link {
	if d.cfg.Shared == nil || len(links) < 2 {
		return nil // nothing to choose from
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.LocateTimeout/hintShare)
	defer cancel()
	name, err := d.cfg.Shared.Get(ctx, callID)
	if err != nil {
		return nil
	}
	for _, l := range links {
		if l.relay.name == string(name) {
			return l
		}
	}
	return nil
}

// askForCall asks relays at once and returns the first answer that has the call.
func (d *Dispatcher) askForCall(links []*link, callID, fromTag, toTag string, deadline time.Time) located {
	answers := make(chan located, len(links))
	for _, l := range links {
		d.running.Go(func() {
			defer d.recovered("looking for a call", callID, nil)
			answers <- l.lookFor(callID, fromTag, toTag, deadline)
		})
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for range links {
		select {
		case found := <-answers:
			if found.link != nil {
				return found
			}
		case <-timer.C:
			return located{}
		}
	}
	return located{}
}

func (d *Dispatcher) adoptLocated(found located, callID string) {
	d.count.located.Add(1)
	d.calls.adoptLocated(found, callID)
}

// lookFor asks this relay for a call with these tags.
func (l *link) lookFor(callID, fromTag, toTag string, deadline time.Time) located {
	body, err := l.ask(relaylink.Session, callHeaders(callID, ""), deadline, nil)
	if err != nil {
		return located{}
	}
	var sessions []report.Session
	if json.Unmarshal(body, &sessions) != nil {
		return located{}
	}
	from, to := report.Text(fromTag), report.Text(toTag)
	for _, s := range sessions {
		theirs := ""
		if s.ToTag != nil {
			theirs = *s.ToTag
		}
		if s.FromTag == from || to != "" && s.FromTag == to || to == "" && from != "" && theirs == from || from == "" && len(sessions) == 1 {
			return located{l, s}
		}
	}
	return located{}
}

// adoptLocated notes where a call was found. It becomes ours, and its end is told to us, when
// its relay has served the message for which it was looked for; a message that the relay
// refuses leaves it with its dispatcher. Until then it is verified now and then.
func (t *callTable) adoptLocated(found located, callID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.exactLocked(callID, found.session.FromTag) != nil {
		return
	}
	c := &callState{id: callID, fromTag: found.session.FromTag, dialogID: found.session.DialogID, link: found.link, unsure: true,
		account: account{fromURI: found.session.FromURI, toURI: found.session.ToURI}}
	if s := found.session; s.Username != nil {
		c.username = *s.Username
	}
	if s := found.session; s.StartTime != nil {
		c.start = time.UnixMicro(int64(*s.StartTime * 1e6))
	}
	if found.session.ToTag != nil {
		c.toTag = *found.session.ToTag
	}
	t.addLocked(c)
	c.setRelayLocked(found.link.relay)
}

// released is a relay's word that another dispatcher serves a call now, or has ended it.
func (l *link) released(body []byte) {
	var call relaylink.Call
	if err := json.Unmarshal(body, &call); err != nil || call.CallID == "" {
		l.log.Warn("line of the relay cannot be read", "error", err, "released", clip(body))
		return
	}
	if l.d.calls.release(call, l.relay) {
		l.d.count.released.Add(1)
		l.log.Debug("call is another dispatcher's now", "call_id", call.CallID)
	}
}

// release forgets a call that is another dispatcher's. Messages on their way make it ours
// again, whatever comes first: it is then looked for as any other.
func (t *callTable) release(call relaylink.Call, r *relayState) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.exactLocked(call.CallID, call.FromTag)
	if c == nil || c.relay != r || c.placing != nil || c.removing != nil || !c.expired.IsZero() {
		return false
	}
	c.noted = "" // it stays in the shared map
	return t.deleteLocked(c)
}
