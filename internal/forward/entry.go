package forward

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/wire/rtp"
)

// entry is what every table keeps for a port: who decides, and the record with
// the counters, which the kernel shares if it moves flows.
type entry struct {
	// set when the port is opened, read-only afterwards
	local   netip.AddrPort
	handler Handler
	rec     *record
	side    *side

	used atomic.Bool
	mu   sync.Mutex // guards what only observe writes
	past clockGuess // of observe

	why atomic.Pointer[string] // why the kernel does not move its flow; nil: it does, or there is none
}

// newEntry is an entry whose record nobody else sees.
func newEntry(local netip.AddrPort, h Handler) entry {
	return entry{local: local, handler: h, rec: &record{}, side: &side{}}
}

// seen is a time as records have it: 0 means never.
func seen(at time.Duration) uint64 { return max(1, uint64(at)) }

func since(v uint64) time.Duration {
	if v == 0 {
		return Never
	}
	return time.Duration(v)
}

// headerBytes of IP and UDP, counted with each datagram as the kernel does.
func (e *entry) headerBytes() int {
	if e.local.Addr().Is4() {
		return 28
	}
	return 48
}

// accept counts a datagram from the port's party.
func (e *entry) accept(now time.Duration, payload []byte, kind rtp.Kind) {
	r := e.rec
	r.packets.Add(1)
	r.bytes.Add(uint64(len(payload) + e.headerBytes()))
	r.lastSeen.Store(seen(now))
	if !kind.IsMedia() {
		return
	}
	if r.firstMedia.Load() == 0 {
		r.firstMedia.Store(seen(now))
	}
	r.lastMedia.Store(seen(now))
	if kind == rtp.KindRTP {
		if h, ok := rtp.Parse(payload); ok {
			e.mu.Lock()
			e.observe(now, h)
			e.mu.Unlock()
		}
	}
}

// know tells which addresses may be the party's, for the kernel's choice of what
// goes up first.
func (e *entry) know(addrs [3]netip.Addr) {
	for i, a := range addrs {
		e.side.known[i] = rawAddr(a)
	}
}

func (e *entry) counters() Counters {
	r := e.rec
	return Counters{
		Packets: r.packets.Load(), Bytes: r.bytes.Load(), Unsent: e.side.unsent.Load(), Refused: r.refused.Load(),
		FirstSeen: since(r.firstMedia.Load()), LastSeen: since(r.lastSeen.Load()), LastMedia: since(r.lastMedia.Load()),
		Quality: e.quality(),
	}
}
