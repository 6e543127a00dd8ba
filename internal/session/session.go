package session

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

// Session is one dialog as the relay sees it.
type Session struct {
	// set in newSession, read-only afterwards
	table   *Table
	order   uint64
	callID  string
	fromTag string
	created time.Time

	dirty atomic.Bool  // packets changed it since it was kept
	due   atomic.Int64 // when one of its streams may time out, on the clock of the streams; 0: unknown

	mu       sync.Mutex // guards what follows
	toTag    string
	fromURI  string
	toURI    string
	agents   [2]string // User-Agent of each party, empty: never seen
	username string
	dialogID string
	owner    string
	faces    [2]netip.Addr // signalling address of each party
	tags     [2]string     // the tag that each party last answered with

	offers  []*offer  // the latest is the current one
	agreed  *offer    // the latest that was answered; nil: none
	streams []*stream // all that ever had ports

	start   time.Time // first answer; zero: none
	changed time.Time
	end     time.Time
	ended   bool
	reason  string
	record  string // id of the report; empty: made when the session ends
}

// pair is the CSeq of both parties at an offer. They count on their own, so an
// offer is newer only by the component of whoever began the transaction.
type pair [2]uint32

func (p pair) with(side media.Side, cseq uint32) pair { p[side] = cseq; return p }

// compare orders pairs by the caller's component, then the callee's.
func (p pair) compare(o pair) int {
	for i := range p {
		switch {
		case p[i] < o[i]:
			return -1
		case p[i] > o[i]:
			return 1
		}
	}
	return 0
}

// offer is the list of streams of one offer, in the order of its SDP.
type offer struct {
	pair    pair
	by      media.Side
	streams []*stream
}

func (o *offer) has(s *stream) bool {
	if o == nil {
		return false
	}
	for _, other := range o.streams {
		if other == s {
			return true
		}
	}
	return false
}

// keptOffers bounds how many old offers are kept for messages that come late.
const keptOffers = 16

func newSession(t *Table, u control.Update, order uint64) *Session {
	now := t.cfg.Clock()
	return &Session{table: t, order: order, callID: u.CallID, fromTag: u.FromTag, created: now, changed: now,
		fromURI: u.FromURI, toURI: u.ToURI, username: u.Signaling.Username, record: u.RecordID}
}

// speaker says who sent a message's SDP and which party's CSeq it has.
func (s *Session) speaker(u control.Update) (party, counted media.Side) {
	same := u.FromTag == s.fromTag
	party, counted = media.Callee, media.Callee
	if same {
		counted = media.Caller
	}
	if same == (u.Kind == control.KindRequest) {
		party = media.Caller
	}
	return party, counted
}

// update applies a message to the session.
func (s *Session) update(u control.Update, owner string) (control.Answer, error) {
	party, counted := s.speaker(u)
	if err := s.apply(u, party, counted); err != nil {
		return control.Answer{}, err
	}
	answer, err := s.answerFor(party, counted, u.CSeq)
	if err != nil {
		return answer, err
	}
	s.owner = owner
	s.changed = s.table.cfg.Clock()
	if u.DialogID != "" {
		s.dialogID = u.DialogID
	}
	if s.agents[party] == "" {
		s.agents[party] = u.UserAgent
	}
	if counted == media.Caller && s.toTag == "" {
		s.toTag = u.ToTag
	}
	if u.Kind == control.KindReply && u.ToTag != "" {
		s.tags[party] = u.ToTag
		for _, st := range s.current().streams {
			if st.isLive() {
				st.media.Answered()
			}
		}
	}
	return answer, nil
}

// apply decides what kind of message it is and changes the streams.
func (s *Session) apply(u control.Update, party, counted media.Side) error {
	current := s.current()
	if current == nil {
		return s.offer(u, party, pair{}.with(counted, u.CSeq))
	}
	switch p := current.pair.with(counted, u.CSeq); {
	case s.passesTwice(u):
		return nil
	case p.compare(current.pair) > 0:
		if !u.HasMedia {
			return nil
		}
		return s.offer(u, party, p)
	case p == current.pair:
		return s.answer(u, party)
	}
	return nil // an old message: its ports are answered, nothing changes
}

// passesTwice recognises the second pass of a call that spirals through the same
// SIP proxy: its SDP already names this session's own ports.
func (s *Session) passesTwice(u control.Update) bool {
	found := false
	for _, m := range u.Media {
		if m.Port == 0 {
			continue
		}
		if !s.owns(netip.AddrPortFrom(m.Addr, m.Port)) {
			return false
		}
		found = true
	}
	return found
}

func (s *Session) owns(a netip.AddrPort) bool {
	for _, st := range s.streams {
		if st.isLive() && s.table.engine.Owns(st.media, a) {
			return true
		}
	}
	return false
}

// answerFor finds the ports of the newest offer with this CSeq. The SDP of the
// caller goes to the callee, so it has to name the callee's ports, and back.
func (s *Session) answerFor(party, counted media.Side, cseq uint32) (control.Answer, error) {
	var found *offer
	for _, o := range s.offers {
		if o.pair[counted] == cseq && (found == nil || o.pair.compare(found.pair) > 0) {
			found = o
		}
	}
	if found == nil {
		return control.Answer{}, ErrNoOffer
	}
	answer := control.Answer{Ports: make([]uint16, len(found.streams))}
	v6 := false
	for i, st := range found.streams {
		if !st.isLive() {
			v6 = v6 || st.v6
			continue
		}
		local := st.media.Local(party.Other())
		ip := s.table.engine.Advertise(local.Addr())
		if !answer.IP.IsValid() {
			answer.IP = ip
		}
		// One address stands for all streams of an answer; a stream of the other
		// family cannot be expressed.
		if ip.Is4() == answer.IP.Is4() {
			answer.Ports[i] = local.Port()
		}
	}
	if !answer.IP.IsValid() {
		answer.IP = s.table.engine.DefaultAddress(v6)
	}
	return answer, nil
}

func (s *Session) current() *offer {
	if len(s.offers) == 0 {
		return nil
	}
	return s.offers[len(s.offers)-1]
}

// live returns the streams that have ports, of the agreed and the current offer.
func (s *Session) live() []*stream {
	var out []*stream
	for _, st := range s.streams {
		if st.isLive() {
			out = append(out, st)
		}
	}
	return out
}

// closeUnless closes the live streams of an offer that neither of two others has.
func (s *Session) closeUnless(old, a, b *offer) {
	if old == nil {
		return
	}
	for _, st := range old.streams {
		if st.isLive() && !a.has(st) && !b.has(st) {
			st.close(report.StatusClosed, s.table.cfg.Clock())
		}
	}
}

func newRecordID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func direction(word string) media.Direction {
	switch strings.ToLower(word) {
	case "sendonly":
		return media.SendOnly
	case "recvonly":
		return media.RecvOnly
	case "inactive":
		return media.Inactive
	}
	return media.SendRecv
}
