package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// remove serves one remove. Of several for the same call at once, one asks the
// relay and all get its reply.
func (d *Dispatcher) remove(ctx context.Context, hs []control.Header, peer bool) (string, error) {
	r, err := control.DecodeRemove(hs)
	if err != nil {
		return "", &requestError{err}
	}
	deadline := time.Now().Add(d.cfg.SetupTimeout)
	searched := false
	for {
		c, relay, wait, todo := d.calls.leave(r)
		switch {
		case todo == leaveUnknown && !searched:
			w := wanted{r.CallID, r.FromTag, r.ToTag}
			if d.searchPeers(ctx, w, hs, deadline, peer) {
				return d.removed(control.ReplyRemoved)
			}
			searched = true
		case todo == leaveUnknown:
			if !peer { // it does so itself
				d.noteUnheard(r)
			}
			return "", errUnknownCall
		case todo == leaveWait:
			if err := waitUntil(ctx, wait, deadline); err != nil {
				return "", fmt.Errorf("wait for the call's set-up by another message: %w", err)
			}
		case todo == leaveShared:
			if err := waitUntil(ctx, wait, deadline); err != nil {
				return "", fmt.Errorf("wait for another remove of the call: %w", err)
			}
			return d.removed(c.removing.reply)
		case todo == leaveExpired:
			return d.removed(control.ReplyRemoved)
		default:
			if err := d.removeClaimed(ctx, c, relay, hs, deadline, peer); err != nil {
				return "", err
			}
			return d.removed(control.ReplyRemoved)
		}
	}
}

// searchPeers looks for a call to remove. done: another dispatcher has removed it.
func (d *Dispatcher) searchPeers(ctx context.Context, w wanted, hs []control.Header, deadline time.Time, peer bool) (done bool) {
	if peer || d.cfg.Peers != nil {
		if d.locate(w, d.hint(w.callID)) || peer {
			return false
		}
		request := control.Request{Command: control.CommandRemove, Headers: hs}
		reply, _ := d.askPeers(ctx, request, deadline.Add(-d.cfg.SetupTimeout/2))
		if string(reply) == control.ReplyRemoved {
			return true
		}
	}
	d.search(ctx, w, deadline)
	return false
}

func (d *Dispatcher) removed(reply string) (string, error) {
	if reply != control.ReplyRemoved {
		return "", errors.New("another remove of the call failed")
	}
	d.count.removes.Add(1)
	return reply, nil
}

// leaveState says what a remove has to do next.
type leaveState uint8

const (
	leaveUnknown leaveState = iota
	leaveWait               // the call is being placed
	leaveShared             // another remove is running
	leaveExpired            // gone on the relay, now also here
	leaveAsk                // ours to ask the relay
)

// leaving is a call with the remove that runs on it.
type leaving struct {
	*callState
	removing *removal
}

func (t *callTable) leave(r control.Remove) (leaving, *relayState, <-chan struct{}, leaveState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.findLocked(r.CallID, r.FromTag, r.ToTag)
	switch {
	case c == nil:
		return leaving{}, nil, nil, leaveUnknown
	case c.placing != nil:
		return leaving{}, nil, c.placing, leaveWait
	case c.removing != nil:
		return leaving{c, c.removing}, nil, c.removing.done, leaveShared
	case !c.expired.IsZero():
		t.deleteLocked(c)
		return leaving{}, nil, nil, leaveExpired
	}
	c.removing = &removal{done: make(chan struct{}), reply: control.ReplyError}
	return leaving{c, c.removing}, c.relay, nil, leaveAsk
}

// removeClaimed asks the relay and ends the claim, also when a bug strikes
// meanwhile: other messages of the call wait for it.
func (d *Dispatcher) removeClaimed(ctx context.Context, c leaving, r *relayState, hs []control.Header, deadline time.Time, peer bool) error {
	err := errDeadline
	defer func() {
		if left, ended := d.calls.left(c.callState, c.removing, err); ended {
			d.owe(left, d.cfg.Now())
		}
	}()
	patience, ask := deadline, d.cfg.Peers != nil && !peer
	if ask { // the other half is for the other dispatchers
		patience = deadline.Add(-d.cfg.SetupTimeout / 2)
	}
	err = d.removeOn(ctx, c.callState, r, hs, patience, deadline)
	if ask && errors.Is(err, errRelayGone) {
		reply, _ := d.askPeers(ctx, control.Request{Command: control.CommandRemove, Headers: hs}, deadline)
		if string(reply) == control.ReplyRemoved {
			err = nil
		}
	}
	return err
}

// left ends a remove. After a failure the call stays: if its relay is away, it
// is ended there when it is back, and ended is what to account until then.
func (t *callTable) left(c *callState, mine *removal, err error) (lost lostRecord, ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		mine.reply = control.ReplyRemoved
		t.deleteLocked(c)
	}
	if c.hungUp = errors.Is(err, errRelayGone); c.hungUp {
		lost, ended = c.lostRecordLocked(), true
		c.start = time.Time{} // its end is the first one
	}
	c.removing = nil
	close(mine.done)
	return lost, ended
}

// removeOn asks the relay of a call to end it. One that is away is waited for, with patience.
func (d *Dispatcher) removeOn(ctx context.Context, c *callState, r *relayState, hs []control.Header, patience, deadline time.Time) error {
	hs = addressed(hs, c.fromTag)
	for {
		l, err := d.waitFor(ctx, r, patience)
		if err != nil {
			return err
		}
		body, err := l.ask(relaylink.Remove, hs, deadline, func(late result) { d.removedLate(l, c, late) })
		if errors.Is(err, errLinkLost) {
			continue
		}
		if err != nil {
			return fmt.Errorf("relay %s: %w", r.name, err)
		}
		d.removeAnswer(l, c, body)
		return nil
	}
}

// addressed makes sure that one of the tags is the one by which the relay knows
// the call.
func addressed(hs []control.Header, fromTag string) []control.Header {
	r, _ := control.DecodeRemove(hs)
	if r.FromTag != "" && (r.FromTag == fromTag || r.ToTag == fromTag) {
		return hs
	}
	out := make([]control.Header, 0, len(hs)+1)
	for _, h := range hs {
		if h.Name != "from_tag" {
			out = append(out, h)
		}
	}
	return append(out, control.Header{Name: "from_tag", Value: fromTag})
}

// removeAnswer handles what a relay said to remove. Whatever it was, the relay
// does not have the call any more.
func (d *Dispatcher) removeAnswer(l *link, c *callState, body []byte) {
	if word, reason, bad := relaylink.CutReason(body); bad {
		l.log.Info("call was no longer on its relay", "call_id", c.id, "answer", word, "reason", reason)
		return
	}
	err := l.removedDoc(body, report.ReasonRemoved, d.calls.dialog(c), false)
	if err == nil {
		return
	}
	l.log.Error("answer to remove cannot be read, the call is reported without its streams", "call_id", c.id, "error", err, "answer", clip(body))
	s := report.Session{CallID: report.Text(c.id), FromTag: report.Text(c.fromTag), Streams: []report.Stream{},
		RecordID: newRecordID(), Reason: report.ReasonRemoved, DialogID: d.calls.dialog(c), Relay: l.relay.name}
	if d.records.claim(s.RecordID) == recordNew {
		l.queue(finished{session: s})
	}
}

// removedLate handles an answer that came after the module was told error.
func (d *Dispatcher) removedLate(l *link, c *callState, late result) {
	if late.err != nil {
		return
	}
	d.removeAnswer(l, c, late.body)
	d.calls.delete(c)
}

func (t *callTable) dialog(c *callState) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return c.dialogID
}
