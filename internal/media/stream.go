package media

import (
	"net/netip"
	"sync"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
)

// Direction of a party's media, from its own point of view (RFC 4566 section 6).
type Direction uint8

const (
	SendRecv Direction = iota
	SendOnly
	RecvOnly
	Inactive
)

// String is the attribute of the SDP.
func (d Direction) String() string {
	return [...]string{"sendrecv", "sendonly", "recvonly", "inactive"}[d&3]
}

// Party is what the signalling says about one party of a stream.
type Party struct {
	Addr       netip.AddrPort // of its SDP; unspecified or port 0: unchanged
	Signalling netip.Addr     // where its SIP message came from; invalid: unchanged
	Direction  Direction
	ICE        bool
	// NewTag: another phone than before (a forked call); learning starts anew.
	NewTag bool
}

// OnHold says whether the party put the stream on hold.
func (p Party) OnHold() bool {
	unspecified := p.Addr.Addr().IsValid() && p.Addr.Addr().IsUnspecified() && !p.ICE
	return p.Direction == SendOnly || p.Direction == Inactive || unspecified
}

// Stream is one running media stream: four ports, two paths, two parties.
type Stream struct {
	// set by Engine.Open or Engine.Restore, read-only afterwards
	engine    *Engine
	callID    string
	changed   func() // see Spec
	mediaType string
	udptl     bool
	created   time.Duration
	wall      time.Time
	legs      [2][2]*leg // path, side

	mu       sync.Mutex // guards what follows and the legs
	parties  [2]Party
	hold     [2]bool
	heldAt   time.Duration
	resumed  time.Duration // also when learning reopened: time-outs begin anew
	answered bool
	at       time.Duration // of the answer
	running  bool          // all legs stand and Close was not called
	waiting  bool          // restored, and to run with Resume
	restored time.Duration // when this process took it over; zero: it opened it
	endedAt  time.Duration
	history  history
}

// MediaType is the first word of the m= line.
func (s *Stream) MediaType() string { return s.mediaType }

// Local is the port that a party sends RTP to.
func (s *Stream) Local(side Side) netip.AddrPort { return s.legs[RTP][side].port.Local() }

// Describe takes what a party's SDP and signalling say now.
func (s *Stream) Describe(side Side, p Party) {
	now := s.engine.table.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return
	}
	reopened := report.Why("")
	for path := range s.legs {
		if why := s.legs[path][side].describe(p, now, s.engine.policy.trusted); why != "" {
			reopened = why
		}
	}
	if reopened != "" {
		s.resumed = now
		s.noteSide(now, reopened, side, p.Addr)
	}
	s.parties[side] = p
	s.setHold(side, p.OnHold(), now)
	s.restart()
}

// describe brings one leg up to date.
func (l *leg) describe(p Party, now time.Duration, trusted []netip.Prefix) (reopened report.Why) {
	addr := p.Addr
	if l.path == RTCP && addr.Port() != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), addr.Port()+1)
	}
	before := l.learner.known
	if l.learner.setSignalling(p.Signalling, now, trusted) {
		reopened = report.ReopenedSignal
	}
	if l.learner.setSDP(addr, now) {
		reopened = report.ReopenedSDP
	}
	if p.NewTag && before && reopened != report.ReopenedSDP {
		l.learner.forget(now)
		reopened = report.ReopenedTag
	}
	if reopened != "" && !l.learner.learned.IsValid() {
		l.learner.sibling = netip.Addr{}
	}
	l.learner.maySend = p.Direction == SendRecv || p.Direction == SendOnly
	l.know()
	return reopened
}

// know tells the table which addresses may be the party's.
func (l *leg) know() {
	k := &l.learner
	l.port.Know([3]netip.Addr{k.learned.Addr(), k.sdp.Addr(), k.signalling})
}

func (s *Stream) setHold(side Side, hold bool, now time.Duration) {
	was := s.onHold()
	s.hold[side] = hold
	switch is := s.onHold(); {
	case is && !was:
		s.heldAt = now
		s.note(now, report.Held, side.String())
	case was && !is:
		s.resumed = now
		for path := range s.legs {
			for _, l := range s.legs[path] {
				l.learner.restartWaits(now)
			}
		}
		s.note(now, report.Resumed, side.String())
	}
}

// Answered starts the learning of unknown addresses: a final answer has come.
func (s *Stream) Answered() {
	now := s.engine.table.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answered || !s.running {
		return
	}
	s.answered, s.at = true, now
	for path := range s.legs {
		for _, l := range s.legs[path] {
			l.learner.answer(now)
		}
	}
	s.note(now, report.Answered, "")
}

func (s *Stream) onHold() bool { return s.hold[Caller] || s.hold[Callee] }

// OnHold says whether either party holds the stream.
func (s *Stream) OnHold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.onHold()
}

// restart takes all flows back, so that connected ports hear everyone again,
// and installs those that still hold.
func (s *Stream) restart() {
	for path := range s.legs {
		for _, l := range s.legs[path] {
			l.withdraw()
		}
	}
	for path := range s.legs {
		s.refresh(Path(path))
		for _, l := range s.legs[path] {
			l.flush()
		}
	}
}

func (l *leg) withdraw() {
	if l.installed != (forward.Flow{}) {
		l.installed = forward.Flow{}
		l.port.Withdraw()
	}
}

// refresh installs, for both directions of a path, the flow that is decided now
// and takes back one that no longer is.
func (s *Stream) refresh(path Path) {
	for _, l := range s.legs[path] {
		dest, ok := l.other().destination()
		if !ok || !l.learner.learned.IsValid() || l.learner.provisional {
			l.withdraw()
			continue
		}
		flow := forward.Flow{Source: l.learner.learned, Out: l.other().port, Dest: dest}
		if l.installed != flow {
			l.installed = flow
			l.port.Install(flow)
		}
	}
}

// Close ends the stream and gives its ports back. Closing twice is fine.
func (s *Stream) Close(why string) {
	now := s.engine.table.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running && !s.waiting {
		return
	}
	s.note(now, report.Ended, why)
	s.running, s.waiting, s.endedAt = false, false, now
	s.engine.release(s)
}

// touch says that packets changed something, see Spec.
func (s *Stream) touch() {
	if s.changed != nil {
		s.changed()
	}
}

func (s *Stream) note(now time.Duration, why report.Why, detail string) {
	s.history.add(entry{at: now, why: why, whole: true, detail: detail})
}

func (s *Stream) noteSide(now time.Duration, why report.Why, side Side, a netip.AddrPort) {
	s.history.add(entry{at: now, why: why, side: side, source: a})
}
