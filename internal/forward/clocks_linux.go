package forward

import "time"

// The kernel measures jitter but knows no clock rates. For payload types without a
// registered rate, user space finds it from what the kernel sampled.

// clockTime is how long a flow's rate is looked for: a call that moves without one is
// no RTP, or has a rate that nobody uses.
const clockTime = time.Minute

type clockless struct {
	e     *entry
	since time.Time
}

// wantClockLocked remembers a flow whose rate is not known yet. The caller holds k.mu.
func (k *kernel) wantClockLocked(index int, e *entry) {
	if e.side.unit.Load() == 0 {
		k.clockless[index] = clockless{e, time.Now()}
	}
}

// findClocks looks for rates, once a second.
func (k *kernel) findClocks(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, c := range k.clockless {
		if now.Sub(c.since) > clockTime || k.installed[i].e != c.e || c.e.findClock() {
			delete(k.clockless, i)
		}
	}
}

// findClock compares the newest sample with the first one. It is right also if the
// kernel writes the sample meanwhile: then no rate fits, and the next one is taken.
func (e *entry) findClock() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, g := e.side, &e.past
	payloadType, known := e.quality().Codec()
	if !known || s.prevArrival == 0 {
		return false
	}
	arrival, stamp := time.Duration(s.prevArrival), s.prevStamp
	if g.rateType != payloadType || g.firstArrival == 0 {
		*g = clockGuess{rateType: payloadType, firstArrival: arrival, firstStamp: stamp}
		return false
	}
	rate := guessRate(arrival-g.firstArrival, stamp-g.firstStamp)
	if rate == 0 {
		return false
	}
	s.unitType = payloadType
	s.unit.Store(unitOf(rate))
	return true
}
