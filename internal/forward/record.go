package forward

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"sync/atomic"
	"unsafe"
)

// The flow table as user space and kernel see it: bpf/table.h is the same in C.
// Numbers are in host order, ports and addresses as in a packet.

// tableVersion changes with any of these layouts.
const tableVersion = 1

const (
	portsPerSlot = 1 << 16
	maxLocals    = 8
	maxHops      = 4096
	cpusPerSlot  = 128
)

// States of a record.
const (
	stateOff     = 0 // the host's own stack has the port
	stateOpen    = 1 // user space looks at each datagram
	stateDecided = 2 // the kernel moves the datagrams of one source
	stateResting = 3 // late datagrams of a former call are dropped
)

// record is the entry of a port. The first line is guarded by state: it is
// written while that is not stateDecided. The kernel and user space both count in
// the second, with atomic additions.
type record struct {
	state  atomic.Uint32
	detail atomic.Uint32 // generation, family, family of the way out: two bytes and one each
	flow   flowLine

	packets    atomic.Uint64
	bytes      atomic.Uint64
	lastSeen   atomic.Uint64 // nanoseconds of the monotonic clock; 0: never
	lastMedia  atomic.Uint64
	refused    atomic.Uint64
	firstMedia atomic.Uint64
	ssrc       atomic.Uint32
	sequence   atomic.Uint32 // sequence number, whether there is one, a spare byte
	lost       atomic.Int32
	_          uint32
}

// flowLine is a flow in the words of the table.
type flowLine struct {
	source     [16]byte
	dest       [16]byte
	sourcePort [2]byte
	destPort   [2]byte
	outPort    [2]byte // of the relay, that dest hears it from
	hop        uint16
	addrChange uint32 // what new addresses and ports add to a checksum
	portChange uint32
	outSlot    uint8
	_          [7]byte
}

// side is what few packets of a port need.
type side struct {
	prevArrival  uint64
	prevStamp    uint32
	unit         atomic.Uint32 // nanoseconds in a unit of the RTP timestamp, times 256; 0: unknown
	jitter       atomic.Uint32 // nanoseconds
	prevSequence uint16
	unitType     uint8 // payload type that unit is for
	armed        uint8 // prev is of the packet before
	types        [maxPayloadTypes]atomic.Uint64
	unsent       atomic.Uint64
	known        [3][16]byte
	nextStranger uint64
	nextKnown    uint64
}

// hop is how the kernel reaches a next router or host.
type hop struct {
	ifindex atomic.Uint32 // 0: unused
	mtu     uint16
	ready   uint8
	family  uint8
	dmac    [6]byte
	smac    [6]byte
	gateway [16]byte
	_       [12]byte
}

// setReady says whether the hop's link-layer addresses may be used. Its word is
// written whole: the kernel reads it at any time.
func (h *hop) setReady(ready bool) {
	word := (*atomic.Uint32)(unsafe.Pointer(&h.mtu))
	w := word.Load()
	b := (*[4]byte)(unsafe.Pointer(&w))
	b[2] = 0
	if ready {
		b[2] = 1
	}
	word.Store(w)
}

// setAddresses writes those of the link layer: the neighbour's in one piece, with the
// beginning of ours, because the kernel reads it at any time.
func (h *hop) setAddresses(dmac, smac [6]byte) {
	var first [8]byte
	copy(first[copy(first[:], dmac[:]):], smac[:])
	(*atomic.Uint64)(unsafe.Pointer(&h.dmac)).Store(binary.NativeEndian.Uint64(first[:]))
	copy(h.smac[2:], smac[2:])
}

type local struct {
	addr   [16]byte
	family uint32
	_      [3]uint32
}

type globals struct {
	version     uint32
	localsUsed  atomic.Uint32
	heartbeat   atomic.Uint64
	lease       atomic.Uint64
	strangerGap uint64
	knownGap    uint64
	crowdGap    uint64
	_           [2]uint64
	locals      [maxLocals]local
}

// kernelCounts are those of one processor.
type kernelCounts struct {
	Packets, Bytes, Refused, Resting, Raised, Orphaned, Neigh, NextStranger uint64
}

const (
	recordSize = int(unsafe.Sizeof(record{}))
	sideSize   = int(unsafe.Sizeof(side{}))
)

// rawAddr is an address as the table has it: IPv4 in the first four bytes.
func rawAddr(a netip.Addr) (raw [16]byte) {
	if a.Is4() {
		v4 := a.As4()
		copy(raw[:], v4[:])
		return raw
	}
	if a.IsValid() {
		raw = a.As16()
	}
	return raw
}

func addrOfRaw(raw [16]byte, family uint8) netip.Addr {
	switch family {
	case 4:
		return netip.AddrFrom4([4]byte(raw[:4]))
	case 6:
		return netip.AddrFrom16(raw)
	}
	return netip.Addr{}
}

func rawPort(p uint16) (raw [2]byte) {
	binary.BigEndian.PutUint16(raw[:], p)
	return raw
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return 4
	}
	return 6
}

func (r *record) generation() uint16 {
	d := r.detail.Load()
	b := (*[4]byte)(unsafe.Pointer(&d))
	return binary.NativeEndian.Uint16(b[:2])
}

// setDetail writes the next generation and the families.
func (r *record) setDetail(family, outFamily uint8) {
	var b [4]byte
	binary.NativeEndian.PutUint16(b[:2], r.generation()+1)
	b[2], b[3] = family, outFamily
	r.detail.Store(binary.NativeEndian.Uint32(b[:]))
}

// packSequence is the word of the newest sequence number.
func packSequence(n uint16) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint16(b[:2], n)
	b[2] = 1
	return binary.NativeEndian.Uint32(b[:])
}

func unpackSequence(w uint32) (n uint16, known bool) {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], w)
	return binary.NativeEndian.Uint16(b[:2]), b[2] != 0
}

// reset makes a record that of a new call, in the given state.
func (r *record) reset(s *side, family uint8, state uint32) {
	r.state.Store(stateOff)
	r.setDetail(family, 0)
	r.flow = flowLine{}
	for _, c := range []*atomic.Uint64{&r.packets, &r.bytes, &r.lastSeen, &r.lastMedia, &r.refused, &r.firstMedia} {
		c.Store(0)
	}
	r.ssrc.Store(0)
	r.sequence.Store(0)
	r.lost.Store(0)
	s.prevArrival, s.prevStamp, s.prevSequence, s.unitType, s.armed = 0, 0, 0, 0, 0
	s.unit.Store(0)
	s.jitter.Store(0)
	for i := range s.types {
		s.types[i].Store(0)
	}
	s.unsent.Store(0)
	s.known = [3][16]byte{}
	s.nextStranger, s.nextKnown = 0, 0
	r.state.Store(state)
}

// change is what a new value adds to an Internet checksum in place of an old one
// (RFC 1624), folded to 16 bits.
func change(from, to []byte) uint32 {
	var sum uint32
	for i := 0; i < len(from); i += 2 {
		sum += uint32(^binary.NativeEndian.Uint16(from[i:]))
	}
	for i := 0; i < len(to); i += 2 {
		sum += uint32(binary.NativeEndian.Uint16(to[i:]))
	}
	sum = sum&0xffff + sum>>16
	return sum&0xffff + sum>>16
}

// checksum is the Internet checksum of RFC 1071 over b, not yet inverted, going on
// from sum, as a number in network order.
func checksum(b []byte, sum uint64) uint64 {
	var carry uint64
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum += carry
		b = b[8:]
	}
	var last [8]byte
	copy(last[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(last[:]), 0)
	return sum + carry
}

func foldChecksum(sum uint64) uint16 {
	sum = sum&0xffffffff + sum>>32
	sum = sum&0xffffffff + sum>>32
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	return uint16(sum)
}
