package session

import "example.org/mediaproxy/internal/report"

// page is the memory of one call of Page, to be used again.
type page struct {
	sessions []*Session
	draft    draft
}

// Page gives each the documents of at most limit sessions, in the order of their
// creation: from the first one, or from the one that follows the position that
// another call returned. next is the position of the last one, 0 when none follow.
// So all sessions can be read in parts that hold nothing up for long, and each that
// lives as long as the reading takes is in it once.
//
// each may change its document, which is overwritten after it returns.
func (t *Table) Page(after uint64, limit int, each func(*report.Session)) (next uint64) {
	p := t.pages.Get().(*page)
	defer t.pages.Put(p)
	t.mu.RLock()
	sessions, more := t.queue.after(p.sessions[:0], after, limit)
	t.mu.RUnlock()
	defer clear(sessions) // or they would live as long as p
	p.sessions = sessions
	for _, s := range sessions {
		if s.draw(&p.draft) {
			each(&p.draft.doc)
		}
	}
	if !more {
		return 0
	}
	return sessions[len(sessions)-1].order
}

// draw writes the document of a session unless it ended since it was found.
func (s *Session) draw(d *draft) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.write(d)
	return true
}
