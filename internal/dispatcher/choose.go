package dispatcher

import (
	"slices"

	"example.org/mediaproxy/internal/report"
)

// choose returns the relay to try next, of those that were not tried yet: one that the
// call's media_relay names, else the relay that carries another call with the same
// Call-ID, else the first of the selection; last, those that let an earlier set-up wait.
// others says whether there are more. Without any, changed tells when to ask again.
func (s *setup) choose(tried []*relayState) (first *relayState, others bool, changed <-chan struct{}) {
	list, changed := s.d.registry.candidates(tried)
	defer s.d.registry.release(list)
	if len(list) == 0 {
		return nil, false, changed
	}
	s.d.cfg.Selector.Order(Call{CallID: s.u.CallID, MediaRelay: s.u.MediaRelay, Caller: s.u.Signaling.IP, Streams: len(s.u.Media)}, list)
	sibling := s.d.calls.sibling(s.u.CallID, s.u.FromTag)
	rank := func(c *Candidate) int {
		switch {
		case c.suspect:
			return 3
		case c.preferredBy(s.u.MediaRelay):
			return 0
		case sibling != nil && c.relay == sibling:
			return 1
		}
		return 2
	}
	best := 0
	for i := range list {
		if rank(&list[i]) < rank(&list[best]) {
			best = i
		}
	}
	if s.u.MediaRelay != "" && len(tried) == 0 && !slices.ContainsFunc(list, func(c Candidate) bool {
		return c.preferredBy(s.u.MediaRelay) || slices.Contains(c.Labels, s.u.MediaRelay)
	}) {
		s.d.log.Warn("no active relay has this name, address or label; another is taken",
			"call_id", s.u.CallID, "media_relay", s.u.MediaRelay)
	}
	return list[best].relay, len(list) > 1, changed
}

// sibling returns the relay of another call with this Call-ID.
func (t *callTable) sibling(callID, fromTag string) *relayState {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := t.byID[report.Text(callID)]; c != nil; c = c.next {
		if c.relay != nil && c.fromTag != fromTag && c.expired.IsZero() {
			return c.relay
		}
	}
	return nil
}
