package main

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/cmd/mediaproxy/bench"
)

const (
	packetInterval = 20 * time.Millisecond
	payloadSize    = 172 // RTP header and 20 ms of G.711
	stampAt        = 12  // where the sending time lies in a packet
	pacing         = 500 * time.Microsecond
	slots          = int(packetInterval / pacing)
)

// callPorts are the ports of a relay for one call.
type callPorts struct{ fromCaller, fromCallee netip.AddrPort }

// phoneSet plays both parties of many calls. All callers share a socket and all
// callees another: what the phones cost is the same for every relay, and it
// should be little.
type phoneSet struct {
	sides    [2]*side
	sent     atomic.Uint64
	received atomic.Uint64
	took     atomic.Pointer[bench.Histogram] // how long packets took; nil: not looked at
	ended    atomic.Bool
	wg       sync.WaitGroup
}

type side struct {
	fd   int
	port uint16

	// of the sending thread
	slots [slots][]mmsghdr
	flows []*flow
}

// flow is what one phone sends; the message headers point into it.
type flow struct {
	name    unix.RawSockaddrInet4
	iov     unix.Iovec
	payload [payloadSize]byte
}

type mmsghdr struct {
	unix.Msghdr
	Len uint32
	_   [4]byte
}

func newPhones() (*phoneSet, error) {
	p := &phoneSet{}
	for i := range p.sides {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open a phone's socket: %w", err)
		}
		p.sides[i] = &side{fd: fd}
		// FORCE passes the system's limit but needs root; half is better than nothing.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) != nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		}
		// The kernel notes when a packet arrives, so that the phone's own thread may
		// come late to it.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return nil, fmt.Errorf("have arrivals timed by the kernel: %w", err)
		}
		timeout := unix.NsecToTimeval(int64(100 * time.Millisecond)) // to notice the end
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return nil, err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: phones.As4()}); err != nil {
			return nil, fmt.Errorf("bind a phone's socket to %s: %w", phones, err)
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			return nil, err
		}
		p.sides[i].port = uint16(name.(*unix.SockaddrInet4).Port)
	}
	return p, nil
}

// call adds a call; to be used before run.
func (p *phoneSet) call(c callPorts) {
	for i, to := range []netip.AddrPort{c.fromCaller, c.fromCallee} {
		p.sides[i].add(to)
	}
}

func (s *side) add(to netip.AddrPort) {
	f := &flow{}
	f.name = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&f.name.Port))[:], to.Port())
	f.payload[0], f.payload[1] = 0x80, 8 // RTP version 2, PCMA
	binary.BigEndian.PutUint32(f.payload[8:], uint32(len(s.flows)+1)<<8|uint32(to.Port())&0xff)
	f.iov.Base = &f.payload[0]
	f.iov.SetLen(payloadSize)
	var m mmsghdr
	m.Name, m.Namelen = (*byte)(unsafe.Pointer(&f.name)), unix.SizeofSockaddrInet4
	m.Iov = &f.iov
	m.SetIovlen(1)
	slot := &s.slots[len(s.flows)%slots]
	*slot = append(*slot, m)
	s.flows = append(s.flows, f)
}

// run starts sending and receiving.
func (p *phoneSet) run() {
	p.wg.Add(3)
	go func() { defer p.wg.Done(); p.send() }()
	for _, s := range p.sides {
		go func() { defer p.wg.Done(); p.receive(s.fd) }()
	}
}

func (p *phoneSet) stop() {
	p.ended.Store(true)
	p.wg.Wait()
	for _, s := range p.sides {
		unix.Close(s.fd)
	}
}

// during returns how long packets took through the relay while something went on.
func (p *phoneSet) during(something func() error) (*bench.Histogram, error) {
	h := &bench.Histogram{}
	p.took.Store(h)
	defer p.took.Store(nil)
	return h, something()
}

// windows returns how long packets took in each of the windows into which the time of
// something is cut, but for those in which the host took a processor from this machine.
func (p *phoneSet) windows(each time.Duration, something func() error) (windows []*bench.Histogram, taken int, err error) {
	over, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- p.watch(each, over, &windows, &taken) }()
	err = something()
	close(over)
	return windows, taken, cmp.Or(<-done, err)
}

func (p *phoneSet) watch(each time.Duration, over <-chan struct{}, windows *[]*bench.Histogram, taken *int) error {
	defer p.took.Store(nil)
	for {
		before, err := stolen()
		if err != nil {
			return err
		}
		h := &bench.Histogram{}
		p.took.Store(h)
		select {
		case <-over:
			return nil // a part of a window is none
		case <-time.After(each):
		}
		after, err := stolen()
		if err != nil {
			return err
		}
		if after > before {
			*taken++
		} else {
			*windows = append(*windows, h)
		}
	}
}

// send is the sending thread: every half millisecond, those phones whose turn
// it is; each phone has one turn in 20 ms.
func (p *phoneSet) send() {
	runtime.LockOSThread() // and never unlock: the thread ends with its setting
	atOnce()
	began := time.Now()
	for n := 0; !p.ended.Load(); n++ {
		sleepUntil(began.Add(time.Duration(n) * pacing))
		for i, s := range p.sides {
			p.sent.Add(uint64(s.transmit((n+i*slots/2)%slots, uint32(n/slots))))
		}
	}
}

// atOnce has this thread run whenever it wants to. Phones are machines of their own:
// they do not send late, nor pause between stamping and sending, because somebody
// computes on the relay's.
func atOnce() {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	_ = unix.SchedSetAttr(0, &attr, 0) // needs root; without it figures are worse
}

// transmit sends the packets of one slot.
func (s *side) transmit(slot int, cycle uint32) (sent int) {
	messages := s.slots[slot]
	for i := range messages {
		f := s.flows[slot+i*slots]
		binary.BigEndian.PutUint16(f.payload[2:], uint16(cycle))
		binary.BigEndian.PutUint32(f.payload[4:], cycle*160)
		binary.BigEndian.PutUint64(f.payload[stampAt:], uint64(time.Now().UnixNano()))
	}
	for len(messages) > 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), 0, 0, 0)
		if errno != 0 {
			n = 1 // a port that answered with ICMP; the next message is tried
		} else {
			sent += int(n)
		}
		messages = messages[n:]
	}
	return sent
}

// receive is the receiving thread of one side.
func (p *phoneSet) receive(fd int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const batch = 64
	var (
		buffers [batch][payloadSize]byte
		stamps  [batch]arrival
		iovs    [batch]unix.Iovec
		headers [batch]mmsghdr
	)
	for i := range headers {
		iovs[i].Base = &buffers[i][0]
		iovs[i].SetLen(payloadSize)
		headers[i].Iov = &iovs[i]
		headers[i].SetIovlen(1)
		headers[i].Control = (*byte)(unsafe.Pointer(&stamps[i]))
	}
	for !p.ended.Load() {
		for i := range headers {
			headers[i].SetControllen(int(unsafe.Sizeof(stamps[i])))
		}
		// A plain Syscall: it blocks, and the scheduler has to know.
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), batch, unix.MSG_WAITFORONE, 0, 0)
		if errno != 0 {
			continue // the time-out, or ICMP
		}
		p.received.Add(uint64(n))
		h := p.took.Load()
		for i := range n {
			if h != nil && headers[i].Len == payloadSize && stamps[i].header.Type == unix.SCM_TIMESTAMPNS {
				h.Add(time.Duration(stamps[i].at.Nano() - int64(binary.BigEndian.Uint64(buffers[i][stampAt:]))))
			}
		}
	}
}

// arrival is the control message with the time of a packet.
type arrival struct {
	header unix.Cmsghdr
	at     unix.Timespec
}
