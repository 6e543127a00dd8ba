package forward

import (
	"sync/atomic"
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

// observer watches the RTP of one direction. One thread calls observe; any may
// call quality. Fields that only observe uses are plain.
type observer struct {
	last   atomic.Uint64 // 1<<48 | SSRC<<16 | sequence; 0: nothing seen
	lost   atomic.Int64
	jitter atomic.Int64                   // nanoseconds
	types  [maxPayloadTypes]atomic.Uint64 // type<<32 | count

	cycles   uint32 // sequence numbers wrapped, shifted left by 16
	base     uint32 // extended sequence number at the start of this SSRC
	received uint32 // of this SSRC
	lostPast int64  // of earlier SSRCs

	rate          uint32 // Hz, 0 while unknown
	rateType      uint8  // payload type the rate is for
	firstArrival  time.Duration
	firstStamp    uint32
	prevArrival   time.Duration
	prevStamp     uint32
	jitterSamples float64 // in nanoseconds
}

const (
	seenRTP = 1 << 48
	// A jump of more than this is a sender that restarted, not loss
	// (RFC 3550 A.1, MAX_DROPOUT).
	maxDropout = 3000
	// Packets up to this much late are reordered, not a restart
	// (RFC 3550 A.1, MAX_MISORDER).
	maxMisorder = 100
)

func (o *observer) observe(now time.Duration, h rtp.Header) {
	o.countType(h.PayloadType)
	last := o.last.Load()
	if last&seenRTP == 0 || uint32(last>>16) != h.SSRC {
		o.restart(now, h)
		return
	}
	previous := uint16(last)
	switch step := h.Sequence - previous; {
	case step == 0: // duplicate
		return
	case step < maxDropout:
		if h.Sequence < previous {
			o.cycles += 1 << 16
		}
		o.received++
		o.store(h)
		o.updateJitter(now, h)
	case step > 1<<16-maxMisorder:
		o.received++ // late: it is not lost after all
	default:
		o.restart(now, h)
		return
	}
	expected := o.cycles + uint32(uint16(o.last.Load())) - o.base + 1
	if lost := o.lostPast + max(0, int64(expected)-int64(o.received)); lost != o.lost.Load() {
		o.lost.Store(lost)
	}
}

func (o *observer) store(h rtp.Header) {
	o.last.Store(seenRTP | uint64(h.SSRC)<<16 | uint64(h.Sequence))
}

// restart begins a new sequence: another SSRC, or the same one after a jump.
func (o *observer) restart(now time.Duration, h rtp.Header) {
	o.lostPast = o.lost.Load()
	o.cycles, o.base, o.received = 0, uint32(h.Sequence), 1
	o.rate = 0
	o.firstArrival, o.firstStamp = now, h.Timestamp
	o.prevArrival, o.prevStamp = now, h.Timestamp
	o.store(h)
}

// updateJitter runs the estimator of RFC 3550 A.8. It works in nanoseconds: the
// difference of two transit times needs the clock rate only for the timestamps.
func (o *observer) updateJitter(now time.Duration, h rtp.Header) {
	if h.PayloadType != o.rateType {
		o.rateType, o.rate = h.PayloadType, 0
		o.firstArrival, o.firstStamp = now, h.Timestamp
	}
	if o.rate == 0 {
		o.rate = rtp.StaticClockRate(h.PayloadType)
	}
	if o.rate == 0 {
		o.rate = guessRate(now-o.firstArrival, h.Timestamp-o.firstStamp)
	}
	if o.rate != 0 {
		sent := time.Duration(int32(h.Timestamp-o.prevStamp)) * time.Second / time.Duration(o.rate)
		d := float64(now - o.prevArrival - sent)
		o.jitterSamples += (max(d, -d) - o.jitterSamples) / 16
		o.jitter.Store(int64(o.jitterSamples))
	}
	o.prevArrival, o.prevStamp = now, h.Timestamp
}

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

func (o *observer) countType(pt uint8) {
	rarest, fewest := 0, uint32(1<<32-1)
	for i := range o.types {
		v := o.types[i].Load()
		count := uint32(v)
		if count != 0 && uint8(v>>32) == pt {
			if count != 1<<32-1 {
				o.types[i].Store(v + 1)
			}
			return
		}
		if count < fewest {
			rarest, fewest = i, count
		}
	}
	o.types[rarest].Store(uint64(pt)<<32 | 1)
}

func (o *observer) quality() Quality {
	last := o.last.Load()
	q := Quality{
		SSRC: uint32(last >> 16), Sequence: uint16(last), HasRTP: last&seenRTP != 0,
		Lost: o.lost.Load(), Jitter: time.Duration(o.jitter.Load()),
	}
	for i := range o.types {
		v := o.types[i].Load()
		q.PayloadTypes[i] = PayloadCount{Type: uint8(v >> 32), Packets: uint32(v)}
	}
	return q
}
