package forward

import (
	"net/netip"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/wire/rtp"
)

// entry is what every table keeps for a port: who decides, and the counters.
// The thread that serves the port writes the counters, anyone reads them.
type entry struct {
	local   netip.AddrPort
	handler Handler

	packets   atomic.Uint64
	bytes     atomic.Uint64
	unsent    atomic.Uint64
	refused   atomic.Uint64
	firstSeen atomic.Int64 // time.Duration + 1, so that zero means never
	lastSeen  atomic.Int64
	lastMedia atomic.Int64
	used      atomic.Bool
	observer  observer
}

func seen(at time.Duration) int64 { return int64(at) + 1 }
func since(v int64) time.Duration { return time.Duration(v - 1) }

// headerBytes of IP and UDP, counted with each datagram as the kernel does.
func (e *entry) headerBytes() int {
	if e.local.Addr().Is4() {
		return 28
	}
	return 48
}

// accept counts a datagram from the port's party.
func (e *entry) accept(now time.Duration, payload []byte, kind rtp.Kind) {
	e.packets.Add(1)
	e.bytes.Add(uint64(len(payload) + e.headerBytes()))
	e.lastSeen.Store(seen(now))
	if !kind.IsMedia() {
		return
	}
	if e.firstSeen.Load() == 0 {
		e.firstSeen.Store(seen(now))
	}
	e.lastMedia.Store(seen(now))
	if kind == rtp.KindRTP {
		if h, ok := rtp.Parse(payload); ok {
			e.observer.observe(now, h)
		}
	}
}

func (e *entry) counters() Counters {
	return Counters{
		Packets: e.packets.Load(), Bytes: e.bytes.Load(), Unsent: e.unsent.Load(), Refused: e.refused.Load(),
		FirstSeen: since(e.firstSeen.Load()), LastSeen: since(e.lastSeen.Load()), LastMedia: since(e.lastMedia.Load()),
		Quality: e.observer.quality(),
	}
}
