package hitless

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/test/internal/netlab"
)

const (
	interval = 20 * time.Millisecond // between packets of one phone
	slots    = 20                    // of an interval: phones take turns
	rtpSize  = 172                   // G.711, 20 ms
	batch    = 64
)

// load is the media of many calls, both ways.
type load struct {
	sides [2]*party
	ended atomic.Bool
	wg    sync.WaitGroup
}

// party is all callers or all callees: one socket.
type party struct {
	conn *net.UDPConn
	addr netip.AddrPort
	fd   int

	// of the sending thread
	flows []*flow // by call

	mu    sync.Mutex // guards what follows
	heard []heard    // by call, what arrived from the other party
}

// flow is what a phone sends.
type flow struct {
	to      netip.AddrPort
	name    unix.RawSockaddrInet4
	iov     unix.Iovec
	payload [rtpSize]byte
	sent    atomic.Uint64
}

// heard is what a phone received: packets in order, without gaps, is what it should be.
type heard struct {
	packets    uint64
	next       uint32 // number that comes next
	lost       uint64 // numbers that were jumped over
	late       uint64 // that came again, or out of order
	strange    uint64 // from elsewhere than the relay's port
	largestGap time.Duration
	last       time.Time
}

type mmsghdr struct {
	unix.Msghdr
	len uint32
	_   [4]byte
}

// newLoad opens the phones' sockets.
func newLoad(t *testing.T, hosts [2]*netlab.Host, ips [2]netip.Addr) *load {
	t.Helper()
	l := &load{}
	for i, h := range hosts {
		conn, err := h.ListenUDP(netip.AddrPortFrom(ips[i], 6000))
		if err != nil {
			t.Fatal(err)
		}
		p := &party{conn: conn, addr: netip.AddrPortFrom(ips[i], 6000)}
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { p.fd = int(fd) })
		for _, option := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, option, 16<<20); err != nil {
				t.Fatal(err)
			}
		}
		l.sides[i] = p
	}
	t.Cleanup(l.stop)
	return l
}

// add gives a call to the phones: where each of them sends to.
func (l *load) add(to [2]netip.AddrPort) {
	for i, p := range l.sides {
		f := &flow{to: to[i], name: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to[i].Addr().As4()}}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&f.name.Port))[:], to[i].Port())
		f.payload[0], f.payload[1] = 0x80, 8
		binary.BigEndian.PutUint32(f.payload[8:], uint32(len(p.flows))<<1|uint32(i)|0x5e0000) // SSRC
		binary.BigEndian.PutUint32(f.payload[12:], uint32(len(p.flows)))
		f.iov.Base = &f.payload[0]
		f.iov.SetLen(rtpSize)
		p.flows = append(p.flows, f)
		p.heard = append(p.heard, heard{})
	}
}

// run starts the phones.
func (l *load) run() {
	l.wg.Go(l.send)
	for i, p := range l.sides {
		l.wg.Go(func() { p.receive(&l.ended, l.sides[1-i]) })
	}
}

// stop ends the phones. What is on its way is still received.
func (l *load) stop() {
	if l.ended.Swap(true) {
		return
	}
	l.wg.Wait()
	for _, p := range l.sides {
		p.conn.Close()
	}
}

// send is one thread for all phones: in each slot of an interval those whose turn it is.
func (l *load) send() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread() // a thread that ends takes the programs along that it started
	began := time.Now()
	for n := 0; !l.ended.Load(); n++ {
		if wait := time.Until(began.Add(time.Duration(n) * interval / slots)); wait > 0 {
			time.Sleep(wait)
		}
		for _, p := range l.sides {
			p.transmit(n % slots)
		}
	}
}

func (p *party) transmit(slot int) {
	var messages [batch]mmsghdr
	var flows [batch]*flow
	n := 0
	flush := func() {
		for at := 0; at < n; {
			sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&messages[at])), uintptr(n-at), 0, 0, 0)
			if errno == unix.EAGAIN || errno == unix.EINTR {
				runtime.Gosched()
				continue
			}
			if errno != 0 {
				panic(fmt.Sprint("send media: ", errno)) // an ICMP error cannot be: the socket is not connected
			}
			for _, f := range flows[at : at+int(sent)] {
				f.sent.Add(1)
			}
			at += int(sent)
		}
		n = 0
	}
	for i := slot; i < len(p.flows); i += slots {
		f := p.flows[i]
		number := uint32(f.sent.Load())
		binary.BigEndian.PutUint16(f.payload[2:], uint16(number))
		binary.BigEndian.PutUint32(f.payload[4:], number*160)
		binary.BigEndian.PutUint32(f.payload[16:], number)
		m := &messages[n]
		m.Name, m.Namelen = (*byte)(unsafe.Pointer(&f.name)), unix.SizeofSockaddrInet4
		m.Iov = &f.iov
		m.SetIovlen(1)
		flows[n] = f
		if n++; n == batch {
			flush()
		}
	}
	flush()
}

// receive counts what arrives until the phones stop and nothing more comes.
func (p *party) receive(ended *atomic.Bool, other *party) {
	b := make([]byte, 2048)
	for {
		p.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, from, err := p.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			if ended.Load() {
				return
			}
			continue
		}
		if n != rtpSize {
			continue
		}
		call, number := binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
		p.note(call, number, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
}

func (p *party) note(call, number uint32, from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(call) >= len(p.heard) {
		return
	}
	h, now := &p.heard[call], time.Now()
	if from != p.flows[call].to {
		h.strange++
	}
	if !h.last.IsZero() {
		h.largestGap = max(h.largestGap, now.Sub(h.last))
	}
	h.last = now
	h.packets++
	switch {
	case number >= h.next:
		h.lost += uint64(number - h.next)
		h.next = number + 1
	default:
		h.late++
	}
}

// everyoneHears says whether each phone has heard something since the last reset.
func (l *load) everyoneHears() error {
	for side, p := range l.sides {
		p.mu.Lock()
		i := slices.IndexFunc(p.heard, func(h heard) bool { return h.packets == 0 })
		p.mu.Unlock()
		if i >= 0 {
			return fmt.Errorf("party %d of call %d hears nothing", side, i)
		}
	}
	return nil
}

// total adds up what was lost since the first packet that a phone heard.
type total struct {
	packets, lost, late, strange uint64
	largestGap                   time.Duration
}

func (l *load) total() (s total) {
	for _, p := range l.sides {
		p.mu.Lock()
		for _, h := range p.heard {
			s.packets += h.packets
			s.lost += h.lost
			s.late += h.late
			s.strange += h.strange
			s.largestGap = max(s.largestGap, h.largestGap)
		}
		p.mu.Unlock()
	}
	return s
}

// forget begins the count anew: what was lost before everybody was established is
// not part of it.
func (l *load) forget() {
	for _, p := range l.sides {
		p.mu.Lock()
		for i := range p.heard {
			p.heard[i] = heard{next: p.heard[i].next, last: p.heard[i].last}
		}
		p.mu.Unlock()
	}
}
