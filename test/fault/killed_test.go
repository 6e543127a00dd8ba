package fault

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/test/internal/site"
)

// TestRelayKilled: the relay of one call dies. The call of the other relay does not
// notice; the lost one is listed, its next offer is placed on the relay that is left.
func TestRelayKilled(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r1, _ := s.relay(1), s.relay(2)
	module := s.d.Module()
	lost, forgotten, other := s.setUp(module, "lost", "r1"), s.setUp(module, "forgotten", "r1"), s.setUp(module, "other", s.net+"2")

	r1.Kill()
	other.talk()
	s.d.Log.Await(t, "relay connection lost", "relay=r1", "calls=2")
	for _, want := range []string{`"call_id": "lost"`, `"relay": "r1"`, `"call_id": "forgotten"`} {
		if got := s.manage("sessions lost"); !strings.Contains(got, want) || strings.Contains(got, "other") {
			t.Errorf("sessions lost: got %s, want %s in it, and not the other call", got, want)
		}
	}
	if got, code := s.d.Ctl("sessions", "--lost"); code != 0 || !strings.Contains(got, "lost") || !strings.Contains(got, "r1") || strings.Contains(got, "other") {
		t.Errorf("ctl sessions --lost: code %d, got\n%s", code, got)
	}
	if got, _ := s.d.Ctl("summary"); strings.Contains(got, "r1") || !strings.Contains(got, "r2") {
		t.Errorf("ctl summary: want r2 alone, got\n%s", got)
	}

	// What changes nothing is refused; the call may still come back with its relay.
	if got := module.Ask(lost.answer(1).String()); got != "error" {
		t.Errorf("a late answer of the lost call: got %q, want error", got)
	}
	s.d.Log.Await(t, "answered error", "call_id=lost", "relay of the call is not connected")
	lost.invite(module, 2, "")
	if ip := lost.toAlice.Addr().String(); ip != s.net+"2" {
		t.Fatalf("the lost call was placed on %s, want %s2", ip, s.net)
	}
	s.d.Log.Await(t, "call is placed anew", "call_id=lost", "relay=r1")
	lost.talk()
	other.talk()
	if got := s.manage("sessions lost"); strings.Contains(got, `"lost"`) || !strings.Contains(got, "forgotten") {
		t.Errorf("sessions lost, after the re-INVITE: got %s", got)
	}

	// It comes back and has both. What went elsewhere meanwhile is ended there, with a
	// report of its own; the other call goes on as if nothing had been.
	s.relay(1)
	s.d.Log.Await(t, "call goes over another relay by now, ended here", "call_id=lost", "relay=r1")
	site.Eventually(t, "the first part of the lost call is taken over", func() bool { return lost.records() == 1 })
	forgotten.talk()
	if got := s.manage("sessions lost"); got != "[]" {
		t.Errorf("sessions lost, with the relay back: got %s", got)
	}
	lost.talk()
	if got := module.Ask(lost.remove()); got != "removed" {
		t.Errorf("remove of the lost call: got %q, want removed", got)
	}
	site.Eventually(t, "its second part is taken over", func() bool { return lost.records() == 2 })
	forgotten.hangUp(module)
	other.hangUp(module)
}

// closed says whether the relay's port for the caller is no longer open. A stranger
// asks: what it sends keeps no call alive.
func (c *call) closed() bool {
	c.Helper()
	from := netip.MustParseAddrPort(c.net + "103:0")
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(c.toAlice))
	if err != nil {
		c.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0}); err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	return errors.Is(err, syscall.ECONNREFUSED)
}

// TestDispatcherKilled: media goes on without a dispatcher. The next one learns its
// calls from the relay, hangs one up, and hears once of one that ended meanwhile.
func TestDispatcherKilled(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := s.relay(1, "idle_timeout = 2", "stream_timeout = 2", "fast_path = off") // else a port that rests is not closed
	module := s.d.Module()
	up := s.setUp(module, "up", "")
	silent := s.setUp(module, "silent", "")

	s.d.Kill()
	r.Log.Await(t, "connection to dispatcher lost")
	up.talk()
	// The silent one times out while nobody is there to be told.
	site.Eventually(t, "the ports of the silent call are closed", func() bool { up.talk(); return silent.closed() })
	r.Log.Await(t, "call over", "call_id=silent", "reason=timeout")

	s.d = s.dispatcher()
	s.d.Log.Await(t, "calls of the relay compared", "calls=1")
	up.talk()
	s.d.Log.Await(t, "call over", "call_id=silent", "reason=timeout")
	module = s.d.Module()
	up.hangUp(module)
	if got := module.Ask(silent.remove()); got != "error" {
		t.Errorf("remove of the call that had ended: got %q, want error", got)
	}
	// Whatever would come again has come by the time that another call is reported.
	s.setUp(module, "later", "").hangUp(module)
	if n := silent.records(); n != 1 {
		t.Errorf("the end of the silent call was taken over %d times, want once", n)
	}
}
