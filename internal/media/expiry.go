package media

import (
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
)

// Timeout says which time-out ended a stream.
type Timeout struct {
	Status string // a Status constant of package report
	Wait   time.Duration
}

// Expired says whether the stream has timed out: neither direction had a packet
// for as long as its state allows. Connectivity checks and handshakes do not
// count. RTCP does: two muted phones may send nothing else. A stream that has not timed
// out cannot do so before next, unless signalling changes it.
func (s *Stream) Expired() (t Timeout, expired bool, next time.Duration) {
	now := s.engine.table.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return Timeout{}, false, now
	}
	t, at := s.timeout()
	if now >= at {
		return t, true, now
	}
	if next = at; !s.onHold() && s.latest() == forward.Never {
		// The first packet may come at any time, and other rules apply then.
		next = min(at, now+s.engine.cfg.IdleTimeout)
		if s.engine.cfg.OneWayTimeout > 0 {
			next = now
		}
	}
	return Timeout{}, false, next
}

// timeout is what the stream ends with, and when, if no packet comes.
func (s *Stream) timeout() (t Timeout, at time.Duration) {
	cfg, latest := &s.engine.cfg, s.latest()
	switch {
	case s.onHold():
		at = later(latest, s.heldAt) + cfg.HoldTimeout
		if s.restored != 0 {
			// What was not heard while one process took over from another proves nothing.
			at = max(at, s.restored+cfg.IdleTimeout)
		}
		return Timeout{report.StatusHoldTimeout, cfg.HoldTimeout}, at
	case latest == forward.Never:
		t = Timeout{report.StatusNoTraffic, cfg.StreamTimeout}
		if s.parties[Caller].ICE && s.parties[Callee].ICE {
			t.Status = report.StatusUnselectedICE // the agents found a better way
		}
		return t, max(s.created, s.resumed, s.at, s.restored) + cfg.StreamTimeout
	}
	t, at = Timeout{report.StatusIdle, cfg.IdleTimeout}, max(latest, s.resumed, s.restored)+cfg.IdleTimeout
	if cfg.OneWayTimeout > 0 && s.answered {
		for side, party := range s.parties {
			silent := max(s.lastMedia(Side(side)), s.created, s.resumed, s.at, s.restored) + cfg.OneWayTimeout
			if party.Direction == SendRecv && silent < at {
				t, at = Timeout{report.StatusOneWay, cfg.OneWayTimeout}, silent
			}
		}
	}
	return t, at
}

// latest is when either party was last heard.
func (s *Stream) latest() time.Duration { return later(s.lastMedia(Caller), s.lastMedia(Callee)) }

// oneWayAfter is how long one party may be silent, while the other is heard,
// before the stream counts as one-way.
const oneWayAfter = 10 * time.Second

// OneWay says whether only one of two parties that should both send is heard:
// what users call one-way audio.
func (s *Stream) OneWay() bool {
	now := s.engine.table.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running || !s.answered || s.onHold() || s.parties[Caller].Direction != SendRecv || s.parties[Callee].Direction != SendRecv {
		return false
	}
	heard := 0
	for side := range s.parties {
		if at := s.lastMedia(Side(side)); at != forward.Never && now-at < oneWayAfter {
			heard++
		}
	}
	return heard == 1 && now-max(s.at, s.resumed, s.restored) >= oneWayAfter
}

// lastMedia is when a party was last heard, on either path.
func (s *Stream) lastMedia(side Side) time.Duration {
	last := forward.Never
	for path := range s.legs {
		l := s.legs[path][side]
		last = later(last, later(l.first, l.port.Counters().LastMedia))
	}
	return last
}

// later is the later of two times, either of which may be Never. After a restart of the
// host, times of before are negative.
func later(a, b time.Duration) time.Duration {
	if a == forward.Never || b != forward.Never && b > a {
		return b
	}
	return a
}
