package fault

import (
	"strings"
	"testing"
	"time"
)

// TestOnlyRelayKilled: there is no other relay. The module is told so in time to go on
// without; once the relay is back, the call has its media again.
func TestOnlyRelayKilled(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := s.relay(1)
	module := s.d.Module()
	c := s.setUp(module, "alone", "")

	r.Kill()
	s.d.Log.Await(t, "relay connection lost", "relay=r1", "calls=1")
	before := time.Now()
	if got := module.Ask(c.offer(2, "").String()); got != "error" {
		t.Fatalf("re-INVITE without a relay: got %q, want error", got)
	}
	// The deadline is 400 ms; what is above that is the machine's.
	if took := time.Since(before); took > time.Second {
		t.Errorf("the answer took %v, longer than any module waits", took)
	}
	s.d.Log.Await(t, "answered error", "call_id=alone", "no relay is connected that takes new calls")
	if got := s.manage("sessions lost"); !strings.Contains(got, `"call_id": "alone"`) {
		t.Errorf("sessions lost: got %s", got)
	}
	if got, code := s.d.Ctl("summary"); code != 3 || !strings.Contains(got, "no relay is connected to the dispatcher") {
		t.Errorf("ctl summary: got code %d and %q", code, got)
	}

	s.relay(1)
	c.talk()
	c.invite(module, 3, "")
	c.talk()
	if got := s.manage("sessions lost"); got != "[]" {
		t.Errorf("sessions lost, with the relay back: got %s", got)
	}
	c.hangUp(module)
}

// TestRelayHangs: a relay that is connected and does nothing. New calls get the other
// one in time; what the first does for them when it wakes up is taken back.
func TestRelayHangs(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r1, _ := s.relay(1), s.relay(2)
	module := s.d.Module()
	asleep, other := s.setUp(module, "asleep", "r1"), s.setUp(module, "other", "r2")

	r1.Freeze()
	fresh := s.setUp(module, "fresh", "r1")
	if ip := fresh.toAlice.Addr().String(); ip != s.net+"2" {
		t.Errorf("the new call is on %s, want %s2", ip, s.net)
	}
	s.d.Log.Await(t, "the next one is tried", "call_id=fresh", "relay=r1", "relay did not answer in time")
	other.talk()
	r1.Thaw()
	s.d.Log.Await(t, "relay took a call too late, taken back", "call_id=fresh", "relay=r1")
	for _, c := range []*call{asleep, other, fresh} {
		c.talk()
		c.hangUp(module)
	}
}
