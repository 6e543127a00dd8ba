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
