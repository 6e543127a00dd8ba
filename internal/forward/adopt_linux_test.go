package forward

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// die ends a table as a kill does: sockets and descriptors close, what is pinned
// stays.
func die(t testing.TB, table Table) {
	t.Helper()
	var k *kernel
	switch table := table.(type) {
	case *steered:
		k = table.kernel
		table.reaper.stop()
		for _, r := range table.readers {
			r.stop()
		}
		table.wg.Wait()
		addProcessors(-len(table.readers))
		table.mu.Lock()
		table.closed.Store(true) // its Close at the end of the test does nothing
		table.mu.Unlock()
		table.release()
	case *loops:
		k = table.kernel
		table.closed.Store(true)
		table.reaper.stop()
		for _, l := range table.loops {
			l.stop()
		}
		table.wg.Wait()
		addProcessors(-len(table.loops))
		for _, l := range table.loops {
			for i := range l.ports {
				if chunk := l.ports[i].Load(); chunk != nil {
					for j := range chunk {
						if p := chunk[j].Load(); p != nil {
							unix.Close(p.fd)
						}
					}
				}
			}
			l.waiter.release()
		}
	}
	k.halt()
	k.closed.Store(true)
	k.release()
}

// sent is a steady stream of a party.
type stream struct {
	stop chan struct{}
	done chan uint16
}

// steady sends an RTP packet each millisecond.
func steady(from *net.UDPConn, to netip.AddrPort, seq uint16) *stream {
	s := &stream{stop: make(chan struct{}), done: make(chan uint16, 1)}
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				s.done <- seq
				return
			case <-tick.C:
				from.WriteToUDPAddrPort(rtpPacket(seq, 7), to)
				seq++
			}
		}
	}()
	return s
}

// end returns the next sequence number.
func (s *stream) end() uint16 {
	close(s.stop)
	return <-s.done
}

// collect receives until packet last, and wants all from first on, in order.
func collect(t *testing.T, c *net.UDPConn, first, last uint16) {
	t.Helper()
	for want := first; ; want++ {
		got, _ := receive(t, c)
		if n := uint16(got[2])<<8 | uint16(got[3]); n != want {
			t.Fatalf("packet %d after %d: lost or out of order", n, want-1)
		}
		if want == last {
			return
		}
	}
}

func recordOf(t *testing.T, p Port) *record {
	t.Helper()
	return p.(*port).rec
}

// A killed relay's calls go on in the kernel; the next one takes them over without a
// packet lost, a counter begun anew or a flow written again.
func TestAdoptAfterKill(t *testing.T) {
	for _, level := range []string{best, "clsact and sk_lookup", "tcx and a socket for each port"} {
		for family, at := range families {
			t.Run(level+"/"+family, func(t *testing.T) {
				n := newNetwork(t)
				cfg := Config{Pins: pins(t)}
				table := openLevel(t, level, cfg)
				c := newCall(t, n, table, at)
				seq := c.settle(t, table, 0)
				lost := openPort3(t, table, at, refuse) // a port that the next relay does not want
				control(t, c.callee, func(fd int, _ bool) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<22) })
				before, generation := c.a.Counters(), recordOf(t, c.a).generation()
				forth := steady(c.caller, c.a.Local(), seq)
				eventually(t, "the stream runs", func() bool { return c.a.Counters().Packets > before.Packets+20 })

				die(t, table)
				dead := time.Now()
				table = openLevel(t, level, cfg)
				c.table = table
				t.Logf("the next one was there after %v", time.Since(dead))
				c.forth.port, c.back.port = nil, nil
				c.open(t, table.Adopt, at)
				if got := c.a.Counters(); got.Packets < before.Packets+20 || got.FirstSeen != before.FirstSeen {
					t.Errorf("counters %+v, before %+v", got, before)
				}
				c.a.Install(Flow{Source: addrOf(c.caller), Out: c.b, Dest: addrOf(c.callee)})
				c.b.Install(Flow{Source: addrOf(c.callee), Out: c.a, Dest: addrOf(c.caller)})
				if got := recordOf(t, c.a).generation(); got != generation {
					t.Errorf("the flow was written %d times", got-generation)
				}
				if dropped := table.Claimed(); dropped != 1 {
					t.Errorf("%d ports were not wanted, want 1", dropped)
				}
				if state := table.(interface{ recordAt(netip.AddrPort) *record }).recordAt(lost).state.Load(); state != stateOff {
					t.Errorf("the unwanted port is in state %d", state)
				}
				last := forth.end() - 1
				collect(t, c.callee, seq, last)
				eventually(t, "all packets are counted", func() bool {
					return c.a.Counters().Packets == uint64(last)+1
				})
				if got := c.a.Counters(); got.Quality.Lost != 0 || got.Quality.Sequence != last {
					t.Errorf("quality %+v, want no loss until %d", got.Quality, last)
				}
				if s := table.Stats(); s.Undecided != 0 {
					t.Errorf("%d packets came up", s.Undecided)
				}
				c.talk(t, last+1)
			})
		}
	}
}

func openPort3(t *testing.T, table Table, at addresses, h handlerFunc) netip.AddrPort {
	t.Helper()
	p, err := table.Open(netip.AddrPortFrom(at.left, firstPort+10), 1, h)
	if err != nil {
		t.Fatal(err)
	}
	return p.Local()
}

func (t *steered) recordAt(a netip.AddrPort) *record {
	i, _ := t.kernel.mem.index(a)
	return &t.kernel.mem.records[i]
}
func (t *loops) recordAt(a netip.AddrPort) *record {
	i, _ := t.memory.index(a)
	return &t.memory.records[i]
}

// The next relay has other addresses: the table gets another size, and the calls on
// the addresses that stay go on.
func TestAdoptWithOtherAddresses(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after []netip.Addr
	}{
		{"one more, and in front", []netip.Addr{addresses4.left, addresses4.right}, []netip.Addr{addresses6.left, addresses4.right, addresses4.left}},
		{"one less", locals(), []netip.Addr{addresses4.right, addresses4.left}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t)
			cfg := Config{Pins: pins(t), Locals: c.before}
			table := openLevel(t, best, cfg)
			call := newCall(t, n, table, addresses4)
			seq := call.settle(t, table, 0)
			control(t, call.callee, func(fd int, _ bool) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<22) })
			first := call.a.Counters().FirstSeen
			forth := steady(call.caller, call.a.Local(), seq)
			die(t, table)
			cfg.Locals = c.after
			table = openLevel(t, best, cfg)
			call.table = table
			call.open(t, table.Adopt, addresses4)
			call.a.Install(Flow{Source: addrOf(call.caller), Out: call.b, Dest: addrOf(call.callee)})
			call.b.Install(Flow{Source: addrOf(call.callee), Out: call.a, Dest: addrOf(call.caller)})
			if dropped := table.Claimed(); dropped != 0 {
				t.Errorf("%d ports were not wanted, want 0", dropped)
			}
			last := forth.end() - 1
			collect(t, call.callee, seq, last)
			eventually(t, "all packets are counted", func() bool { return call.a.Counters().Packets == uint64(last)+1 })
			if got := call.a.Counters(); got.FirstSeen != first || got.Quality.Lost != 0 {
				t.Errorf("counters %+v, first packet was at %v", got, first)
			}
			if got := call.b.Counters().Quality; got.Sequence != seq-1 || !got.HasRTP || got.Lost != 0 {
				t.Errorf("quality of the silent direction %+v, want sequence %d", got, seq-1)
			}
			call.talk(t, last+1)
			call.settle(t, table, last+2)
		})
	}
}

// A flow whose way out is no longer an address of the relay is left to user space.
func TestAdoptWithoutTheWayOut(t *testing.T) {
	n := newNetwork(t)
	cfg := Config{Pins: pins(t), Locals: []netip.Addr{addresses4.left, addresses4.right}}
	table := openLevel(t, best, cfg)
	c := newCall(t, n, table, addresses4)
	c.settle(t, table, 0)
	die(t, table)
	cfg.Locals = cfg.Locals[:1]
	table = openLevel(t, best, cfg)
	a, err := table.Adopt(c.a.Local(), 1, handlerFunc(refuse))
	if err != nil {
		t.Fatal(err)
	}
	before := a.Counters()
	if _, err := c.caller.WriteToUDPAddrPort(rtpPacket(9, 7), a.Local()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "user space has the port", func() bool { return a.Counters().Refused == before.Refused+1 })
	silent(t, c.callee)
	if _, err := table.Adopt(c.b.Local(), 1, handlerFunc(refuse)); err == nil {
		t.Error("a port of an address that the relay does not have was opened")
	}
}

// What a relay had the kernel do ends when the next one is to do it otherwise: nobody
// would keep those flows true.
func TestOtherFastPathAfterRestart(t *testing.T) {
	for _, c := range []struct{ before, after string }{
		{best, "sk_lookup, in user space"}, {"clsact and sk_lookup", "sk_lookup, in user space"},
		{best, "clsact and sk_lookup"}, {"clsact and sk_lookup", best}, {best, "tcx and a socket for each port"},
	} {
		t.Run(c.before+", then "+c.after, func(t *testing.T) {
			n := newNetwork(t)
			cfg := Config{Pins: pins(t)}
			table := openLevel(t, c.before, cfg)
			call := newCall(t, n, table, addresses4)
			call.settle(t, table, 0)
			before := call.a.Counters().Packets
			die(t, table)
			table = openLevel(t, c.after, cfg)
			call.table = table
			call.open(t, table.Adopt, addresses4)
			if call.a.Counters().Packets != before {
				t.Errorf("%d packets are counted, want %d", call.a.Counters().Packets, before)
			}
			other := n.callee.phone(addresses4.callee)
			call.a.Install(Flow{Source: addrOf(call.caller), Out: call.b, Dest: addrOf(other)})
			if _, err := call.caller.WriteToUDPAddrPort([]byte("to the other"), call.a.Local()); err != nil {
				t.Fatal(err)
			}
			if got, from := receive(t, other); got != "to the other" || from != call.b.Local() {
				t.Errorf("got %q from %v", got, from)
			}
			eventually(t, "the packet is counted once", func() bool { return table.Stats().Packets == 1 && call.a.Counters().Packets == before+1 })
			if kernel := table.Mover() == MoverKernel; kernel != (table.Stats().Kernel.Packets == 1) {
				t.Errorf("moved by %s, stats %+v", table.Mover(), table.Stats())
			}
			wantPins(t, cfg.Pins, c.after)
		})
	}
}

// Without the kernel its flows end, however they were attached.
func TestNoFastPathAfterRestart(t *testing.T) {
	for _, level := range []string{best, "clsact and a socket for each port"} {
		t.Run(level, func(t *testing.T) {
			n := newNetwork(t)
			cfg := Config{Pins: pins(t), Locals: locals()}
			table := openLevel(t, level, cfg)
			c := newCall(t, n, table, addresses4)
			c.settle(t, table, 0)
			die(t, table)
			cfg.FastPath = Off
			table, err := Open(cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { table.Close() })
			c.table = table
			c.open(t, table.Adopt, addresses4)
			c.talk(t, 1)
			eventually(t, "user space moves both packets", func() bool { return table.Stats().Undecided == 2 && table.Stats().Packets == 2 })
			if _, err := os.Stat(cfg.Pins); !os.IsNotExist(err) {
				t.Errorf("the former table is still there: %v", err)
			}
		})
	}
}

// wantPins compares the attachments that are pinned with those that a level needs.
func wantPins(t *testing.T, folder, level string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(folder, abiFolder))
	if err != nil {
		t.Fatal(err)
	}
	var ingress, lookup int
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ingressPin) {
			ingress++
		}
		if f.Name() == lookupPin {
			lookup++
		}
	}
	want := [2]int{0, 0}
	if strings.HasPrefix(level, "tcx") {
		want[0] = 2
	}
	if strings.Contains(level, "sk_lookup") {
		want[1] = 1
	}
	if got := [2]int{ingress, lookup}; got != want {
		t.Errorf("%d devices and %d lookups are pinned, want %d", ingress, lookup, want)
	}
}

// A relay that nobody starts again stops to move media after its lease.
func TestLeaseEnds(t *testing.T) {
	n := newNetwork(t)
	cfg := Config{Pins: pins(t), Lease: time.Hour}
	table := openLevel(t, best, cfg)
	c := newCall(t, n, table, addresses4)
	c.settle(t, table, 0)
	die(t, table)
	g := pinnedGlobals(t, cfg.Pins)
	c.caller.WriteToUDPAddrPort(rtpPacket(1, 7), c.a.Local())
	receive(t, c.callee)
	g.heartbeat.Store(uint64(monotonic() - time.Hour - time.Second))
	c.caller.WriteToUDPAddrPort(rtpPacket(2, 7), c.a.Local())
	silent(t, c.callee)
	g.heartbeat.Store(uint64(monotonic() - time.Hour + 30*time.Second)) // a little is left
	c.caller.WriteToUDPAddrPort(rtpPacket(3, 7), c.a.Local())
	receive(t, c.callee)
	table = openLevel(t, best, cfg)
	if n := table.Stats().Kernel.Orphaned; n != 0 {
		t.Errorf("the new process counts %d orphaned packets of the old one", n)
	}
}

func pinnedGlobals(t *testing.T, folder string) *globals {
	t.Helper()
	b := pinnedMemory(t, folder, flowMapGlobals)
	return (*globals)(unsafe.Pointer(unsafe.SliceData(b)))
}

// The flows of a former process go on through every attempt to attach that fails, and the
// one that does not takes them over.
func TestAttemptsThatFailEndNoFlow(t *testing.T) {
	for _, c := range []struct{ before, refused, after string }{
		{"tcx and a socket for each port", "sk_lookup", "tcx and a socket for each port"}, // after the program was attached to the devices
		{"clsact and a socket for each port", "sk_lookup", "tcx and a socket for each port"},
		{"clsact and a socket for each port", "sk_lookup,tcx", "clsact and a socket for each port"},
		{best, "new device", ""}, // all attempts fail
	} {
		t.Run(c.before+", refused: "+c.refused, func(t *testing.T) {
			n := newNetwork(t)
			cfg := Config{Pins: pins(t), Locals: locals(), FastPath: TC, Threads: 2}
			table := openLevel(t, c.before, cfg)
			call := newCall(t, n, table, addresses4)
			seq := call.settle(t, table, 0)
			control(t, call.callee, func(fd int, _ bool) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<22) })
			forth := steady(call.caller, call.a.Local(), seq)
			eventually(t, "the stream runs", func() bool { return call.a.Counters().Packets > uint64(seq)+20 })
			die(t, table)

			defer func(was func(string) error) { refused = was }(refused)
			tried := 0
			refused = func(hook string) error {
				if strings.Contains(c.refused, hook) || hook == "tcx" && strings.Contains(c.refused, "new device") || hook == "clsact" && c.after == "" {
					tried++
					return ebpf.ErrNotSupported
				}
				return nil
			}
			if c.after == "" { // an attempt that is the last of the kernel's
				n.cable("third", n.caller, "up1")
				relayIP(t, "addr add 10.1.0.1/32 dev third")
				for _, l := range levels {
					if !l.kernel {
						continue
					}
					cfg := cfg
					cfg.setDefaults(1)
					if other, err := l.open(cfg, slog.New(slog.DiscardHandler)); err == nil {
						other.Close()
						t.Fatalf("%s did not fail", l.name)
					}
				}
			} else {
				next, err := Open(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { next.Close() })
				wantPins(t, cfg.Pins, c.after)
				call.table = next
				call.forth.port, call.back.port = nil, nil
				call.open(t, next.Adopt, addresses4)
			}
			if tried == 0 {
				t.Fatal("nothing was refused")
			}
			last := forth.end() - 1
			collect(t, call.callee, seq, last)
		})
	}
}
