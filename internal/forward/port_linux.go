package forward

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// port is one bound socket and its entry.
type port struct {
	entry
	// set in Open, read-only afterwards
	fd   int
	loop *loop

	flow atomic.Pointer[compiled]
	dead atomic.Bool
	mute atomic.Bool // its handler panicked

	// mu guards connecting and dissolving, which are rare; no packet waits for it
	mu        sync.Mutex
	connected atomic.Pointer[netip.AddrPort]

	// of the loop's thread only
	steadyFlow  *compiled     // the one whose packets come without gaps,
	steadySince time.Duration // since then
	ttl, tos    int           // what the socket sends with; -1: not set yet
}

// compiled is a flow with its addresses in the form the kernel wants.
type compiled struct {
	Flow
	source sockaddr
	dest   sockaddr
	out    *port
}

func (p *port) Local() netip.AddrPort { return p.local }

func (p *port) Install(f Flow) {
	out, ok := f.Out.(*port)
	if !ok || p.dead.Load() || out.dead.Load() {
		return
	}
	v6 := p.local.Addr().Is6()
	outV6 := out.local.Addr().Is6()
	p.flow.Store(&compiled{Flow: f, source: newSockaddr(f.Source, v6), dest: newSockaddr(f.Dest, outV6), out: out})
	if c := p.connected.Load(); c != nil && *c != f.Source {
		p.dissolve()
	}
}

func (p *port) Withdraw() {
	p.flow.Store(nil)
	p.dissolve()
}

// connect narrows the socket to one source, if the flow still stands.
func (p *port) connect(c *compiled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead.Load() || p.flow.Load() != c || p.connected.Load() != nil {
		return
	}
	if connectUDP(p.fd, &c.source) == nil {
		source := c.Source
		p.connected.Store(&source)
	}
}

// dissolve lets the socket hear every source again.
func (p *port) dissolve() {
	if p.connected.Load() == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead.Load() || p.connected.Load() == nil {
		return
	}
	disconnectUDP(p.fd)
	p.connected.Store(nil)
}

func (p *port) Send(to netip.AddrPort, payload []byte) error {
	if p.dead.Load() || p.loop.table.closed.Load() {
		return ErrClosed
	}
	name := newSockaddr(to, p.local.Addr().Is6())
	p.used.Store(true)
	return sendTo(p.fd, payload, &name)
}

func (p *port) Counters() Counters {
	c := p.counters()
	c.Decided = p.flow.Load() != nil
	return c
}

func (p *port) Close(done func(used bool)) {
	if p.dead.Swap(true) {
		return
	}
	p.flow.Store(nil)
	p.mu.Lock() // a connect or dissolve that has begun ends first
	defer p.mu.Unlock()
	p.loop.table.reaper.add(p, done)
}

// sendTo transmits one datagram, twice if the kernel reports an ICMP error of
// an earlier one instead of sending.
func sendTo(fd int, payload []byte, to *sockaddr) error {
	errno := rawSend(fd, payload, to)
	if errno == unix.ECONNREFUSED || errno == unix.EHOSTUNREACH || errno == unix.ENETUNREACH {
		errno = rawSend(fd, payload, to)
	}
	if errno != 0 {
		return errno
	}
	return nil
}
