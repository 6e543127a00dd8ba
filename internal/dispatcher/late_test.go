package dispatcher

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/relaylink"
)

func TestLateSuccessIsTakenBack(t *testing.T) {
	for _, others := range []bool{false, true} {
		t.Run(fmt.Sprintf("others=%v", others), func(t *testing.T) {
			u := start(t, func(c *Config) { c.SetupTimeout = time.Second })
			held := make(chan relaylink.Command, 1)
			slow := u.relay("slow", handling(func(c relaylink.Command) (string, bool) {
				if c.Name == relaylink.Update {
					held <- c
				}
				return "", c.Name == relaylink.Update
			}))
			want := "error"
			if others {
				u.relay("good")
				want = ports
			}
			if got := u.module().ask(message{call: "c", from: "f", mediaRelay: "slow"}.String()); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
			late := <-held
			slow.answer(late, slow.usual(late))
			eventually(t, "the late allocation is removed", func() bool {
				return slow.count(relaylink.Remove) == 1 && len(slow.calls()) == 0
			})
			if u.Stats().Cancelled != 1 {
				t.Errorf("%+v", u.Stats())
			}
			if calls, _ := u.calls.counts(); others != (calls == 1) {
				t.Errorf("%d calls known", calls)
			}
			eventually(t, "its record is acknowledged", func() bool { return reflect.DeepEqual(slow.acked(), []string{"slow/c"}) })
		})
	}
}

func TestAnswerAfterTheRelayTimeout(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 50 * time.Millisecond })
	held := make(chan relaylink.Command, 1)
	r := u.relay("a", handling(func(c relaylink.Command) (string, bool) {
		if c.Name == relaylink.Update {
			held <- c
		}
		return "", c.Name == relaylink.Update
	}))
	if got := u.module().ask(offer("c")); got != "error" {
		t.Fatal(got)
	}
	u.pass(2 * DefaultRelayTimeout)
	eventually(t, "the relay is marked", func() bool { return u.Stats().RelayTimeouts == 1 })
	c := <-held
	r.answer(c, r.usual(c))
	eventually(t, "the allocation is taken back all the same", func() bool {
		return u.Stats().Cancelled == 1 && len(r.calls()) == 0
	})
}

// An answer that comes late does not end the call that the same message, sent again, made
// of it meanwhile.
func TestLateSuccessOfACallThatIsThere(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		t.Run(fmt.Sprintf("second still waits=%v", waiting), func(t *testing.T) {
			u := start(t, func(c *Config) { c.SetupTimeout = 300 * time.Millisecond })
			held := make(chan relaylink.Command, 2)
			r := u.relay("a", handling(func(c relaylink.Command) (string, bool) {
				if c.Name == relaylink.Update && len(held) < cap(held) {
					held <- c
					return "", true
				}
				return "", false
			}))
			m := u.module()
			if got := m.ask(offer("c")); got != "error" {
				t.Fatal(got)
			}
			m.send(offer("c"))
			eventually(t, "the relay has both", func() bool { return len(held) == 2 })
			first, second := <-held, <-held
			order := []relaylink.Command{second, first}
			if waiting {
				order = []relaylink.Command{first, second}
			}
			for _, c := range order {
				r.answer(c, r.usual(c))
			}
			if got := m.receive(); got != ports {
				t.Fatal(got)
			}
			record := get(first, relaylink.HeaderRecord)
			eventually(t, "the report's name is the first one's", func() bool {
				u.calls.mu.Lock()
				defer u.calls.mu.Unlock()
				return u.calls.exactLocked("c", "f").record == record
			})
			if n, calls := r.count(relaylink.Remove), r.calls(); n > 0 || len(calls) != 1 || u.Stats().Calls != 1 || u.Stats().Cancelled != 0 {
				t.Errorf("%d removes, calls %v, %+v", n, calls, u.Stats())
			}
		})
	}
}
