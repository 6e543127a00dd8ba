package forward

import (
	"time"

	"example.org/mediaproxy/internal/wire/rtp"
)

// Quality is what the RTP of one direction looked like at the relay.
type Quality struct {
	SSRC     uint32
	Sequence uint16 // of the newest packet
	HasRTP   bool
	Lost     int64         // packets missing, over all SSRCs (RFC 3550 A.3)
	Jitter   time.Duration // interarrival jitter (RFC 3550 A.8)
	// PayloadTypes seen most often, at most four, with their counts.
	PayloadTypes [maxPayloadTypes]PayloadCount
}

// PayloadCount says how often a payload type was seen.
type PayloadCount struct {
	Type    uint8
	Packets uint32
}

// Codec, telephone events, comfort noise and one change are what a party uses
// in a call; a fifth type takes the place of the rarest.
const maxPayloadTypes = 4

// Codec returns the payload type that was seen most often, comfort noise aside.
func (q Quality) Codec() (payloadType uint8, ok bool) {
	var most uint32
	for _, c := range q.PayloadTypes {
		if c.Packets > most && c.Type != rtp.ComfortNoise {
			payloadType, most, ok = c.Type, c.Packets, true
		}
	}
	return payloadType, ok
}

// clockGuess finds the clock rate of the RTP of one direction, and is what its
// loss and jitter need besides the record.
type clockGuess struct {
	rate         uint32 // Hz, 0 while unknown
	rateType     uint8  // payload type the rate is for
	firstArrival time.Duration
	firstStamp   uint32
}

const (
	// A jump of more than this is a sender that restarted, not loss
	// (RFC 3550 A.1, MAX_DROPOUT).
	maxDropout = 3000
	// Packets up to this much late are reordered, not a restart
	// (RFC 3550 A.1, MAX_MISORDER).
	maxMisorder = 100
)

// observe looks at an RTP packet of the port's party. The kernel does the same
// for those that it moves (account and sample in bpf/quality.h). The caller holds mu.
func (e *entry) observe(now time.Duration, h rtp.Header) {
	r := e.rec
	e.countType(h.PayloadType)
	previous, known := unpackSequence(r.sequence.Load())
	if !known || r.ssrc.Load() != h.SSRC {
		e.restart(now, h)
		return
	}
	switch step := h.Sequence - previous; {
	case step == 0: // duplicate
	case step < maxDropout:
		if step > 1 {
			r.lost.Add(int32(step - 1))
		}
		r.sequence.Store(packSequence(h.Sequence))
		e.updateJitter(now, h)
	case step > 1<<16-maxMisorder:
		if r.lost.Load() > 0 { // late: it is not lost after all
			r.lost.Add(-1)
		}
	default:
		e.restart(now, h)
	}
}

// restart begins a new sequence: another SSRC, or the same one after a jump.
func (e *entry) restart(now time.Duration, h rtp.Header) {
	e.past = clockGuess{firstArrival: now, firstStamp: h.Timestamp}
	e.side.unit.Store(0)
	e.remember(now, h)
	e.rec.ssrc.Store(h.SSRC)
	e.rec.sequence.Store(packSequence(h.Sequence))
}

func (e *entry) remember(now time.Duration, h rtp.Header) {
	s := e.side
	s.prevArrival, s.prevStamp, s.prevSequence, s.armed = uint64(now), h.Timestamp, h.Sequence, 1
}

// updateJitter runs the estimator of RFC 3550 A.8. It works in nanoseconds: the
// difference of two transit times needs the clock rate only for the timestamps.
func (e *entry) updateJitter(now time.Duration, h rtp.Header) {
	g, s := &e.past, e.side
	if h.PayloadType != g.rateType {
		*g = clockGuess{rateType: h.PayloadType, firstArrival: now, firstStamp: h.Timestamp}
	}
	if g.rate == 0 {
		g.rate = rtp.StaticClockRate(h.PayloadType)
	}
	if g.rate == 0 {
		g.rate = guessRate(now-g.firstArrival, h.Timestamp-g.firstStamp)
	}
	if g.rate != 0 {
		if s.unit.Load() == 0 || s.unitType != h.PayloadType {
			s.unitType = h.PayloadType
			s.unit.Store(unitOf(g.rate))
		}
		if s.armed != 0 && h.Sequence == s.prevSequence+1 {
			sent := int64(int32(h.Timestamp-s.prevStamp)) * int64(s.unit.Load()) >> 8
			d := int64(now) - int64(s.prevArrival) - sent
			if d = max(d, -d); d < int64(time.Second) { // else a pause, not jitter
				j := int64(s.jitter.Load())
				s.jitter.Store(uint32(j + (d-j)>>4))
			}
		}
	}
	e.remember(now, h)
}

// unitOf is a unit of the RTP timestamp as side has it.
func unitOf(rate uint32) uint32 { return uint32(uint64(time.Second) << 8 / uint64(rate)) }

// guessRate finds the clock rate of a dynamic payload type: after a second the
// ratio of timestamps to time is near one of the rates in use.
func guessRate(elapsed time.Duration, stamps uint32) uint32 {
	if elapsed < time.Second || stamps == 0 {
		return 0
	}
	measured := float64(stamps) / elapsed.Seconds()
	for _, rate := range [...]uint32{8000, 12000, 16000, 24000, 32000, 44100, 48000, 90000} {
		if r := measured / float64(rate); r > 0.92 && r < 1.08 {
			return rate
		}
	}
	return 0
}

func (e *entry) countType(pt uint8) {
	types := &e.side.types
	rarest, fewest := 0, uint32(1<<32-1)
	for i := range types {
		v := types[i].Load()
		count := uint32(v)
		if count != 0 && uint8(v>>32) == pt {
			if count != 1<<32-1 {
				types[i].Store(v + 1)
			}
			return
		}
		if count < fewest {
			rarest, fewest = i, count
		}
	}
	types[rarest].Store(uint64(pt)<<32 | 1)
}

func (e *entry) quality() Quality {
	r, s := e.rec, e.side
	sequence, known := unpackSequence(r.sequence.Load())
	q := Quality{
		SSRC: r.ssrc.Load(), Sequence: sequence, HasRTP: known,
		Lost: int64(r.lost.Load()), Jitter: time.Duration(s.jitter.Load()),
	}
	for i := range s.types {
		v := s.types[i].Load()
		q.PayloadTypes[i] = PayloadCount{Type: uint8(v >> 32), Packets: uint32(v)}
	}
	return q
}
