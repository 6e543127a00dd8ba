// Package phone is the media side of test phones: sockets for RTP and RTCP that send
// a G.711 packet every 20 ms and listen. Each packet says which phone of which call it
// is from, so that a phone knows what it is not meant to hear. Many phones share one
// clock: there is one goroutine for sending, and one for each socket that listens.
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
	started  time.Time
	nextRTCP time.Time
	packet   []byte

	sent, heard, heardRTCP, strays atomic.Uint64
	// in nanoseconds since the studio's start
	lastHeard, longestGap atomic.Int64

	listening   sync.WaitGroup
	strayMu     sync.Mutex
	strayDetail string
}

// RTCP says when a phone sends its reports: First after it begins to speak, then
// each Every. Every 0: never.
type RTCP struct{ First, Every time.Duration }

// Counts are what a phone has done and heard so far.
type Counts struct {
	Sent, Heard uint64 // RTP
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
		p.started = time.Now()
		p.nextRTCP = p.started.Add(p.rtcp.First)
	}
	p.to = to
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
	return Counts{Sent: p.sent.Load(), Heard: p.heard.Load(), HeardRTCP: p.heardRTCP.Load(), Strays: p.strays.Load()}
}

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
		id, ok := readMark(buf[:n])
		switch {
		case !ok || id != p.id.other():
			p.strays.Add(1)
			p.strayMu.Lock()
			if p.strayDetail == "" {
				p.strayDetail = fmt.Sprintf("from %s, RTCP port %v: %q", from, control, buf[:min(n, 60)])
			}
			p.strayMu.Unlock()
		case control:
			p.heardRTCP.Add(1)
		default:
			p.heard.Add(1)
			now := p.studio.now()
			if gap := now - p.lastHeard.Swap(now); gap > p.longestGap.Load() {
				p.longestGap.Store(gap)
			}
		}
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
	p.packet = appendRTP(p.packet[:0], p.id, p.ssrc, p.sequence, p.stamp)
	// What cannot be sent is missing at the other end, where it is counted.
	if _, err := p.sockets.rtp.WriteToUDPAddrPort(p.packet, p.to); err == nil {
		p.sent.Add(1)
	}
	if p.rtcp.Every > 0 && !now.Before(p.nextRTCP) {
		p.nextRTCP = now.Add(p.rtcp.Every)
		p.packet = appendReport(p.packet[:0], p.id, p.ssrc, p.stamp)
		p.sockets.rtcp.WriteToUDPAddrPort(p.packet, netip.AddrPortFrom(p.to.Addr(), p.to.Port()+1))
	}
}
