package dispatcher

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestFlappingRelays runs calls while the connections of all relays break again
// and again. In the end nothing may be left anywhere: no call here, none on a
// relay, and every call that was removed on a relay is recorded once.
func TestFlappingRelays(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 200 * time.Millisecond })
	relays := keepCalling(t, u)
	if n := u.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
	// Calls whose remove found their relay away are ended when it is back; those
	// whose set-up broke off are adopted and would expire. Remove them as the SIP
	// proxy would have.
	m := u.module()
	for _, r := range relays {
		for _, call := range r.calls() {
			m.ask(remove(call, "f", "t"))
		}
	}
	eventually(t, "no call is left", func() bool {
		left := len(u.calls.snapshot(func(*callState) bool { return true }))
		for _, r := range relays {
			left += len(r.calls())
		}
		return left == 0
	})
	for name := range relays {
		if n := u.registry.find(name).calls.Load(); n != 0 {
			t.Errorf("relay %s counts %d calls", name, n)
		}
	}
	seen := map[string]bool{}
	for _, s := range u.records() {
		if seen[s.RecordID] {
			t.Errorf("record %s came twice", s.RecordID)
		}
		seen[s.RecordID] = true
	}
	if len(seen) == 0 {
		t.Error("nothing was recorded")
	}
}

// keepCalling makes calls over ten connections while three relays come and go,
// and returns the relays as they are in the end.
func keepCalling(t *testing.T, u *under) map[string]*fakeRelay {
	t.Helper()
	names := []string{"a", "b", "c"}
	relays := map[string]*fakeRelay{}
	for _, name := range names {
		relays[name] = u.relay(name)
	}
	stop := make(chan struct{})
	var calling, flapping sync.WaitGroup
	for i := range 10 {
		m := u.module()
		calling.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				call := fmt.Sprintf("c%d-%d", i, j)
				m.ask(offer(call))
				m.ask(message{call: call, from: "f", to: "t", reply: true}.String())
				m.ask(message{call: call, from: "t", to: "f"}.String())
				m.ask(remove(call, "t", "f"))
			}
		})
	}
	flapping.Go(func() {
		for range 30 {
			name := names[rand.IntN(len(names))]
			old := relays[name]
			old.close()
			relays[name] = u.relay(name, having(old.sessions...))
		}
	})
	flapping.Wait()
	close(stop)
	calling.Wait()
	return relays
}
