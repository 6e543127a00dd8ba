package session

import (
	"fmt"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

// offer applies a new offer. Streams that go on keep their ports; new ones get
// some; what the offer leaves out stays until the offer is answered, so that a
// refused one changes nothing.
func (s *Session) offer(u control.Update, party media.Side, p pair) error {
	if !u.HasMedia {
		return ErrNoOffer
	}
	next := &offer{pair: p, by: party, streams: s.match(u.Media, party)}
	if err := s.open(next, u, party); err != nil {
		return err
	}
	s.takeSignalling(u, party)
	for i, m := range u.Media {
		if st := next.streams[i]; st.isLive() && m.Port != 0 {
			st.describe(party, m, u.Signaling.IP, false)
		}
	}
	if previous := s.current(); previous != s.agreed {
		s.closeUnless(previous, s.agreed, next) // an offer that was never answered
	}
	s.offers = append(s.offers, next)
	if len(s.offers) > keptOffers {
		s.offers = append(s.offers[:0], s.offers[1:]...)
	}
	return nil
}

// match finds, for each offered stream, the existing one that it goes on with;
// nil for none. Each is found once: exact matches first, or a removed stream
// would take the place of one that stays.
func (s *Session) match(offered []control.Media, party media.Side) []*stream {
	var existing []*stream
	for _, o := range []*offer{s.agreed, s.current()} {
		if o != nil {
			existing = append(existing, o.streams...)
		}
	}
	out := make([]*stream, len(offered))
	taken := map[*stream]bool{}
	for _, want := range []fit{fitExact, fitLoose} {
		for i, m := range offered {
			for _, st := range existing {
				if out[i] == nil && !taken[st] && st.matches(m, party) == want {
					out[i], taken[st] = st, true
				}
			}
		}
	}
	for i, m := range offered {
		if m.Port == 0 {
			out[i] = nil // removed; what it matched closes when that is agreed
		}
	}
	return out
}

// open fills the gaps of an offer with new streams, all or none.
func (s *Session) open(o *offer, u control.Update, party media.Side) error {
	before := len(s.streams)
	faces := s.faces
	faces[party] = u.Signaling.IP
	if party == media.Caller && u.Signaling.DestinationIP.IsValid() {
		faces[media.Callee] = u.Signaling.DestinationIP
	}
	now := s.table.cfg.Clock()
	for i, m := range u.Media {
		if o.streams[i] != nil {
			continue
		}
		st := &stream{mediaType: m.Type, v6: m.Addr.Is6(), created: now}
		o.streams[i] = st
		if m.Port == 0 {
			st.status = report.StatusClosed
			continue
		}
		running, err := s.table.engine.Open(media.Spec{MediaType: m.Type, IPv6: st.v6, Faces: faces, CallID: s.callID, Changed: s.table.changed(s)})
		if err != nil {
			for _, st := range s.streams[before:] {
				st.close(report.StatusClosed, now)
			}
			s.streams = s.streams[:before]
			return fmt.Errorf("stream %d (%s): %w", i+1, m.Type, err)
		}
		st.media = running
		s.streams = append(s.streams, st)
	}
	return nil
}

func (s *Session) takeSignalling(u control.Update, party media.Side) {
	if u.Signaling.IP.IsValid() {
		s.faces[party] = u.Signaling.IP
	}
	if party == media.Caller && u.Signaling.DestinationIP.IsValid() {
		s.faces[media.Callee] = u.Signaling.DestinationIP
	}
}

// answer applies a message that belongs to the current offer: an answer, its
// repetition, or the offer once more.
func (s *Session) answer(u control.Update, party media.Side) error {
	current := s.current()
	n := min(len(u.Media), len(current.streams))
	for i, m := range u.Media[:n] {
		if st := current.streams[i]; st.mediaType != m.Type {
			return fmt.Errorf("stream %d is %s, its answer %s: %w", i+1, st.mediaType, m.Type, ErrMismatch)
		}
	}
	answers := party != current.by
	now := s.table.cfg.Clock()
	if answers {
		s.markAnswered(current)
	}
	if !u.HasMedia {
		return nil
	}
	newTag := u.Kind == control.KindReply && u.ToTag != "" && s.tags[party] != "" && s.tags[party] != u.ToTag
	s.takeSignalling(u, party)
	for i, st := range current.streams {
		switch {
		case i >= n:
			if answers {
				st.close(report.StatusRejected, now)
			}
		case u.Media[i].Port == 0:
			st.close(report.StatusRejected, now)
		case st.isLive():
			st.describe(party, u.Media[i], u.Signaling.IP, newTag)
		}
	}
	if answers && s.agreed != current {
		old := s.agreed
		s.agreed = current
		s.closeUnless(old, current, nil)
	}
	return nil
}

func (s *Session) markAnswered(o *offer) {
	now := s.table.cfg.Clock()
	if s.start.IsZero() {
		s.start = now
	}
	for _, st := range o.streams {
		if st.media != nil && st.start.IsZero() {
			st.start = now
		}
	}
}
