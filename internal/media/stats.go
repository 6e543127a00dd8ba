package media

import (
	"net/netip"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/rtp"
)

// Never is the time of what has not happened.
const Never = forward.Never

// Stats is a stream's state at one moment. It stays true after Close.
type Stats struct {
	MediaType  string
	Parties    [2]PartyStats
	FirstMedia time.Duration // after creation; Never if none
}

// PartyStats is one party's part of Stats.
type PartyStats struct {
	Local   netip.AddrPort
	Learned netip.AddrPort // invalid: nothing learned
	Packets uint64         // RTP and RTCP
	Bytes   uint64
	Codec   string
	Quality report.Quality
}

// Stats reads the counters. It holds up no packet: they are read without a lock.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	now := s.now()
	learned := [2]netip.AddrPort{s.legs[RTP][Caller].learner.learned, s.legs[RTP][Callee].learner.learned}
	began := [2]time.Duration{s.legs[RTP][Caller].first, s.legs[RTP][Callee].first}
	s.mu.Unlock()
	st := Stats{MediaType: s.mediaType, FirstMedia: Never}
	for side := range st.Parties {
		media, control := s.legs[RTP][side].port.Counters(), s.legs[RTCP][side].port.Counters()
		if first := began[side]; first != Never && (st.FirstMedia == Never || first-s.created < st.FirstMedia) {
			st.FirstMedia = first - s.created
		}
		st.Parties[side] = PartyStats{
			Local: s.legs[RTP][side].port.Local(), Learned: learned[side],
			Packets: media.Packets + control.Packets, Bytes: media.Bytes + control.Bytes,
			Codec: s.codec(media),
			Quality: report.Quality{
				Lost: media.Quality.Lost, JitterMS: milliseconds(media.Quality.Jitter),
				Refused: media.Refused + control.Refused, Silent: ago(now, media.LastMedia), Mover: mover(media),
			},
		}
	}
	return st
}

// codec names what a party sends; T.38 has no payload type to go by.
func (s *Stream) codec(c forward.Counters) string {
	if s.udptl {
		if c.LastMedia == forward.Never {
			return "Unknown"
		}
		return "T38"
	}
	if pt, ok := c.Quality.Codec(); ok {
		return rtp.CodecName(pt)
	}
	return "Unknown"
}

// mover is what carries a direction now.
func mover(c forward.Counters) string {
	if c.Decided {
		return c.Mover
	}
	return report.MoverUndecided
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func ago(now, at time.Duration) float64 {
	if at == forward.Never {
		return -1
	}
	return (now - at).Seconds()
}

// now stands still when the stream has ended.
func (s *Stream) now() time.Duration {
	if s.running {
		return s.engine.table.Now()
	}
	return s.endedAt
}

// Explain tells the stream's state and history.
func (s *Stream) Explain() report.StreamExplanation {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	e := report.StreamExplanation{
		MediaType: s.mediaType, Created: float64(s.wall.UnixMilli()) / 1000, Age: (now - s.created).Seconds(),
		Answered: s.answered, Decisions: s.history.decisions(s.created), Forgotten: s.history.forgotten,
	}
	for path := range s.legs {
		for side, l := range s.legs[path] {
			e.Legs = append(e.Legs, l.explain(now, s.parties[side].Direction))
		}
	}
	return e
}

func (l *leg) explain(now time.Duration, direction Direction) report.Leg {
	c := l.port.Counters()
	r := report.Leg{
		Party: l.side.String(), Path: l.path.String(), Local: l.port.Local().String(), Direction: direction.String(),
		Rank: l.learner.rank, Packets: c.Packets, Bytes: c.Bytes, Unsent: c.Unsent, Refused: c.Refused,
		LastMedia: ago(now, c.LastMedia), Mover: mover(c), NotKernel: c.NotKernel, Lost: c.Quality.Lost, JitterMS: milliseconds(c.Quality.Jitter),
	}
	if l.learner.sdp.IsValid() {
		r.SDP, r.SDPRoutable = l.learner.sdp.String(), l.maySendTo(l.learner.sdp)
	}
	if l.learner.signalling.IsValid() {
		r.Signalling = l.learner.signalling.String()
	}
	if l.learner.learned.IsValid() {
		r.Learned = l.learner.learned.String()
	}
	if dest, ok := l.destination(); ok {
		r.SendsTo = dest.String()
		r.Unreachable = l.unreachable == dest
	}
	return r
}
