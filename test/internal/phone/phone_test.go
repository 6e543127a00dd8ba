package phone

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.org/mediaproxy/internal/wire/rtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type here struct{}

func (here) ListenUDP(a netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after 5 s", what)
		}
	}
}

func pair(t *testing.T) (s *Studio, a, b *Phone) {
	t.Helper()
	s = NewStudio()
	t.Cleanup(s.Close)
	var both [2]*Phone
	for side := range both {
		p, err := s.New(here{}, netip.MustParseAddr("127.0.0.1"), ID{7, uint8(side)}, RTCP{Every: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		both[side] = p
	}
	return s, both[0], both[1]
}

func TestPhonesHearEachOther(t *testing.T) {
	_, a, b := pair(t)
	a.Speak(b.Addr())
	b.Speak(a.Addr())
	until(t, "ten packets both ways", func() bool {
		return a.Counts().Heard[0] >= 10 && b.Counts().Heard[0] >= 10 && a.Counts().HeardRTCP >= 2
	})
	before := b.Addr()
	if err := b.Move(here{}, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if b.Addr() == before {
		t.Error("the phone has moved to the same port")
	}
	a.WatchGaps()
	b.Phase(1)
	until(t, "a hears b from its new port", func() bool { return a.Counts().Heard[1] > 2 })
	if sent := b.Counts().Sent; sent[0] < 10 || sent[1] < 3 || b.Spoke().IsZero() || a.FirstHeard().IsZero() || a.LongestTransit() <= 0 {
		t.Errorf("b sent %v since %v, which took %v", sent, b.Spoke(), a.LongestTransit())
	}
	if gap := a.LongestGap(); gap <= 0 || gap > time.Second {
		t.Errorf("longest gap %v in steady media", gap)
	}
	b.Pause()
	until(t, "a gap after b fell silent", func() bool { return a.LongestGap() > 200*time.Millisecond })
	for _, p := range []*Phone{a, b} {
		if c := p.Counts(); c.Strays != 0 {
			t.Errorf("%d strays: %s", c.Strays, p.Stray())
		}
	}
}

func TestPhoneNoticesStrays(t *testing.T) {
	s, a, _ := pair(t)
	stranger, err := s.New(here{}, netip.MustParseAddr("127.0.0.1"), ID{8, 1}, RTCP{})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Speak(a.Addr())
	until(t, "strays", func() bool { return a.Counts().Strays > 3 && a.Stray() != "" })
	if a.Counts().Heard != [Phases]uint64{} {
		t.Error("packets of another call were taken for the other party's")
	}
}

// The relay must take the packets for what they are.
func TestPacketsAreWellFormed(t *testing.T) {
	id := mark{ID{77, 1}, 3, 12345678901}
	b := appendRTP(nil, id, 0xabcdef01, 9, 160)
	if h, ok := rtp.Parse(b); !ok || h.SSRC != 0xabcdef01 || h.Sequence != 9 || rtp.Classify(b) != rtp.KindRTP {
		t.Errorf("RTP: parsed %+v, %v, %v", h, ok, rtp.Classify(b))
	}
	if got, ok := readMark(b); !ok || got != id {
		t.Errorf("mark of RTP: %v, %v", got, ok)
	}
	if call, ok := CallOf(b); !ok || call != 77 {
		t.Errorf("packet of call %d, %v; want 77", call, ok)
	}
	b = appendReport(nil, id, 0xabcdef01, 160)
	if rtp.Classify(b) != rtp.KindRTCP || len(b) != 28+36 || b[28+3] != 36/4-1 {
		t.Errorf("RTCP: %v, %d bytes: %x", rtp.Classify(b), len(b), b)
	}
	if got, ok := readMark(b); !ok || got != id {
		t.Errorf("mark of RTCP: %v, %v", got, ok)
	}
}
