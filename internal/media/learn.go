package media

import (
	"net/netip"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/rtp"
)

// Constants of the learning rules. What people elsewhere call latching is here
// a decision about each source, by rank.
const (
	nearbyPackets = 3                      // 60 ms of audio: one stray packet is not a party
	otherPackets  = 5                      // 100 ms: long enough to beat a guess, too short to be missed
	nearbyWait    = 500 * time.Millisecond // for a known address to appear first
	otherWait     = time.Second
	maxStep       = 50              // sequence numbers between consistent packets
	maxGap        = 5 * time.Second // time between consistent packets
	silence       = 2 * time.Second // before another source may take over
	maxAhead      = 3000            // a minute of a stream that goes on elsewhere
	maxMoves      = 5               // per moveWindow
	moveWindow    = time.Minute
	obsoleteFor   = 500 * time.Millisecond // datagrams of before a changed SDP are still on their way
	maxCandidates = 8
	packetTime    = 20 * time.Millisecond
)

// source is one datagram as learning sees it.
type source struct {
	now  time.Duration
	addr netip.AddrPort
	kind rtp.Kind
	// ssrc and sequence are of RTP or of UDPTL (ssrc 0).
	ssrc       uint32
	sequence   uint16
	consistent bool // it has what consistency is judged by
}

// current is what the table knows about the learned address.
type current struct {
	lastSeen time.Duration
	quality  forward.Quality
}

// learner decides for one leg which source is the party. It is pure: it takes
// values, changes itself and returns its decision. The zero value knows nothing.
type learner struct {
	// what the signalling says
	known      bool // the party has had an SDP
	sdp        netip.AddrPort
	signalling netip.Addr
	sibling    netip.Addr // RTCP only: the IP learned on the RTP path of this leg
	maySend    bool       // by the direction of its SDP

	// waitFrom is when the waits of ranks 3 and 4 began, if answered.
	answered  bool
	waitFrom  time.Duration
	freshFrom time.Duration // packets of before are no proof that the learned address is alive

	learned       netip.AddrPort
	rank          int
	provisional   bool // learned from STUN or DTLS only
	obsolete      netip.AddrPort
	obsoleteUntil time.Duration

	lastKnown               time.Duration // last datagram of rank 1 or 2
	lastNearby              time.Duration // last consistent one of rank 3
	heardKnown, heardNearby bool

	candidates []candidate
	moves      []time.Duration // the latest, at most maxMoves
}

// candidate is a source of rank 3 or 4 that sends consistently.
type candidate struct {
	addr     netip.AddrPort
	ssrc     uint32
	sequence uint16
	count    int
	last     time.Duration
	ripe     time.Duration // when it first sent with all waits over, zero if it has not
}

// policy is what all legs have in common.
type policy struct {
	mode    Learning
	trusted []netip.Prefix
}

// decision of a learner. changed: the learned address is another one now.
type decision struct {
	accepted bool
	changed  bool
	why      report.Why // empty for a datagram from the learned address
}

func ignore(why report.Why) decision { return decision{why: why} }

// learn decides about one datagram. usable says whether media may go to its
// source at all.
func (l *learner) learn(s source, cur current, pol policy, usable bool) decision {
	if l.learned.IsValid() && s.addr == l.learned {
		if l.provisional && s.kind.IsMedia() {
			l.provisional = false
		}
		l.noteKnown(s)
		return decision{accepted: true}
	}
	if !usable {
		return ignore(report.IgnoredUnusable)
	}
	if pol.mode == FirstPacket {
		return l.firstPacket(s)
	}
	if !l.known {
		return ignore(report.IgnoredBeforeSDP)
	}
	rank := l.rankOf(s.addr, pol.trusted)
	if pol.mode == Strict && rank > rankKnown {
		return ignore(report.IgnoredStrict)
	}
	if s.addr == l.obsolete && rank != rankSDP && s.now < l.obsoleteUntil {
		return ignore(report.IgnoredObsolete)
	}
	if rank <= rankKnown {
		l.lastKnown, l.heardKnown = s.now, true
	}
	if l.learned.IsValid() && !l.replaceable(s, rank, cur) {
		return l.move(s, rank, cur)
	}
	if why := l.admit(s, rank); why != "" {
		return ignore(why)
	}
	why := report.Replaced
	if !l.learned.IsValid() {
		why = learnedBecause(s.addr, l, rank)
	}
	l.take(s, rank)
	return decision{accepted: true, changed: true, why: why}
}

// replaceable says whether the learned address gives way to s as soon as s is
// admitted: it has a better rank, or it sent nothing but checks so far.
func (l *learner) replaceable(s source, rank int, cur current) bool {
	if l.provisional {
		return s.kind.IsMedia() || rank < l.rank
	}
	// A connectivity check takes nothing away from an address with media.
	return rank < l.rank && (s.kind.IsMedia() || !l.alive(s.now, cur))
}

// alive says whether the learned address was heard lately, and since the last
// thing that the signalling changed.
func (l *learner) alive(now time.Duration, cur current) bool {
	return cur.lastSeen >= l.freshFrom && now-cur.lastSeen < silence
}

// move decides whether a source of equal or worse rank takes over.
func (l *learner) move(s source, rank int, cur current) decision {
	if l.alive(s.now, cur) {
		return ignore(report.IgnoredInUse)
	}
	why := report.IgnoredOtherStream
	switch {
	case s.addr.Addr() == l.learned.Addr():
		why = report.MovedSameIP
	case rank <= rankKnown:
		why = report.MovedKnown
	case s.now-cur.lastSeen < silence:
		return ignore(report.IgnoredInUse) // a signalling change frees known sources only
	case s.kind == rtp.KindRTP && cur.quality.HasRTP && s.ssrc == cur.quality.SSRC && s.sequence-cur.quality.Sequence <= maxAhead:
		why = report.MovedStream
	}
	if why == report.IgnoredOtherStream {
		return ignore(why)
	}
	if len(l.moves) == maxMoves && s.now-l.moves[0] < moveWindow {
		return ignore(report.IgnoredMoves)
	}
	if len(l.moves) == maxMoves {
		l.moves = append(l.moves[:0], l.moves[1:]...)
	}
	l.moves = append(l.moves, s.now)
	l.take(s, rank)
	return decision{accepted: true, changed: true, why: why}
}

// admit applies the conditions of a rank. It returns why not, or nothing.
func (l *learner) admit(s source, rank int) report.Why {
	if rank <= rankKnown {
		return ""
	}
	if !s.consistent {
		return report.IgnoredInconsistent
	}
	c := l.collect(s)
	needed, wait := nearbyPackets, nearbyWait
	if rank == rankOther {
		needed, wait = otherPackets, otherWait
	} else if c.count > 1 {
		l.lastNearby, l.heardNearby = s.now, true
	}
	switch {
	case !l.answered && !learnsUnanswered:
		return report.IgnoredNotAnswered
	case rank == rankOther && !l.maySend:
		return report.IgnoredDirection
	case s.now-l.waitFrom < wait,
		l.heardKnown && s.now-l.lastKnown < wait,
		rank == rankOther && l.heardNearby && s.now-l.lastNearby < wait:
		c.ripe = 0
		return report.IgnoredWaiting
	}
	// Packets that piled up while this relay was kept from work arrive all at once, and
	// those of the party may lie behind them.
	if c.ripe == 0 {
		c.ripe = s.now
	}
	if c.count < needed || s.now-c.ripe < time.Duration(needed-1)*packetTime {
		return report.IgnoredCollecting
	}
	return ""
}

// collect counts a consistent source. When there are too many, the one that was
// silent longest is forgotten.
func (l *learner) collect(s source) *candidate {
	oldest := 0
	for i := range l.candidates {
		c := &l.candidates[i]
		if c.addr == s.addr {
			step := s.sequence - c.sequence
			follows := step >= 1 && step <= maxStep
			if !follows || c.ssrc != s.ssrc || s.now-c.last > maxGap {
				c.count, c.ripe = 0, 0
			}
			c.count++
			c.ssrc, c.sequence, c.last = s.ssrc, s.sequence, s.now
			return c
		}
		if c.last < l.candidates[oldest].last {
			oldest = i
		}
	}
	fresh := candidate{addr: s.addr, ssrc: s.ssrc, sequence: s.sequence, count: 1, last: s.now}
	if len(l.candidates) < maxCandidates {
		l.candidates = append(l.candidates, fresh)
		return &l.candidates[len(l.candidates)-1]
	}
	l.candidates[oldest] = fresh
	return &l.candidates[oldest]
}

func (l *learner) take(s source, rank int) {
	l.learned, l.rank = s.addr, rank
	l.provisional = !s.kind.IsMedia()
	l.candidates = nil
}

func (l *learner) noteKnown(s source) {
	if l.rank <= rankKnown {
		l.lastKnown, l.heardKnown = s.now, true
	}
}

// firstPacket is the original's rule.
func (l *learner) firstPacket(s source) decision {
	switch {
	case !l.learned.IsValid() && s.addr == l.obsolete:
		return ignore(report.IgnoredObsolete)
	case l.learned.IsValid():
		return ignore(report.IgnoredInUse)
	}
	l.take(s, rankOther)
	l.provisional = false
	return decision{accepted: true, changed: true, why: report.LearnedFirst}
}

func (l *learner) rankOf(a netip.AddrPort, trusted []netip.Prefix) int {
	ip := a.Addr()
	switch {
	case l.sdp.IsValid() && a == l.sdp:
		return rankSDP
	case ip == l.sdp.Addr(), ip == l.signalling, ip == l.sibling, contains(trusted, ip):
		return rankKnown
	case sameNetwork(ip, l.sdp.Addr()), sameNetwork(ip, l.signalling):
		return rankNearby
	}
	return rankOther
}

func learnedBecause(a netip.AddrPort, l *learner, rank int) report.Why {
	switch rank {
	case rankSDP:
		return report.LearnedSDP
	case rankKnown:
		if ip := a.Addr(); ip != l.sdp.Addr() && ip != l.signalling && ip != l.sibling {
			return report.LearnedTrusted
		}
		return report.LearnedKnownIP
	case rankNearby:
		return report.LearnedNearby
	}
	return report.LearnedOther
}

// setSDP takes the party's address from an SDP. An address that is not
// specified, or port 0, means hold and changes nothing. It returns whether
// learning starts anew.
func (l *learner) setSDP(a netip.AddrPort, now time.Duration) (reopened bool) {
	first := !l.known
	l.known = true
	if !a.Addr().IsValid() || a.Addr().IsUnspecified() || a.Port() == 0 || a == l.sdp {
		return false
	}
	had := l.sdp.IsValid()
	l.sdp = a
	if first || !had {
		return false
	}
	l.forget(now)
	return true
}

// setSignalling takes the IP that the party's SIP messages come from. The
// learned address stays, with the rank it has now.
func (l *learner) setSignalling(ip netip.Addr, now time.Duration, trusted []netip.Prefix) (reopened bool) {
	if !ip.IsValid() || ip == l.signalling {
		return false
	}
	had := l.signalling.IsValid()
	l.signalling = ip
	if !had {
		return false
	}
	l.restartWaits(now)
	if l.learned.IsValid() {
		l.rank = l.rankOf(l.learned, trusted)
	}
	return true
}

// forget starts learning anew; datagrams of the old address that are still on
// their way do not win it back.
func (l *learner) forget(now time.Duration) {
	if l.learned.IsValid() {
		l.obsolete, l.obsoleteUntil = l.learned, now+obsoleteFor
	}
	l.learned, l.rank, l.provisional = netip.AddrPort{}, 0, false
	l.candidates = nil
	l.restartWaits(now)
}

// answer starts the waits of ranks 3 and 4.
func (l *learner) answer(now time.Duration) {
	if !l.answered {
		l.answered = true
		l.waitFrom = now
	}
}

func (l *learner) restartWaits(now time.Duration) {
	l.waitFrom, l.freshFrom = now, now
}
