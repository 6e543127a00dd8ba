package media

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// ErrNoPorts: every port of the range is in use or rests.
var ErrNoPorts = errors.New("no media port left (widen port_range or add a relay)")

// minRest is the least a port with traffic rests, even when no other is left:
// datagrams of the call before are still on their way for about this long.
const minRest = 2 * time.Second

// Picker chooses one of the free pairs, named by their RTP ports.
type Picker func(free []uint16) (index int)

// Lowest is the picker that takes ports in order.
func Lowest(free []uint16) int {
	lowest := 0
	for i, p := range free {
		if p < free[lowest] {
			lowest = i
		}
	}
	return lowest
}

func random(free []uint16) int { return rand.IntN(len(free)) }

// pool holds the port pairs of one local address, each named by its even port.
type pool struct {
	// set in newPool, read-only afterwards
	rest       time.Duration
	pick       Picker
	first, end int // of the range; end is excluded

	mu      sync.Mutex // guards what follows
	free    []uint16
	resting []restingPair // in the order of their release
	early   uint64        // pairs that were given out before their rest was over
}

type restingPair struct {
	port  uint16
	since time.Duration
}

func newPool(first, end uint16, rest time.Duration, pick Picker) *pool {
	if pick == nil {
		pick = random
	}
	p := &pool{rest: rest, pick: pick, first: int(first), end: int(end)}
	if end == 0 {
		p.end = 1 << 16
	}
	for n := p.first; n+1 < p.end; n += 2 {
		p.free = append(p.free, uint16(n))
	}
	return p
}

// take hands out a free pair, or the one that has rested longest. early says
// that its rest was cut short.
func (p *pool) take(now time.Duration) (port uint16, early bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.resting) > 0 && now-p.resting[0].since >= p.rest {
		p.free = append(p.free, p.resting[0].port)
		p.resting = p.resting[1:]
	}
	if n := len(p.free); n > 0 {
		i := p.pick(p.free)
		port = p.free[i]
		p.free[i] = p.free[n-1]
		p.free = p.free[:n-1]
		return port, false, nil
	}
	if len(p.resting) > 0 && now-p.resting[0].since >= minRest {
		port = p.resting[0].port
		p.resting = p.resting[1:]
		p.early++
		return port, true, nil
	}
	return 0, false, ErrNoPorts
}

// give returns a pair. One that carried a datagram rests; one that did not, or
// that could not be bound (asRested false either way), is free at once.
func (p *pool) give(port uint16, used bool, now time.Duration) {
	if !p.covers(port) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if used {
		p.resting = append(p.resting, restingPair{port, now})
		return
	}
	p.free = append(p.free, port)
}

// covers says whether a pair is of the range. One that a former process had may not be,
// if the range was changed: it is used to its end, and no more.
func (p *pool) covers(port uint16) bool { return int(port) >= p.first && int(port)+1 < p.end }

// claim takes one certain pair, which a former process had. It returns false if another
// stream has it.
func (p *pool) claim(port uint16) bool {
	if !p.covers(port) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := (int(port) - p.first) / 2 // where it is unless others were taken before
	if i >= len(p.free) || p.free[i] != port {
		i = slices.Index(p.free, port)
	}
	if i < 0 {
		return false
	}
	n := len(p.free)
	p.free[i] = p.free[n-1]
	p.free = p.free[:n-1]
	return true
}

// available counts the pairs that take could hand out now or after their rest.
func (p *pool) available() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.free) + len(p.resting)
}

func (p *pool) earlyReuses() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.early
}
