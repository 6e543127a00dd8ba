package session

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/wire/snapshot"
)

// Keeper keeps the latest record under each id, for the next process. Put has to be
// quick: the answer to the SIP proxy waits for it.
type Keeper interface {
	Put(id string, record []byte)
	Delete(id string)
}

// recordVersion is that of what this program writes. Fields may be added under it; it
// rises when an older program would go wrong with what it knows.
const recordVersion = 1

var (
	errNoCall = errors.New("not the record of a call")
	errNewer  = errors.New("record of a newer version")
)

const idPrefix = "call/"

// id is what the keeper knows the session by.
func (s *Session) id() string { return idPrefix + strconv.FormatUint(s.order, 36) }

// orderOf is the number in an id.
func orderOf(id string) (uint64, error) {
	digits, ok := strings.CutPrefix(id, idPrefix)
	if !ok {
		return 0, fmt.Errorf("%.40q is not the id of a call", id)
	}
	return strconv.ParseUint(digits, 36, 64)
}

// records are the buffers in which records are written.
var records = sync.Pool{New: func() any { return new([]byte) }}

// keep gives the session as it is now to the keeper. The caller holds its lock.
func (s *Session) keep() {
	keeper := s.table.cfg.Keeper
	if keeper == nil {
		return
	}
	s.dirty.Store(false) // what changes from here on is kept once more
	b := records.Get().(*[]byte)
	*b = snapshot.Append((*b)[:0], s, (*Session).fields)
	keeper.Put(s.id(), *b)
	if cap(*b) <= 64<<10 {
		records.Put(b)
	}
}

// touch notes that packets changed the session. It is called under locks of the packet
// path, so it leaves the work to Flush.
func (s *Session) touch() {
	if s.dirty.Swap(true) {
		return
	}
	t := s.table
	t.dirtyMu.Lock()
	defer t.dirtyMu.Unlock()
	t.dirty = append(t.dirty, s)
}

// Flush keeps what packets have changed. It is to be called every few dozen
// milliseconds. With all, which is for an end in good order, every session is kept, so
// that the next process also knows what is not worth a write each time: refusals.
func (t *Table) Flush(all bool) {
	t.dirtyMu.Lock()
	list := t.dirty
	t.dirty = nil
	t.dirtyMu.Unlock()
	if all {
		list = t.all()
	}
	for _, s := range list {
		s.mu.Lock()
		if (all || s.dirty.Load()) && !s.ended {
			s.keep()
		}
		s.mu.Unlock()
	}
}

// Acknowledged says that the report with this id need not outlive this process.
func (t *Table) Acknowledged(recordID string) {
	t.mu.Lock()
	id, ok := t.unreported[recordID]
	delete(t.unreported, recordID)
	t.mu.Unlock()
	if ok {
		t.cfg.Keeper.Delete(id)
	}
}

// head is what every version of a record begins with.
type head struct {
	version uint64
	callID  string
	fromTag string
	ended   bool
	boot    string // of the host
	at      time.Duration
	wall    time.Time
}

func (h *head) fields(c *snapshot.Coder) {
	c.Uint(1, &h.version)
	c.Text(2, &h.callID)
	c.Text(3, &h.fromTag)
	c.Bool(4, &h.ended)
	c.Text(5, &h.boot)
	snapshot.Int(c, 6, &h.at)
	c.Time(7, &h.wall)
}

// fields writes the session, or reads one into a new Session of a table. The caller
// holds the lock.
func (s *Session) fields(c *snapshot.Coder) {
	t := s.table
	var h head
	if !c.Reading() {
		h = head{recordVersion, s.callID, s.fromTag, s.ended, t.cfg.Boot, t.engine.Now(), t.cfg.Clock()}
	}
	h.fields(c)
	if c.Reading() {
		s.callID, s.fromTag, s.ended = h.callID, h.fromTag, h.ended
		switch {
		case h.version == 0:
			c.Fail(errNoCall)
			return
		case h.version > recordVersion:
			c.Fail(fmt.Errorf("version %d, this program knows %d: %w", h.version, recordVersion, errNewer))
			return
		}
		c.Shift(t.shift(h))
	}
	c.Time(8, &s.created)
	c.Text(9, &s.toTag)
	c.Text(10, &s.fromURI)
	c.Text(11, &s.toURI)
	c.Text(12, &s.agents[media.Caller])
	c.Text(13, &s.agents[media.Callee])
	c.Text(14, &s.username)
	c.Text(15, &s.dialogID)
	c.Text(16, &s.owner)
	c.Addr(17, &s.faces[media.Caller])
	c.Addr(18, &s.faces[media.Callee])
	c.Text(19, &s.tags[media.Caller])
	c.Text(20, &s.tags[media.Callee])
	c.Time(21, &s.start)
	c.Time(22, &s.changed)
	c.Time(23, &s.end)
	c.Text(24, &s.reason)
	c.Text(25, &s.record)
	s.offerFields(c)
}

// longestAway is how much time a host is believed to have been away: its clock may be
// wrong when it comes back.
const longestAway = 24 * time.Hour

// shift is what has to be added to the moments of a record: nothing, unless the host was
// restarted and its monotonic clock with it.
func (t *Table) shift(h head) time.Duration {
	now := t.engine.Now()
	if h.boot == t.cfg.Boot && h.at <= now {
		return 0
	}
	away := min(max(t.cfg.Clock().Sub(h.wall), 0), longestAway)
	return now - away - h.at
}

// offerRecord is an offer whose streams are numbers: of those that ever had ports, and
// behind them of places without.
type offerRecord struct {
	pair    pair
	by      media.Side
	streams []int
}

func (o *offerRecord) fields(c *snapshot.Coder) {
	snapshot.Int(c, 1, &o.pair[media.Caller])
	snapshot.Int(c, 2, &o.pair[media.Callee])
	snapshot.Int(c, 3, &o.by)
	snapshot.List(c, 4, &o.streams, func(i *int, c *snapshot.Coder) { snapshot.Int(c, 1, i) })
}

// offerFields are the streams and the offers that name them.
func (s *Session) offerFields(c *snapshot.Coder) {
	var places []*stream
	var offers []offerRecord
	var agreed int // place of the agreed offer in the list, from 1
	if !c.Reading() {
		places, offers, agreed = s.offerRecords()
	}
	snapshot.List(c, 26, &s.streams, streamFields)
	snapshot.List(c, 27, &places, streamFields)
	snapshot.List(c, 28, &offers, (*offerRecord).fields)
	snapshot.Int(c, 29, &agreed)
	forgotten := !c.Reading() && len(offers) > len(s.offers) // the first is kept for being agreed only
	c.Bool(30, &forgotten)
	if !c.Reading() || c.Err() != nil {
		return
	}
	for _, o := range offers {
		read := &offer{pair: o.pair, by: o.by, streams: make([]*stream, len(o.streams))}
		for i, n := range o.streams {
			switch {
			case n >= 0 && n < len(s.streams):
				read.streams[i] = s.streams[n]
			case n >= len(s.streams) && n < len(s.streams)+len(places):
				read.streams[i] = places[n-len(s.streams)]
			default:
				c.Fail(fmt.Errorf("an offer names stream %d of %d", n, len(s.streams)+len(places)))
				return
			}
		}
		s.offers = append(s.offers, read)
	}
	if agreed > 0 && agreed <= len(s.offers) {
		s.agreed = s.offers[agreed-1]
	}
	if forgotten && len(s.offers) > 0 {
		s.offers = s.offers[1:]
	}
}

// offerRecords turns streams into numbers.
func (s *Session) offerRecords() (places []*stream, offers []offerRecord, agreed int) {
	list := s.offers
	for i, o := range list {
		if o == s.agreed {
			agreed = i + 1
		}
	}
	if s.agreed != nil && agreed == 0 {
		list, agreed = append([]*offer{s.agreed}, list...), 1
	}
	offers = make([]offerRecord, len(list))
	for i, o := range list {
		offers[i] = offerRecord{pair: o.pair, by: o.by, streams: make([]int, len(o.streams))}
		for j, st := range o.streams {
			n := slices.Index(s.streams, st)
			if n < 0 {
				if n = slices.Index(places, st); n < 0 {
					n = len(places)
					places = append(places, st)
				}
				n += len(s.streams)
			}
			offers[i].streams[j] = n
		}
	}
	return places, offers, agreed
}

func streamFields(st **stream, c *snapshot.Coder) {
	if c.Reading() {
		*st = new(stream)
	}
	(*st).fields(c)
}

func (st *stream) fields(c *snapshot.Coder) {
	c.Text(1, &st.mediaType)
	c.Bool(2, &st.v6)
	c.Time(3, &st.created)
	c.Time(4, &st.start)
	c.Time(5, &st.end)
	c.Text(6, &st.status)
	snapshot.Int(c, 7, &st.wait)
	c.AddrPort(8, &st.addrs[media.Caller])
	c.AddrPort(9, &st.addrs[media.Callee])
	snapshot.Pointer(c, 10, &st.media, (*media.Stream).Fields)
}
