package forward

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// openLevel makes a table on one of the levels.
func openLevel(t testing.TB, name string, cfg Config) Table {
	t.Helper()
	if cfg.Locals == nil {
		cfg.Locals = locals()
	}
	if cfg.Threads == 0 {
		cfg.Threads = 2
	}
	cfg.setDefaults(1)
	for _, l := range levels {
		if l.name != name {
			continue
		}
		table, err := l.open(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { table.Close() })
		return table
	}
	t.Fatalf("no level %q", name)
	return nil
}

const best = "tcx and sk_lookup"

// pins is a folder in the BPF file system that ends with the test.
func pins(t testing.TB) string {
	t.Helper()
	folder := fmt.Sprintf("/sys/fs/bpf/forward-test-%d-%d", os.Getpid(), pinCount.Add(1))
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

var pinCount atomic.Int64

// leg decides as a stream does with first-packet: whoever comes first is the party.
type leg struct {
	mu        sync.Mutex
	port, out Port
	dest      netip.AddrPort
	asked     int
}

func (l *leg) Handle(d Datagram) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if l.port == nil {
		return Verdict{}
	}
	l.port.Install(Flow{Source: d.Source, Out: l.out, Dest: l.dest})
	return Verdict{Accepted: true, Out: l.out, Dest: l.dest}
}

// call is two ports that learn their parties, and the parties.
type call struct {
	table          Table
	a, b           Port // for the caller, for the callee
	forth, back    *leg
	caller, callee *net.UDPConn
}

const firstPort = 30000

func newCall(t testing.TB, n *network, table Table, at addresses) *call {
	t.Helper()
	c := &call{table: table, caller: n.caller.phone(at.caller), callee: n.callee.phone(at.callee), forth: &leg{}, back: &leg{}}
	c.open(t, table.Open, at)
	return c
}

// open is also for adoption.
func (c *call) open(t testing.TB, open func(netip.AddrPort, uint32, Handler) (Port, error), at addresses) {
	t.Helper()
	var err error
	if c.a, err = open(netip.AddrPortFrom(at.left, firstPort), 1, c.forth); err != nil {
		t.Fatal(err)
	}
	if c.b, err = open(netip.AddrPortFrom(at.right, firstPort+2), 1, c.back); err != nil {
		t.Fatal(err)
	}
	c.forth.mu.Lock()
	c.forth.port, c.forth.out, c.forth.dest = c.a, c.b, addrOf(c.callee)
	c.forth.mu.Unlock()
	c.back.mu.Lock()
	c.back.port, c.back.out, c.back.dest = c.b, c.a, addrOf(c.caller)
	c.back.mu.Unlock()
}

// talk sends a packet each way and wants it to arrive.
func (c *call) talk(t testing.TB, seq uint16) {
	t.Helper()
	packet := rtpPacket(seq, 7)
	defer func() {
		if t.Failed() {
			t.Logf("packet %d: %+v, %+v, %+v", seq, c.table.Stats(), c.a.Counters(), c.b.Counters())
		}
	}()
	for _, way := range []struct {
		from, to *net.UDPConn
		in, out  Port
	}{{c.caller, c.callee, c.a, c.b}, {c.callee, c.caller, c.b, c.a}} {
		if _, err := way.from.WriteToUDPAddrPort(packet, way.in.Local()); err != nil {
			t.Fatal(err)
		}
		if got, from := receive(t, way.to); got != string(packet) || from != way.out.Local() {
			t.Fatalf("packet %d: %d bytes from %v, want it from %v", seq, len(got), from, way.out.Local())
		}
	}
}

// Only the first packet of each direction is looked at in user space; the others are
// moved below it, with every byte as it should be.
func TestKernelMovesDecidedFlows(t *testing.T) {
	for _, level := range []string{best, "clsact and sk_lookup", "tcx and a socket for each port", "clsact and a socket for each port"} {
		for family, at := range families {
			for _, checksums := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/offload=%v", level, family, checksums), func(t *testing.T) {
					n := newNetwork(t)
					n.caller.do(func() error { return offload("up0", checksums) })
					table := openLevel(t, level, Config{})
					if table.Mover() != MoverKernel {
						t.Errorf("mover %q", table.Mover())
					}
					checkMoved(t, n, table, newCall(t, n, table, at), checksums)
				})
			}
		}
	}
}

func checkMoved(t *testing.T, n *network, table Table, c *call, partial bool) {
	const packets = 50
	for i := range packets {
		c.talk(t, uint16(i))
	}
	eventually(t, "2 packets are counted in user space, the others in the kernel", func() bool {
		s := table.Stats()
		return s.Undecided == 2 && s.Kernel.Packets == 2*packets-2 && s.Packets == 2*packets
	})
	for _, p := range []Port{c.a, c.b} {
		counters := p.Counters()
		if counters.Packets != packets || counters.Quality.Sequence != packets-1 || counters.Quality.Lost != 0 || counters.Mover != MoverKernel || counters.NotKernel != "" {
			t.Errorf("counters of %v: %+v", p.Local(), counters)
		}
	}
	watch := n.callee.capture("up0")
	before := table.Stats().Kernel.Packets
	for _, size := range []int{0, 1, 11, 12, 13, 172, 1400} {
		sendSized(t, c.caller, size, 33, 0xb8, c.a.Local())
		f := watch.next(addrOf(c.callee).Port())
		if f.partial != partial {
			t.Errorf("size %d: partial checksum is %v, want %v", size, f.partial, partial)
		}
		if err := wrongChecksum(f); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
		hops, tos := f.bytes[22], f.bytes[15]
		if f.bytes[14]>>4 == 6 {
			hops, tos = f.bytes[21], f.bytes[14]<<4|f.bytes[15]>>4
		}
		if hops != 32 || tos != 0xb8 {
			t.Errorf("size %d: %d hops left, class %#x, want 32 and 0xb8", size, hops, tos)
		}
		if got, from := receive(t, c.callee); len(got) != size || from != c.b.Local() {
			t.Errorf("size %d: %d bytes from %v", size, len(got), from)
		}
	}
	if n := table.Stats().Kernel.Packets - before; n != 7 {
		t.Errorf("%d of 7 were moved in the kernel", n)
	}
	checkLarge(t, table, c)
	sendSized(t, c.caller, 100, 1, 0, c.a.Local())
	eventually(t, "the last hop is counted", func() bool { return table.Stats().TTLExpired == 1 })
	silent(t, c.callee)
}

// Datagrams that come in fragments are put together, and cut again, in user space.
func checkLarge(t *testing.T, table Table, c *call) {
	defer func() {
		if t.Failed() {
			t.Logf("%+v, %+v, %+v", c.table.Stats(), c.a.Counters(), c.b.Counters())
		}
	}()
	before := countedAll(table)
	for i := range 3 {
		sendSized(t, c.caller, 4000+i, 64, 0, c.a.Local())
		got, from := receive(t, c.callee)
		if len(got) != 4000+i || from != c.b.Local() {
			t.Fatalf("%d bytes from %v, want %d from %v", len(got), from, 4000+i, c.b.Local())
		}
		for at := range got {
			if got[at] != byte(at) {
				t.Fatalf("byte %d of %d is %#x", at, len(got), got[at])
			}
		}
	}
	eventually(t, "fragments are counted as moved by user space", func() bool {
		s := table.Stats()
		return s.Kernel.Packets == before.Kernel.Packets && s.Packets == before.Packets+3
	})
}

// countedAll are the counts when all that was received is in them: a packet is counted after
// it was sent.
func countedAll(table Table) Stats {
	for s := table.Stats(); ; {
		time.Sleep(20 * time.Millisecond)
		now := table.Stats()
		if now.Packets == s.Packets {
			return now
		}
		s = now
	}
}

// sendSized sends bytes that count up, with hops and class.
func sendSized(t *testing.T, c *net.UDPConn, size, hops, tos int, to netip.AddrPort) {
	t.Helper()
	control(t, c, func(fd int, v6 bool) error {
		setHops(fd, v6, hops)
		setTOS(fd, v6, tos)
		return nil
	})
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i)
	}
	if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatal(err)
	}
}

// What moves in user space behind the socket lookup leaves with headers of our own.
func TestSteeredInUserSpace(t *testing.T) {
	for family, at := range families {
		t.Run(family, func(t *testing.T) {
			n := newNetwork(t)
			table := openLevel(t, "sk_lookup, in user space", Config{})
			c := newCall(t, n, table, at)
			watch := n.callee.capture("up0")
			for i := range uint16(20) {
				c.talk(t, i)
				if err := wrongChecksum(watch.next(addrOf(c.callee).Port())); err != nil {
					t.Error(err)
				}
			}
			hops, tos := observeHeaders(t, c.callee)
			for _, want := range []struct{ hops, tos int }{{64, 0}, {17, 0xb8}, {2, 0x28}} {
				sendWith(t, c.caller, want.hops, want.tos, c.a.Local())
				receiveControl(t, c.callee, hops, tos)
				if *hops != want.hops-1 || *tos != want.tos {
					t.Errorf("hops %d class %#x left, want %d and %#x", *hops, *tos, want.hops-1, want.tos)
				}
			}
			if err := c.b.Send(addrOf(c.callee), []byte("from the relay itself")); err != nil {
				t.Fatal(err)
			}
			if got, from := receive(t, c.callee); got != "from the relay itself" || from != c.b.Local() {
				t.Errorf("got %q from %v", got, from)
			}
			checkLarge(t, table, c)
			if err := c.b.Send(addrOf(c.callee), make([]byte, 5000)); err != nil {
				t.Fatal(err)
			}
			if got, from := receive(t, c.callee); len(got) != 5000 || from != c.b.Local() {
				t.Errorf("%d bytes from %v", len(got), from)
			}
			sendSized(t, c.caller, 100, 1, 0, c.a.Local())
			eventually(t, "the last hop is counted", func() bool { return table.Stats().TTLExpired == 1 })
			silent(t, c.callee)
			if s := table.Stats(); s.Kernel.Packets != 0 || table.Mover() != MoverUser {
				t.Errorf("moved by %s: %+v", table.Mover(), s)
			}
		})
	}
}

// A closed port says nothing for a while: an ICMP error makes some phones end their
// media. Later it is the host's again.
func TestClosedPortRests(t *testing.T) {
	for _, level := range []string{best, "clsact and a socket for each port", "sk_lookup, in user space"} {
		for family, at := range families {
			t.Run(level+"/"+family, func(t *testing.T) {
				n := newNetwork(t)
				table := openLevel(t, level, Config{})
				c := newCall(t, n, table, at)
				c.talk(t, 1)
				var late net.Conn
				n.caller.do(func() (err error) {
					late, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.a.Local()))
					return err
				})
				defer late.Close()
				answered := func() bool {
					late.Write([]byte("late"))
					late.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
					_, err := late.Read(make([]byte, 10))
					return errors.Is(err, syscall.ECONNREFUSED)
				}
				closed := make(chan struct{})
				local, before := c.a.Local(), c.a.Counters()
				c.a.Close(func(bool) { close(closed) })
				<-closed
				if answered() {
					t.Error("the closed port answered")
				}
				if s := table.Stats(); table.Mover() == MoverKernel && s.Kernel.Resting == 0 {
					t.Errorf("stats %+v: nothing was dropped", s)
				}
				if got := c.a.Counters(); got.Packets != before.Packets || got.Refused != 0 || got.LastSeen != before.LastSeen || got.Quality != before.Quality {
					t.Errorf("counters went on after the end: %+v, then %+v", before, got)
				}
				again, err := table.Open(local, 1, handlerFunc(refuse)) // another call has it
				if err != nil {
					t.Fatal(err)
				}
				if answered() {
					t.Error("an open port answered")
				}
				eventually(t, "the new call sees the stranger", func() bool { return again.Counters().Refused == 1 })
				closed = make(chan struct{})
				again.Close(func(bool) { close(closed) })
				<-closed
				kernelOf(table).endRests(time.Now().Add(restTime + time.Second))
				if !answered() {
					t.Error("long after its end the port is still not the host's")
				}
			})
		}
	}
}

func kernelOf(table Table) *kernel {
	if s, ok := table.(*steered); ok {
		return s.kernel
	}
	return table.(*loops).kernel
}
