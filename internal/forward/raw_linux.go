package forward

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sending from ports that no socket of ours is bound to: through a raw socket, with
// headers of our own.

const (
	ip4Header     = 20
	ip6Header     = 40
	udpHeader     = 8
	largestHeader = ip6Header + udpHeader
	defaultHops   = 64
)

// putHeaders writes IP and UDP headers for a datagram and returns their length.
// hops and tos below 0 mean the usual ones.
func putHeaders(b *[largestHeader]byte, from, to netip.AddrPort, hops, tos int, payload []byte) int {
	if hops < 0 {
		hops = defaultHops
	}
	tos = max(tos, 0)
	udpLen := udpHeader + len(payload)
	var n int
	var sum uint64
	if from.Addr().Is4() {
		n = ip4Header
		b[0], b[1] = 0x45, byte(tos)
		binary.BigEndian.PutUint16(b[2:], uint16(ip4Header+udpLen))
		clear(b[4:8]) // the kernel numbers it; it may be fragmented on its way
		b[8], b[9] = byte(hops), unix.IPPROTO_UDP
		b[10], b[11] = 0, 0
		source, dest := from.Addr().As4(), to.Addr().As4()
		copy(b[12:], source[:])
		copy(b[16:], dest[:])
		sum = checksum(b[12:20], 0)
		binary.BigEndian.PutUint16(b[10:], ^foldChecksum(checksum(b[:ip4Header], 0)))
	} else {
		n = ip6Header
		binary.BigEndian.PutUint32(b[:], 6<<28|uint32(tos)<<20)
		binary.BigEndian.PutUint16(b[4:], uint16(udpLen))
		b[6], b[7] = unix.IPPROTO_UDP, byte(hops)
		source, dest := from.Addr().As16(), to.Addr().As16()
		copy(b[8:], source[:])
		copy(b[24:], dest[:])
		sum = checksum(b[8:40], 0)
	}
	u := b[n : n+udpHeader]
	binary.BigEndian.PutUint16(u[0:], from.Port())
	binary.BigEndian.PutUint16(u[2:], to.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(udpLen))
	u[6], u[7] = 0, 0
	sum += unix.IPPROTO_UDP + uint64(udpLen)
	c := ^foldChecksum(checksum(payload, checksum(u, sum)))
	if c == 0 {
		c = 0xffff // 0 would say that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(u[6:], c)
	return n + udpHeader
}

// rawSocket is for sending from any port of one local address. It is bound to that,
// so that routes by source are found.
func rawSocket(local netip.Addr) (fd int, err error) {
	family := unix.AF_INET
	if local.Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return -1, err
	}
	name := newSockaddr(netip.AddrPortFrom(local, 0), local.Is6())
	if _, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&name.raw)), uintptr(name.len)); errno != 0 {
		unix.Close(fd)
		return -1, errno
	}
	roomySocket(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	return fd, nil
}

// socketRoom is for a burst of all calls at once: 4 MiB are 10,000 packets of audio.
const socketRoom = 4 << 20

// roomySocket widens a buffer, past the system's limit where that is allowed.
func roomySocket(fd, force, ask int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketRoom) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, ask, socketRoom) // what it gets is enough for few calls
	}
}

// mmsghdr is the element of recvmmsg and sendmmsg.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// idents numbers datagrams in place of the kernel, which takes longer for it. Those to
// one address have numbers of their own for as long as possible, so that fragments of
// two are not taken for one (RFC 6864).
type idents struct {
	seed uint32 // odd; nobody outside is to know who shares numbers with whom
	next [1024]atomic.Uint32
}

func (n *idents) init() {
	n.seed = rand.Uint32() | 1
	for i := range n.next {
		n.next[i].Store(rand.Uint32())
	}
}

// of an address; 0 would have the kernel choose.
func (n *idents) of(dest netip.Addr) uint16 {
	a := dest.As4()
	next := &n.next[binary.NativeEndian.Uint32(a[:])*n.seed>>22]
	if id := uint16(next.Add(1)); id != 0 {
		return id
	}
	return uint16(next.Add(1))
}

const outBatch = 64

// sender collects datagrams of one thread from one local address and sends them
// with one system call.
type sender struct {
	fd     int
	header int // size of IP and UDP headers
	idents *idents
	n      int
	names  [outBatch]sockaddr
	iovs   [outBatch]unix.Iovec
	msgs   [outBatch]mmsghdr
	from   [outBatch]*port // that the datagram came in at
	out    [outBatch]*port
	to     [outBatch]netip.AddrPort
	size   [outBatch]int
	ttl    [outBatch]int
	tos    [outBatch]int
}

func newSender(local netip.Addr, numbers *idents) (*sender, error) {
	fd, err := rawSocket(local)
	if err != nil {
		return nil, err
	}
	s := &sender{fd: fd, header: ip4Header + udpHeader, idents: numbers}
	if local.Is6() {
		s.header = ip6Header + udpHeader
	}
	for i := range s.msgs {
		m := &s.msgs[i].hdr
		m.Name = &s.names[i].raw[0]
		m.Iov = &s.iovs[i]
		m.SetIovlen(1)
	}
	return s, nil
}

// add queues the datagram of so many bytes that lies in a reader's buffer behind the
// room for headers. The buffer has to stay until flush.
func (s *sender) add(w *worker, in, out *port, dest *sockaddr, buffer []byte, size, hops, tos int) {
	i := s.n
	to := dest.addrPort()
	frame := buffer[headerRoom-s.header:]
	putHeaders((*[largestHeader]byte)(frame), out.local, to, hops, tos, buffer[headerRoom:headerRoom+size])
	if s.header == ip4Header+udpHeader { // the kernel computes the header's checksum in any case
		binary.BigEndian.PutUint16(frame[4:], s.idents.of(to.Addr()))
	}
	s.names[i] = *dest
	s.names[i].raw[2], s.names[i].raw[3] = 0, 0 // raw sockets have no ports
	s.msgs[i].hdr.Namelen = s.names[i].len
	s.iovs[i].Base = &frame[0]
	s.iovs[i].SetLen(s.header + size)
	s.from[i], s.out[i], s.to[i], s.size[i], s.ttl[i], s.tos[i] = in, out, to, size, hops, tos
	if s.n++; s.n == outBatch {
		s.flush(w)
	}
}

// flush sends what is queued. A datagram that is too large for one packet goes
// another way; one that cannot be sent does not hold up the others.
func (s *sender) flush(w *worker) {
	for at := 0; at < s.n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msgs[at])), uintptr(s.n-at), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			for i := at; i < at+int(sent); i++ {
				w.sent(s.from[i], s.size[i], nil)
			}
			at += int(sent)
			continue
		}
		var err error = errno
		if errno == unix.EMSGSIZE {
			payload := unsafe.Slice(s.iovs[at].Base, s.header+s.size[at])[s.header:]
			err = sendLarge(s.out[at].local, s.to[at], payload, s.ttl[at], s.tos[at])
		}
		w.sent(s.from[at], s.size[at], err)
		at++
	}
	s.n = 0
}

// oneLarge is held while a large datagram is sent: two threads may have one of the
// same port, which only one socket can be bound to.
var oneLarge sync.Mutex

// sendLarge sends through a bound socket, whose datagrams the kernel cuts into
// fragments. That is slow, and large datagrams are rare.
func sendLarge(from, to netip.AddrPort, payload []byte, hops, tos int) error {
	oneLarge.Lock()
	defer oneLarge.Unlock()
	fd, err := bindUDP(from)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	v6 := from.Addr().Is6()
	if hops > 0 {
		setHops(fd, v6, hops)
	}
	if tos >= 0 {
		setTOS(fd, v6, tos)
	}
	name := newSockaddr(to, v6)
	return sendTo(fd, payload, &name)
}
