// Package phone is the media side of test phones: sockets for RTP and RTCP that send
// a G.711 packet every 20 ms and listen. Each packet says which phone of which call it
// is from, when it was sent and in which phase of the call, so that a phone knows what
// it is not meant to hear, and counts stay exact however late packets are. Many phones
// share one clock: there is one goroutine for sending, and one for each socket that
// listens.
package phone

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Listener opens UDP sockets somewhere; netlab.Host is one.
type Listener interface {
	ListenUDP(netip.AddrPort) (*net.UDPConn, error)
}

// ID names one party of a call.
type ID struct {
	Call uint32
	Side uint8 // 0 or 1; a phone hears the other side
}

func (id ID) other() ID { return ID{id.Call, 1 - id.Side} }

// Phone is one party's media. Its methods may be called from anywhere.
type Phone struct {
	// set in New, read-only afterwards
	id     ID
	studio *Studio
	rtcp   RTCP

	mu       sync.Mutex // guards what follows
	sockets  sockets
	to       netip.AddrPort // of RTP; invalid: says nothing
	ssrc     uint32
	sequence uint16
	stamp    uint32
	phase    uint8
	spoke    time.Time // first packet since Speak; zero: none yet
	nextRTCP time.Time
	packet   []byte

	sent, heard       [Phases]atomic.Uint64
	heardRTCP, strays atomic.Uint64
	// in nanoseconds, the first since the studio's start
	lastHeard, longestGap, longestTransit, firstHeard atomic.Int64

	listening   sync.WaitGroup
	strayMu     sync.Mutex
	strayDetail string
}

// RTCP says when a phone sends its reports: First after it begins to speak, then
// each Every. Every 0: never.
type RTCP struct{ First, Every time.Duration }

// Phases is how many phases of a call are told apart. A call begins in phase 0.
const Phases = 8

// Counts are what a phone has done and heard so far.
type Counts struct {
	Sent, Heard [Phases]uint64 // RTP, by the phase in which it was sent
	HeardRTCP   uint64
	// Strays are packets that were not meant for this phone.
	Strays uint64
}

// sockets are of one address; RTCP is on the port above RTP.
type sockets struct {
	rtp, rtcp *net.UDPConn
	addr      netip.AddrPort
}

func (s sockets) close() {
	for _, c := range []*net.UDPConn{s.rtp, s.rtcp} {
		if c != nil {
			c.Close()
		}
	}
}

// New opens a phone at an address of a host. It is silent at first.
func (s *Studio) New(at Listener, ip netip.Addr, id ID, rtcp RTCP) (*Phone, error) {
	p := &Phone{id: id, studio: s, rtcp: rtcp}
	p.renew()
	if err := p.Move(at, ip); err != nil {
		return nil, err
	}
	s.add(p)
	return p, nil
}

// Addr is what the phone says in its SDP.
func (p *Phone) Addr() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sockets.addr
}

// Speak makes the phone send to an RTP port and the RTCP port above it.
func (p *Phone) Speak(to netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.to.IsValid() {
		p.spoke = time.Time{}
		p.firstHeard.Store(0)
		p.nextRTCP = time.Now().Add(p.rtcp.First)
	}
	p.to = to
}

// Spoke is when the first packet left after Speak, zero if none has.
func (p *Phone) Spoke() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spoke
}

// FirstHeard is when the phone first heard the other party after Speak, zero if it has
// not yet.
func (p *Phone) FirstHeard() time.Time {
	at := p.firstHeard.Load()
	if at == 0 {
		return time.Time{}
	}
	return p.studio.start.Add(time.Duration(at))
}

// Phase begins another phase of the call.
func (p *Phone) Phase(n uint8) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = n
}

// Pause makes it silent. It still listens.
func (p *Phone) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = netip.AddrPort{}
}

// NewSource gives it another SSRC and sequence, as many phones do after hold.
func (p *Phone) NewSource() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renew()
}

func (p *Phone) renew() {
	p.ssrc, p.sequence, p.stamp = rand.Uint32(), uint16(rand.Uint32()), rand.Uint32()
}

// Move goes on from a fresh port, here or on another host, with the same SSRC.
func (p *Phone) Move(at Listener, ip netip.Addr) error {
	next, err := p.studio.open(at, ip)
	if err != nil {
		return fmt.Errorf("open sockets for phone %d of call %d: %w", p.id.Side, p.id.Call, err)
	}
	p.mu.Lock()
	old := p.sockets
	p.sockets = next
	p.mu.Unlock()
	old.close()
	p.listening.Go(func() { p.listen(next.rtp, false) })
	p.listening.Go(func() { p.listen(next.rtcp, true) })
	return nil
}

// Claim makes the phone say an address in its SDP that it does not use, such as the one
// before it moved.
func (p *Phone) Claim(a netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sockets.addr = a
}

// Close ends the phone.
func (p *Phone) Close() {
	p.studio.remove(p)
	p.mu.Lock()
	p.to = netip.AddrPort{}
	p.sockets.close()
	p.mu.Unlock()
	p.listening.Wait()
}

// Counts reads the counters.
func (p *Phone) Counts() Counts {
	c := Counts{HeardRTCP: p.heardRTCP.Load(), Strays: p.strays.Load()}
	for i := range c.Sent {
		c.Sent[i], c.Heard[i] = p.sent[i].Load(), p.heard[i].Load()
	}
	return c
}

// LongestTransit is the longest that a packet took to be heard here: large when the
// machine is too busy to move or hear packets in time.
func (p *Phone) LongestTransit() time.Duration { return time.Duration(p.longestTransit.Load()) }

// Stray describes the first packet that was not meant for this phone.
func (p *Phone) Stray() string {
	p.strayMu.Lock()
	defer p.strayMu.Unlock()
	return p.strayDetail
}

// WatchGaps begins to measure how long the phone hears nothing.
func (p *Phone) WatchGaps() {
	p.lastHeard.Store(p.studio.now())
	p.longestGap.Store(0)
}

// LongestGap is the longest time without hearing RTP since WatchGaps.
func (p *Phone) LongestGap() time.Duration {
	return time.Duration(max(p.longestGap.Load(), p.studio.now()-p.lastHeard.Load()))
}

func (p *Phone) listen(c *net.UDPConn, control bool) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed; an unconnected socket reports nothing else
		}
		mark, ok := readMark(buf[:n])
		switch {
		case !ok || mark.id != p.id.other():
			p.strays.Add(1)
			p.strayMu.Lock()
			if p.strayDetail == "" {
				p.strayDetail = fmt.Sprintf("from %s, RTCP port %v: %q", from, control, buf[:min(n, 60)])
			}
			p.strayMu.Unlock()
		case control:
			p.heardRTCP.Add(1)
		default:
			p.hear(mark)
		}
	}
}

func (p *Phone) hear(m mark) {
	p.heard[m.phase%Phases].Add(1)
	now := p.studio.now()
	p.firstHeard.CompareAndSwap(0, now)
	if gap := now - p.lastHeard.Swap(now); gap > p.longestGap.Load() {
		p.longestGap.Store(gap)
	}
	if transit := now - m.sent; transit > p.longestTransit.Load() {
		p.longestTransit.Store(transit)
	}
}

// tick sends what is due.
func (p *Phone) tick(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.to.IsValid() {
		return
	}
	p.sequence++
	p.stamp += samples
	m := mark{p.id, p.phase, p.studio.now()}
	p.packet = appendRTP(p.packet[:0], m, p.ssrc, p.sequence, p.stamp)
	p.sent[p.phase%Phases].Add(1)
	if p.spoke.IsZero() {
		p.spoke = time.Now()
	}
	// What cannot be sent is missing at the other end, where it is counted.
	p.sockets.rtp.WriteToUDPAddrPort(p.packet, p.to)
	if p.rtcp.Every > 0 && !now.Before(p.nextRTCP) {
		p.nextRTCP = now.Add(p.rtcp.Every)
		p.packet = appendReport(p.packet[:0], m, p.ssrc, p.stamp)
		p.sockets.rtcp.WriteToUDPAddrPort(p.packet, netip.AddrPortFrom(p.to.Addr(), p.to.Port()+1))
	}
}
