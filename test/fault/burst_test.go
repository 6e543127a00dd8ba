package fault

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/module"
	"example.org/mediaproxy/test/internal/site"
)

const (
	burstCalls   = 200
	burstModules = 50
	burstPackets = 25 // of each party, half a second of audio
)

// TestBurst: 200 calls at once over 50 connections, both parties of each speaking as
// soon as the answer is there. Nobody is refused, and no packet is lost.
func TestBurst(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.relay(1)
	line := s.d.Module()
	before := s.setUp(line, "before", "")

	work := make(chan *burstCall, burstCalls)
	for i := range burstCalls {
		work <- newBurstCall(s, fmt.Sprintf("burst-%d", i))
	}
	close(work)
	problems := make(chan error, burstCalls)
	var modules, talking sync.WaitGroup
	for range burstModules {
		client, err := module.Dial(filepath.Join(s.d.Dir, "dispatcher.sock"), module.Timeout)
		if err != nil {
			t.Fatal(err)
		}
		modules.Go(func() {
			defer client.Close()
			for c := range work {
				if err := c.setUp(client); err != nil {
					problems <- err
					return // as the module does
				}
				talking.Go(func() {
					if err := c.talk(); err != nil {
						problems <- err
					}
				})
			}
		})
	}
	modules.Wait()
	talking.Wait()
	close(problems)
	for err := range problems {
		t.Error(err)
	}
	if got := s.manage("summary"); !strings.Contains(got, fmt.Sprintf(`"session_count": %d,`, burstCalls+1)) {
		t.Errorf("summary: got %s, want %d sessions", got, burstCalls+1)
	}
	if n := s.d.Log.Count("answered error"); n != 0 {
		t.Errorf("%d requests were answered error", n)
	}
	before.talk()
	before.hangUp(line)
}

// burstCall is a call of two phones that talk without waiting for each other.
type burstCall struct {
	id    string
	conns [2]*net.UDPConn
	to    [2]netip.AddrPort // where each sends
}

func newBurstCall(s *stage, id string) *burstCall {
	s.Helper()
	c := &burstCall{id: id}
	for i, host := range []string{"101", "102"} {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s.net+host+":0")))
		if err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { conn.Close() })
		c.conns[i] = conn
	}
	return c
}

// setUp offers and answers. Where the caller sends is in the answer to the answer.
func (c *burstCall) setUp(client *module.Client) error {
	for i, to := range []int{1, 0} {
		addr := c.conns[i].LocalAddr().(*net.UDPAddr).AddrPort()
		u := control.Update{Kind: control.KindRequest, CallID: c.id, FromTag: "a", FromURI: "a@example.com", ToURI: "b@example.com", UserAgent: "Phone/1.0",
			CSeq: 1, Signaling: control.Signaling{IP: addr.Addr()}, HasMedia: true,
			Media: []control.Media{{Type: "audio", Addr: addr.Addr(), Port: addr.Port(), Direction: "sendrecv"}}}
		if i == 1 {
			u.Kind, u.ToTag = control.KindReply, "b"
		}
		answer, err := client.Update(u)
		if err != nil {
			return err
		}
		c.to[to] = netip.AddrPortFrom(answer.IP, answer.Ports[0])
	}
	return nil
}

// talk has both parties speak at the same time.
func (c *burstCall) talk() error {
	var both sync.WaitGroup
	var heard [2]int
	var failed [2]error
	for i := range c.conns {
		both.Go(func() { failed[i] = c.speak(i) })
		both.Go(func() { heard[i] = c.listen(i) })
	}
	both.Wait()
	for i, n := range heard {
		if failed[i] != nil {
			return failed[i]
		}
		if n != burstPackets {
			return fmt.Errorf("call %s: party %d heard %d of %d packets", c.id, i, n, burstPackets)
		}
	}
	return nil
}

// speak sends RTP at its pace.
func (c *burstCall) speak(i int) error {
	packet := make([]byte, 172)
	packet[0], packet[11] = 0x80, byte(i)
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for n := range burstPackets {
		binary.BigEndian.PutUint16(packet[2:], uint16(n))
		binary.BigEndian.PutUint32(packet[4:], uint32(160*n))
		if _, err := c.conns[i].WriteToUDPAddrPort(packet, c.to[i]); err != nil {
			return fmt.Errorf("call %s: party %d: %w", c.id, i, err)
		}
		<-pace.C
	}
	return nil
}

// listen counts the packets of the other party until all are there, or none comes.
func (c *burstCall) listen(i int) int {
	seen := map[uint16]bool{}
	buf := make([]byte, 2048)
	for len(seen) < burstPackets {
		c.conns[i].SetReadDeadline(time.Now().Add(site.Patience))
		n, from, err := c.conns[i].ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		if n == 172 && buf[11] == byte(1-i) && netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) == c.to[i] {
			seen[binary.BigEndian.Uint16(buf[2:])] = true
		}
	}
	return len(seen)
}
