package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// longAway is when a relay that is not connected is no longer waited for: ours
// reconnect after a second.
const longAway = 5 * time.Second

var (
	errUnknownCall = errors.New("call is not known")
	errNoMedia     = errors.New("call is not known and the message has no media to make one with")
	errNoRelay     = errors.New("no relay is connected that takes new calls")
	errRelayGone   = errors.New("relay of the call is not connected")
	errDeadline    = errors.New("time is up")
	errNotYet      = errors.New("call is not known, and this dispatcher has only just started: its relay, or another dispatcher that knows it, may not be connected yet")
)

// refusedError is a relay's negative answer.
type refusedError struct{ word, reason string }

func (e *refusedError) Error() string {
	if e.reason == "" {
		return "relay answered " + e.word
	}
	return "relay answered " + e.word + ": " + e.reason
}

// setup is one update on its way.
type setup struct {
	d        *Dispatcher
	u        control.Update
	headers  []control.Header
	deadline time.Time
	peer     bool // another dispatcher asks: it makes calls itself
	heard    bool // another dispatcher said something
	asked    bool // the other dispatchers, while the call's relay was away
}

// update serves one update: a known call goes to its relay, a new one to the
// relay the selection puts first, then the next, all inside one deadline.
func (d *Dispatcher) update(ctx context.Context, hs []control.Header) (string, error) {
	u, err := control.DecodeUpdate(hs)
	if err != nil {
		return "", &requestError{err}
	}
	s := &setup{d: d, u: u, headers: hs, deadline: time.Now().Add(d.cfg.SetupTimeout)}
	answer, err := s.run(ctx)
	if err != nil {
		return "", err
	}
	d.count.updates.Add(1)
	return string(answer.Append(nil)), nil
}

// offer says whether the message can make a call anew.
func (s *setup) offer() bool { return s.u.Kind == control.KindRequest && s.u.HasMedia }

func (s *setup) run(ctx context.Context) (control.Answer, error) {
	searched := false
	for {
		c, state := s.d.calls.enter(s.u, !s.peer && (searched || s.initial()))
		switch state {
		case callUnknown: // perhaps its relay has not told us yet, or another dispatcher made it
			answer, done, err := s.look(ctx, searched)
			if done {
				return answer, err
			}
			searched = true
		case callNone:
			return control.Answer{}, errNoMedia
		case callBusy:
			if err := waitUntil(ctx, c.busy, s.deadline); err != nil {
				return control.Answer{}, fmt.Errorf("wait for the call's set-up by another message: %w", err)
			}
		case callNew:
			return s.placeClaimed(ctx, c)
		case callKnown:
			answer, err := s.known(ctx, c.callState, c.relay)
			if errors.Is(err, errRelayGone) && s.mayAsk() {
				s.asked = true
				if answer, done, err := s.elsewhere(ctx, s.d.cfg.SetupTimeout/4); done {
					s.d.calls.giveUp(c.callState, c.relay)
					return answer, err
				}
				continue // what time is left its relay has
			}
			if !s.offer() || !movable(err) || s.peer {
				return answer, err
			}
			if !s.d.calls.move(&c) {
				continue // somebody else is at it
			}
			s.d.log.Warn("call is placed anew", "call_id", s.u.CallID, "relay", c.relay.name, "reason", err)
			answer, err = s.placeClaimed(ctx, c)
			if err == nil {
				s.d.count.moved.Add(1)
				s.d.owe(c.left, c.relay.lastSeen(s.d.registry))
			}
			return answer, err
		}
	}
}

// initial says whether the message opens a call, so that nobody can know it.
func (s *setup) initial() bool { return s.offer() && s.u.ToTag == "" }

// movable says whether a failure on the call's relay means that the call is no
// longer there.
func movable(err error) bool {
	var refused *refusedError
	return errors.Is(err, errRelayGone) || errors.As(err, &refused) && refused.word == control.ReplyHalting
}

// waitUntil waits for a channel to be closed.
func waitUntil(ctx context.Context, what <-chan struct{}, until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-what:
		return nil
	case <-timer.C:
		return errDeadline
	case <-ctx.Done():
		return ctx.Err()
	}
}

// known sends an update to the relay of its call. One that is away for a moment
// is waited for: by an offer as long as another relay can still be tried, by
// anything else as long as there is time, or until other dispatchers can be asked.
func (s *setup) known(ctx context.Context, c *callState, r *relayState) (control.Answer, error) {
	patience := s.deadline
	if s.offer() || s.mayAsk() {
		patience = patience.Add(-s.d.cfg.SetupTimeout / 2)
	}
	for {
		l, err := s.d.waitFor(ctx, r, patience)
		if err != nil {
			return control.Answer{}, err
		}
		body, err := l.ask(relaylink.Update, s.headers, s.deadline, nil)
		if errors.Is(err, errLinkLost) {
			continue // asked again: the relay answers a repeated message the same
		}
		answer, err := s.answer(l, body, err)
		if err == nil {
			s.d.calls.confirm(c, l, s.u, s.d.cfg.Now())
		}
		return answer, err
	}
}

// waitFor returns the relay's connection as soon as it has one.
func (d *Dispatcher) waitFor(ctx context.Context, r *relayState, until time.Time) (*link, error) {
	for {
		l, lostAt, changed := d.registry.current(r)
		if l != nil {
			return l, nil
		}
		if d.cfg.Now().Sub(lostAt) > longAway || waitUntil(ctx, changed, until) != nil {
			return nil, fmt.Errorf("%w: %s", errRelayGone, r.name)
		}
	}
}

// answer reads a relay's answer to update. Anything but ports is an error, None
// of old relays included.
func (s *setup) answer(l *link, body []byte, err error) (control.Answer, error) {
	if err != nil {
		return control.Answer{}, fmt.Errorf("relay %s: %w", l.relay.name, err)
	}
	if word, reason, bad := relaylink.CutReason(body); bad {
		if word == control.ReplyHalting {
			l.halted()
		}
		return control.Answer{}, fmt.Errorf("relay %s: %w", l.relay.name, &refusedError{word, reason})
	}
	answer, err := control.ParseAnswer(body)
	if err != nil {
		return control.Answer{}, fmt.Errorf("relay %s: %w", l.relay.name, err)
	}
	return answer, nil
}

// placeClaimed places a call that is claimed, and ends the claim, also when a bug
// strikes meanwhile: other messages of the call wait for it.
func (s *setup) placeClaimed(ctx context.Context, c entry) (answer control.Answer, err error) {
	done := false
	defer func() { s.d.calls.placed(c, done) }()
	answer, err = s.place(ctx, c.callState)
	done = err == nil
	return answer, err
}

// place finds a relay for a new call.
func (s *setup) place(ctx context.Context, c *callState) (control.Answer, error) {
	var tried []*relayState
	cause := errNoRelay
	for {
		r, others, changed := s.choose(tried)
		if r == nil {
			if len(tried) > 0 {
				return control.Answer{}, cause
			}
			if waitUntil(ctx, changed, s.deadline) != nil {
				return control.Answer{}, cause
			}
			continue
		}
		tried = append(tried, r)
		answer, err := s.attempt(c, r, others)
		if err == nil {
			return answer, nil
		}
		cause = err
		if time.Until(s.deadline) <= 0 {
			return control.Answer{}, cause
		}
		if errors.Is(err, errLinkLost) { // to be asked again if it is back in time
			tried = tried[:len(tried)-1]
		}
		if others {
			s.d.count.failovers.Add(1)
			s.d.log.Warn("relay did not take a call, the next one is tried", "call_id", s.u.CallID, "relay", r.name, "reason", err)
		}
	}
}

// attempt asks one relay. With others to turn to it gets half of the time that
// is left. If it answers after that, its allocation is taken back.
func (s *setup) attempt(c *callState, r *relayState, others bool) (control.Answer, error) {
	l, _, _ := s.d.registry.current(r)
	if l == nil {
		return control.Answer{}, fmt.Errorf("relay %s: %w", r.name, errLinkLost)
	}
	s.d.registry.change(l, func(r *relayState) { r.given++ })
	until := s.deadline
	if others {
		until = until.Add(-time.Until(until) / 2)
	}
	callID, fromTag := s.u.CallID, s.u.FromTag // what outlives this message
	u, headers := s.u, s.headers
	if !l.plain { // an id for each try: one that is taken back reports too
		u.RecordID = newRecordID()
		headers = append(slices.Clip(headers), control.Header{Name: relaylink.HeaderRecord, Value: u.RecordID})
	}
	body, err := l.ask(relaylink.Update, headers, until, func(r result) {
		if _, err := control.ParseAnswer(r.body); r.err != nil || err != nil {
			return
		}
		l.d.running.Go(func() { l.tookLate(callID, fromTag, u.RecordID) })
	})
	if errors.Is(err, errNoAnswer) {
		s.d.registry.suspectNow(l)
	}
	answer, err := s.answer(l, body, err)
	if err == nil {
		s.d.calls.confirm(c, l, u, s.d.cfg.Now())
	}
	return answer, err
}
