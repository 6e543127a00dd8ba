package forward

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// port finds one of the world's ports.
func (w *world) port(name string, v4 bool) *modelPort {
	for _, p := range w.list {
		if p.name == name && p.local.Addr().Is4() == v4 {
			return p
		}
	}
	w.t.Fatalf("no port %q", name)
	return nil
}

// Each byte of the headers with each value, and each length that a frame may be cut
// to: only what is a plain datagram of the flow is moved.
func TestEveryHeaderByteAndEveryCut(t *testing.T) {
	w := newWorld(t, false)
	for _, v4 := range []bool{true, false} {
		for _, padding := range []int{0, 30} {
			p := w.port("decided", v4)
			o := options{hops: 64, tos: 0xb8, id: 77, df: true}
			whole := append(build(p.source, p.local, rtpPacket(1, 7)[:40], o), make([]byte, padding)...)
			check := func(what string, frame []byte) {
				t.Helper()
				w.k.global.heartbeat.Store(uint64(coarse()))
				w.unlimited(p)
				if err := w.check(frame, 0); err != nil {
					t.Fatalf("IPv4 %v, %s\n    %x\n    %v", v4, what, frame, err)
				}
			}
			w.lease = time.Hour
			check("whole", whole)
			for n := range whole {
				check(fmt.Sprintf("cut to %d", n), whole[:n])
			}
			headers := ethernetHeader + ip6Header + udpHeader
			if v4 {
				headers = ethernetHeader + ip4Header + udpHeader
			}
			for at := range headers {
				for value := range 256 {
					frame := append([]byte(nil), whole...)
					frame[at] = byte(value)
					check(fmt.Sprintf("byte %d is %#x", at, value), frame)
				}
			}
		}
	}
	if w.reads["moved"] < 1000 || w.reads["the party's stream, raised"] < 1000 {
		t.Errorf("of the frames were: %v", w.reads)
	}
}

// unlimited lets every stranger go up.
func (w *world) unlimited(p *modelPort) {
	w.stranger, w.knownGoes = 0, 0
	_, s := w.record(p.local)
	s.nextStranger, s.nextKnown = 0, 0
}

// UDP checksums whose sum comes to 0 are sent as 0xffff: 0 says that there is none.
func TestChecksumIsNeverZero(t *testing.T) {
	w := newWorld(t, false)
	for _, v4 := range []bool{true, false} {
		p := w.port("decided", v4)
		w.lease = time.Hour
		w.k.global.heartbeat.Store(uint64(coarse()))
		mangled := 0
		for n := range 1 << 16 {
			payload := binary.BigEndian.AppendUint16(nil, uint16(n))
			frame := build(p.source, p.local, payload, options{hops: 9})
			before := w.judge(frame, 0)
			if udp := udpOf(before.frame); udp[6] == 0xff && udp[7] == 0xff {
				mangled++
				for _, near := range []int{n - 1, n, n + 1} {
					frame := build(p.source, p.local, binary.BigEndian.AppendUint16(nil, uint16(near)), options{hops: 9})
					if err := w.check(frame, 0); err != nil {
						t.Errorf("payload %04x: %v", near, err)
					}
				}
			}
		}
		if mangled == 0 {
			t.Error("no payload had the sum")
		}
	}
}

// Jitter is taken from the first two packets of eight, if they follow each other and
// the clock rate is known.
func TestKernelMeasuresJitter(t *testing.T) {
	w := newWorld(t, false)
	p := w.port("decided", true)
	rec, s := w.record(p.local)
	const unit = uint32(1_000_000_000 / 8000 << 8)
	rtp := func(kind uint8, sequence uint16, stamp uint32) []byte {
		b := rtpPacket(sequence, 7)
		b[1] = kind
		binary.BigEndian.PutUint32(b[4:], stamp)
		return b
	}
	for _, c := range []struct {
		name          string
		before        uint32 // jitter
		unit          uint32
		first, second []byte
		measured      bool
	}{
		{"steady", 0, unit, rtp(8, 1, 0), rtp(8, 2, 160), true},
		{"steady, with a past", 3_000_000, unit, rtp(8, 1, 0), rtp(8, 2, 160), true},
		{"marker", 0, unit, rtp(8, 1, 0), rtp(0x88, 2, 160), true},
		{"over the end", 0, unit, rtp(8, 0xffff, 0xffffffff), rtp(8, 0, 159), true},
		{"timestamp back", 0, unit, rtp(8, 1, 800), rtp(8, 2, 0), true},
		{"nearly a second", 0, unit, rtp(8, 1, 0), rtp(8, 2, 7900), true},
		{"a pause", 0, unit, rtp(8, 1, 0), rtp(8, 2, 9000), false},
		{"one lost", 500, unit, rtp(8, 1, 0), rtp(8, 3, 320), false},
		{"duplicate", 500, unit, rtp(8, 1, 0), rtp(8, 1, 0), false},
		{"another type", 500, unit, rtp(8, 1, 0), rtp(0, 2, 160), false},
		{"rate unknown", 500, 0, rtp(8, 1, 0), rtp(8, 2, 160), false},
		{"first is no RTP", 500, unit, []byte("keep-alive"), rtp(8, 2, 160), false},
		{"second is no RTP", 500, unit, rtp(8, 1, 0), []byte("keep-alive"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.write(p)
			w.k.global.heartbeat.Store(uint64(coarse()))
			s.unit.Store(c.unit)
			s.unitType = 8
			s.jitter.Store(c.before)
			s.prevArrival, s.prevSequence = uint64(monotonic()), 1 // of an earlier pair
			send := func(payload []byte) (before, after time.Duration) {
				t.Helper()
				frame := build(p.source, p.local, payload, options{hops: 64})
				before = monotonic()
				action, _, err := w.run(frame, 0)
				if err != nil || action != sentOn {
					t.Fatalf("verdict %d: %v", action, err)
				}
				return before, monotonic()
			}
			a0, a1 := send(c.first)
			isRTP := len(c.first) > 20
			if armed := s.armed == 1; armed != isRTP {
				t.Errorf("armed is %v after the first packet", armed)
			}
			if isRTP && (s.prevArrival < uint64(a0) || s.prevArrival > uint64(a1) || s.prevSequence != binary.BigEndian.Uint16(c.first[2:]) || s.prevStamp != binary.BigEndian.Uint32(c.first[4:])) {
				t.Errorf("remembered arrival %d, sequence %d, stamp %d", s.prevArrival, s.prevSequence, s.prevStamp)
			}
			for deadline := monotonic() + time.Millisecond; monotonic() < deadline; {
			}
			b0, b1 := send(c.second)
			low, high := int64(c.before), int64(c.before)
			if c.measured {
				sent := int64(int32(binary.BigEndian.Uint32(c.second[4:])-binary.BigEndian.Uint32(c.first[4:]))) * 125_000
				low, high = nextJitter(int64(c.before), int64(b0-a1)-sent), nextJitter(int64(c.before), int64(b1-a0)-sent)
			}
			got := int64(s.jitter.Load())
			if got < min(low, high) || got > max(low, high) {
				t.Errorf("jitter %d ns, want between %d and %d", got, min(low, high), max(low, high))
			}
			if len(c.second) > 20 && s.armed != 0 {
				t.Error("still armed after the second packet")
			}
			was, memory := s.jitter.Load(), [3]uint64{s.prevArrival, uint64(s.prevStamp), uint64(s.armed)}
			for n := range uint16(6) { // the others of eight
				send(rtp(8, 10+n, uint32(n)*9999))
			}
			if now := [3]uint64{s.prevArrival, uint64(s.prevStamp), uint64(s.armed)}; s.jitter.Load() != was || now != memory {
				t.Errorf("packets 3 to 8 changed jitter to %d, memory from %d to %d", s.jitter.Load(), memory, now)
			}
			send(rtp(8, 20, 0))
			if s.armed != 1 || s.prevSequence != 20 || rec.packets.Load() != 9 {
				t.Errorf("the ninth packet is not taken: armed %d, sequence %d", s.armed, s.prevSequence)
			}
		})
	}
}

func nextJitter(j, d int64) int64 {
	if d < 0 {
		d = -d
	}
	return j + (d-j)>>4
}

// A sprayer at a decided port: nothing of it is moved, little of it comes up, and the
// call goes on.
func TestSprayedPort(t *testing.T) {
	frames := 200_000
	if soaking() {
		frames = 1_000_000
	}
	w := newWorld(t, false)
	for _, v4 := range []bool{true, false} {
		p := w.port("decided", v4)
		rec, _ := w.record(p.local)
		w.write(p)
		w.counted()
		strangers := [][]byte{
			build(netip.AddrPortFrom(stranger(p.local.Addr(), 9), p.source.Port()), p.local, rtpPacket(1, 7), options{hops: 64}),
			build(netip.AddrPortFrom(p.source.Addr(), p.source.Port()+1), p.local, rtpPacket(1, 7), options{hops: 64}),
		}
		own := build(p.source, p.local, rtpPacket(2, 7), options{hops: 64})
		w.k.global.strangerGap, w.k.global.knownGap = uint64(strangerGap), uint64(knownGap)
		began := coarse()
		var raised, moved uint64
		for i := range frames {
			if i%1000 == 0 {
				w.k.global.heartbeat.Store(uint64(coarse()))
				if action, _, err := w.run(own, 0); err != nil || action != sentOn {
					t.Fatalf("the party's own packet: verdict %d: %v", action, err)
				}
				moved++
			}
			action, _, err := w.run(strangers[i%2], 0)
			switch {
			case err != nil:
				t.Fatal(err)
			case action == passed:
				raised++
			case action != dropped:
				t.Fatalf("frame %d: verdict %d", i, action)
			}
		}
		took := coarse() - began
		got := w.counted()
		if got.Raised != raised || got.Refused != uint64(frames)-raised || got.Packets != moved {
			t.Errorf("counts %+v, want %d raised, %d refused, %d moved", got, raised, uint64(frames)-raised, moved)
		}
		if n := rec.refused.Load(); n != got.Refused || rec.packets.Load() != moved {
			t.Errorf("the port counts %d refused, %d packets", n, rec.packets.Load())
		}
		// Its own address is known: it has a gap of its own. The clock has steps of a few ms.
		if most := uint64(took/strangerGap) + uint64(took/knownGap) + 2; raised > most || raised < 2 {
			t.Errorf("%d of %d went up in %v, want at most %d", raised, frames, took, most)
		}
	}
}

// Who sprays all ports has no more of user space than who sprays one; those of calls that
// are not decided yet, and addresses that a call knows, are heard all the same.
func TestSprayedTable(t *testing.T) {
	w := newWorld(t, false)
	var decided, open []*modelPort
	for _, p := range w.list {
		switch p.name {
		case "decided":
			decided = append(decided, p)
		case "open":
			open = append(open, p)
		}
		w.write(p)
	}
	if len(decided) < 4 || len(open) < 2 {
		t.Fatalf("%d decided ports and %d open ones", len(decided), len(open))
	}
	const gap = 200 * time.Millisecond
	w.k.global.strangerGap, w.k.global.knownGap, w.k.global.crowdGap = 0, 0, uint64(gap)
	spray := func(p *modelPort, source netip.Addr) bool {
		t.Helper()
		w.k.global.heartbeat.Store(uint64(coarse()))
		action, _, err := w.run(build(netip.AddrPortFrom(source, 999), p.local, rtpPacket(1, 7), options{hops: 64}), 0)
		if err != nil || action != passed && action != dropped {
			t.Fatalf("verdict %d, %v", action, err)
		}
		return action == passed
	}
	began, raised, frames := coarse(), 0, 0
	for coarse()-began < 5*gap {
		for _, p := range decided {
			frames++
			if spray(p, stranger(p.local.Addr(), 9)) {
				raised++
			}
			if !spray(p, p.known[0]) {
				t.Fatalf("an address that the call of %v knows is not heard", p.local)
			}
		}
		for _, p := range open {
			if !spray(p, stranger(p.local.Addr(), 9)) {
				t.Fatalf("nobody is heard at %v, which is not decided", p.local)
			}
		}
	}
	most := (int((coarse()-began)/gap) + 1) * runtime.NumCPU()
	if raised < 1 || raised > most {
		t.Errorf("%d of %d packets of strangers went up in %v, want at most %d", raised, frames, coarse()-began, most)
	}
}

// Behind a sprayer the addresses that the call knows are heard, each kind in its turn.
func TestKnownAddressesAreHeardBehindASprayer(t *testing.T) {
	w := newWorld(t, false)
	for _, v4 := range []bool{true, false} {
		for _, kind := range []string{"decided", "open"} {
			p := w.port(kind, v4)
			w.write(p)
			w.k.global.strangerGap, w.k.global.knownGap = uint64(100*time.Millisecond), uint64(30*time.Millisecond)
			w.k.global.heartbeat.Store(uint64(coarse()))
			strange := build(netip.AddrPortFrom(stranger(p.local.Addr(), 9), 999), p.local, rtpPacket(1, 7), options{hops: 64})
			known := build(netip.AddrPortFrom(p.known[0], 999), p.local, rtpPacket(1, 7), options{hops: 64})
			var nextStranger, nextKnown time.Duration
			var up [2]int
			enough := map[string]int{"decided": 6, "open": 1000}[kind]
			for end := coarse() + 20*time.Second; up[1] < enough && coarse() < end; {
				for i, frame := range [][]byte{strange, strange, strange, known} {
					before := coarse()
					action, _, err := w.run(frame, 0)
					if err != nil {
						t.Fatal(err)
					}
					if before != coarse() {
						break // the clock moved meanwhile: what the program saw is unknown
					}
					next, gap, which := &nextStranger, 100*time.Millisecond, 0
					if i == 3 {
						next, gap, which = &nextKnown, 30*time.Millisecond, 1
					}
					_, s := w.record(p.local)
					want := int32(dropped)
					if before >= *next || which == 1 && kind == "open" {
						want = passed
						up[which]++
					}
					*next = time.Duration(map[int]uint64{0: s.nextStranger, 1: s.nextKnown}[which])
					if action != want {
						t.Fatalf("IPv4 %v, %s: verdict %d, want %d, known: %v", v4, kind, action, want, which == 1)
					}
					if want == passed && kind == "decided" && *next != before+gap {
						t.Fatalf("the next goes up in %v, want %v", *next-before, gap)
					}
				}
				_, s := w.record(p.local) // as the program left it, also when the clock moved
				nextStranger, nextKnown = time.Duration(s.nextStranger), time.Duration(s.nextKnown)
			}
			if up[0] < 1 || up[0] >= up[1] || up[1] < enough {
				t.Errorf("IPv4 %v, %s: %d strangers and %d of a known address went up", v4, kind, up[0], up[1])
			}
		}
	}
}
