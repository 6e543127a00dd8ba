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
// count. RTCP does: two muted phones may send nothing else.
func (s *Stream) Expired() (Timeout, bool) {
	now := s.engine.table.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return Timeout{}, false
	}
	cfg := &s.engine.cfg
	last := [2]time.Duration{s.lastMedia(Caller), s.lastMedia(Callee)}
	latest := later(last[Caller], last[Callee])
	began := latest != forward.Never
	// What was not heard while one process took over from another proves nothing.
	deaf := s.restored != 0 && now-s.restored < cfg.IdleTimeout
	switch {
	case s.onHold():
		if now-later(latest, s.heldAt) >= cfg.HoldTimeout && !deaf {
			return Timeout{report.StatusHoldTimeout, cfg.HoldTimeout}, true
		}
	case !began:
		if now-max(s.created, s.resumed, s.at, s.restored) >= cfg.StreamTimeout {
			status := report.StatusNoTraffic
			if s.parties[Caller].ICE && s.parties[Callee].ICE {
				status = report.StatusUnselectedICE // the agents found a better way
			}
			return Timeout{status, cfg.StreamTimeout}, true
		}
	case now-max(latest, s.resumed, s.restored) >= cfg.IdleTimeout:
		return Timeout{report.StatusIdle, cfg.IdleTimeout}, true
	case cfg.OneWayTimeout > 0:
		for side, at := range last {
			if s.parties[side].Direction == SendRecv && s.answered && now-max(at, s.created, s.resumed, s.at, s.restored) >= cfg.OneWayTimeout {
				return Timeout{report.StatusOneWay, cfg.OneWayTimeout}, true
			}
		}
	}
	return Timeout{}, false
}

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
