package media

import (
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/snapshot"
)

// Fields writes the stream to a record, or reads one into a new Stream, which is then
// given to Engine.Restore. Counters of open ports are left out: they go on where they
// are. So are connectivity checks that wait, because agents repeat them.
func (s *Stream) Fields(c *snapshot.Coder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Text(1, &s.mediaType)
	c.Moment(2, &s.created)
	c.Time(3, &s.wall)
	snapshot.Nested(c, 4, &s.parties[Caller], (*Party).fields)
	snapshot.Nested(c, 5, &s.parties[Callee], (*Party).fields)
	c.Bool(6, &s.hold[Caller])
	c.Bool(7, &s.hold[Callee])
	c.Moment(8, &s.heldAt)
	c.Moment(9, &s.resumed)
	c.Bool(10, &s.answered)
	c.Moment(11, &s.at)
	c.Bool(12, &s.running)
	c.Moment(13, &s.endedAt)
	c.Moment(14, &s.restored)
	number := 15
	for path := range s.legs {
		for side := range s.legs[path] {
			if c.Reading() {
				s.legs[path][side] = &leg{stream: s, path: Path(path), side: Side(side), port: new(closedPort)}
			}
			snapshot.Nested(c, number, s.legs[path][side], (*leg).fields)
			number++
		}
	}
	c.Uint(19, &s.history.forgotten)
	snapshot.List(c, 20, &s.history.entries, (*entry).fields)
}

func (p *Party) fields(c *snapshot.Coder) {
	c.AddrPort(1, &p.Addr)
	c.Addr(2, &p.Signalling)
	snapshot.Int(c, 3, &p.Direction)
	c.Bool(4, &p.ICE)
	c.Bool(5, &p.NewTag)
}

func (l *leg) fields(c *snapshot.Coder) {
	local := l.port.Local()
	var left *forward.Counters
	if !c.Reading() && !l.stream.running {
		counters := l.port.Counters()
		left = &counters
	}
	c.AddrPort(1, &local)
	snapshot.Nested(c, 2, &l.learner, (*learner).fields)
	c.Moment(3, &l.first)
	snapshot.Pointer(c, 4, &left, counterFields)
	c.AddrPort(5, &l.unreachable)
	if c.Reading() {
		closed := &closedPort{local: local}
		if left != nil {
			closed.counters = *left
		}
		l.port = closed
	}
}

func (l *learner) fields(c *snapshot.Coder) {
	c.Bool(1, &l.known)
	c.AddrPort(2, &l.sdp)
	c.Addr(3, &l.signalling)
	c.Addr(4, &l.sibling)
	c.Bool(5, &l.maySend)
	c.Bool(6, &l.answered)
	c.Moment(7, &l.waitFrom)
	c.Moment(8, &l.freshFrom)
	c.AddrPort(9, &l.learned)
	snapshot.Int(c, 10, &l.rank)
	c.Bool(11, &l.provisional)
	c.AddrPort(12, &l.obsolete)
	c.Moment(13, &l.obsoleteUntil)
	c.Moment(14, &l.lastKnown)
	c.Moment(15, &l.lastNearby)
	c.Bool(16, &l.heardKnown)
	c.Bool(17, &l.heardNearby)
	snapshot.List(c, 18, &l.candidates, (*candidate).fields)
	snapshot.List(c, 19, &l.moves, func(at *time.Duration, c *snapshot.Coder) { c.Moment(1, at) })
}

func (x *candidate) fields(c *snapshot.Coder) {
	c.AddrPort(1, &x.addr)
	snapshot.Int(c, 2, &x.ssrc)
	snapshot.Int(c, 3, &x.sequence)
	snapshot.Int(c, 4, &x.count)
	c.Moment(5, &x.last)
	c.Moment(6, &x.ripe)
}

func (e *entry) fields(c *snapshot.Coder) {
	why := string(e.why)
	c.Moment(1, &e.at)
	c.Text(2, &why)
	snapshot.Int(c, 3, &e.side)
	snapshot.Int(c, 4, &e.path)
	c.Bool(5, &e.whole)
	c.AddrPort(6, &e.source)
	c.Text(7, &e.detail)
	c.Uint(8, &e.count)
	if c.Reading() {
		e.why = report.Why(why)
	}
}

func counterFields(n *forward.Counters, c *snapshot.Coder) {
	c.Uint(1, &n.Packets)
	c.Uint(2, &n.Bytes)
	c.Uint(3, &n.Unsent)
	c.Uint(4, &n.Refused)
	c.Moment(5, &n.FirstSeen)
	c.Moment(6, &n.LastSeen)
	c.Moment(7, &n.LastMedia)
	c.Bool(8, &n.Decided)
	snapshot.Int(c, 9, &n.Quality.SSRC)
	snapshot.Int(c, 10, &n.Quality.Sequence)
	c.Bool(11, &n.Quality.HasRTP)
	snapshot.Int(c, 12, &n.Quality.Lost)
	snapshot.Int(c, 13, &n.Quality.Jitter)
	for i := range n.Quality.PayloadTypes {
		t := &n.Quality.PayloadTypes[i]
		snapshot.Int(c, 14+2*i, &t.Type)
		snapshot.Int(c, 15+2*i, &t.Packets)
	}
	c.Text(22, &n.Mover)
	c.Text(23, &n.NotKernel)
}
