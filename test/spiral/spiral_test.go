package spiral

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var payload = site.Payload(172)

type stage struct {
	*testing.T
	d          *site.Dispatcher
	r          *site.Relay
	module     *site.Line
	alice, bob *site.Phone
}

const relayIP = "127.14.0.1"

func newStage(t *testing.T) *stage {
	s := site.New(t, site.Options{})
	st := &stage{T: t, d: s.Dispatcher("d", nil)}
	st.r = s.Relay("r", site.RelayConfig{Media: site.Lowest(relayIP, 50000, 50100), Dispatchers: []string{st.d.RelayAddr().String()}})
	st.module = st.d.Module()
	st.alice, st.bob = site.NewPhone(t, "127.14.0.2:4000"), site.NewPhone(t, "127.14.0.3:3000")
	return st
}

// pass is what the SIP proxy asks on one pass of the call: an offer that leads on, and
// the answer to it.
type pass struct {
	from, to       string
	toNext, toPrev netip.AddrPort
}

func (s *stage) offer(p *pass, media netip.AddrPort) netip.AddrPort {
	s.Helper()
	p.toNext = s.module.Update(site.Message{Kind: "request", CallID: "spiral", From: p.from, Source: "127.14.0.2", Media: site.Audio(media)})[0]
	return p.toNext
}

func (s *stage) answer(p *pass, media netip.AddrPort) netip.AddrPort {
	s.Helper()
	p.toPrev = s.module.Update(site.Message{Kind: "reply", CallID: "spiral", From: p.from, To: p.to, Source: "127.14.0.3", Media: site.Audio(media)})[0]
	return p.toPrev
}

// talk has both parties speak; the first of them is the first one heard.
func (s *stage) talk(first string, toAlice, toBob netip.AddrPort) {
	s.Helper()
	both := []func(){
		func() { site.Exchange(s, s.alice, toAlice, s.bob, toBob, payload) },
		func() { site.Exchange(s, s.bob, toBob, s.alice, toAlice, payload) },
	}
	if first == "bob" {
		both[0], both[1] = both[1], both[0]
	}
	for range 10 {
		both[0]()
		both[1]()
	}
}

// TestB2BUA: one Call-ID, two dialogs with tags of their own. Every packet passes the
// relay twice.
func TestB2BUA(t *testing.T) {
	for _, first := range []string{"alice", "bob"} {
		t.Run(first+" speaks first", func(t *testing.T) {
			s := newStage(t)
			one, two := pass{from: "a1", to: "b1"}, pass{from: "a2", to: "b2"}
			toBob := s.offer(&two, s.offer(&one, s.alice.Addr))
			toAlice := s.answer(&one, s.answer(&two, s.bob.Addr))
			if one.toNext == two.toNext || one.toPrev == two.toPrev {
				t.Fatalf("both passes have the ports %v and %v, want two sessions", one, two)
			}
			if n := s.r.Table.Len(); n != 2 {
				t.Fatalf("got %d sessions, want 2", n)
			}
			s.talk(first, toAlice, toBob)
			if got := s.module.Ask(site.Remove("spiral", "a1", "b1")); got != "removed" {
				t.Fatalf("remove of the first dialog: %q", got)
			}
			if got := s.module.Ask(site.Remove("spiral", "b2", "a2")); got != "removed" { // a BYE of the callee
				t.Fatalf("remove of the second dialog: %q", got)
			}
			records := s.d.AwaitRecords(2)
			for i, tag := range []string{"a1", "a2"} {
				got := records[i]
				if got.FromTag != tag || got.Reason != report.ReasonRemoved || got.Streams[0].CallerPackets != 10 || got.Streams[0].CalleePackets != 10 {
					t.Errorf("record %d: got %+v, want that of %s with 10 packets each way", i, got, tag)
				}
			}
			if got := records[0].Streams[0]; got.CalleeRemote != two.toPrev.String() {
				t.Errorf("the first dialog's callee was %s, want the relay's own port %v", got.CalleeRemote, two.toPrev)
			}
		})
	}
}

// TestSpiral: the same dialog twice. The second pass changes nothing and is answered
// the same ports; the packets pass the relay once.
func TestSpiral(t *testing.T) {
	for _, first := range []string{"alice", "bob"} {
		t.Run(first+" speaks first", func(t *testing.T) {
			s := newStage(t)
			p := pass{from: "a", to: "b"}
			toBob := s.offer(&p, s.alice.Addr)
			if again := s.offer(&p, toBob); again != toBob {
				t.Fatalf("second pass of the offer: got %v, want %v", again, toBob)
			}
			toAlice := s.answer(&p, s.bob.Addr)
			if again := s.answer(&p, toAlice); again != toAlice {
				t.Fatalf("second pass of the answer: got %v, want %v", again, toAlice)
			}
			if n := s.r.Table.Len(); n != 1 {
				t.Fatalf("got %d sessions, want 1", n)
			}
			s.talk(first, toAlice, toBob)

			// Both passes end, one after the other.
			if got := s.module.Ask(site.Remove("spiral", "a", "b")); got != "removed" {
				t.Fatalf("first remove: %q", got)
			}
			if got := s.module.Ask(site.Remove("spiral", "a", "b")); got != "error" {
				t.Fatalf("second remove: %q, want error, which the modules take for done", got)
			}
			got := s.d.AwaitRecords(1)[0]
			if st := got.Streams[0]; st.CallerPackets != 10 || st.CalleePackets != 10 || st.CallerRemote != s.alice.Addr.String() || st.CalleeRemote != s.bob.Addr.String() {
				t.Errorf("got %+v, want 10 packets each way between the phones", st)
			}
		})
	}
}

// TestSpiralReinvite: the dialog goes on through both passes after a re-INVITE of the
// callee.
func TestSpiralReinvite(t *testing.T) {
	s := newStage(t)
	p := pass{from: "a", to: "b"}
	toBob := s.offer(&p, s.alice.Addr)
	s.offer(&p, toBob)
	toAlice := s.answer(&p, s.bob.Addr)
	s.answer(&p, toAlice)
	s.talk("alice", toAlice, toBob)

	moved := site.NewPhone(t, "127.14.0.3:3100")
	update := func(kind string, media netip.AddrPort) netip.AddrPort {
		t.Helper()
		return s.module.Update(site.Message{Kind: kind, CallID: "spiral", From: "b", To: "a", Media: site.Audio(media)})[0]
	}
	toAlice = update("request", moved.Addr)
	if again := update("request", toAlice); again != toAlice {
		t.Fatalf("second pass of the re-INVITE: got %v, want %v", again, toAlice)
	}
	toBob = update("reply", s.alice.Addr)
	if again := update("reply", toBob); again != toBob {
		t.Fatalf("second pass of its answer: got %v, want %v", again, toBob)
	}
	s.bob = moved
	s.talk("bob", toAlice, toBob)
}
