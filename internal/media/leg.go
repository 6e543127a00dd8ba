package media

import (
	"net/netip"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/rtp"
)

// Side is a party of a call.
type Side uint8

const (
	Caller Side = iota
	Callee
)

func (s Side) String() string {
	if s == Caller {
		return "caller"
	}
	return "callee"
}

// Other is the opposite party.
func (s Side) Other() Side { return 1 - s }

// Path is RTP or RTCP.
type Path uint8

const (
	RTP Path = iota
	RTCP
)

func (p Path) String() string {
	if p == RTP {
		return "RTP"
	}
	return "RTCP"
}

// A destination that is not known yet gets at most this many connectivity
// checks once it is: enough for an ICE agent's first round.
const maxQueued = 8

// leg is one party's side of one path. Its mutable part is guarded by the
// stream's lock.
type leg struct {
	// set in newStream, read-only afterwards
	stream *Stream
	side   Side
	path   Path
	port   forward.Port

	learner   learner
	installed forward.Flow
	// unreachable is where nobody listened, by the latest ICMP error.
	unreachable netip.AddrPort
	queue       [][]byte      // checks that wait for the other party's address
	first       time.Duration // its first media; Never if none
}

// isOpen says whether the leg has a port of this process. The stream may have ended.
func (l *leg) isOpen() bool {
	_, closed := l.port.(*closedPort)
	return !closed
}

func (l *leg) other() *leg { return l.stream.legs[l.path][l.side.Other()] }

// Handle implements forward.Handler: it decides about a datagram that no flow
// covers. Its cost for a refused one is what an attacker can make us pay, so it
// does nothing that grows with their number.
func (l *leg) Handle(d forward.Datagram) forward.Verdict {
	s := l.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return forward.Verdict{}
	}
	provisional := l.learner.provisional
	decision := l.learner.learn(l.observe(d), l.current(), s.engine.policy, l.mayLearn(d.Source))
	if decision.why != "" {
		l.note(d.Now, decision.why, d.Source)
	}
	if !decision.accepted {
		return forward.Verdict{}
	}
	if decision.changed {
		l.learned()
	} else if !l.learner.provisional {
		s.refresh(l.path)
	}
	begins := d.Kind.IsMedia() && l.first == Never
	if begins {
		l.first = d.Now
	}
	if begins || decision.changed || provisional != l.learner.provisional {
		s.touch()
	}
	return l.relay(d)
}

// Unreachable implements forward.Complaint: the phone's host says that nobody listens
// where media is sent to. It is noted once for each address.
func (l *leg) Unreachable(now time.Duration, dest netip.AddrPort) {
	s := l.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if current, ok := l.destination(); s.running && ok && current == dest && l.unreachable != dest {
		l.unreachable = dest
		l.note(now, report.Unreachable, dest)
		s.touch()
	}
}

// relay finds where an accepted datagram goes. It is never the leg it came from.
func (l *leg) relay(d forward.Datagram) forward.Verdict {
	other := l.other()
	dest, ok := other.destination()
	if ok {
		return forward.Verdict{Accepted: true, Out: other.port, Dest: dest}
	}
	if d.Kind == rtp.KindSTUN {
		if len(l.queue) < maxQueued {
			l.queue = append(l.queue, append([]byte(nil), d.Payload...))
			l.note(d.Now, report.Queued, d.Source)
		} else {
			l.note(d.Now, report.QueueFull, d.Source)
		}
	} else {
		l.note(d.Now, report.NoDestination, d.Source)
	}
	return forward.Verdict{Accepted: true}
}

// destination is where media for this leg's party goes: the learned address or,
// before anything is learned, that of the SDP if it can be reached.
func (l *leg) destination() (netip.AddrPort, bool) {
	if l.learner.learned.IsValid() {
		return l.learner.learned, true
	}
	if l.learner.sdp.IsValid() && l.maySendTo(l.learner.sdp) {
		return l.learner.sdp, true
	}
	return netip.AddrPort{}, false
}

func (l *leg) maySendTo(a netip.AddrPort) bool {
	return l.stream.engine.routable(a, l.port.Local().Addr()) && l.notOurselves(a)
}

func (l *leg) mayLearn(a netip.AddrPort) bool {
	return l.stream.engine.usable(a, l.port.Local().Addr()) && l.notOurselves(a)
}

// notOurselves keeps media from circling. One of the relay's own addresses is
// fine at a port that is open for another stream (a call may pass the same
// relay twice) or when the signalling says that the party lives here.
func (l *leg) notOurselves(a netip.AddrPort) bool {
	if !l.stream.engine.isLocal(a.Addr()) {
		return true
	}
	if owner := l.stream.engine.streamAt(a); owner != nil {
		return owner != l.stream
	}
	return a.Addr() == l.learner.sdp.Addr() || a.Addr() == l.learner.signalling
}

// learned acts on a new address of this leg.
func (l *leg) learned() {
	s := l.stream
	l.know()
	if l.path == RTP {
		s.legs[RTCP][l.side].learner.sibling = l.learner.learned.Addr()
	}
	if l.learner.rank == rankOther && s.engine.policy.mode == Guarded {
		s.engine.log.Warn("media is sent to an address that neither SDP nor signalling mention", "call_id", s.callID, "party", l.side.String(), "path", l.path.String(),
			"address", l.learner.learned.String(), "sdp", l.learner.sdp.String(), "signalling", l.learner.signalling.String())
	}
	s.refresh(l.path)
	l.other().flush()
}

// flush sends the checks that waited for an address of this leg's other party.
func (l *leg) flush() {
	if len(l.queue) == 0 {
		return
	}
	dest, ok := l.other().destination()
	if !ok {
		return
	}
	for _, b := range l.queue {
		// A check that cannot be sent is repeated by the agent that made it.
		_ = l.other().port.Send(dest, b)
	}
	l.queue = nil
}

func (l *leg) current() current {
	c := l.port.Counters()
	cur := current{lastSeen: c.LastSeen, quality: c.Quality}
	if l.stream.restored != 0 {
		// Nobody listened while one process took over from another.
		cur.lastSeen = max(cur.lastSeen, l.stream.restored)
	}
	return cur
}

// observe reads from a datagram what learning needs. Nothing on the RTCP path
// can prove that it is the party's: reports have no sequence, and a phone that
// sends none would leave the port to whoever sprays it. There an unknown address
// has to be the one that RTP was learned from.
func (l *leg) observe(d forward.Datagram) source {
	s := source{now: d.Now, addr: d.Source, kind: d.Kind}
	switch {
	case l.path == RTCP:
	case l.stream.udptl && d.Kind != rtp.KindSTUN && d.Kind != rtp.KindDTLS:
		s.sequence, s.consistent = rtp.UDPTLSequence(d.Payload)
	case d.Kind == rtp.KindRTP:
		if h, ok := rtp.Parse(d.Payload); ok {
			s.ssrc, s.sequence, s.consistent = h.SSRC, h.Sequence, true
		}
	}
	return s
}

func (l *leg) note(now time.Duration, why report.Why, source netip.AddrPort) {
	l.stream.history.add(entry{at: now, why: why, side: l.side, path: l.path, source: source})
	if why.Refused() {
		l.stream.engine.countRefused(why)
	}
}
