package netlab

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// exchange sends a datagram and returns where the other socket heard it from, or
// nothing when it did not come.
func exchange(t *testing.T, from, to *net.UDPConn, dest netip.AddrPort) netip.AddrPort {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte("x"), dest); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, src, err := to.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
}

func socket(t *testing.T, h *Host, a string) *net.UDPConn {
	t.Helper()
	c, err := h.ListenUDP(netip.MustParseAddrPort(a))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestNAT(t *testing.T) {
	Needs(t)
	l := New(t)
	server := l.Host("server", addr("45.10.0.9"))
	other := l.Host("other", addr("45.10.1.9"), addr("45.10.0.10"))
	router, inside := l.NAT("nat", addr("45.20.0.1"), netip.MustParsePrefix("192.168.1.0/24"), addr("192.168.1.5"))
	meter := other.Meter("heard", addr("45.10.0.9"))

	at := netip.MustParseAddrPort
	s, p := socket(t, server, "45.10.0.9:4000"), socket(t, inside, "192.168.1.5:5000")
	stranger, neighbour := socket(t, other, "45.10.1.9:6000"), socket(t, other, "45.10.0.10:6000")

	first := exchange(t, p, s, at("45.10.0.9:4000"))
	if first.Addr() != addr("45.20.0.1") || first.Port() == 5000 {
		t.Fatalf("the server saw %v, want 45.20.0.1 and another port than 5000", first)
	}
	if got := exchange(t, s, p, first); got != at("45.10.0.9:4000") {
		t.Errorf("the answer came from %v, want the server", got)
	}
	if got := exchange(t, stranger, p, first); got.IsValid() {
		t.Errorf("a stranger came through the NAT as %v", got)
	}
	if err := router.ForgetBinding(at("192.168.1.5:5000"), at("45.10.0.9:4000")); err != nil {
		t.Fatal(err)
	}
	if err := router.ForgetBinding(at("192.168.1.5:5001"), at("45.10.0.9:4000")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("forgetting a binding that is not there: %v", err)
	}
	if second := exchange(t, p, s, at("45.10.0.9:4000")); second == first || second.Addr() != first.Addr() {
		t.Errorf("after the binding was forgotten the server saw %v, before %v; want another port", second, first)
	}
	if got := exchange(t, neighbour, s, at("45.10.0.9:4000")); got != at("45.10.0.10:6000") {
		t.Errorf("a neighbour's datagram came from %v", got)
	}
	if n := meter.Packets(); n != 0 {
		t.Errorf("the meter has %d packets before any", n)
	}
	exchange(t, s, neighbour, at("45.10.0.10:6000"))
	exchange(t, s, stranger, at("45.10.1.9:7000")) // no socket there
	if n := meter.Packets(); n != 2 {
		t.Errorf("the meter has %d packets, want 2", n)
	}
}
