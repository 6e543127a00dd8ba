package forward

import (
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/internal/wire/rtp"
)

// port is one open port: its entry, its flow, and who serves what the kernel does
// not move.
type port struct {
	entry
	// set in Open, read-only afterwards
	slow   slowPath
	kernel *kernel // nil: all is moved in user space
	boundSocket

	flow  atomic.Pointer[compiled]
	dead  atomic.Bool
	mute  atomic.Bool              // its handler panicked
	final atomic.Pointer[Counters] // when it closed
}

// slowPath is the part of a table that receives and sends in user space.
type slowPath interface {
	sendFrom(p *port, to netip.AddrPort, payload []byte) error
	retire(p *port, done func(used bool))
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
	p.heard(f.Source)
	if p.kernel != nil {
		p.kernel.install(&p.entry, f, &out.entry)
	}
}

func (p *port) Withdraw() {
	p.flow.Store(nil)
	if p.kernel != nil {
		p.kernel.forget(&p.entry)
	}
	p.dissolve()
}

func (p *port) Know(addrs [3]netip.Addr) {
	if !p.dead.Load() {
		p.know(addrs)
	}
}

func (p *port) Send(to netip.AddrPort, payload []byte) error {
	if p.dead.Load() {
		return ErrClosed
	}
	p.used.Store(true)
	return p.slow.sendFrom(p, to, payload)
}

func (p *port) Counters() Counters {
	if final := p.final.Load(); final != nil {
		return *final
	}
	c := p.counters()
	switch {
	case p.flow.Load() == nil:
	case p.kernel != nil && p.rec.state.Load() == stateDecided:
		c.Decided, c.Mover = true, MoverKernel
	default:
		c.Decided, c.Mover = true, MoverUser
		if why := p.why.Load(); why != nil {
			c.NotKernel = *why
		}
	}
	return c
}

func (p *port) Close(done func(used bool)) {
	if p.dead.Swap(true) {
		return
	}
	p.end()
	p.slow.retire(p, done)
}

// end stops the port's flow and keeps its counters: the record may be another
// port's soon.
func (p *port) end() {
	p.flow.Store(nil)
	if p.kernel != nil {
		p.kernel.forget(&p.entry)
	}
	c := p.counters()
	if c.Packets > 0 || c.Refused > 0 {
		p.used.Store(true)
	}
	if p.kernel != nil {
		p.kernel.rest(&p.entry, p.used.Load())
	}
	p.final.Store(&c)
}

// worker is a thread that looks at datagrams, and its counters.
type worker struct {
	log                                                                    *slog.Logger
	packets, bytes, undecided, sendErrors, ttlExpired, panics, unreachable atomic.Uint64
}

func (w *worker) addTo(s *Stats) {
	s.Packets += w.packets.Load()
	s.Bytes += w.bytes.Load()
	s.Undecided += w.undecided.Load()
	s.SendErrors += w.sendErrors.Load()
	s.TTLExpired += w.ttlExpired.Load()
	s.Panics += w.panics.Load()
	s.Unreachable += w.unreachable.Load()
}

// judge counts a datagram and says where it goes: by the port's flow, which is then
// returned, or by its handler's verdict. Without out it goes nowhere.
func (w *worker) judge(p *port, from *sockaddr, payload []byte, now time.Duration) (out *port, dest sockaddr, flow *compiled) {
	if !p.used.Load() {
		p.used.Store(true)
	}
	kind := rtp.Classify(payload)
	// The ports of a path close one after the other: out may be gone already.
	if flow = p.flow.Load(); flow != nil && flow.source.same(from) && !flow.out.dead.Load() {
		p.accept(now, payload, kind)
		return flow.out, flow.dest, flow
	}
	w.undecided.Add(1)
	verdict := w.ask(p, Datagram{Now: now, Source: from.addrPort(), Payload: payload, Kind: kind})
	if !verdict.Accepted {
		p.rec.refused.Add(1)
		return nil, dest, nil
	}
	p.accept(now, payload, kind)
	out, ok := verdict.Out.(*port)
	if !ok || out.dead.Load() {
		p.side.unsent.Add(1)
		return nil, dest, nil
	}
	return out, newSockaddr(verdict.Dest, out.local.Addr().Is6()), nil
}

// ask calls the handler. A handler that panics mutes its own port, nobody else's.
func (w *worker) ask(p *port, d Datagram) (v Verdict) {
	if p.mute.Load() {
		return Verdict{}
	}
	defer func() {
		if r := recover(); r != nil {
			p.mute.Store(true)
			w.panics.Add(1)
			w.log.Error("a datagram was not handled, its port is mute from now on; please report this", "port", p.local.String(), "panic", r,
				slog.String("stack", string(debug.Stack())))
			v = Verdict{}
		}
	}()
	return p.handler.Handle(d)
}

// complain tells the handler of a port that nobody hears what the port sends.
func (w *worker) complain(p *port, dest netip.AddrPort, now time.Duration) {
	c, ok := p.handler.(Complaint)
	if !ok || p.mute.Load() || p.dead.Load() {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			w.panics.Add(1)
			w.log.Error("an ICMP error was not handled; please report this", "port", p.local.String(), "panic", r)
		}
	}()
	c.Unreachable(now, dest)
}

// lives says whether a datagram may make another hop, and counts those that may not.
func (w *worker) lives(in *port, hops int) bool {
	if hops == 0 || hops == 1 {
		w.ttlExpired.Add(1)
		in.side.unsent.Add(1)
		return false
	}
	return true
}

// sent counts what became of a datagram that was to be relayed.
func (w *worker) sent(in *port, payload int, err error) {
	if err != nil {
		w.sendErrors.Add(1)
		in.side.unsent.Add(1)
		return
	}
	w.packets.Add(1)
	w.bytes.Add(uint64(payload + in.headerBytes()))
}

// boundSocket is a port's own socket, in tables that bind one for each.
type boundSocket struct {
	fd   int
	loop *loop

	// mu guards connecting and dissolving, which are rare; no packet waits for it
	mu        sync.Mutex
	connected atomic.Pointer[netip.AddrPort]

	// of the loop's thread only
	steadyFlow  *compiled     // the one whose packets come without gaps,
	steadySince time.Duration // since then
	lastBefore  time.Duration // of the flow's packet before
	ttl, tos    int           // what the socket sends with; -1: not set yet
}

// connect narrows the socket to one source, if the flow still stands.
func (p *port) connect(c *compiled) {
	p.boundSocket.mu.Lock()
	defer p.boundSocket.mu.Unlock()
	if p.dead.Load() || p.flow.Load() != c || p.connected.Load() != nil {
		return
	}
	if connectUDP(p.fd, &c.source) == nil {
		source := c.Source
		p.connected.Store(&source)
	}
}

// heard makes sure that the socket hears a source.
func (p *port) heard(source netip.AddrPort) {
	if c := p.connected.Load(); c != nil && *c != source {
		p.dissolve()
	}
}

// dissolve lets the socket hear every source again.
func (p *port) dissolve() {
	if p.connected.Load() == nil {
		return
	}
	p.boundSocket.mu.Lock()
	defer p.boundSocket.mu.Unlock()
	if p.dead.Load() || p.connected.Load() == nil {
		return
	}
	disconnectUDP(p.fd)
	p.connected.Store(nil)
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
