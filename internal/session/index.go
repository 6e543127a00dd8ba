package session

import (
	"cmp"
	"slices"

	"example.org/mediaproxy/internal/report"
)

// enter puts a session into the table. The caller holds its lock, and gave the
// session the highest order yet.
func (t *Table) enter(s *Session) {
	t.sessions[key{s.callID, s.fromTag}] = s
	t.queue.add(s)
}

// all returns the sessions in the order of their creation.
func (t *Table) all() []*Session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out, _ := t.queue.after(make([]*Session, 0, len(t.sessions)), 0, len(t.sessions))
	return out
}

// matching returns the sessions of a Call-ID; fromTag "" means any.
func (t *Table) matching(callID, fromTag string) []*Session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if fromTag != "" {
		if s := t.sessions[key{callID, fromTag}]; s != nil {
			return []*Session{s}
		}
		return nil
	}
	var out []*Session
	for k, s := range t.sessions {
		if k.callID == callID {
			out = append(out, s)
		}
	}
	inOrder(out)
	return out
}

// remembered returns finished sessions.
func (t *Table) remembered(callID, fromTag string) []*Session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []*Session
	for _, s := range t.finished {
		if s.callID == callID && (fromTag == "" || s.fromTag == fromTag) {
			out = append(out, s)
		}
	}
	inOrder(out)
	return out
}

func inOrder(sessions []*Session) {
	slices.SortFunc(sessions, func(a, b *Session) int { return cmp.Compare(a.order, b.order) })
}

// forget takes a session out of the table.
func (t *Table) forget(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := (key{s.callID, s.fromTag}); t.sessions[k] == s {
		delete(t.sessions, k)
	}
	t.queue.remove(s)
}

// remember keeps a finished session so that it can still be explained: people
// ask about one-way audio after they hung up.
func (t *Table) remember(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cfg.Keeper != nil {
		t.unreported[s.record] = s.id()
	}
	if len(t.finished) < t.cfg.Remember {
		t.finished = append(t.finished, s)
		return
	}
	t.finished[t.next] = s
	t.next = (t.next + 1) % len(t.finished)
}

func documents(sessions []*Session) []report.Session {
	out := make([]report.Session, len(sessions))
	for i, s := range sessions {
		s.mu.Lock()
		out[i] = s.document()
		s.mu.Unlock()
	}
	return out
}
