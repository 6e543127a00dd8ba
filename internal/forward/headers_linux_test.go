package forward

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func control(t *testing.T, c *net.UDPConn, f func(fd int, v6 bool) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = f(int(fd), addrOf(c).Addr().Is6()) })
	if err != nil {
		t.Fatal(err)
	}
}

func observeHeaders(t *testing.T, c *net.UDPConn) (hops, tos *int) {
	t.Helper()
	control(t, c, func(fd int, v6 bool) error {
		if v6 {
			return firstError(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1), unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1))
		}
		return firstError(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1), unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1))
	})
	return new(int), new(int)
}

func sendWith(t *testing.T, c *net.UDPConn, hops, tos int, to netip.AddrPort) {
	t.Helper()
	control(t, c, func(fd int, v6 bool) error {
		setHops(fd, v6, hops)
		setTOS(fd, v6, tos)
		return nil
	})
	if _, err := c.WriteToUDPAddrPort([]byte("x"), to); err != nil {
		t.Fatal(err)
	}
}

// receiveControl reads one datagram and its headers by way of the standard
// library, a second opinion on the receiver of the packet loop.
func receiveControl(t *testing.T, c *net.UDPConn, hops, tos *int) {
	t.Helper()
	b, oob := make([]byte, 2048), make([]byte, 256)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, n, _, _, err := c.ReadMsgUDPAddrPort(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.IP_TTL, unix.IPV6_HOPLIMIT:
			*hops = int(binary.NativeEndian.Uint32(m.Data))
		case unix.IP_TOS:
			*tos = int(m.Data[0])
		case unix.IPV6_TCLASS:
			*tos = int(binary.NativeEndian.Uint32(m.Data))
		}
	}
}

// A datagram's number is never 0, for which the kernel would choose another, and
// comes again to the same address only after all others.
func TestIdents(t *testing.T) {
	var n idents
	n.init()
	dest := netip.MustParseAddr("203.0.113.7")
	last := map[uint16]int{}
	for i := range 1<<16 + 100 {
		id := n.of(dest)
		if id == 0 {
			t.Fatal("the number is 0")
		}
		if at, ok := last[id]; ok && i-at < 1<<16-1 {
			t.Fatalf("number %d comes again after %d datagrams", id, i-at)
		}
		last[id] = i
	}
}
