package forward

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
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
)

// loop is one thread and the ports it serves.
type loop struct {
	// set in newLoop, read-only afterwards
	table *loops

	// ports by descriptor, in chunks that are never moved
	ports [maxDescriptors / chunkSize]atomic.Pointer[[chunkSize]atomic.Pointer[port]]
	waiter
	worker

	// of the thread only
	in        receiver
	connected []*port
	sweepAt   int
	nextSweep time.Duration
}

func newLoop(t *loops) (*loop, error) {
	l := &loop{table: t, worker: worker{log: t.log}}
	l.in.init()
	if err := l.waiter.init(); err != nil {
		l.waiter.release()
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
	return l.watch(p.fd)
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

func (l *loop) release() {
	for i := range l.ports {
		if chunk := l.ports[i].Load(); chunk != nil {
			for j := range chunk {
				if p := chunk[j].Swap(nil); p != nil {
					p.end()
					unix.Close(p.fd)
					l.table.ports.Add(-1)
				}
			}
		}
	}
	l.waiter.release()
}

// run is the packet loop: wait, then for each port that has something, one
// datagram. Ports with more are reported again by the next wait.
//
// It has no thread of its own. The Go scheduler takes every goroutine off its thread
// that runs for 10 ms, and this one gets on with any; its own it could only get back
// from another thread, which had to be given a turn by the kernel first.
func (l *loop) run() {
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

// serve takes one datagram from a port and applies its flow or its handler's verdict.
func (l *loop) serve(p *port, now time.Duration) {
	payload, hops, tos, errno := l.in.receive(p.fd)
	if errno != 0 {
		if errno != unix.EAGAIN && errno != unix.EINTR {
			l.unreachable.Add(1)
			if peer := p.connected.Load(); peer != nil {
				l.complain(p, *peer, now)
			}
		}
		return
	}
	out, dest, flow := l.judge(p, &l.in.name, payload, now)
	if out == nil || !l.lives(p, hops) {
		return
	}
	to := &dest
	if flow != nil {
		l.connectSteady(p, flow, now)
		if peer := out.connected.Load(); peer != nil && *peer == flow.Dest {
			to = nil
		}
	}
	l.transmit(p, out, to, payload, hops, tos)
}

// transmit sends a datagram on, with one hop less and the same traffic class.
// Without dest it goes to the address that out is connected to.
func (l *loop) transmit(in, out *port, dest *sockaddr, payload []byte, hops, tos int) {
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
	l.sent(in, len(payload), sendTo(out.fd, payload, dest))
}

// connectSteady connects a port whose flow has been steady for long enough.
func (l *loop) connectSteady(p *port, flow *compiled, now time.Duration) {
	last := p.lastBefore
	p.lastBefore = now
	if p.steadyFlow != flow || now-last > steadyGap {
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
		if p.connected.Load() != nil && now-since(p.rec.lastSeen.Load()) > steadyGap {
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
