package attack

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/test/internal/netlab"
)

// weapon builds an attacker's packet and makes the next one of it.
type weapon struct {
	build func(ssrc uint32) []byte
	next  func(packet []byte)
}

const attackMark = "ATTACKER"

// rtpWeapon is a consistent stream for each port.
var rtpWeapon = weapon{
	build: func(ssrc uint32) []byte {
		b := binary.BigEndian.AppendUint16([]byte{0x80, 0}, uint16(ssrc>>7))
		b = binary.BigEndian.AppendUint32(b, ssrc^0x55555555)
		b = binary.BigEndian.AppendUint32(b, ssrc)
		return append(b, attackMark+attackMark...)
	},
	next: func(b []byte) {
		binary.BigEndian.PutUint16(b[2:], binary.BigEndian.Uint16(b[2:])+1)
		binary.BigEndian.PutUint32(b[4:], binary.BigEndian.Uint32(b[4:])+400) // 50 ms
	},
}

// rtcpWeapon is a receiver report of one sender and an APP packet.
var rtcpWeapon = weapon{
	build: func(ssrc uint32) []byte {
		b := binary.BigEndian.AppendUint32([]byte{0x80, 201, 0, 1}, ssrc)
		b = binary.BigEndian.AppendUint32(append(b, 0x80, 204, 0, 4), ssrc)
		return append(b, "EVIL"+attackMark...)
	},
	next: func([]byte) {},
}

// stunWeapon is a binding request with a SOFTWARE attribute (RFC 5389).
var stunWeapon = weapon{
	build: func(id uint32) []byte {
		b := []byte{0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0}
		b = binary.BigEndian.AppendUint32(b, id)
		return append(append(b, 0x80, 0x22, 0, 8), attackMark...)
	},
	next: func(b []byte) { binary.BigEndian.PutUint32(b[8:], binary.BigEndian.Uint32(b[8:])+1) },
}

// round is how often a sprayer sends its share.
const round = 10 * time.Millisecond

// sprayer sends to many ports of one address, from one socket, each of them rate times
// a second.
type sprayer struct {
	// set in spray, read-only afterwards
	name   string
	conn   *net.UDPConn
	dest   netip.Addr
	weapon weapon
	rate   int
	stop   chan struct{}
	done   sync.WaitGroup

	// heard is told of what comes back, and from which of the relay's ports.
	heard func(from uint16, packet []byte)

	mu      sync.Mutex // guards what follows
	targets map[uint16]*target
	order   []*target

	sent, unsent atomic.Uint64
}

type target struct {
	packet []byte
	name   unix.RawSockaddrInet4
	iov    unix.Iovec
}

// spray starts a sprayer on a host.
func spray(host *netlab.Host, from, dest netip.Addr, w weapon, rate int, ports []uint16, heard func(uint16, []byte)) (*sprayer, error) {
	conn, err := host.ListenUDP(netip.AddrPortFrom(from, 0))
	if err != nil {
		return nil, fmt.Errorf("open the socket of attacker %s: %w", host.Name(), err)
	}
	conn.SetWriteBuffer(4 << 20)
	s := &sprayer{name: fmt.Sprintf("%s from %s", host.Name(), from), conn: conn, dest: dest, weapon: w, rate: rate, heard: heard, stop: make(chan struct{}), targets: map[uint16]*target{}}
	s.aim(ports...)
	s.done.Go(s.run)
	s.done.Go(s.listen)
	return s, nil
}

func (s *sprayer) close() {
	close(s.stop)
	s.conn.Close()
	s.done.Wait()
}

// aim adds ports.
func (s *sprayer) aim(ports ...uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, port := range ports {
		if s.targets[port] != nil {
			continue
		}
		t := &target{packet: s.weapon.build(rand.Uint32())}
		t.name.Family = unix.AF_INET
		t.name.Addr = s.dest.As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&t.name.Port))[:], port)
		t.iov.Base = &t.packet[0]
		t.iov.SetLen(len(t.packet))
		s.targets[port] = t
		s.order = append(s.order, t)
	}
}

// spare takes ports away.
func (s *sprayer) spare(ports ...uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, port := range ports {
		delete(s.targets, port)
	}
	s.order = s.order[:0]
	for _, t := range s.targets {
		s.order = append(s.order, t)
	}
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

func messageTo(name *unix.RawSockaddrInet4, iov *unix.Iovec) (m mmsghdr) {
	m.header.Name = (*byte)(unsafe.Pointer(name))
	m.header.Namelen = unix.SizeofSockaddrInet4
	m.header.Iov = iov
	m.header.SetIovlen(1)
	return m
}

func (s *sprayer) run() {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	ticker := time.NewTicker(round)
	defer ticker.Stop()
	var batch []mmsghdr
	owed, at, last := 0.0, 0, time.Now()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		now := time.Now()
		// What a busy machine has kept from being sent is not sent later at once.
		turns := max(1, float64(s.rate)*round.Seconds())
		owed = min(owed+now.Sub(last).Seconds()*float64(len(s.order)*s.rate), turns*float64(len(s.order)))
		last = now
		for owed >= 1 && len(s.order) > 0 {
			batch = batch[:0]
			for ; owed >= 1 && len(batch) < len(s.order); owed-- {
				at = (at + 1) % len(s.order)
				t := s.order[at]
				s.weapon.next(t.packet)
				batch = append(batch, messageTo(&t.name, &t.iov))
			}
			s.send(raw.Control, batch)
		}
		s.mu.Unlock()
	}
}

// send hands a batch to the kernel. ICMP errors of earlier packets end a call early;
// the next one goes on behind it.
func (s *sprayer) send(control func(func(fd uintptr)) error, batch []mmsghdr) {
	for len(batch) > 0 {
		var n uintptr
		var errno unix.Errno
		if control(func(fd uintptr) {
			n, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&batch[0])), uintptr(len(batch)), unix.MSG_DONTWAIT, 0, 0)
		}) != nil {
			return
		}
		runtime.KeepAlive(batch)
		if errno != 0 {
			s.unsent.Add(1)
			n = 1
		} else {
			s.sent.Add(uint64(n))
		}
		batch = batch[n:]
	}
}

func (s *sprayer) listen() {
	buf := make([]byte, 2048)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		s.heard(from.Port(), buf[:n])
	}
}
