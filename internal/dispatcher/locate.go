package dispatcher

import (
	"context"
	"encoding/json"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// search gives a call that is not known two chances: its relay has connected
// but not told its calls yet; or another dispatcher made it, then the relays
// that speak link/2 are asked. A relay that the shared map names is waited for
// if it is not connected: it may know us in a moment, and placing its call anew
// would leave one there that nobody hears of until it times out.
func (d *Dispatcher) search(ctx context.Context, w wanted, deadline time.Time) {
	named := d.hint(w.callID)
	half := deadline.Add(-d.cfg.SetupTimeout / 2)
	for {
		ready, changed := d.registry.readyFor(named)
		if ready || d.registry.connected() == 0 && d.cfg.Now().Sub(d.started) > longAway {
			break
		}
		if waitUntil(ctx, changed, half) != nil {
			break
		}
	}
	if !d.calls.knows(w) {
		d.locate(w, named)
	}
}

func (t *callTable) knows(w wanted) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.findLocked(w.callID, w.fromTag, w.toTag) != nil
}

// wanted is a call that is looked for, by the names that a message has for it.
type wanted struct{ callID, fromTag, toTag string }

// located is a call that a relay has.
type located struct {
	link    *link
	session report.Session
	sure    bool // both tags are the call's
}

// locate looks for a call: first on the relay that the shared map names, then on all. The
// first that has it gets it attributed.
func (d *Dispatcher) locate(w wanted, named string) bool {
	deadline := time.Now().Add(d.cfg.LocateTimeout)
	var first, others []*link
	for _, l := range d.registry.links() {
		switch {
		case l.plain:
		case l.relay.name == named:
			first = append(first, l)
		default:
			others = append(others, l)
		}
	}
	var hinted located
	if len(first) > 0 {
		// Half of the time for it: in the worst case all the others have the other half.
		if hinted = d.askForCall(first, w, deadline.Add(-d.cfg.LocateTimeout/2)); w.proven(hinted) {
			d.count.hinted.Add(1)
			d.adoptLocated(hinted, w.callID)
			return true
		}
	}
	found := d.askForCall(others, w, deadline)
	if hinted.link != nil && !w.proven(found) {
		found = hinted
	}
	if found.link != nil {
		d.adoptLocated(found, w.callID)
	}
	return found.link != nil
}

// proven says whether a call that was found is the one wanted. One that never heard of its
// answer is so only if no other relay has it: the offer was perhaps made twice, when the
// answer to the first was lost with its dispatcher.
func (w wanted) proven(found located) bool { return found.link != nil && (found.sure || w.toTag == "") }

// hintShare of the time for a search is what the shared map has to answer.
const hintShare = 5

// hint returns the relay that the shared map names, which is no proof. Empty: none.
func (d *Dispatcher) hint(callID string) string {
	if d.cfg.Shared == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.LocateTimeout/hintShare)
	defer cancel()
	name, err := d.cfg.Shared.Get(ctx, callID)
	if err != nil {
		return ""
	}
	return string(name)
}

// askForCall asks relays at once and returns the first that has the call, if that is proven,
// else one that may be it.
func (d *Dispatcher) askForCall(links []*link, w wanted, deadline time.Time) (best located) {
	answers := make(chan located, len(links))
	for _, l := range links {
		d.running.Go(func() {
			defer d.recovered("looking for a call", w.callID, nil)
			answers <- l.lookFor(w, deadline)
		})
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for range links {
		select {
		case found := <-answers:
			if w.proven(found) {
				return found
			}
			if best.link == nil {
				best = found
			}
		case <-timer.C:
			return best
		}
	}
	return best
}

func (d *Dispatcher) adoptLocated(found located, callID string) {
	d.count.located.Add(1)
	d.calls.adoptLocated(found, callID)
}

// lookFor asks this relay for a call with these tags.
func (l *link) lookFor(w wanted, deadline time.Time) located {
	body, err := l.ask(relaylink.Session, callHeaders(w.callID, ""), deadline, nil)
	if err != nil {
		return located{}
	}
	var sessions []report.Session
	if json.Unmarshal(body, &sessions) != nil {
		return located{}
	}
	from, to := report.Text(w.fromTag), report.Text(w.toTag)
	for _, s := range sessions {
		theirs := ""
		if s.ToTag != nil {
			theirs = *s.ToTag
		}
		if s.FromTag == from || to != "" && s.FromTag == to || to == "" && from != "" && theirs == from || from == "" && len(sessions) == 1 {
			return located{l, s, theirs != "" && (theirs == to || theirs == from)}
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
