package hitless

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/module"
	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/program"
)

var (
	relayIP  = netip.MustParseAddr("45.8.0.9")
	callerIP = netip.MustParseAddr("45.20.1.11")
	calleeIP = netip.MustParseAddr("45.30.7.11")
)

func soaks() bool { return os.Getenv("MEDIAPROXY_TEST") == "soak" }

// calls is how many there are. In the gate other things may run; the packets that the
// generator itself cannot send or receive in time are not the relay's.
func calls() int {
	if soaks() {
		return 500
	}
	return 200
}

// site is a relay under load.
type site struct {
	t      *testing.T
	pair   *program.Pair
	client *module.Client
	load   *load
	n      int
}

func newSite(t *testing.T, binary, fastPath string, n int) *site {
	t.Helper()
	netlab.Needs(t)
	lab := netlab.New(t)
	relay := lab.Host("relay", relayIP)
	hosts := [2]*netlab.Host{lab.Host("callers", callerIP), lab.Host("callees", calleeIP)}
	s := &site{t: t, n: n}
	s.pair = program.Start(t, binary, relay, program.Settings{
		"relay_ip": relayIP.String(), "port_range": "40000:48000", "fast_path": fastPath, "on_stop": "keep",
	})
	s.load = newLoad(t, hosts, [2]netip.Addr{callerIP, calleeIP})
	s.dial()
	for i := range n {
		s.load.add(s.call(fmt.Sprintf("%d@hitless", i)))
	}
	return s
}

func (s *site) dial() {
	c, err := module.Dial(s.pair.Socket, 5*time.Second) // the module's own patience is another test's business
	if err != nil {
		s.t.Fatal(err)
	}
	s.client = c
}

// call sets up an answered call and returns where caller and callee send their media.
func (s *site) call(id string) (to [2]netip.AddrPort) {
	s.t.Helper()
	to, err := s.tryCall(id)
	if err != nil {
		s.t.Fatal(err)
	}
	return to
}

func (s *site) tryCall(id string) (to [2]netip.AddrPort, err error) {
	for i, u := range []control.Update{
		{Kind: control.KindRequest, CallID: id, DialogID: "dialog-" + id, FromTag: "f", CSeq: 1, UserAgent: "test", FromURI: "a@example.org", ToURI: "b@example.org"},
		{Kind: control.KindReply, CallID: id, DialogID: "dialog-" + id, FromTag: "f", ToTag: "t", CSeq: 1, UserAgent: "test", FromURI: "a@example.org", ToURI: "b@example.org"},
	} {
		ip := s.load.sides[i].addr
		u.HasMedia = true
		u.Signaling.IP = ip.Addr()
		u.Media, err = control.ParseMedia(fmt.Sprintf("audio:%s:%d:sendrecv:ice=no", ip.Addr(), ip.Port()))
		if err != nil {
			return to, err
		}
		answer, err := s.client.Update(u)
		if err != nil {
			return to, err
		}
		to[1-i] = netip.AddrPortFrom(answer.IP, answer.Ports[0])
	}
	return to, nil
}

// hangUp ends the calls, so that nothing stays in the kernel. Each has to be known.
func (s *site) hangUp() {
	for i := range s.n {
		if err := s.client.Remove(control.Remove{CallID: fmt.Sprintf("%d@hitless", i), FromTag: "f", ToTag: "t"}); err != nil {
			s.t.Errorf("hang up: %v", err)
			break
		}
	}
	s.n = 0
	s.client.Close()
}

// until waits for a condition.
func (s *site) until(what string, ready func() error) {
	s.t.Helper()
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if last = ready(); last == nil {
			return
		}
	}
	s.t.Fatalf("%s: %v", what, last)
}

// established waits until every direction of every call is moved by what is asked for.
func (s *site) established(mover string) map[string]report.Session {
	s.t.Helper()
	s.until("everybody hears the other party", s.load.everyoneHears)
	var list map[string]report.Session
	s.until("all directions are moved by "+mover, func() (err error) {
		if list, err = s.full(); err != nil {
			return err
		}
		for id, d := range list {
			for _, st := range d.Streams {
				if st.Caller == nil || st.Callee == nil || st.Caller.Mover != mover || st.Callee.Mover != mover {
					return fmt.Errorf("call %s: %+v and %+v", id, st.Caller, st.Callee)
				}
			}
		}
		return nil
	})
	return list
}

// full are the documents of all calls, by Call-ID, with all that link/2 carries.
func (s *site) full() (map[string]report.Session, error) {
	docs, err := program.Documents[report.Session](s.pair, "sessions", "--order", "call_id")
	if err != nil {
		return nil, err
	}
	byID := map[string]report.Session{}
	for _, d := range docs {
		byID[d.CallID] = d
	}
	if len(byID) != s.n {
		return byID, fmt.Errorf("%d calls, want %d", len(byID), s.n)
	}
	return byID, nil
}

// same fails the test when the calls are not those that they were.
func (s *site) same(before, after map[string]report.Session) {
	s.t.Helper()
	for id, b := range before {
		a := after[id]
		if *a.StartTime != *b.StartTime || a.DialogID != b.DialogID || *a.ToTag != *b.ToTag || a.CallerUA != b.CallerUA || len(a.Streams) != len(b.Streams) {
			s.t.Errorf("call %s was\n%+v\nand is\n%+v", id, b, a)
			continue
		}
		for i, bs := range b.Streams {
			as := a.Streams[i]
			if as.CallerLocal != bs.CallerLocal || as.CalleeLocal != bs.CalleeLocal || as.CallerRemote != bs.CallerRemote || as.CalleeRemote != bs.CalleeRemote ||
				as.Status != bs.Status || as.CallerPackets < bs.CallerPackets || as.CalleePackets < bs.CalleePackets {
				s.t.Errorf("stream %d of call %s was\n%+v\nand is\n%+v", i, id, bs, as)
			}
		}
	}
}

// countersAreTrue compares the relay's counters with what the phones sent, once they
// have stopped.
func (s *site) countersAreTrue(list map[string]report.Session) {
	s.t.Helper()
	for i := range s.n {
		d := list[fmt.Sprintf("%d@hitless", i)]
		for side, got := range []uint64{d.Streams[0].CallerPackets, d.Streams[0].CalleePackets} {
			if sent := s.load.sides[side].flows[i].sent.Load(); got != sent {
				s.t.Errorf("call %d: the relay counted %d packets of party %d, which sent %d", i, got, side, sent)
			}
		}
	}
}

// A disturbance is one way in which a relay's process is replaced.
type disturbance struct {
	name   string
	signal syscall.Signal
	binary string // of the next process
}

// Established calls lose no packet when the relay's process ends, however it does, and
// go on as the same calls.
func TestKernelFlowsOutliveTheProcess(t *testing.T) {
	old, next := program.Build(t), program.Build(t, "another")
	rounds := 1
	if soaks() {
		rounds = 20
	}
	for _, d := range []disturbance{
		{"killed", syscall.SIGKILL, old},
		{"stopped", syscall.SIGTERM, old},
		{"upgraded", syscall.SIGTERM, next},
	} {
		t.Run(d.name, func(t *testing.T) {
			s := newSite(t, old, "tc", calls())
			defer s.hangUp() // not a cleanup: the relays that follow are stopped before it
			s.load.run()
			before := s.established("tc")
			s.load.forget()
			for range rounds {
				s.talk(50)
				s.disturb(d)
				s.startTwice()
				s.talk(50)
				after := s.established("tc")
				s.same(before, after)
				before = after
			}
			s.load.stop()
			sum := s.load.total()
			t.Logf("%d rounds, %d calls, %d packets, %d lost, longest gap %v", rounds, s.n, sum.packets, sum.lost, sum.largestGap)
			if sum.lost != 0 || sum.late != 0 || sum.strange != 0 {
				t.Errorf("%+v, want nothing lost, late or from elsewhere", sum)
			}
			list, err := s.full()
			if err != nil {
				t.Fatal(err)
			}
			s.countersAreTrue(list)
		})
	}
}

// talk waits until each phone has sent so many packets more.
func (s *site) talk(packets uint64) {
	s.t.Helper()
	f := s.load.sides[0].flows[0]
	target := f.sent.Load() + packets
	s.until("the phones talk", func() error {
		if n := f.sent.Load(); n < target {
			return fmt.Errorf("%d packets sent, want %d", n, target)
		}
		return nil
	})
}

// disturb replaces the relay's process and waits until a new call is taken.
func (s *site) disturb(d disturbance) {
	s.t.Helper()
	s.pair.StopRelay(d.signal)
	s.talk(50) // nobody is there
	began := time.Now()
	s.pair.StartRelay(d.binary)
	s.until("the new process takes calls", func() error {
		if _, err := s.tryCall("new@hitless"); err != nil {
			return err
		}
		return s.client.Remove(control.Remove{CallID: "new@hitless", FromTag: "f", ToTag: "t"})
	})
	s.t.Logf("%s: a new call is taken %v after the start", d.name, time.Since(began).Round(time.Millisecond))
}

// startTwice starts the relay once more, which has to leave everything as it is.
func (s *site) startTwice() {
	s.t.Helper()
	printed, exit := s.pair.SecondRelay()
	if exit != 1 || !strings.Contains(printed, "runs already") {
		s.t.Errorf("a second relay with the same state_dir ended with %d and printed\n%s", exit, printed)
	}
}

// In user space nobody moves packets while no process is there. The calls go on by
// themselves as soon as one is, without any signalling.
func TestUserSpaceCallsGoOn(t *testing.T) {
	binary := program.Build(t)
	for _, fastPath := range []string{"sk_lookup", "off"} {
		t.Run(fastPath, func(t *testing.T) {
			s := newSite(t, binary, fastPath, 50)
			defer s.hangUp()
			s.load.run()
			before := s.established("user-space")
			s.pair.StopRelay(syscall.SIGKILL)
			s.load.forget()
			began := time.Now()
			s.pair.StartRelay(binary)
			s.until("everybody hears the other party again", s.load.everyoneHears)
			t.Logf("everybody hears the other party %v after the start", time.Since(began).Round(time.Millisecond))
			after := s.established("user-space")
			s.same(before, after)
			s.load.stop()
			list, err := s.full()
			if err != nil {
				t.Fatal(err)
			}
			s.countersGoOn(before, list)
		})
	}
}

// countersGoOn makes sure that the counters of the former process are part of those of
// the next one, and that none is more than what was sent.
func (s *site) countersGoOn(before, after map[string]report.Session) {
	s.t.Helper()
	for i := range s.n {
		id := fmt.Sprintf("%d@hitless", i)
		b, a := before[id].Streams[0], after[id].Streams[0]
		for side, n := range [2][2]uint64{{b.CallerPackets, a.CallerPackets}, {b.CalleePackets, a.CalleePackets}} {
			if sent := s.load.sides[side].flows[i].sent.Load(); n[1] <= n[0] || n[1] > sent {
				s.t.Errorf("call %s: party %d had %d packets before, %d after, and sent %d", id, side, n[0], n[1], sent)
			}
		}
	}
}

// After a restart of the machine the journal is there and everything in the kernel is
// gone: calls go on on the same ports.
func TestCallsOutliveTheMachine(t *testing.T) {
	binary := program.Build(t)
	s := newSite(t, binary, "tc", 20)
	defer s.hangUp()
	s.load.run()
	before := s.established("tc")
	s.pair.StopRelay(syscall.SIGKILL)
	if err := os.RemoveAll(s.pair.Pins()); err != nil {
		t.Fatal(err)
	}
	s.load.forget()
	s.pair.StartRelay(binary)
	after := s.established("tc")
	for id, b := range before {
		as, bs := after[id].Streams[0], b.Streams[0]
		if as.CallerLocal != bs.CallerLocal || as.CalleeLocal != bs.CalleeLocal || *after[id].StartTime != *b.StartTime {
			t.Errorf("call %s was\n%+v\nand is\n%+v", id, b, after[id])
		}
	}
	sum := s.load.total()
	if sum.packets == 0 || sum.strange != 0 {
		t.Errorf("%+v, want packets from the same ports", sum)
	}
}
