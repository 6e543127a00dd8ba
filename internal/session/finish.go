package session

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
)

// finish ends the session once.
func (s *Session) finish(reason, status string) (Finished, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return Finished{}, false
	}
	s.finishLocked(reason, status)
	return Finished{Owner: s.owner, Report: s.document()}, true
}

func (s *Session) finishLocked(reason, status string) {
	s.ended, s.end, s.reason, s.record = true, s.table.cfg.Clock(), reason, cmp.Or(s.record, newRecordID())
	for _, st := range s.streams {
		st.close(status, s.end)
	}
	s.table.forget(s)
	s.table.remember(s)
	s.keep() // in the place of the call that was: there is the one or the other
}

// abandon ends a session that never came to be. The caller holds its lock.
func (s *Session) abandon() {
	s.ended = true
	for _, st := range s.streams {
		st.close(report.StatusClosed, s.created)
	}
	s.table.forget(s)
	if keeper := s.table.cfg.Keeper; keeper != nil {
		keeper.Delete(s.id()) // there is one only if a bug struck late
	}
}

// sweep closes streams that timed out. The session ends with its last one, or
// when it has had none for a while (the message that removes it may be lost).
func (s *Session) sweep() (Finished, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return Finished{}, false
	}
	now := s.table.cfg.Clock()
	expired, unselected, left := 0, 0, 0
	due := time.Duration(math.MaxInt64)
	for _, st := range s.streams {
		if !st.isLive() {
			continue
		}
		timeout, ok, next := st.media.Expired()
		if !ok {
			left++
			due = min(due, next)
			continue
		}
		st.wait = timeout.Wait
		st.close(timeout.Status, now)
		expired++
	}
	if left > 0 && expired > 0 {
		s.keep()
	}
	if left > 0 {
		s.due.Store(int64(due))
	}
	if left > 0 || expired == 0 && now.Sub(s.changed) < s.table.cfg.EmptyTimeout {
		return Finished{}, false
	}
	timedOut := 0
	for _, st := range s.streams {
		switch st.status {
		case report.StatusUnselectedICE:
			unselected++
		case report.StatusNoTraffic, report.StatusIdle, report.StatusHoldTimeout, report.StatusOneWay:
			timedOut++
		}
	}
	reason := report.ReasonTimeout
	switch {
	case s.start.IsZero():
		reason = report.ReasonUnanswered
	case unselected > 0 && timedOut == 0:
		reason = report.ReasonUnused
	}
	s.finishLocked(reason, report.StatusClosed)
	return Finished{Owner: s.owner, Report: s.document()}, true
}

// draft is a document and what its members point to, so that thousands can be
// written one after the other into the same memory.
type draft struct {
	doc             report.Session
	toTag, username string
	start           float64
	streams         []report.Stream
	parts           []draftParts
}

type draftParts struct {
	delay   float64
	quality [2]report.Quality
}

// document is the session's statistics.
func (s *Session) document() report.Session {
	d := &draft{}
	s.write(d)
	return d.doc
}

// write writes the document. The caller holds the session's lock.
func (s *Session) write(d *draft) {
	d.doc = report.Session{
		CallID: report.Text(s.callID), FromTag: report.Text(s.fromTag), FromURI: report.Text(s.fromURI), ToURI: report.Text(s.toURI),
		CallerUA: agent(s.agents[media.Caller]), CalleeUA: agent(s.agents[media.Callee]), Streams: []report.Stream{},
		Reason: s.reason, DialogID: report.Text(s.dialogID), Relay: s.table.cfg.Relay,
	}
	if s.ended {
		d.doc.RecordID = s.record
	}
	if s.toTag != "" {
		d.toTag = report.Text(s.toTag)
		d.doc.ToTag = &d.toTag
	}
	if s.username != "" {
		d.username = report.Text(s.username)
		d.doc.Username = &d.username
	}
	if s.start.IsZero() {
		return
	}
	d.start = float64(s.start.UnixMicro()) / 1e6
	d.doc.StartTime = &d.start
	d.doc.Duration = seconds(s.until().Sub(s.start))
	d.streams = slices.Grow(d.streams[:0], len(s.streams))
	d.parts = slices.Grow(d.parts[:0], len(s.streams))[:len(s.streams)]
	for i, st := range s.streams {
		if !st.start.IsZero() {
			d.streams = append(d.streams, s.streamDocument(st, d.doc.Duration, &d.parts[i]))
		}
	}
	slices.SortStableFunc(d.streams, func(a, b report.Stream) int { return cmp.Compare(a.StartTime, b.StartTime) })
	d.doc.Streams = d.streams
}

// until is the end of the session, or now.
func (s *Session) until() time.Time {
	if s.ended {
		return s.end
	}
	return s.table.cfg.Clock()
}

func (s *Session) streamDocument(st *stream, duration int64, parts *draftParts) report.Stream {
	stats := st.media.Stats()
	caller, callee := &stats.Parties[media.Caller], &stats.Parties[media.Callee]
	parts.quality = [2]report.Quality{caller.Quality, callee.Quality}
	d := report.Stream{
		MediaType: report.Text(st.mediaType), Status: st.statusNow(), TimeoutWait: seconds(st.wait),
		CallerCodec: caller.Codec, CalleeCodec: callee.Codec,
		StartTime: seconds(st.start.Sub(s.start)), EndTime: duration,
		CallerBytes: caller.Bytes, CalleeBytes: callee.Bytes, CallerPackets: caller.Packets, CalleePackets: callee.Packets,
		CallerLocal: st.local[media.Caller].of(caller.Local), CalleeLocal: st.local[media.Callee].of(callee.Local),
		CallerRemote: st.remote[media.Caller].of(caller.Learned), CalleeRemote: st.remote[media.Callee].of(callee.Learned),
		Caller: &parts.quality[0], Callee: &parts.quality[1],
	}
	switch {
	case st.status == report.StatusRejected:
		d.EndTime = d.StartTime
	case st.status != "":
		d.EndTime = min(duration, seconds(st.end.Sub(s.start)))
	}
	if stats.FirstMedia != media.Never {
		parts.delay = stats.FirstMedia.Seconds()
		d.PostDialDelay = &parts.delay
	}
	return d
}

// spelled is an address as documents have it, which is written once.
type spelled struct {
	addr netip.AddrPort
	text string
}

func (s *spelled) of(addr netip.AddrPort) string {
	switch {
	case !addr.IsValid():
		return report.Unknown
	case s.text == "" || s.addr != addr:
		s.addr, s.text = addr, addr.String()
	}
	return s.text
}

func agent(ua string) string {
	if ua == "" {
		return report.Unknown
	}
	return report.Text(ua)
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// explain tells what happened to the session.
func (s *Session) explain() report.Explanation {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := report.Explanation{Session: s.document(), Streams: []report.StreamExplanation{}}
	for _, st := range s.streams {
		x := st.media.Explain()
		x.Status = st.statusNow()
		e.Streams = append(e.Streams, x)
	}
	e.Findings = report.Diagnose(e.Streams)
	return e
}
