package forward

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	enterOwnNetwork()
	goleak.VerifyTestMain(m)
}

// testTable starts a table whose clock a test can push forward.
func testTable(t testing.TB, threads int) (Table, *atomic.Int64) {
	t.Helper()
	var shift atomic.Int64
	table, err := NewLoops(Config{Threads: threads, Clock: func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table, &shift
}

// steeredTable is a table on sk_lookup for the loopback addresses. It needs root.
func steeredTable(t testing.TB, threads int) Table {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: sk_lookup")
	}
	table, err := openSteered(complete(Config{Threads: threads, Locals: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}}), false, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

func complete(c Config) Config {
	c.setDefaults(2)
	return c
}

// eachTable runs a test on both tables of user space.
func eachTable(t *testing.T, threads int, test func(t *testing.T, table Table)) {
	t.Run("loops", func(t *testing.T) { table, _ := testTable(t, threads); test(t, table) })
	t.Run("steered", func(t *testing.T) { test(t, steeredTable(t, threads)) })
}

func phone(t testing.TB, ip string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort {
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

type handlerFunc func(d Datagram) Verdict

func (f handlerFunc) Handle(d Datagram) Verdict { return f(d) }

func refuse(Datagram) Verdict { return Verdict{} }

// openPort binds some free port.
func openPort(t testing.TB, table Table, ip string, h Handler) Port {
	t.Helper()
	for n := uint16(21000); n < 30000; n++ {
		if p, err := table.Open(netip.AddrPortFrom(netip.MustParseAddr(ip), n), 1, h); err == nil {
			return p
		}
	}
	t.Fatal("no free port")
	return nil
}

func receive(t testing.TB, c *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	b := make([]byte, 1<<16)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatalf("nothing arrived: %v", err)
	}
	return string(b[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func silent(t testing.TB, c *net.UDPConn) {
	t.Helper()
	b := make([]byte, 1<<16)
	c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if n, from, err := c.ReadFromUDPAddrPort(b); err == nil {
		t.Fatalf("%q arrived from %v, want silence", b[:n], from)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func rtpPacket(seq uint16, ssrc uint32) []byte {
	b := make([]byte, 172)
	b[0], b[1] = 0x80, 8
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], uint32(seq)*160)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return b
}

func TestMoveDecidedFlows(t *testing.T) { eachTable(t, 2, testMoveDecidedFlows) }

func testMoveDecidedFlows(t *testing.T, table Table) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			caller, callee, stranger := phone(t, ip), phone(t, ip), phone(t, ip)
			var asked atomic.Int64
			h := handlerFunc(func(d Datagram) Verdict { asked.Add(1); return refuse(d) })
			a, b := openPort(t, table, ip, h), openPort(t, table, ip, h)
			a.Install(Flow{Source: addrOf(caller), Out: b, Dest: addrOf(callee)})

			packet := rtpPacket(7, 99)
			caller.WriteToUDPAddrPort(packet, a.Local())
			if got, from := receive(t, callee); got != string(packet) || from != b.Local() {
				t.Errorf("got %d bytes from %v, want the packet from %v", len(got), from, b.Local())
			}
			stranger.WriteToUDPAddrPort(rtpPacket(8, 99), a.Local())
			eventually(t, "the stranger is refused", func() bool { return a.Counters().Refused == 1 })
			silent(t, callee)
			if asked.Load() != 1 {
				t.Errorf("handler was asked %d times, want 1", asked.Load())
			}
			header := 28
			if ip == "::1" {
				header = 48
			}
			c := a.Counters()
			if c.Packets != 1 || c.Bytes != uint64(len(packet)+header) || !c.Decided || c.Quality.SSRC != 99 || c.Quality.Sequence != 7 || c.LastMedia < 0 {
				t.Errorf("counters %+v", c)
			}
			a.Withdraw()
			caller.WriteToUDPAddrPort(packet, a.Local())
			eventually(t, "the handler has the port again", func() bool { return asked.Load() == 2 })
		})
	}
}

func TestVerdictRelaysUndecided(t *testing.T) { eachTable(t, 1, testVerdictRelaysUndecided) }

func testVerdictRelaysUndecided(t *testing.T, table Table) {
	caller, callee := phone(t, "127.0.0.1"), phone(t, "127.0.0.1")
	b := openPort(t, table, "127.0.0.1", handlerFunc(refuse))
	a := openPort(t, table, "127.0.0.1", handlerFunc(func(d Datagram) Verdict {
		return Verdict{Accepted: true, Out: b, Dest: addrOf(callee)}
	}))
	big := bytes.Repeat([]byte("x"), 60000)
	caller.WriteToUDPAddrPort(big, a.Local())
	if got, from := receive(t, callee); got != string(big) || from != b.Local() {
		t.Errorf("got %d bytes from %v", len(got), from)
	}
	eventually(t, "the datagram is counted", func() bool { s := table.Stats(); return s.Packets == 1 && s.Undecided == 1 && s.Ports == 2 })
}

// A datagram loses one hop on its way and keeps its traffic class; one that has
// no hop left ends here, so a loop of relays ends too.
func TestHopsAndTrafficClass(t *testing.T) { eachTable(t, 1, testHopsAndTrafficClass) }

func testHopsAndTrafficClass(t *testing.T, table Table) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			caller, callee := phone(t, ip), phone(t, ip)
			b := openPort(t, table, ip, handlerFunc(refuse))
			a := openPort(t, table, ip, handlerFunc(refuse))
			a.Install(Flow{Source: addrOf(caller), Out: b, Dest: addrOf(callee)})
			hops, tos := observeHeaders(t, callee)
			for _, c := range []struct{ hops, tos int }{{64, 0}, {17, 0xb8}, {2, 0xb8}} {
				sendWith(t, caller, c.hops, c.tos, a.Local())
				receiveControl(t, callee, hops, tos)
				if *hops != c.hops-1 || *tos != c.tos {
					t.Errorf("hops %d class %#x left, want %d and %#x", *hops, *tos, c.hops-1, c.tos)
				}
			}
			before := table.Stats().TTLExpired
			sendWith(t, caller, 1, 0, a.Local())
			eventually(t, "the last hop is counted", func() bool { return table.Stats().TTLExpired == before+1 })
			silent(t, callee)
		})
	}
}

// After steady traffic a port hears its party alone; after silence, or when its
// flow is withdrawn, everyone again.
func TestConnectedPortHearsMovedPhone(t *testing.T) {
	table, shift := testTable(t, 1)
	caller, callee, moved := phone(t, "127.0.0.1"), phone(t, "127.0.0.1"), phone(t, "127.0.0.1")
	var asked atomic.Int64
	h := handlerFunc(func(d Datagram) Verdict { asked.Add(1); return refuse(d) })
	b := openPort(t, table, "127.0.0.1", h)
	a := openPort(t, table, "127.0.0.1", h)
	flow := Flow{Source: addrOf(caller), Out: b, Dest: addrOf(callee)}
	a.Install(flow)
	b.Install(Flow{Source: addrOf(callee), Out: a, Dest: addrOf(caller)})
	connected := func() bool { return a.(*port).connected.Load() != nil }
	seq := uint16(0)
	steady := func() {
		for range 60 {
			seq++
			caller.WriteToUDPAddrPort(rtpPacket(seq, 5), a.Local())
			receive(t, callee)
			shift.Add(int64(100 * time.Millisecond))
		}
	}
	steady()
	if !connected() {
		t.Fatal("not connected after six seconds of steady traffic")
	}
	callee.WriteToUDPAddrPort([]byte("back"), b.Local())
	if got, from := receive(t, caller); got != "back" || from != a.Local() {
		t.Errorf("through the connected port: %q from %v", got, from)
	}
	caller.WriteToUDPAddrPort([]byte("one more"), a.Local())
	receive(t, callee)

	shift.Add(int64(1100 * time.Millisecond))
	eventually(t, "the silent port hears everyone", func() bool { return !connected() })
	moved.WriteToUDPAddrPort(rtpPacket(seq+1, 5), a.Local())
	eventually(t, "the moved phone is heard", func() bool { return asked.Load() == 1 })
	if got := a.Local(); got != a.(*port).local {
		t.Errorf("the port moved to %v", got)
	}

	steady()
	if !connected() {
		t.Fatal("not connected the second time")
	}
	a.Withdraw()
	moved.WriteToUDPAddrPort(rtpPacket(seq+1, 5), a.Local())
	eventually(t, "withdrawing opens the port", func() bool { return asked.Load() == 2 })
	a.Install(flow)
	seq++
	caller.WriteToUDPAddrPort(rtpPacket(seq, 5), a.Local())
	receive(t, callee)
	caller.WriteToUDPAddrPort(rtpPacket(seq+1, 5), a.Local())
	receive(t, callee)
	if connected() {
		t.Error("connected again at once: what was steady before the flow was taken back counts")
	}
}

func TestPanicMutesOnePort(t *testing.T) { eachTable(t, 1, testPanicMutesOnePort) }

func testPanicMutesOnePort(t *testing.T, table Table) {
	caller, callee := phone(t, "127.0.0.1"), phone(t, "127.0.0.1")
	b := openPort(t, table, "127.0.0.1", handlerFunc(refuse))
	bad := openPort(t, table, "127.0.0.1", handlerFunc(func(Datagram) Verdict { panic("bug") }))
	good := openPort(t, table, "127.0.0.1", handlerFunc(func(Datagram) Verdict {
		return Verdict{Accepted: true, Out: b, Dest: addrOf(callee)}
	}))
	caller.WriteToUDPAddrPort([]byte("x"), bad.Local())
	caller.WriteToUDPAddrPort([]byte("y"), bad.Local())
	eventually(t, "both datagrams are refused", func() bool { return bad.Counters().Refused == 2 })
	caller.WriteToUDPAddrPort([]byte("z"), good.Local())
	if got, _ := receive(t, callee); got != "z" {
		t.Errorf("got %q", got)
	}
	if n := table.Stats().Panics; n != 1 {
		t.Errorf("%d panics counted, want 1", n)
	}
}

// Ports open and close under traffic; a number that is free again never
// delivers to the port that had it before.
func TestCloseUnderTraffic(t *testing.T) { eachTable(t, 2, testCloseUnderTraffic) }

func testCloseUnderTraffic(t *testing.T, table Table) {
	caller := phone(t, "127.0.0.1")
	stop := make(chan struct{})
	var local atomic.Pointer[netip.AddrPort]
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				if a := local.Load(); a != nil {
					caller.WriteToUDPAddrPort([]byte("media"), *a)
				}
			}
		}
	}()
	defer close(stop)
	for range 300 {
		var closed atomic.Bool
		released := make(chan bool, 1)
		p := openPort(t, table, "127.0.0.1", handlerFunc(func(d Datagram) Verdict {
			if closed.Load() {
				t.Error("a closed port was served")
			}
			return Verdict{}
		}))
		a := p.Local()
		local.Store(&a)
		eventually(t, "traffic arrives", func() bool { return p.Counters().Refused > 0 })
		local.Store(nil)
		p.Close(func(used bool) { closed.Store(true); released <- used })
		if used := <-released; !used {
			t.Error("a port with traffic counts as unused")
		}
	}
	if n := table.Stats().Ports; n != 0 {
		t.Errorf("%d ports still open", n)
	}
}

func TestDescriptorLimit(t *testing.T) {
	table, err := NewLoops(Config{Threads: 1, ReservedDescriptors: 1 << 21}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if n := table.Capacity(); n != 0 {
		t.Fatalf("capacity %d, want 0", n)
	}
	if _, err := table.Open(netip.MustParseAddrPort("127.0.0.1:21000"), 0, handlerFunc(refuse)); err != ErrTooManyPorts {
		t.Errorf("got %v, want %v", err, ErrTooManyPorts)
	}
}

func TestServeAllocatesNothing(t *testing.T) {
	table, _ := testTable(t, 1)
	tl := table.(*loops)
	tl.loops[0].stop() // the test serves the port itself
	tl.loops[0].batch.Store(0)
	caller, callee := phone(t, "127.0.0.1"), phone(t, "127.0.0.1")
	b := openPort(t, table, "127.0.0.1", handlerFunc(refuse)).(*port)
	a := openPort(t, table, "127.0.0.1", handlerFunc(refuse)).(*port)
	a.Install(Flow{Source: addrOf(caller), Out: b, Dest: addrOf(callee)})
	packet, to := rtpPacket(1, 1), a.Local()
	before := a.Counters().Packets
	allocs := testing.AllocsPerRun(200, func() {
		caller.WriteToUDPAddrPort(packet, to)
		tl.loops[0].serve(a, table.Now())
	})
	if allocs != 0 {
		t.Errorf("%v allocations per packet, want 0", allocs)
	}
	if n := a.Counters().Packets - before; n < 200 {
		t.Errorf("only %d packets served", n)
	}
}

type complainer struct {
	handlerFunc
	about chan netip.AddrPort
}

func (c complainer) Unreachable(_ time.Duration, dest netip.AddrPort) {
	select {
	case c.about <- dest:
	default:
	}
}

// Nobody listens where media goes: the handler of the port that sends it hears so.
func TestUnreachable(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			table := steeredTable(t, 1)
			caller, gone := phone(t, ip), phone(t, ip)
			dest := addrOf(gone)
			gone.Close()
			heard := make(chan netip.AddrPort, 1)
			a := openPort(t, table, ip, handlerFunc(refuse))
			b := openPort(t, table, ip, complainer{refuse, heard})
			a.Install(Flow{Source: addrOf(caller), Out: b, Dest: dest})
			caller.WriteToUDPAddrPort(rtpPacket(1, 1), a.Local())
			select {
			case got := <-heard:
				if got != dest {
					t.Errorf("complaint about %v, want %v", got, dest)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("no complaint within 5 s")
			}
			if n := table.Stats().Unreachable; n == 0 {
				t.Error("the error was not counted")
			}
		})
	}
}
