package forward

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/rtp"
)

func TestObserverCountsLoss(t *testing.T) {
	type step struct {
		seq  uint16
		ssrc uint32
	}
	for _, c := range []struct {
		name  string
		steps []step
		want  int64
	}{
		{"in order", []step{{1, 1}, {2, 1}, {3, 1}}, 0},
		{"two missing", []step{{1, 1}, {4, 1}}, 2},
		{"reordered", []step{{1, 1}, {3, 1}, {2, 1}, {4, 1}}, 0},
		{"duplicate", []step{{1, 1}, {2, 1}, {2, 1}, {3, 1}}, 0},
		{"wraps", []step{{65534, 1}, {65535, 1}, {0, 1}, {2, 1}}, 1},
		{"another SSRC", []step{{1, 1}, {3, 1}, {900, 2}, {902, 2}}, 2},
		{"a restart is no loss", []step{{1, 1}, {2, 1}, {40000, 1}, {40001, 1}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newEntry(netip.AddrPort{}, nil)
			for i, s := range c.steps {
				o.observe(time.Duration(i)*20*time.Millisecond, rtp.Header{PayloadType: 8, Sequence: s.seq, SSRC: s.ssrc})
			}
			if got := o.quality().Lost; got != c.want {
				t.Errorf("lost %d, want %d", got, c.want)
			}
		})
	}
}

// Against the obvious count: numbers that never came.
func TestObserverLossModel(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		o := newEntry(netip.AddrPort{}, nil)
		first := uint16(r.Uint32())
		missing := int64(0)
		const n = 70000 // past a wrap
		for i := range n {
			if i != 0 && i != n-1 && r.IntN(50) == 0 {
				missing++
				continue
			}
			o.observe(time.Duration(i)*20*time.Millisecond, rtp.Header{PayloadType: 0, Sequence: first + uint16(i), Timestamp: uint32(i) * 160, SSRC: 7})
		}
		if got := o.quality().Lost; got != missing {
			t.Fatalf("seed %d: lost %d, want %d", seed, got, missing)
		}
	}
}

func TestObserverJitter(t *testing.T) {
	for _, c := range []struct {
		name     string
		pt       uint8
		step     uint32 // timestamp units per packet
		late     time.Duration
		low, top time.Duration
	}{
		{"even", 8, 160, 0, 0, time.Millisecond},
		{"every second packet 8 ms late", 8, 160, 8 * time.Millisecond, 7 * time.Millisecond, 9 * time.Millisecond},
		{"dynamic type at 48 kHz", 111, 960, 8 * time.Millisecond, 7 * time.Millisecond, 9 * time.Millisecond},
		{"unknown rate", 111, 77, 8 * time.Millisecond, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newEntry(netip.AddrPort{}, nil)
			for i := range 500 {
				at := time.Duration(i) * 20 * time.Millisecond
				if i%2 == 1 {
					at += c.late
				}
				o.observe(at, rtp.Header{PayloadType: c.pt, Sequence: uint16(i), Timestamp: uint32(i) * c.step, SSRC: 1})
			}
			if got := o.quality().Jitter; got < c.low || got > c.top {
				t.Errorf("jitter %v, want %v to %v", got, c.low, c.top)
			}
		})
	}
}

// The codec is what was sent most, not what came first: calls may begin with
// telephone events or comfort noise.
func TestCodecIsTheMostFrequent(t *testing.T) {
	o := newEntry(netip.AddrPort{}, nil)
	seq := uint16(0)
	send := func(pt uint8, n int) {
		for range n {
			seq++
			o.observe(0, rtp.Header{PayloadType: pt, Sequence: seq, SSRC: 1})
		}
	}
	if _, ok := o.quality().Codec(); ok {
		t.Error("a codec before any packet")
	}
	send(101, 3)
	send(rtp.ComfortNoise, 50)
	send(0, 20)
	send(8, 5)
	send(96, 1) // a fifth type
	if pt, ok := o.quality().Codec(); !ok || pt != 0 {
		t.Errorf("codec %d %v, want 0", pt, ok)
	}
}
