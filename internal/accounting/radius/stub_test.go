package radius

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// stub is a server that notes datagrams and answers as it is told.
type stub struct {
	addr netip.AddrPort
	conn *net.UDPConn

	mu   sync.Mutex
	got  [][]byte
	from []netip.AddrPort
}

// newStub serves until the test ends. answer gets a request and its number, from 1, and
// returns datagrams.
func newStub(t *testing.T, ip string, answer func(request []byte, n int) [][]byte) *stub {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{conn: conn, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 5000)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			request := bytes.Clone(b[:n])
			s.mu.Lock()
			s.got, s.from = append(s.got, request), append(s.from, from)
			count := len(s.got)
			s.mu.Unlock()
			for _, a := range answer(request, count) {
				conn.WriteToUDPAddrPort(a, from)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); wg.Wait() })
	return s
}

func (s *stub) requests() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

// count is how many requests have come once there are as many as wanted.
func (s *stub) count(t *testing.T, want int) int {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(s.requests()) < want && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	return len(s.requests())
}

func (s *stub) clients() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from
}

func (s *stub) server(secret string) Server {
	return Server{Host: s.addr.Addr().String(), Port: s.addr.Port(), Secret: Secret(secret), Origin: "servers:1"}
}

// response is what RFC 2866 section 3 says, without the library.
func response(code byte, request []byte, secret string, more ...byte) []byte {
	b := append([]byte{code, request[1], 0, 0}, request[4:20]...)
	b = append(b, more...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	sum := md5.Sum(append(bytes.Clone(b), secret...))
	copy(b[4:], sum[:])
	return b
}

// yes confirms everything.
func yes(request []byte, _ int) [][]byte { return [][]byte{response(5, request, "testing")} }

// never answers.
func never([]byte, int) [][]byte { return nil }

// closedPort is one that nobody has, below those that the system gives to whoever asks for
// any.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	for {
		port := uint16(12000 + rand.N(18000))
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), port)))
		if err == nil {
			conn.Close()
			return port
		}
	}
}
