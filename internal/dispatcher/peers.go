package dispatcher

import (
	"context"
	"time"

	"example.org/mediaproxy/internal/wire/control"
)

// askPeers has another dispatcher serve a request about a call that none of our relays has:
// its relay is perhaps connected there. heard is false if nobody said anything.
func (d *Dispatcher) askPeers(ctx context.Context, req control.Request, until time.Time) (reply []byte, heard bool) {
	if d.cfg.Peers == nil {
		return nil, true
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	reply, heard = d.cfg.Peers.Ask(ctx, control.Append(nil, req))
	if reply != nil {
		d.count.elsewhere.Add(1)
	}
	return reply, heard
}

// look looks for a call that is not known: first where it can be found at once, then at other
// dispatchers, and only then where one has to wait. done means that there is an answer
// already. A dispatcher that has just started, and that nobody heard, makes no call of a
// message that is not its first: the call would be on two relays.
func (s *setup) look(ctx context.Context, again bool) (answer control.Answer, done bool, err error) {
	w := wanted{s.u.CallID, s.u.FromTag, s.u.ToTag}
	switch {
	case s.peer && (again || !s.d.locate(w, "")): // who asks has the rest of the time
		return answer, true, errUnknownCall
	case s.peer:
		return answer, false, nil
	case s.d.cfg.Peers == nil:
		s.d.search(ctx, w, s.deadline)
		return answer, false, nil
	case s.d.locate(w, s.d.hint(s.u.CallID)):
		return answer, false, nil
	}
	if answer, done, err = s.elsewhere(ctx, s.d.cfg.SetupTimeout/2); done {
		return answer, done, err
	}
	s.d.search(ctx, w, s.deadline)
	if !s.heard && s.d.cfg.Now().Sub(s.d.started) <= longAway && !s.d.calls.knows(w) {
		return answer, true, errNotYet
	}
	return answer, false, nil
}

// mayAsk says whether other dispatchers are still to be asked for a call whose relay is away
// from here.
func (s *setup) mayAsk() bool { return s.d.cfg.Peers != nil && !s.peer && !s.asked }

// elsewhere has another dispatcher serve the message, as long as so much time is left.
func (s *setup) elsewhere(ctx context.Context, left time.Duration) (answer control.Answer, done bool, err error) {
	request := control.Request{Command: control.CommandUpdate, Headers: s.headers}
	var reply []byte
	if reply, s.heard = s.d.askPeers(ctx, request, s.deadline.Add(-left)); reply == nil {
		return answer, false, nil
	}
	answer, err = control.ParseAnswer(reply)
	return answer, true, err
}

// giveUp forgets a call that another dispatcher has served: it owns it now.
func (t *callTable) giveUp(c *callState, r *relayState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.relay == r && c.placing == nil && c.removing == nil {
		c.noted = ""
		t.deleteLocked(c)
	}
}

// AnswerPeer serves a request that another dispatcher asks. nil: the call is not known here.
func (d *Dispatcher) AnswerPeer(ctx context.Context, request []byte) []byte {
	if d.isStopping() {
		return nil
	}
	req, _, err := control.Parse(request, control.MaxLine)
	if err != nil {
		d.log.Warn("request of another dispatcher cannot be read", "error", err)
		return nil
	}
	reply, err := d.handlePeer(ctx, req)
	if err != nil {
		callID, _ := req.Get("call_id")
		d.log.Debug("request of another dispatcher not served", "call_id", callID, "reason", err)
		return nil
	}
	d.count.forPeers.Add(1)
	return []byte(reply)
}

func (d *Dispatcher) handlePeer(ctx context.Context, req control.Request) (reply string, err error) {
	callID, _ := req.Get("call_id")
	defer d.recovered("request of another dispatcher", callID, &err)
	switch req.Command {
	case control.CommandUpdate:
		u, err := control.DecodeUpdate(req.Headers)
		if err != nil {
			return "", err
		}
		s := &setup{d: d, u: u, headers: req.Headers, deadline: time.Now().Add(d.cfg.SetupTimeout / 2), peer: true}
		answer, err := s.run(ctx)
		return string(answer.Append(nil)), err
	case control.CommandRemove:
		return d.remove(ctx, req.Headers, true)
	}
	return "", errUnknownCommand
}
