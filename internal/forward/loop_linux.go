package forward

import (
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/internal/wire/rtp"
)

const (
	maxDescriptors = 1 << 20
	chunkSize      = 1 << 10
	batchSize      = 128
	// The loop looks at a part of its connected ports this often, at all of
	// them in sweepParts ticks: short pauses instead of one long one.
	sweepTick  = 50 * time.Millisecond
	sweepParts = 5
	// A thread keeps its processor of the Go scheduler for this long without a
	// datagram: with a handful of calls there is always one within it.
	keepProcessor = 2 * time.Millisecond
	slice         = 100 * time.Microsecond // the least that the kernel takes
)

// loop is one thread and the ports it serves.
type loop struct {
	// set in newLoop, read-only afterwards
	table *loops
	epoll int
	event int // eventfd that ends a wait

	// ports by descriptor, in chunks that are never moved
	ports [maxDescriptors / chunkSize]atomic.Pointer[[chunkSize]atomic.Pointer[port]]
	// batch is odd while the thread works on events
	batch    atomic.Uint32
	stopping atomic.Bool

	packets, bytes, undecided, sendErrors, ttlExpired, panics, unreachable atomic.Uint64

	// of the thread only
	traffic   bool // the latest wait ended with datagrams
	in        receiver
	connected []*port
	sweepAt   int
	nextSweep time.Duration
}

func newLoop(t *loops) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	l := &loop{table: t, epoll: epoll, event: event}
	l.in.init()
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(event)}); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// add starts serving a port.
func (l *loop) add(p *port) error {
	if p.fd >= maxDescriptors {
		return ErrTooManyPorts
	}
	chunk := &l.ports[p.fd/chunkSize]
	if chunk.Load() == nil {
		chunk.CompareAndSwap(nil, new([chunkSize]atomic.Pointer[port]))
	}
	chunk.Load()[p.fd%chunkSize].Store(p)
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, p.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.fd)})
}

// remove forgets a port. Its descriptor leaves epoll when it is closed.
func (l *loop) remove(p *port) {
	l.ports[p.fd/chunkSize].Load()[p.fd%chunkSize].CompareAndSwap(p, nil)
}

func (l *loop) lookup(fd int) *port {
	chunk := l.ports[fd/chunkSize].Load()
	if chunk == nil {
		return nil
	}
	return chunk[fd%chunkSize].Load()
}

// waitForBatch returns when no event that the thread took before the call is
// still being worked on.
func (l *loop) waitForBatch() {
	for began := l.batch.Load(); began%2 == 1 && l.batch.Load() == began; {
		time.Sleep(20 * time.Microsecond)
	}
}

func (l *loop) stop() {
	l.stopping.Store(true)
	unix.Write(l.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (l *loop) release() {
	for i := range l.ports {
		if chunk := l.ports[i].Load(); chunk != nil {
			for j := range chunk {
				if p := chunk[j].Swap(nil); p != nil {
					unix.Close(p.fd)
					l.table.open.Add(-1)
				}
			}
		}
	}
	unix.Close(l.event)
	unix.Close(l.epoll)
}

// run is the packet loop: wait, then for each port that has something, one
// datagram. Ports with more are reported again by the next wait.
func (l *loop) run() {
	runtime.LockOSThread() // and never unlock: the thread ends with its setting
	shortSlices()
	var events [batchSize]unix.EpollEvent
	for !l.stopping.Load() {
		timeout := -1
		if len(l.connected) > 0 {
			timeout = int(sweepTick / time.Millisecond)
		}
		n, err := l.wait(events[:], timeout)
		if err != nil && err != unix.EINTR {
			l.table.log.Error("packet loop cannot wait for datagrams", "error", err)
			return
		}
		l.batch.Add(1)
		now := l.table.Now()
		for i := range max(n, 0) {
			if p := l.lookup(int(events[i].Fd)); p != nil && !p.dead.Load() {
				l.serve(p, now)
			}
		}
		if len(l.connected) > 0 && now >= l.nextSweep {
			l.nextSweep = now + sweepTick
			l.sweep(now)
		}
		l.batch.Add(1)
	}
}

// shortSlices has the kernel give this thread its turn often and briefly: a packet
// needs microseconds of it, and would else wait until a thread that computes has
// used up its slice. Needs Linux 6.12, and changes nothing before.
func shortSlices() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return
	}
	attr.Runtime = uint64(slice)
	_ = unix.SchedSetAttr(0, attr, 0) // packets then wait as they do elsewhere
}

// wait blocks until a port has something, or for so many milliseconds.
//
// A thread that blocks the ordinary way gives its processor of the Go scheduler
// away and has to get one back, which takes up to 10 ms while everything else is
// busy. So under traffic it blocks behind the scheduler's back. Garbage collection
// need not wait for it: the scheduler's signal ends the wait.
func (l *loop) wait(events []unix.EpollEvent, timeout int) (int, error) {
	if l.traffic {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
			uintptr(keepProcessor/time.Millisecond), 0, 0)
		if errno != 0 {
			return 0, errno
		}
		if n > 0 {
			return int(n), nil
		}
	}
	n, err := unix.EpollWait(l.epoll, events, timeout)
	l.traffic = n > 0
	return n, err
}

// serve takes one datagram from a port and applies its flow or its handler's verdict.
func (l *loop) serve(p *port, now time.Duration) {
	payload, hops, tos, errno := l.in.receive(p.fd)
	if errno != 0 {
		if errno != unix.EAGAIN && errno != unix.EINTR {
			l.unreachable.Add(1)
		}
		return
	}
	if !p.used.Load() {
		p.used.Store(true)
	}
	kind := rtp.Classify(payload)
	flow := p.flow.Load()
	// The ports of a path close one after the other: out may be gone already.
	if flow != nil && flow.source.same(&l.in.name) && !flow.out.dead.Load() {
		l.connectSteady(p, flow, now)
		p.accept(now, payload, kind)
		dest := &flow.dest
		if peer := flow.out.connected.Load(); peer != nil && *peer == flow.Dest {
			dest = nil
		}
		l.transmit(p, flow.out, dest, payload, hops, tos)
		return
	}
	l.undecided.Add(1)
	verdict := l.ask(p, Datagram{Now: now, Source: l.in.name.addrPort(), Payload: payload, Kind: kind})
	if !verdict.Accepted {
		p.refused.Add(1)
		return
	}
	p.accept(now, payload, kind)
	out, ok := verdict.Out.(*port)
	if !ok || out.dead.Load() {
		p.unsent.Add(1)
		return
	}
	dest := newSockaddr(verdict.Dest, out.local.Addr().Is6())
	l.transmit(p, out, &dest, payload, hops, tos)
}

// ask calls the handler. A handler that panics mutes its own port, nobody else's.
func (l *loop) ask(p *port, d Datagram) (v Verdict) {
	if p.mute.Load() {
		return Verdict{}
	}
	defer func() {
		if r := recover(); r != nil {
			p.mute.Store(true)
			l.panics.Add(1)
			l.table.log.Error("a datagram was not handled, its port is mute from now on; please report this", "port", p.local.String(), "panic", r,
				slog.String("stack", string(debug.Stack())))
			v = Verdict{}
		}
	}()
	return p.handler.Handle(d)
}

// transmit sends a datagram on, with one hop less and the same traffic class.
// Without dest it goes to the address that out is connected to.
func (l *loop) transmit(in, out *port, dest *sockaddr, payload []byte, hops, tos int) {
	if hops == 0 || hops == 1 {
		l.ttlExpired.Add(1)
		in.unsent.Add(1)
		return
	}
	if hops > 0 && out.ttl != hops-1 {
		out.ttl = hops - 1
		setHops(out.fd, out.local.Addr().Is6(), out.ttl)
	}
	if tos >= 0 && out.tos != tos {
		out.tos = tos
		setTOS(out.fd, out.local.Addr().Is6(), tos)
	}
	if !out.used.Load() {
		out.used.Store(true)
	}
	if sendTo(out.fd, payload, dest) != nil {
		l.sendErrors.Add(1)
		in.unsent.Add(1)
		return
	}
	l.packets.Add(1)
	l.bytes.Add(uint64(len(payload) + in.headerBytes()))
}

// connectSteady connects a port whose flow has been steady for long enough.
func (l *loop) connectSteady(p *port, flow *compiled, now time.Duration) {
	if last := since(p.lastSeen.Load()); p.steadyFlow != flow || last < 0 || now-last > steadyGap {
		p.steadyFlow, p.steadySince = flow, now
		return
	}
	if now-p.steadySince < connectAfter || p.connected.Load() != nil {
		return
	}
	p.connect(flow)
	if p.connected.Load() != nil {
		l.connected = append(l.connected, p)
	}
}

// sweep opens connected ports that fell silent to all sources.
func (l *loop) sweep(now time.Duration) {
	part := len(l.connected)/sweepParts + 1
	for range part {
		if len(l.connected) == 0 {
			return
		}
		if l.sweepAt >= len(l.connected) {
			l.sweepAt = 0
		}
		p := l.connected[l.sweepAt]
		if p.connected.Load() != nil && now-since(p.lastSeen.Load()) > steadyGap {
			p.dissolve()
		}
		if p.connected.Load() == nil || p.dead.Load() {
			p.steadyFlow = nil
			last := len(l.connected) - 1
			l.connected[l.sweepAt] = l.connected[last]
			l.connected[last] = nil
			l.connected = l.connected[:last]
			continue
		}
		l.sweepAt++
	}
}
