package restart

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// phone sends RTP every 20 ms once it speaks, and notes when it hears any.
type phone struct {
	addr netip.AddrPort
	conn *net.UDPConn
	dest atomic.Pointer[netip.AddrPort]
	mute atomic.Bool

	mu    sync.Mutex // guards what follows
	heard []time.Time
	from  netip.AddrPort // of the latest
	fresh bool           // it is another than of those before
}

func newPhone(t testing.TB, addr string) *phone {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	p := &phone{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), conn: conn}
	p.mute.Store(true)
	var running sync.WaitGroup
	stop := make(chan struct{})
	running.Go(p.listen)
	running.Go(func() { p.send(stop) })
	t.Cleanup(func() { close(stop); conn.Close(); running.Wait() })
	return p
}

// to says where the phone sends.
func (p *phone) to(a netip.AddrPort) { p.dest.Store(&a) }

func (p *phone) speak()  { p.mute.Store(false) }
func (p *phone) silent() { p.mute.Store(true) }

func (p *phone) send(stop <-chan struct{}) {
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	packet := make([]byte, 172)
	packet[0], packet[1] = 0x80, 8
	binary.BigEndian.PutUint32(packet[8:], uint32(p.addr.Port()))
	for n := uint16(0); ; n++ {
		select {
		case <-stop:
			return
		case <-pace.C:
		}
		if to := p.dest.Load(); to != nil && !p.mute.Load() {
			binary.BigEndian.PutUint16(packet[2:], n)
			binary.BigEndian.PutUint32(packet[4:], 160*uint32(n))
			p.conn.WriteToUDPAddrPort(packet, *to) // what is lost counts where it is missing
		}
	}
}

func (p *phone) listen() {
	buf := make([]byte, 2048)
	for {
		_, from, err := p.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.heard = append(p.heard, time.Now())
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		p.fresh = p.fresh || p.from.IsValid() && p.from != from
		p.from = from
		p.mu.Unlock()
	}
}

// first is how long after a moment the phone heard the first packet; 0: it has not.
func (p *phone) first(since time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.heard {
		if after := at.Sub(since); after > 0 {
			return after
		}
	}
	return 0
}

// moved says whether media came from more than one of the relay's ports.
func (p *phone) moved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fresh
}
