package fault

import (
	"fmt"
	"strings"
	"testing"

	"example.org/mediaproxy/test/internal/site"
)

// TestPortExhaustion: a relay with ports for two streams refuses the third, tells both
// operators why, and takes a call again when another has ended. With a second relay
// nobody would have noticed.
func TestPortExhaustion(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := s.relay(1, "port_range = 50000:50008")
	module := s.d.Module()
	one, two := s.setUp(module, "one", ""), s.setUp(module, "two", "")

	third := s.newCall("third")
	if got := module.Ask(third.offer(1, "").String()); got != "error" {
		t.Fatalf("third call: got %q, want error", got)
	}
	s.d.Log.Await(t, "answered error", "call_id=third", "no media port left (widen port_range or add a relay)")
	r.Log.Await(t, "command refused", "call_id=third", "no media port left")
	one.talk()
	two.talk()

	// The ports of a call that had media rest for two seconds at least.
	one.hangUp(module)
	until(t, module, third.offer(1, "").String(), s.net)
	r.Log.Await(t, "used again before its rest is over", "call_id=third")
	third.invite(module, 1, "")
	third.talk()
	two.talk()

	s.relay(2)
	fourth := s.setUp(module, "fourth", "r1") // wanted there, and full
	s.d.Log.Await(t, "the next one is tried", "call_id=fourth", "relay=r1")
	for _, c := range []*call{two, third, fourth} {
		c.talk()
		c.hangUp(module)
	}
}

// TestModuleLeaves: a module gives up while the relay is slow. What the relay then does
// for it is taken back; others are served.
func TestModuleLeaves(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := s.relay(1)
	module, leaving := s.d.Module(), s.d.Module()
	up := s.setUp(module, "up", "")

	r.Freeze()
	gone := s.newCall("gone")
	leaving.Send(gone.offer(1, "").String())
	leaving.Conn.Close()
	s.d.Log.Await(t, "SIP proxy closed its connection before the reply", "command=update")
	r.Thaw()

	s.d.Log.Await(t, "relay took a call too late, taken back", "call_id=gone")
	site.Eventually(t, "the relay has one call", func() bool { return strings.Contains(s.manage("summary"), `"session_count": 1`) })
	up.talk()
	later := s.setUp(module, "later", "")
	up.hangUp(module)
	later.hangUp(module)
	if gone.records() != 0 {
		t.Error("the call that never was is reported as finished")
	}
}

// TestTwoRemoves: two processes of the proxy end the same call while its relay is slow.
// Both are done, one record comes, and the link to the relay stays up.
func TestTwoRemoves(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := s.relay(1)
	one, two := s.d.Module(), s.d.Module()
	other := s.setUp(one, "other", "")
	for i := range 5 {
		c := s.setUp(one, fmt.Sprintf("twice-%d", i), "")
		r.Freeze()
		one.Send(c.remove())
		two.Send(site.Remove(c.id, "b", "a")) // the callee hung up, too
		r.Thaw()
		// The second may come when the first is done: error, which counts as done.
		switch a, b := one.Receive(), two.Receive(); a + " " + b {
		case "removed removed", "removed error", "error removed":
		default:
			t.Fatalf("got %q and %q", a, b)
		}
		other.talk()
		if got := one.Ask(c.remove()); got != "error" {
			t.Fatalf("third remove: got %q, want error", got)
		}
		site.Eventually(t, "the record", func() bool { return c.records() > 0 })
	}
	other.hangUp(one)
	for i := range 5 {
		if n := s.d.Log.Count("call over", fmt.Sprintf("call_id=twice-%d ", i)); n != 1 {
			t.Errorf("call %d was taken over %d times, want once", i, n)
		}
	}
	if n := s.d.Log.Count("relay connected"); n != 1 {
		t.Errorf("the relay connected %d times, want once", n)
	}
}
