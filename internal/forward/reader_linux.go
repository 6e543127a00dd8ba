package forward

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	inBatch     = 64
	largestUDP  = 1 << 16
	controlSize = 128
	// headerRoom lies before each datagram, so that it can leave with headers of ours
	// from where it arrived.
	headerRoom = 64
	// bufferSize is no power of two: else all datagrams of a batch would share the
	// same few lines of the processor's cache.
	bufferSize = headerRoom + largestUDP + 5*64
)

// reader is a packet loop with its sockets, one for each local address, to which the
// kernel steers what arrives on the thread's processor.
type reader struct {
	worker
	// set in newReader, read-only afterwards
	table   *steered
	sockets []int // by slot
	waiter

	buffers []byte // inBatch of the largest datagram; pages that stay untouched cost nothing
	names   [inBatch]sockaddr
	control [inBatch][controlSize]byte
	iovs    [inBatch]unix.Iovec
	msgs    [inBatch]mmsghdr
	senders []*sender // by slot of the way out

	nextSearch time.Duration
}

func newReader(t *steered, n int, inherited map[string]int) (r *reader, err error) {
	r = &reader{table: t, worker: worker{log: t.log}}
	defer func() {
		if err != nil {
			r.release()
		}
	}()
	if err := r.waiter.init(); err != nil {
		return nil, err
	}
	if r.buffers, err = unix.Mmap(-1, 0, inBatch*bufferSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
		return nil, fmt.Errorf("memory for datagrams: %w", err)
	}
	for i := range r.msgs {
		r.iovs[i].Base = &r.buffer(i)[headerRoom]
		r.iovs[i].SetLen(largestUDP)
		m := &r.msgs[i].hdr
		m.Iov = &r.iovs[i]
		m.SetIovlen(1)
		m.Name = &r.names[i].raw[0]
		m.Control = &r.control[i][0]
	}
	for _, local := range t.kernel.mem.locals {
		fd, ok := inherited[socketName(local, n)]
		if ok = ok && isBoundTo(fd, local); !ok {
			if fd, err = steeredSocket(local); err != nil {
				return nil, fmt.Errorf("open a socket on %s: %w", local, err)
			}
		}
		r.sockets = append(r.sockets, fd)
		s, err := newSender(local, &t.idents)
		if err != nil {
			return nil, fmt.Errorf("open a raw socket on %s: %w", local, err)
		}
		r.senders = append(r.senders, s)
		if err := r.watch(fd); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// socketName names a socket for the service manager, which allows no colon.
func socketName(local netip.Addr, n int) string {
	return fmt.Sprintf("media-%s-%d", strings.ReplaceAll(local.String(), ":", "_"), n)
}

// isBoundTo says whether an inherited descriptor is a UDP socket of a local address.
func isBoundTo(fd int, local netip.Addr) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_DGRAM {
		return false
	}
	switch name, _ := unix.Getsockname(fd); a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr) == local
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr) == local
	}
	return false
}

// steeredSocket is bound to a port of its own, at which nothing is expected.
func steeredSocket(local netip.Addr) (int, error) {
	fd, err := bindUDP(netip.AddrPortFrom(local, 0))
	if err != nil {
		return -1, err
	}
	if local.Is6() {
		err = firstError(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR, 1), unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1))
	} else {
		err = firstError(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, 1), unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	roomySocket(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	return fd, nil
}

// buffer of a datagram, with the room before it.
func (r *reader) buffer(i int) []byte { return r.buffers[i*bufferSize : (i+1)*bufferSize] }

func (r *reader) release() {
	for _, fd := range r.sockets {
		unix.Close(fd)
	}
	for _, s := range r.senders {
		unix.Close(s.fd)
	}
	r.waiter.release()
	if r.buffers != nil {
		unix.Munmap(r.buffers)
	}
}

// run is the packet loop: wait, then take what each socket has. It has no thread of its
// own, see loop.run.
func (r *reader) run() {
	var events [maxLocals + 1]unix.EpollEvent
	for !r.stopping.Load() {
		n, err := r.wait(events[:], -1)
		if err != nil && err != unix.EINTR {
			r.log.Error("packet loop cannot wait for datagrams", "error", err)
			return
		}
		r.batch.Add(1)
		now := r.table.Now()
		for i := range max(n, 0) {
			for slot, fd := range r.sockets {
				if fd != int(events[i].Fd) {
					continue
				}
				if events[i].Events&unix.EPOLLERR != 0 {
					r.errors(slot, fd, now)
				}
				r.receive(slot, fd, now)
			}
		}
		r.batch.Add(1)
	}
}

// receive takes one batch from a socket; one with more is reported again.
func (r *reader) receive(slot, fd int, now time.Duration) {
	for i := range r.msgs {
		r.msgs[i].hdr.Namelen = uint32(len(r.names[i].raw))
		r.msgs[i].hdr.SetControllen(controlSize)
	}
	got, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.msgs[0])), inBatch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return // nothing there, or an error that stands in the queue of errors, too
	}
	for i := range int(got) {
		m := &r.msgs[i]
		r.names[i].len = m.hdr.Namelen
		c := readControl(r.control[i][:m.hdr.Controllen])
		index := slot*portsPerSlot + int(c.port)
		p := r.table.ports[index].Load()
		if p == nil || p.dead.Load() {
			continue // it was closed just now, or is our socket's own port
		}
		payload := r.buffer(i)[headerRoom : headerRoom+int(m.len) : headerRoom+int(m.len)]
		out, dest, _ := r.judge(p, &r.names[i], payload, now)
		if out == nil || !r.lives(p, c.hops) {
			continue
		}
		if !out.used.Load() {
			out.used.Store(true)
		}
		r.senders[r.table.kernel.mem.slot(out.local.Addr())].add(&r.worker, p, out, &dest, r.buffer(i), len(payload), c.hops-1, c.tos)
	}
	for _, s := range r.senders {
		s.flush(&r.worker)
	}
}

// searchGap is the least time between searches for the port that an ICMP error
// concerns: somebody may send many of them.
const searchGap = 100 * time.Millisecond

// errors takes the ICMP errors that came for a socket's ports.
func (r *reader) errors(slot, fd int, now time.Duration) {
	for {
		m := &r.msgs[0].hdr
		m.Namelen = uint32(len(r.names[0].raw))
		m.SetControllen(controlSize)
		if _, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE); errno != 0 {
			return
		}
		r.unreachable.Add(1)
		if now < r.nextSearch || m.Namelen < unix.SizeofSockaddrInet4 {
			continue
		}
		r.nextSearch = now + searchGap
		r.names[0].len = m.Namelen
		r.blame(slot, r.names[0].addrPort(), now)
	}
}

// blame finds the port of a local address that sends to dest: the error says whom it
// could not reach, not from which of our ports.
func (r *reader) blame(slot int, dest netip.AddrPort, now time.Duration) {
	for i := range r.table.ports {
		p := r.table.ports[i].Load()
		if p == nil {
			continue
		}
		if f := p.flow.Load(); f != nil && f.Dest == dest && r.table.kernel.mem.slot(f.out.local.Addr()) == slot {
			r.complain(f.out, dest, now)
		}
	}
}

// controls is what the kernel says about a datagram.
type controls struct {
	hops, tos int    // -1: it did not say
	port      uint16 // that it was sent to
}

// readControl reads the control messages of one datagram.
func readControl(b []byte) controls {
	c := controls{hops: -1, tos: -1}
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr+1 || size > len(b) {
			break
		}
		data := b[unix.SizeofCmsghdr:size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL, h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT:
			c.hops = int(data[lowByte])
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS:
			c.tos = int(data[0])
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS:
			c.tos = int(data[lowByte])
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_ORIGDSTADDR, h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_ORIGDSTADDR:
			if len(data) >= 4 { // family, then the port
				c.port = binary.BigEndian.Uint16(data[2:])
			}
		}
		b = b[min(len(b), unix.CmsgSpace(size-unix.SizeofCmsghdr)):]
	}
	return c
}

// waiter waits for descriptors on behalf of one thread.
type waiter struct {
	epoll    int
	event    int           // eventfd that ends a wait
	batch    atomic.Uint32 // odd while the thread works on events
	stopping atomic.Bool
	// of the loop only
	traffic bool // the latest wait ended with datagrams
	thread  int  // that the loop was on when it looked, 0: it has not run
	waits   uint
}

// settleEvery is after how many waits under traffic a loop looks which thread it is on:
// garbage collection may have brought it to another.
const settleEvery = 16

func (w *waiter) init() (err error) {
	w.epoll, w.event = -1, -1
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if w.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	return w.watch(w.event)
}

func (w *waiter) watch(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (w *waiter) stop() {
	w.stopping.Store(true)
	unix.Write(w.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (w *waiter) release() {
	packetThreads.moved(w.thread, 0)
	unix.Close(w.event)
	unix.Close(w.epoll)
}

// waitForBatch returns when no event that the thread took before the call is
// still being worked on.
func (w *waiter) waitForBatch() {
	for began := w.batch.Load(); began%2 == 1 && w.batch.Load() == began; {
		time.Sleep(20 * time.Microsecond)
	}
}

// wait blocks until a descriptor has something, or for so many milliseconds.
//
// A thread that blocks the ordinary way gives its processor of the Go scheduler
// away and has to get one back, which takes up to 10 ms while everything else is
// busy. So under traffic it blocks behind the scheduler's back. Garbage collection
// need not wait for it: the scheduler's signal ends the wait.
func (w *waiter) wait(events []unix.EpollEvent, timeout int) (int, error) {
	if w.traffic {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(w.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
			uintptr(keepProcessor/time.Millisecond), 0, 0)
		if errno != 0 {
			return 0, errno
		}
		if n > 0 {
			if w.waits++; w.waits%settleEvery == 0 {
				w.settle()
			}
			return int(n), nil
		}
	}
	n, err := unix.EpollWait(w.epoll, events, timeout)
	if w.traffic = n > 0; w.traffic {
		w.settle()
	}
	return n, err
}

// settle notes the thread that the loop is on. It may be another one after each wait that
// the scheduler knows of.
func (w *waiter) settle() {
	if thread := unix.Gettid(); thread != w.thread {
		packetThreads.moved(w.thread, thread)
		w.thread = thread
	}
}
