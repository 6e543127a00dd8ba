package site

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// Payload returns n bytes that look random and are the same in every run.
func Payload(n int) []byte {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(b) // never fails
	return b
}

// Phone is one UDP socket of a party.
type Phone struct {
	Addr netip.AddrPort

	t    testing.TB
	conn *net.UDPConn
}

// NewPhone opens a socket; port 0 takes any. It is closed with the test.
func NewPhone(t testing.TB, addr string) *Phone {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &Phone{Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), t: t, conn: conn}
}

// Close frees the port before the test ends.
func (p *Phone) Close() { p.conn.Close() }

// Send sends one datagram.
func (p *Phone) Send(to netip.AddrPort, payload []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(payload, to); err != nil {
		p.t.Fatalf("send from %v to %v: %v", p.Addr, to, err)
	}
}

// Await waits for one datagram that must have this payload, and returns its source.
func (p *Phone) Await(want []byte) netip.AddrPort {
	p.t.Helper()
	got, from := p.Receive(Patience)
	if !bytes.Equal(got, want) {
		p.t.Fatalf("phone %v got %d bytes %.20x from %v, want %d bytes %.20x", p.Addr, len(got), got, from, len(want), want)
	}
	return from
}

// Receive waits for a datagram for so long and returns nothing if none came.
func (p *Phone) Receive(within time.Duration) ([]byte, netip.AddrPort) {
	p.t.Helper()
	buf := make([]byte, 2048)
	p.conn.SetReadDeadline(time.Now().Add(within))
	n, from, err := p.conn.ReadFromUDPAddrPort(buf)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, netip.AddrPort{}
	case err != nil:
		p.t.Fatalf("phone %v: %v", p.Addr, err)
	}
	return buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// WantNothing fails if a datagram is waiting. What was sent to the phone must have
// arrived by then: on loopback it has as soon as a later one has, on any socket.
func (p *Phone) WantNothing() {
	p.t.Helper()
	if got, from := p.Receive(time.Millisecond); got != nil {
		p.t.Fatalf("phone %v got %d bytes from %v, want none", p.Addr, len(got), from)
	}
}
