package forward

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/internal/wire/rtp"
)

// The slow, obvious model of the kernel program: what becomes of a frame.

const (
	passed  = -1
	dropped = 2
	sentOn  = 7
)

// modelPort is a port as the model sees it.
type modelPort struct {
	name    string
	local   netip.AddrPort
	state   uint32
	source  netip.AddrPort // of its flow, in state decided; the three below, too
	dest    netip.AddrPort
	out     netip.AddrPort
	hop     *modelHop
	broken  bool // its flow is none that the program may use
	known   [3]netip.Addr
	refused uint64

	// what Go counts for the datagrams that the kernel moved
	entry entry
	types entry // one of eight, eight times
}

type modelHop struct {
	exists, ready bool
	mtu           int
	dmac, smac    [6]byte
}

// model is the whole table.
type model struct {
	ports     map[netip.AddrPort]*modelPort
	silence   time.Duration // of the relay
	lease     time.Duration
	stranger  time.Duration // from now until one more stranger may go up
	knownGoes time.Duration // the same for known addresses
}

// verdict is what is to become of a frame.
type verdict struct {
	action int32
	frame  []byte     // as it leaves
	why    string     // for people
	port   *modelPort // whose it is, nil if nobody's
	moved  bool
	counts kernelCounts
	from   plain // what was in the frame, if moved
}

// datagram is a plain UDP datagram inside a frame.
type plain struct {
	v4             bool
	source, dest   netip.AddrPort
	ip, udp        []byte // from their first byte to the end of the frame
	length         int    // of the IP packet
	payload        []byte
	why            string // it is none of ours
	lengthsDiffer  bool
	hops, tos      int
	withChecksum   bool
	headerIsRight  bool // IPv4's own checksum
	payloadIsRight bool // UDP's checksum
}

// read takes a frame apart.
func read(f []byte) plain {
	if len(f) < ethernetHeader {
		return plain{why: "no frame"}
	}
	if [6]byte(f[:6]) != [6]byte{} {
		return plain{why: "not for this device"} // test runs have the address of the loopback device: zeros
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0800:
		return read4(f[ethernetHeader:])
	case 0x86dd:
		return read6(f[ethernetHeader:])
	}
	return plain{why: "not IP"}
}

func read4(b []byte) plain {
	switch {
	case len(b) < 28:
		return plain{why: "short"}
	case b[0]>>4 != 4:
		return plain{why: "another version"}
	case b[0]&15 != 5:
		return plain{why: "options"}
	case b[9] != 17:
		return plain{why: "not UDP"}
	case b[6]&0x20 != 0:
		return plain{why: "first or middle fragment"}
	case binary.BigEndian.Uint16(b[6:])%8192 != 0:
		return plain{why: "last fragment"}
	case b[8] < 2:
		return plain{why: "the last hop"}
	}
	d := plain{v4: true, ip: b, udp: b[20:], length: int(binary.BigEndian.Uint16(b[2:])), hops: int(b[8]), tos: int(b[1])}
	d.source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), binary.BigEndian.Uint16(b[20:]))
	d.dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(b[22:]))
	d.headerIsRight = ones(b[:20]) == 0xffff
	d.finish(20, b[12:20])
	return d
}

func read6(b []byte) plain {
	switch {
	case len(b) < 48:
		return plain{why: "short"}
	case b[0]>>4 != 6:
		return plain{why: "another version"}
	case b[6] != 17:
		return plain{why: "an extension header, or not UDP"}
	case b[7] < 2:
		return plain{why: "the last hop"}
	case b[46] == 0 && b[47] == 0:
		return plain{why: "no checksum"}
	}
	d := plain{ip: b, udp: b[40:], length: 40 + int(binary.BigEndian.Uint16(b[4:])), hops: int(b[7]), tos: int(b[0]&15)<<4 | int(b[1]>>4)}
	d.source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[40:]))
	d.dest = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:40])), binary.BigEndian.Uint16(b[42:]))
	d.headerIsRight = true
	d.finish(40, b[8:40])
	return d
}

// finish looks at the UDP header behind an IP header of so many bytes.
func (d *plain) finish(header int, addrs []byte) {
	udp := int(binary.BigEndian.Uint16(d.udp[4:]))
	if udp < 8 || header+udp != d.length || d.length > len(d.ip) {
		d.lengthsDiffer = true
		return
	}
	d.udp = d.udp[:udp]
	d.payload = d.udp[8:]
	d.withChecksum = d.udp[6] != 0 || d.udp[7] != 0
	d.payloadIsRight = ones(addrs, []byte{0, 17, byte(udp >> 8), byte(udp)}, d.udp) == 0xffff
}

// judge says what becomes of a frame.
func (m *model) judge(frame []byte, segments uint32) verdict {
	pass := func(why string, p *modelPort) verdict {
		return verdict{action: passed, frame: frame, why: why, port: p}
	}
	if segments != 0 {
		return pass("segments", nil)
	}
	d := read(frame)
	if d.why != "" {
		return pass(d.why, nil)
	}
	p := m.ports[d.dest]
	switch {
	case p == nil || p.state == stateOff:
		return pass("no port of ours", p)
	case d.lengthsDiffer:
		return pass("lengths that disagree", p)
	case m.silence > m.lease:
		v := pass("the lease is over", p)
		v.counts.Orphaned = 1
		return v
	case p.state == stateResting:
		return verdict{action: dropped, frame: frame, why: "resting", port: p, counts: kernelCounts{Resting: 1}}
	case p.state == stateOpen:
		return m.raise(frame, d, p)
	case d.source != p.source:
		return m.raise(frame, d, p)
	case p.broken:
		return pass("a flow that cannot be used", p)
	case !p.hop.exists:
		return pass("no next hop", p)
	case d.length > p.hop.mtu:
		return pass("larger than the way out", p)
	}
	return m.move(frame, d, p)
}

// raise is for datagrams of nobody's flow.
func (m *model) raise(frame []byte, d plain, p *modelPort) verdict {
	known := false
	for _, a := range p.known {
		known = known || a.IsValid() && a == d.source.Addr()
	}
	up := verdict{action: passed, frame: frame, why: "a stranger, raised", port: p, counts: kernelCounts{Raised: 1}}
	down := verdict{action: dropped, frame: frame, why: "a stranger too many", port: p, counts: kernelCounts{Refused: 1}}
	wait := m.stranger
	if known {
		if up.why = "a known address, raised"; p.state == stateOpen {
			return up
		}
		wait = m.knownGoes
	} else if p.sameStream(d.payload) {
		up.why, wait = "the party's stream, raised", m.knownGoes
	}
	if wait > 0 && wait < time.Second { // longer: the clock began anew
		return down
	}
	return up
}

// sameStream says whether a payload may belong to the RTP that the port's party sent.
func (p *modelPort) sameStream(payload []byte) bool {
	h, ok := rtp.Parse(payload)
	_, has := unpackSequence(p.entry.rec.sequence.Load())
	return ok && has && rtp.Classify(payload) == rtp.KindRTP && h.SSRC == p.entry.rec.ssrc.Load()
}

// move is for datagrams of the port's flow.
func (m *model) move(frame []byte, d plain, p *modelPort) verdict {
	v := verdict{action: sentOn, why: "moved", port: p, moved: true, from: d, counts: kernelCounts{Packets: 1, Bytes: uint64(d.length)}}
	f := append([]byte(nil), frame...)
	if p.hop.ready && m.silence < 5*time.Second {
		copy(f[0:], p.hop.dmac[:])
		copy(f[6:], p.hop.smac[:])
	} else {
		v.counts.Neigh = 1
	}
	ip := f[ethernetHeader:]
	var udp, addrs []byte
	if d.v4 {
		udp, addrs = ip[20:], ip[12:20]
		ip[8]--
	} else {
		udp, addrs = ip[40:], ip[8:40]
		ip[7]--
	}
	size := len(addrs) / 2
	copy(addrs[:size], p.out.Addr().AsSlice())
	copy(addrs[size:], p.dest.Addr().AsSlice())
	binary.BigEndian.PutUint16(udp[0:], p.out.Port())
	binary.BigEndian.PutUint16(udp[2:], p.dest.Port())
	udp = udp[:len(d.udp)]
	if d.v4 && d.headerIsRight {
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^ones(ip[:20]))
	}
	if d.withChecksum && d.payloadIsRight {
		udp[6], udp[7] = 0, 0
		c := ^ones(addrs, []byte{0, 17, byte(len(udp) >> 8), byte(len(udp))}, udp)
		if c == 0 {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(udp[6:], c)
	}
	v.frame = f
	return v
}

// count has Go count what the kernel moved.
func (p *modelPort) count(now time.Duration, payload []byte) {
	turn := p.entry.rec.packets.Load() % 8
	kind := rtp.Classify(payload)
	p.entry.accept(now, payload, kind)
	if h, ok := rtp.Parse(payload); ok && kind == rtp.KindRTP && turn == 0 {
		for range 8 {
			p.types.countType(h.PayloadType)
		}
	}
}

func (p *modelPort) reset() {
	p.entry, p.types = newEntry(p.local, nil), newEntry(p.local, nil)
	p.refused = 0
}

// differs compares a port's record with what Go counted.
func (p *modelPort) differs(got *record, beside *side) error {
	want := p.entry.rec
	type numbers struct {
		packets, bytes, refused uint64
		ssrc, sequence          uint32
		lost                    int32
		first, media, seen      bool
		types                   [maxPayloadTypes]uint64
	}
	of := func(r *record, s *side) (n numbers) {
		n = numbers{packets: r.packets.Load(), bytes: r.bytes.Load(), refused: r.refused.Load(), ssrc: r.ssrc.Load(), sequence: r.sequence.Load(),
			lost: r.lost.Load(), first: r.firstMedia.Load() != 0, media: r.lastMedia.Load() != 0, seen: r.lastSeen.Load() != 0}
		for i := range s.types {
			n.types[i] = s.types[i].Load()
		}
		return n
	}
	g, w := of(got, beside), of(want, p.types.side)
	w.refused = p.refused
	if g != w {
		return fmt.Errorf("counted\n    kernel %+v\n    Go     %+v", g, w)
	}
	return nil
}

// coarse is the clock that the program reads.
func coarse() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}
