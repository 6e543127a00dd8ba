// Package session holds the calls of a relay: for each, the offer/answer state
// machine that turns what a SIP proxy says about its SDP into media streams and
// the ports to answer.
//
//	Update ─▶ which session, which party speaks? ─▶ offer │ answer │ old
//	              offer:  streams kept or opened, nothing closed yet
//	              answer: the offer becomes the agreed list, the rest closes
//	       ◀─ one port for each stream of the message
//
// It knows no sockets, no framing and no dispatchers.
package session

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

var (
	// ErrUnknown: no such session, and the message makes none.
	ErrUnknown = errors.New("unknown session")
	// ErrMismatch: an answer that does not fit its offer.
	ErrMismatch = errors.New("the answer does not fit the offer")
	// ErrNoOffer: the message belongs to an offer that was never seen.
	ErrNoOffer = errors.New("no offer with this CSeq was seen")
)

// Config of a Table. Zero values mean the defaults.
type Config struct {
	// Clock is time.Now unless a test sets it. Streams have the clock of their
	// forwarding table; this one dates documents.
	Clock func() time.Time
	// EmptyTimeout ends a session whose streams are all closed, 90 s.
	EmptyTimeout time.Duration
	// Relay is the name written into documents.
	Relay string
	// Keeper keeps records of the calls for the next process; nil: they end with this one.
	Keeper Keeper
	// Boot names this run of the host: times on its monotonic clock mean nothing in
	// another.
	Boot string
	// Remember is how many finished sessions can still be explained, 256.
	Remember int
}

// key is what a session is found by (a Call-ID alone may stand for several
// dialogs when a call passes twice).
type key struct{ callID, tag string }

// Table holds the sessions of a relay.
type Table struct {
	// set in New, read-only afterwards
	cfg    Config
	engine *media.Engine
	log    *slog.Logger
	pages  sync.Pool // of *page

	// mu guards what follows. A session's lock may be held when it is taken,
	// never the other way round.
	mu       sync.RWMutex
	sessions map[key]*Session
	queue    queue // the same, in the order of their creation
	order    uint64
	finished []*Session // the latest, in a ring
	next     int        // of the ring
	// unreported are the ids of records whose reports nobody has acknowledged, by
	// record id of the report.
	unreported map[string]string

	dirtyMu sync.Mutex // guards what follows; taken under any lock
	dirty   []*Session // that packets have changed
}

// New returns an empty table whose streams run on an engine.
func New(cfg Config, engine *media.Engine, log *slog.Logger) *Table {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.EmptyTimeout == 0 {
		cfg.EmptyTimeout = 90 * time.Second
	}
	if cfg.Remember == 0 {
		cfg.Remember = 256
	}
	t := &Table{cfg: cfg, engine: engine, log: log, sessions: map[key]*Session{}, unreported: map[string]string{}}
	t.pages.New = func() any { return &page{} }
	return t
}

// Finished is a session that ended, and the dispatcher that it belonged to.
type Finished struct {
	Owner  string
	Report report.Session
}

// Call names a session, without its statistics. Its owner is the dispatcher that served it
// last.
type Call struct {
	CallID, FromTag, ToTag, DialogID, Owner string
	RecordID, FromURI, ToURI, Username      string
	Start                                   time.Time // first answer; zero: none
}

// Update applies one SIP message and returns the ports to write into its SDP.
// owner is the dispatcher that asks, whose call it is from now on; before is the call as
// it was. Without mayCreate an unknown session is an error. On an error nothing has changed.
func (t *Table) Update(u control.Update, owner string, mayCreate bool) (answer control.Answer, before Call, err error) {
	for {
		s, created, err := t.lookup(u, mayCreate)
		if err != nil {
			return control.Answer{}, Call{}, err
		}
		if !created {
			s.mu.Lock()
		}
		before := s.callLocked()
		answer, applied, err := t.applyLocked(s, created, u, owner)
		if applied {
			return answer, before, err
		}
	}
}

func (s *Session) callLocked() Call {
	return Call{CallID: s.callID, FromTag: s.fromTag, ToTag: s.toTag, DialogID: s.dialogID, Owner: s.owner,
		RecordID: s.record, FromURI: s.fromURI, ToURI: s.toURI, Username: s.username, Start: s.start}
}

// applyLocked gives a message to a locked session and unlocks it. A session that
// this message made does not outlive its failure, a bug's panic included. It
// returns false if the session ended between lookup and lock.
func (t *Table) applyLocked(s *Session, created bool, u control.Update, owner string) (answer control.Answer, applied bool, err error) {
	done := false
	defer func() {
		if created && (!done || err != nil) {
			s.abandon()
		}
		s.mu.Unlock()
	}()
	if s.ended {
		done = true
		return answer, false, nil
	}
	s.due.Store(0) // other rules may apply from now on
	answer, err = s.update(u, owner)
	if err == nil {
		s.keep()
	}
	done = true
	return answer, true, err
}

// lookup finds the session of a message or makes one, which is returned locked.
func (t *Table) lookup(u control.Update, mayCreate bool) (s *Session, created bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.find(u.CallID, u.FromTag, u.ToTag); s != nil {
		return s, false, nil
	}
	if !mayCreate || !u.HasMedia {
		return nil, false, ErrUnknown
	}
	t.order++
	s = newSession(t, u, t.order)
	s.mu.Lock()
	t.enter(s)
	return s, true, nil
}

// find applies the rule for whose tag is whose: the From tag is the caller's in
// what the caller began, the callee's in what the callee began.
func (t *Table) find(callID, fromTag, toTag string) *Session {
	if s := t.sessions[key{callID, fromTag}]; s != nil {
		return s
	}
	if toTag == "" {
		return nil
	}
	return t.sessions[key{callID, toTag}]
}

// Known says whether a message belongs to a session.
func (t *Table) Known(callID, fromTag, toTag string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.find(callID, fromTag, toTag) != nil
}

// Remove ends a session because the SIP proxy said so.
func (t *Table) Remove(r control.Remove) (Finished, error) {
	t.mu.RLock()
	s := t.find(r.CallID, r.FromTag, r.ToTag)
	t.mu.RUnlock()
	if s == nil {
		return Finished{}, ErrUnknown
	}
	f, ok := s.finish(report.ReasonRemoved, report.StatusClosed)
	if !ok {
		return Finished{}, ErrUnknown
	}
	return f, nil
}

// Terminate ends the sessions of a Call-ID, or the one with this From tag.
func (t *Table) Terminate(callID, fromTag string) []Finished {
	return finishAll(t.matching(callID, fromTag), report.ReasonTerminated)
}

// EndAll ends every session.
func (t *Table) EndAll(reason string) []Finished { return finishAll(t.all(), reason) }

func finishAll(sessions []*Session, reason string) []Finished {
	var out []Finished
	for _, s := range sessions {
		if f, ok := s.finish(reason, report.StatusClosed); ok {
			out = append(out, f)
		}
	}
	return out
}

// Sweep ends the streams that timed out and returns the sessions that ended
// with their last stream. It is to be called about once a second.
func (t *Table) Sweep() []Finished {
	now := int64(t.engine.Now())
	var due []*Session
	t.mu.RLock()
	for _, p := range t.queue.places {
		if p.session == nil {
			continue
		}
		if at := p.session.due.Load(); at == 0 || at <= now {
			due = append(due, p.session)
		}
	}
	t.mu.RUnlock()
	var out []Finished
	for _, s := range due {
		if f, ok := s.sweep(); ok {
			out = append(out, f)
		}
	}
	return out
}

// Len is the number of sessions.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.sessions)
}

// Sessions returns the documents of all sessions, the oldest first.
func (t *Table) Sessions() []report.Session { return documents(t.all()) }

// Session returns the documents of a Call-ID's sessions.
func (t *Table) Session(callID, fromTag string) []report.Session {
	return documents(t.matching(callID, fromTag))
}

// Explain tells what happened to the sessions of a Call-ID, also if they ended
// lately.
func (t *Table) Explain(callID, fromTag string) []report.Explanation {
	found := t.matching(callID, fromTag)
	if len(found) == 0 {
		found = t.remembered(callID, fromTag)
	}
	out := make([]report.Explanation, len(found))
	for i, s := range found {
		out[i] = s.explain()
	}
	return out
}

// Calls names all sessions.
func (t *Table) Calls() []Call {
	sessions := t.all()
	out := make([]Call, len(sessions))
	for i, s := range sessions {
		s.mu.Lock()
		out[i] = s.callLocked()
		s.mu.Unlock()
	}
	return out
}

// OneWay is the number of streams in which only one party is heard although both
// should send.
func (t *Table) OneWay() int {
	n := 0
	for _, s := range t.all() {
		s.mu.Lock()
		for _, st := range s.live() {
			if st.media.OneWay() {
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}

// StreamCount is the number of live streams by media type.
func (t *Table) StreamCount() map[string]int {
	out := map[string]int{}
	for _, s := range t.all() {
		s.mu.Lock()
		for _, st := range s.live() {
			out[report.Text(st.mediaType)]++
		}
		s.mu.Unlock()
	}
	return out
}
