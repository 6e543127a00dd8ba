package dispatcher

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/relaylink"
)

func (r *fakeRelay) gone() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *fakeRelay) refusal() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hello.Refused
}

func instance(id string) relayOption {
	return greeting(func(h *relaylink.RelayHello) { h.Instance = id })
}

func TestNameInUseIsRefused(t *testing.T) {
	u := start(t, nil)
	first := u.relay("a", instance("1"))
	second := u.dialRelay("a", instance("2"))
	eventually(t, "the second is refused", second.gone)
	if !strings.Contains(second.refusal(), `name "a" is in use by a relay connected from 127.0.0.1`) {
		t.Errorf("refused with %q", second.refusal())
	}
	if first.gone() || u.Stats().Relays != 1 {
		t.Error("the first lost its place")
	}
	if got := u.module().ask(offer("c")); got != ports {
		t.Error(got)
	}
}

func TestNameOfADeadConnectionIsFree(t *testing.T) {
	u := start(t, nil)
	dead := u.relay("a", instance("1"))
	dead.handleWith(func(relaylink.Command) (string, bool) { return "", true }) // its host is gone
	u.dialRelay("a", instance("2"))
	eventually(t, "the dead one is replaced", dead.gone)
	eventually(t, "the new one is there", func() bool { return u.Stats().Relays == 1 })
}

// A relay that was started again has its calls. It does not matter whether its former
// connection is known to be dead.
func TestRestartedRelayHasItsCalls(t *testing.T) {
	for _, noticed := range []bool{true, false} {
		t.Run(fmt.Sprintf("noticed=%v", noticed), func(t *testing.T) {
			u := start(t, nil)
			old := u.relay("a", instance("1"))
			m := u.module()
			for _, call := range []string{"c1", "c2"} {
				if got := m.ask(offer(call)); got != ports {
					t.Fatal(got)
				}
			}
			if noticed {
				old.close()
				eventually(t, "the loss is seen", func() bool { return u.Stats().LostCalls == 2 })
			} else {
				old.handleWith(func(relaylink.Command) (string, bool) { return "", true }) // its host is gone
			}
			next := u.dialRelay("a", instance("2"), having(old.sessions...))
			eventually(t, "the next one is known", func() bool {
				l, _, _ := u.registry.current(u.registry.find("a"))
				synced, _ := u.registry.readyFor("")
				return l != nil && l.hello.Instance == "2" && synced
			})
			if s := u.Stats(); s.Calls != 2 || s.LostCalls != 0 || s.Purged != 0 || next.count(relaylink.Remove) != 0 {
				t.Errorf("%+v", s)
			}
			if got := m.ask(message{call: "c1", from: "f", to: "t", reply: true}.String()); got != ports {
				t.Errorf("answer of a call of before: %q", got)
			}
			if got := m.ask(remove("c2", "f", "t")); got != "removed" {
				t.Errorf("remove of a call of before: %q", got)
			}
			if n := next.count(relaylink.Update) + next.count(relaylink.Remove); n != 2 {
				t.Errorf("the next one was asked %d times, want 2", n)
			}
		})
	}
}

func TestSameInstanceReplaces(t *testing.T) {
	u := start(t, nil)
	first := u.relay("a")
	u.dialRelay("a")
	eventually(t, "the older connection is closed", first.gone)
	eventually(t, "the newer stays", func() bool { return u.Stats().Relays == 1 })
}

func TestPlainIdentityIsTheAddress(t *testing.T) {
	u := start(t, nil)
	first := u.relay("127.0.0.1", plainFrom("127.0.0.1"))
	u.dialRelay("127.0.0.1", plainFrom("127.0.0.1"))
	eventually(t, "the newer replaces the older", first.gone)
	eventually(t, "and stays", func() bool { return u.Stats().Relays == 1 })
}

func TestNameNotAllowed(t *testing.T) {
	u := start(t, func(c *Config) {
		c.AllowName = func(name string, cert *x509.Certificate) error {
			if name == "a" && cert.Subject.CommonName == "test" {
				return errors.New("certificate test may not call itself so")
			}
			return nil
		}
	})
	r := u.dialRelay("a")
	eventually(t, "it is refused", r.gone)
	if want := `name "a": certificate test may not call itself so`; r.refusal() != want {
		t.Errorf("refused with %q, want %q", r.refusal(), want)
	}
	u.relay("b")
}

func TestHelloOfTheDispatcher(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a")
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.greeted || r.hello.Name != "d1" || r.hello.Version != "4.1.2" || len(r.hello.Instance) != 32 || r.hello.Refused != "" {
		t.Errorf("hello %+v", r.hello)
	}
}

func TestRebuildAfterRestart(t *testing.T) {
	for _, tt := range []struct {
		name  string
		calls int
		relay func(u *under, calls []relaylink.Call) *fakeRelay
	}{
		{"link/2", 3, func(u *under, calls []relaylink.Call) *fakeRelay { return u.relay("a", having(calls...)) }},
		{"link/2 in pages", 2*listPage + 1, func(u *under, calls []relaylink.Call) *fakeRelay { return u.relay("a", having(calls...)) }},
		{"plain", 3, func(u *under, calls []relaylink.Call) *fakeRelay {
			return u.relay("127.0.0.1", plainFrom("127.0.0.1"), having(calls...))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls []relaylink.Call
			for i := range tt.calls {
				calls = append(calls, relaylink.Call{CallID: fmt.Sprintf("c%d", i), FromTag: "f", ToTag: "t", DialogID: "9", Owner: "d1"})
			}
			u := start(t, nil)
			r := tt.relay(u, calls)
			if s := u.Stats(); s.Calls != tt.calls || s.Adopted != uint64(tt.calls) {
				t.Errorf("%+v", s)
			}
			m := u.module()
			last := fmt.Sprintf("c%d", tt.calls-1)
			if got := m.ask(message{call: last, from: "t", to: "f", noMedia: true}.String()); got != ports {
				t.Errorf("update: %q", got)
			}
			if got := m.ask(remove(last, "t", "f")); got != "removed" || len(r.calls()) != tt.calls-1 {
				t.Errorf("remove: %q", got)
			}
			eventually(t, "the record", func() bool { return len(u.records()) == 1 })
			if s := u.records()[0]; !r.plain && s.DialogID != "9" {
				t.Errorf("%+v: the relay knew the dialog id", s)
			}
		})
	}
}

func TestPurgeOnReconnect(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			u := start(t, nil)
			name, options := "a", []relayOption(nil)
			if plain {
				name, options = "127.0.0.1", []relayOption{plainFrom("127.0.0.1")}
			}
			first := u.relay(name, options...)
			m := u.module()
			for _, call := range []string{"c1", "c2", "c3"} {
				if got := m.ask(offer(call)); got != ports {
					t.Fatal(got)
				}
			}
			kept := first.sessions[1:2]
			first.close()
			eventually(t, "the loss is seen", func() bool { return u.Stats().LostCalls == 3 })
			u.relay(name, append(options, having(kept...))...)
			if s := u.Stats(); s.Calls != 1 || s.LostCalls != 0 || s.Purged != 2 {
				t.Errorf("%+v", s)
			}
			if got := m.ask(remove("c1", "f", "")); got != "error" {
				t.Errorf("purged call: %q", got)
			}
			if got := m.ask(remove("c2", "f", "")); got != "removed" {
				t.Errorf("kept call: %q", got)
			}
		})
	}
}

func TestCallOfAnotherDispatcherIsFound(t *testing.T) {
	u := start(t, nil)
	theirs := relaylink.Call{CallID: "c", FromTag: "f", ToTag: "t", Owner: "d2"}
	u.relay("b")
	r := u.relay("a", having(theirs))
	if s := u.Stats(); s.Calls != 0 {
		t.Errorf("%+v: another dispatcher's call is not ours to remember", s)
	}
	m := u.module()
	if got := m.ask(message{call: "c", from: "t", to: "f", noMedia: true}.String()); got != ports {
		t.Errorf("got %q", got)
	}
	// It is ours until another dispatcher serves it.
	u.pass(verifyEvery + time.Second)
	if n := r.count(relaylink.List); n != 1 {
		t.Errorf("the relay was asked for its calls %d times, want once", n)
	}
	r.say(relaylink.AppendReleased(nil, []byte(`{"call_id": "c", "from_tag": "other"}`)))
	r.say(relaylink.AppendReleased(nil, []byte(`{"call_id": 7}`)))
	eventually(t, "what cannot be read is said", func() bool { return u.logged("line of the relay cannot be read") })
	if s := u.Stats(); s.Calls != 1 || s.Released != 0 {
		t.Errorf("%+v: it was another call", s)
	}
	r.say(relaylink.AppendReleased(nil, []byte(`{"call_id": "c", "from_tag": "f"}`)))
	eventually(t, "it is forgotten", func() bool { return u.Stats().Calls == 0 && u.Stats().Released == 1 })
	if got := m.ask(remove("c", "f", "t")); got != "removed" {
		t.Errorf("remove of a call that came back: %q", got)
	}
}

// A call that was found but not served stays with its dispatcher: who only asked forgets it
// once its relay no longer has it.
func TestFoundCallThatWasRefused(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a", having(relaylink.Call{CallID: "c", FromTag: "f", ToTag: "t", Owner: "d2"}), handling(func(c relaylink.Command) (string, bool) {
		return "error no ports", c.Name == relaylink.Update
	}))
	if got := u.module().ask(message{call: "c", from: "t", to: "f", noMedia: true}.String()); got != "error" {
		t.Errorf("got %q", got)
	}
	if u.Stats().Calls != 1 {
		t.Errorf("%+v", u.Stats())
	}
	r.mu.Lock()
	r.sessions = nil
	r.mu.Unlock()
	u.pass(verifyEvery + time.Second)
	eventually(t, "it is forgotten", func() bool { return u.Stats().Calls == 0 })
}

// What another dispatcher took over while a relay was out of reach is known when it is back.
func TestTakenOverWhileRelayIsAway(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a")
	m := u.module()
	for _, call := range []string{"mine", "theirs", "before"} {
		if got := m.ask(offer(call)); got != ports {
			t.Fatalf("got %q", got)
		}
	}
	r.mu.Lock()
	calls := append([]relaylink.Call(nil), r.sessions...)
	r.mu.Unlock()
	r.close()
	calls[1].Owner = "d2"
	calls[2].Owner = "192.0.2.1:25060" // of the time before link/2: perhaps ours
	u.relay("a", having(calls...))
	eventually(t, "the other dispatcher's call is forgotten", func() bool { return u.Stats().Calls == 2 && u.Stats().Released == 1 })
}

func TestUnresponsiveRelay(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 500 * time.Millisecond })
	r := u.relay("a", handling(silent))
	u.module().ask(offer("c"))
	u.pass(6 * time.Second)
	eventually(t, "it is marked", func() bool { return u.Stats().RelayTimeouts == 1 })
	if list, _ := u.registry.candidates(nil); len(list) != 0 {
		t.Errorf("still chosen: %+v", list)
	}
	r.handleWith(nil)
	r.say(relaylink.AppendPing(nil, []byte(`{"sessions": 3, "draining": false}`)))
	eventually(t, "a ping clears it", func() bool { list, _ := u.registry.candidates(nil); return len(list) == 1 })
	if got := u.module().ask(offer("c2")); got != ports {
		t.Errorf("got %q", got)
	}
	r.handleWith(silent)
	u.module().ask(offer("c3"))
	u.pass(6 * time.Second)
	eventually(t, "it is marked again", func() bool { return u.Stats().RelayTimeouts == 2 })
	u.pass(61 * time.Second)
	eventually(t, "without a ping its connection is dropped", r.gone)
}

func TestPings(t *testing.T) {
	u := start(t, nil)
	a := u.relay("a")
	b := u.relay("127.0.0.1", plainFrom("127.0.0.1"))
	a.say(relaylink.AppendPing(nil, []byte(`{"sessions": 7, "streams": 8, "bps": 1.5, "ports_free": 9, "draining": true}`)))
	b.say(relaylink.AppendPing(nil, nil))
	for _, r := range []*fakeRelay{a, b} {
		eventually(t, "pong to "+r.name, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.pongs == 1 })
	}
	eventually(t, "draining is known", func() bool { list, _ := u.registry.candidates(nil); return len(list) == 1 })
	a.say(relaylink.AppendPing(nil, []byte(`{"sessions": 7, "draining": false}`)))
	eventually(t, "and that it ended", func() bool { list, _ := u.registry.candidates(nil); return len(list) == 2 })
	list, _ := u.registry.candidates(nil)
	for _, c := range list {
		if c.Name == "a" && c.Sessions != 7 {
			t.Errorf("%+v", c)
		}
	}
	// Lines that cannot be read end nothing.
	a.say([]byte("\r\nnonsense\r\nping x\r\nexpired {\r\nhello {}\r\n999 late\r\nx y\r\n"))
	if got := u.module().ask(offer("c")); got != ports {
		t.Error(got)
	}
	for _, line := range []string{"line of the relay cannot be read", "report of an expired call cannot be read", "seq=x"} {
		eventually(t, "the log has: "+line, func() bool { return u.logged(line) })
	}
	if a.gone() {
		t.Error("bad lines ended the link")
	}
}

func TestBytesForOldRelays(t *testing.T) {
	u := start(t, nil)
	r := u.relay("127.0.0.1", plainFrom("127.0.0.1"))
	m := u.module()
	request := strings.Replace(offer("c"), "Phone/1.0", "M\xfcller", 1)
	if got := m.ask(request); got != ports {
		t.Fatal(got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := get(r.got[len(r.got)-1], "user_agent"); got != "M\u00fcller" {
		t.Errorf("an old relay closes its link on bytes that are not UTF-8; it got %q", got)
	}
}

func TestDispatcherRestartedDuringCalls(t *testing.T) {
	first := start(t, nil)
	r := first.relay("a")
	m := first.module()
	for _, call := range []string{"c1", "c2"} {
		if got := m.ask(message{call: call, from: "f", dialog: "7"}.String()); got != ports {
			t.Fatal(got)
		}
	}
	first.stop()
	<-r.done
	second := start(t, func(c *Config) { c.SocketPath, c.SetupTimeout = first.SocketPath(), 3*time.Second })
	m = second.module()
	// A message of a running call that comes before its relay is back waits for it.
	m.send(message{call: "c1", from: "t", to: "f"}.String())
	other := second.module()
	other.send(remove("c2", "f", "t"))
	back := second.relay("a", having(r.sessions...))
	if got := m.receive(); got != ports {
		t.Errorf("update: %q", got)
	}
	if got := other.receive(); got != "removed" {
		t.Errorf("remove: %q", got)
	}
	if got := back.calls(); len(got) != 1 || got[0] != "c1" {
		t.Errorf("the relay has %v", got)
	}
}
