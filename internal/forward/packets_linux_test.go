package forward

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// generator makes frames: plain media, and everything that is not.
type generator struct {
	*rand.Rand
	ports    []*modelPort
	sequence map[*modelPort]uint16
}

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

// chance is true once in n.
func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

// frame makes the next one. segments is for the frame's metadata.
func (g *generator) frame() (b []byte, segments uint32) {
	p := pick(g, g.ports...)
	o := options{hops: 64, tos: pick(g, 0, 0xb8, g.IntN(256)), id: uint16(g.Uint32()), df: g.chance(2)}
	if g.chance(8) {
		o.hops = g.IntN(256)
	}
	if g.chance(30) {
		o.hops = g.IntN(4)
	}
	o.noChecksum = g.chance(12)
	b = build(g.source(p), g.target(p), g.payload(p), o)
	if g.chance(5) {
		for range 1 + g.IntN(2) {
			b = g.mutate(b)
		}
	}
	if g.chance(40) {
		segments = uint32(1 + g.IntN(3))
	}
	return b, segments
}

func (g *generator) source(p *modelPort) netip.AddrPort {
	source := p.source
	if !source.IsValid() || g.chance(10) {
		source = netip.AddrPortFrom(pick(g, p.known[:]...), uint16(g.IntN(1<<16)))
	}
	if !source.Addr().IsValid() || g.chance(15) {
		source = netip.AddrPortFrom(pick(g, stranger(p.local.Addr(), g.IntN(4)), unspecified(p.local.Addr())), source.Port())
	}
	if g.chance(15) {
		source = netip.AddrPortFrom(source.Addr(), source.Port()^uint16(1<<g.IntN(16)))
	}
	return source
}

func stranger(like netip.Addr, n int) netip.Addr {
	if like.Is4() {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 9, 15: byte(n)})
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// target is mostly the port itself.
func (g *generator) target(p *modelPort) netip.AddrPort {
	switch {
	case g.chance(50):
		return netip.AddrPortFrom(p.local.Addr(), uint16(g.IntN(1<<16)))
	case g.chance(50):
		return netip.AddrPortFrom(stranger(p.local.Addr(), 77), p.local.Port())
	}
	return p.local
}

// payload is media most of the time.
func (g *generator) payload(p *modelPort) []byte {
	switch g.IntN(12) {
	case 0: // RTCP
		return g.fill([]byte{0x81, pick[byte](g, 200, 201, 202, 192, 223), 0, 7}, 28)
	case 1: // STUN, or nearly
		b := g.fill([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, pick[byte](g, 0x42, 0x42, 0x43)}, pick(g, 20, 28, 19))
		return b
	case 2: // DTLS, or nearly
		return g.fill([]byte{pick[byte](g, 20, 22, 63, 64, 19), 0xfe, pick[byte](g, 0xff, 0xfd, 0xfe)}, pick(g, 13, 40, 12))
	case 3: // UDPTL
		return g.fill([]byte{0, byte(g.IntN(256)), 6}, 20)
	case 4:
		return g.fill(nil, g.IntN(24))
	case 5:
		return g.fill(nil, pick(g, 0, 1, 172, 200, 1400, 1472, 1473, g.IntN(1600)))
	}
	return g.rtp(p)
}

// rtp continues a stream that loses, repeats and delays packets, and begins anew.
func (g *generator) rtp(p *modelPort) []byte {
	step := uint16(1)
	switch g.IntN(12) {
	case 0:
		step = 0
	case 1:
		step = uint16(g.IntN(5))
	case 2:
		step = -uint16(g.IntN(120))
	case 3:
		step = uint16(g.Uint32())
	case 4:
		step = pick[uint16](g, 2999, 3000, 3001, 65536-99, 65536-100, 65536-101)
	}
	g.sequence[p] += step
	b := g.fill([]byte{0x80 | byte(g.IntN(64)), pick[byte](g, 8, 8, 8, 0, 13, 101, 96, 18, 9, 63, 127)}, pick(g, 172, 12, 13, 60))
	if g.chance(3) {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], g.sequence[p])
	binary.BigEndian.PutUint32(b[4:], uint32(g.sequence[p])*160)
	binary.BigEndian.PutUint32(b[8:], 1)
	if g.chance(40) {
		binary.BigEndian.PutUint32(b[8:], uint32(g.IntN(3)))
	}
	return b
}

// fill makes size bytes that begin with head.
func (g *generator) fill(head []byte, size int) []byte {
	b := make([]byte, max(size, 0))
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	copy(b, head)
	return b
}

// mutate makes something of a frame that nobody should have sent.
func (g *generator) mutate(b []byte) []byte {
	if len(b) < ethernetHeader {
		return b
	}
	v6 := b[12] == 0x86 && len(b) >= 54
	ip := b[ethernetHeader:]
	switch g.IntN(14) {
	case 0:
		return b[:g.IntN(len(b)+1)]
	case 1:
		b[g.IntN(len(b))] ^= byte(1 << g.IntN(8))
	case 2:
		b[g.IntN(min(len(b), 62))] = byte(g.Uint32())
	case 3: // fragments, and the bit that is reserved
		if !v6 && len(ip) >= 20 {
			binary.BigEndian.PutUint16(ip[6:], uint16(pick(g, 0x2000, 0x2005, 1, 0x1fff, 0x8000, 0xc000)))
			fixHeader(ip)
		}
	case 4: // options
		if !v6 && len(ip) >= 20 {
			ip[0] = 0x46
		}
	case 5: // an extension header
		if v6 {
			ip[6] = pick[byte](g, 0, 43, 44, 60, 58)
		}
	case 6, 7: // lengths
		at := pick(g, 2, 24)
		if v6 {
			at = pick(g, 4, 44)
		}
		if len(ip) >= at+2 {
			binary.BigEndian.PutUint16(ip[at:], binary.BigEndian.Uint16(ip[at:])+uint16(pick(g, 1, -1, 8, -8, 1000, g.IntN(1<<16))))
		}
	case 8: // what Ethernet pads with
		return append(b, g.fill(nil, 1+g.IntN(40))...)
	case 9:
		copy(b, pick(g, "\xff\xff\xff\xff\xff\xff", "\x01\x00\x5e\x00\x00\x01", "\x02\x00\x00\x00\x00\x01"))
	case 10: // a tag of a VLAN
		return append(append(append([]byte(nil), b[:12]...), 0x81, 0, 0, 5), b[12:]...)
	case 11:
		b[12], b[13] = byte(g.Uint32()), byte(g.Uint32())
	case 12: // a wrong checksum
		at := pick(g, 10, 26)
		if v6 {
			at = 46
		}
		if len(ip) >= at+2 {
			binary.BigEndian.PutUint16(ip[at:], uint16(pick(g, 0xffff, 0, g.IntN(1<<16))))
		}
	case 13: // the port is right, the address another of the relay's
		if other := pick(g, g.ports...).local.Addr(); other.Is6() == v6 && len(ip) >= 40 {
			copy(ip[map[bool]int{false: 16, true: 24}[v6]:], other.AsSlice())
		}
	}
	return b
}

func fixHeader(ip []byte) {
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^ones(ip[:20]))
}

// options of a frame besides its addresses and payload.
type options struct {
	hops, tos  int
	id         uint16
	df         bool
	noChecksum bool
}

// build makes a frame for the loopback device, which is what test runs have.
func build(source, dest netip.AddrPort, payload []byte, o options) []byte {
	b := make([]byte, ethernetHeader, ethernetHeader+48+len(payload))
	copy(b[6:], "\x02\x00\x00\x00\x00\x99")
	length := 8 + len(payload)
	if source.Addr().Is4() {
		b[12], b[13] = 8, 0
		flags := byte(0)
		if o.df {
			flags = 0x40
		}
		b = append(b, 0x45, byte(o.tos), byte((length+20)>>8), byte(length+20), byte(o.id>>8), byte(o.id), flags, 0, byte(o.hops), 17, 0, 0)
	} else {
		b[12], b[13] = 0x86, 0xdd
		b = append(b, 0x60|byte(o.tos>>4), byte(o.tos<<4), byte(o.id>>8), byte(o.id), byte(length>>8), byte(length), 17, byte(o.hops))
	}
	b = append(append(b, source.Addr().AsSlice()...), dest.Addr().AsSlice()...)
	addrs := b[len(b)-2*len(source.Addr().AsSlice()):]
	udp := []byte{byte(source.Port() >> 8), byte(source.Port()), byte(dest.Port() >> 8), byte(dest.Port()), byte(length >> 8), byte(length), 0, 0}
	udp = append(udp, payload...)
	if c := ^ones(addrs, []byte{0, 17, byte(length >> 8), byte(length)}, udp); !o.noChecksum {
		if c == 0 {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(udp[6:], c)
	}
	b = append(b, udp...)
	if source.Addr().Is4() {
		fixHeader(b[ethernetHeader:])
	}
	return b
}
