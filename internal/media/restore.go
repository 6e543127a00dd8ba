package media

import (
	"errors"
	"fmt"
	"net/netip"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
)

// ErrPortTaken: a port that a former process had belongs to another stream now.
var ErrPortTaken = errors.New("the port belongs to another stream")

// closedPort is what is left of a port: its number and what it counted.
type closedPort struct {
	local    netip.AddrPort
	counters forward.Counters
}

func (p *closedPort) Local() netip.AddrPort             { return p.local }
func (p *closedPort) Install(forward.Flow)              {}
func (p *closedPort) Withdraw()                         {}
func (p *closedPort) Know([3]netip.Addr)                {}
func (p *closedPort) Send(netip.AddrPort, []byte) error { return forward.ErrClosed }
func (p *closedPort) Counters() forward.Counters        { return p.counters }
func (p *closedPort) Close(done func(used bool)) {
	if done != nil {
		done(false)
	}
}

// Restore takes a stream over that Fields has read: its ports are adopted, all or none.
// It hears nothing before Resume. On an error it has ended. Changed is that of Spec.
func (e *Engine) Restore(s *Stream, callID string, changed func()) error {
	s.engine, s.callID, s.changed, s.udptl = e, callID, changed, s.mediaType == "image"
	if !s.running {
		return nil
	}
	s.running, s.waiting = false, true
	group := e.groups.Add(1)
	for side := range s.legs[RTP] {
		if err := e.adoptPair(s, Side(side), group); err != nil {
			e.release(s)
			s.waiting, s.endedAt = false, e.table.Now()
			return err
		}
	}
	e.register(s)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.restored = append(e.restored, s)
	return nil
}

// adoptPair opens the ports that one party sends to.
func (e *Engine) adoptPair(s *Stream, side Side, group uint32) error {
	local := s.legs[RTP][side].port.Local()
	pool := e.poolFor(local.Addr())
	if !pool.claim(local.Port()) {
		return fmt.Errorf("take over port %s: %w", local, ErrPortTaken)
	}
	var adopted [2]forward.Port
	for path := range adopted {
		l := s.legs[path][side]
		port, err := e.table.Adopt(l.port.Local(), group, l)
		if err != nil {
			if path == int(RTCP) {
				adopted[RTP].Close(nil)
			}
			pool.give(local.Port(), false, 0)
			return fmt.Errorf("take over port %s: %w", l.port.Local(), err)
		}
		adopted[path] = port
	}
	for path, port := range adopted {
		s.legs[path][side].port = port
	}
	return nil
}

// Resume lets the restored streams run, now that all are there: a call may pass this
// relay twice, so that the address of one leg is the port of another. It returns how
// many ports of the former process nobody has claimed.
func (e *Engine) Resume() (orphans int) {
	e.mu.Lock()
	streams := e.restored
	e.restored = nil
	e.mu.Unlock()
	for _, s := range streams {
		s.resume()
	}
	return e.table.Claimed()
}

func (s *Stream) resume() {
	now := s.engine.table.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.waiting { // closed meanwhile
		return
	}
	s.waiting, s.running, s.restored = false, true, now
	s.note(now, report.Restored, "")
	for path := range s.legs {
		s.refresh(Path(path))
		for _, l := range s.legs[path] {
			l.know()
			if l.installed == (forward.Flow{}) {
				l.port.Withdraw() // what the former process may have left
			}
		}
	}
}
