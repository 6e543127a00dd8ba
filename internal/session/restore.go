package session

import (
	"errors"
	"fmt"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/snapshot"
)

// Restore takes a session over from the record that a former process gave to its Keeper
// under this id. It is to be called for every record, before anything else, and then
// Resume. A session that has ended, or whose ports cannot be had, is
// returned to be reported. What cannot be read is logged.
func (t *Table) Restore(id string, record []byte) (f Finished, ended bool) {
	order, err := orderOf(id)
	if err != nil {
		t.log.Error("a record of a call is not taken over", "error", err)
		return Finished{}, false
	}
	s := &Session{table: t, order: order}
	t.mu.Lock()
	t.order = max(t.order, order)
	t.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := snapshot.Parse(record, s, (*Session).fields); err != nil {
		t.refuse(s, err)
		return Finished{}, false
	}
	var failed error
	for _, st := range s.streams {
		if st.media == nil {
			failed = errors.Join(failed, errors.New("a stream has no ports"))
			st.media = new(media.Stream)
		}
		if err := t.engine.Restore(st.media, s.callID, t.changed(s)); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s stream: %w", st.mediaType, err))
		}
	}
	if !s.ended && failed == nil && !t.reenter(s) {
		failed = errors.Join(failed, errors.New("the journal has the call twice"))
	}
	switch {
	case s.ended:
		t.mu.Lock()
		t.unreported[s.record] = id
		t.mu.Unlock()
		return Finished{Owner: s.owner, Report: s.document()}, true
	case failed != nil:
		t.log.Error("call ended: its ports could not be taken over from the former process", "call_id", s.callID, "error", failed)
		s.finishLocked(report.ReasonNotRestored, report.StatusClosed)
		return Finished{Owner: s.owner, Report: s.document()}, true
	}
	return Finished{}, false
}

// reenter puts a session into the table, at a place that Resume finds; false: it is there
// already.
func (t *Table) reenter(s *Session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[key{s.callID, s.fromTag}] != nil {
		return false
	}
	t.enter(s)
	return true
}

// Resume lets the media of the restored sessions run. It returns how many ports of the
// former process belong to none of them.
func (t *Table) Resume() (orphans int) {
	t.mu.Lock()
	t.queue.sort()
	t.mu.Unlock()
	return t.engine.Resume()
}

// refuse says that a record cannot be read. One of a later version that waits for its
// acknowledgement stays where it is, for when that version is back; of others nothing
// can be had any more.
func (t *Table) refuse(s *Session, err error) {
	t.log.Error("call not taken over: its record cannot be read; its media ends", "call_id", s.callID, "ended", s.ended, "error", err)
	if !(s.ended && errors.Is(err, errNewer)) {
		t.cfg.Keeper.Delete(s.id())
	}
}

// changed is what streams of the session call, nil if there is nobody to keep records.
func (t *Table) changed(s *Session) func() {
	if t.cfg.Keeper == nil {
		return nil
	}
	return s.touch
}
