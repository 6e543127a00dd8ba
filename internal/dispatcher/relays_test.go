package dispatcher

import (
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
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
	// Once its end is told to the other dispatcher only, it is forgotten here too.
	r.mu.Lock()
	r.sessions = nil
	r.mu.Unlock()
	u.clock.Advance(verifyEvery + time.Second)
	eventually(t, "it is forgotten", func() bool { return u.Stats().Calls == 0 })
}

func TestUnresponsiveRelay(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 50 * time.Millisecond })
	r := u.relay("a", handling(silent))
	u.module().ask(offer("c"))
	u.clock.Advance(6 * time.Second)
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
	u.clock.Advance(6 * time.Second)
	eventually(t, "it is marked again", func() bool { return u.Stats().RelayTimeouts == 2 })
	u.clock.Advance(61 * time.Second)
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
	if a.gone() || !u.logged("line of the relay cannot be read") || !u.logged("report of an expired call cannot be read") {
		t.Error("bad lines were not logged, or ended the link")
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

func TestExpired(t *testing.T) {
	stream := func(status string, used bool) report.Stream {
		s := report.Stream{MediaType: "audio", Status: status}
		if used {
			delay := 0.1
			s.PostDialDelay, s.CallerPackets, s.CalleePackets = &delay, 5, 5
		}
		return s
	}
	for _, tt := range []struct {
		name    string
		dialog  string
		answers bool
		streams []report.Stream
		reason  string
		after   string // what the remove that follows gets
	}{
		{"timeout with dialog", "5", true, []report.Stream{stream(report.StatusIdle, true)}, report.ReasonTimeout, "removed"},
		{"timeout without dialog", "", true, []report.Stream{stream(report.StatusNoTraffic, false)}, report.ReasonTimeout, "error"},
		{"all unselected", "5", true, []report.Stream{stream(report.StatusUnselectedICE, false)}, report.ReasonUnused, "error"},
		{"unselected next to a rejected one", "5", true, []report.Stream{stream(report.StatusUnselectedICE, false), stream(report.StatusRejected, false),
			stream(report.StatusClosed, false)}, report.ReasonUnused, "error"},
		{"ICE that used the relay", "5", true, []report.Stream{stream(report.StatusUnselectedICE, true)}, report.ReasonTimeout, "removed"},
		{"never answered", "5", false, nil, report.ReasonUnanswered, "error"},
		{"relay told to stop", "5", true, []report.Stream{stream(report.StatusActive, true)}, report.ReasonShutdown, "removed"},
		{"only closed streams", "5", true, []report.Stream{stream(report.StatusClosed, true)}, report.ReasonTimeout, "removed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := start(t, nil)
			r := u.relay("127.0.0.1", plainFrom("127.0.0.1"))
			m := u.module()
			if got := m.ask(message{call: "c", from: "f", dialog: tt.dialog}.String()); got != ports {
				t.Fatal(got)
			}
			doc := sessionDoc("c", "f")
			doc.Streams = tt.streams
			if !tt.answers {
				doc.StartTime = nil
			}
			r.mu.Lock()
			r.sessions = nil
			r.mu.Unlock()
			r.expire(doc)
			r.say(relaylink.AppendPing(nil, nil))
			eventually(t, "the record", func() bool { return len(u.records()) == 1 })
			s := u.records()[0]
			if s.Reason != tt.reason || s.DialogID != tt.dialog || s.RecordID == "" || s.Relay != "127.0.0.1" {
				t.Errorf("record %+v", s)
			}
			if TimedOut(s) != (tt.reason == report.ReasonTimeout || tt.reason == report.ReasonShutdown) || AllStreamsICE(s) != (tt.reason == report.ReasonUnused) {
				t.Errorf("timed out %v, all ICE %v", TimedOut(s), AllStreamsICE(s))
			}
			before := r.count(relaylink.Remove)
			if got := m.ask(remove("c", "f", "t")); got != tt.after {
				t.Errorf("remove: %q, want %q", got, tt.after)
			}
			if got := m.ask(remove("c", "f", "t")); got != "error" {
				t.Errorf("second remove: %q", got)
			}
			if r.count(relaylink.Remove) != before {
				t.Error("the relay was asked for a call it had expired")
			}
			eventually(t, "pong", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.pongs == 1 })
		})
	}
}

func TestRecordsAreRepeatedUntilAcknowledged(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a")
	m := u.module()
	m.ask(message{call: "c", from: "f", dialog: "5"}.String())
	doc := sessionDoc("c", "f")
	doc.RecordID, doc.Reason = "r1", report.ReasonTimeout
	u.failFinished(errors.New("disk full"))
	r.expire(doc)
	eventually(t, "the hook failed", func() bool { return u.Stats().FinishErrors == 1 })
	if acks := r.acked(); len(acks) != 0 {
		t.Errorf("acknowledged %v although nobody has it", acks)
	}
	u.failFinished(nil)
	r.expire(doc)
	eventually(t, "the repeat is taken", func() bool { return reflect.DeepEqual(r.acked(), []string{"r1"}) })
	r.expire(doc)
	eventually(t, "a repeat after that is acknowledged only", func() bool { return len(r.acked()) == 2 })
	if got := u.records(); len(got) != 1 || got[0].DialogID != "" && got[0].DialogID != "5" {
		t.Errorf("records %+v", got)
	}
	// A call nobody here knows is recorded as well: perhaps we were restarted.
	other := sessionDoc("unknown", "x")
	other.RecordID, other.Reason, other.DialogID = "r2", report.ReasonTimeout, "8"
	r.expire(other)
	eventually(t, "the unknown call is taken", func() bool { return len(u.records()) == 2 && len(r.acked()) == 3 })
}

func TestRecordMemoryIsBounded(t *testing.T) {
	r := newRecords()
	for i := range 3 * keptRecords {
		id := fmt.Sprint(i)
		if r.claim(id) != recordNew {
			t.Fatal(id)
		}
		r.done(id)
		if len(r.young)+len(r.older) > 2*keptRecords {
			t.Fatalf("%d ids kept", len(r.young)+len(r.older))
		}
	}
	if r.claim(fmt.Sprint(3*keptRecords-1)) != recordDone || r.claim(fmt.Sprint(2*keptRecords)) != recordDone {
		t.Error("the latest ids are forgotten")
	}
}

func TestCleanupOfDeadRelays(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a")
	u.module().ask(offer("lost"))
	r.close()
	eventually(t, "the loss is seen", func() bool { return u.Stats().LostCalls == 1 })
	u.clock.Advance(DefaultCleanupDeadRelays - time.Hour)
	u.maintainSafely()
	if u.Stats().Calls != 1 || u.registry.find("a") == nil {
		t.Error("forgotten an hour too early")
	}
	u.clock.Advance(time.Hour + time.Second)
	eventually(t, "the dead relay and its calls are dropped", func() bool { return u.Stats().Calls == 0 && u.registry.find("a") == nil })
}

func TestCleanupOfExpiredCalls(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a")
	for _, call := range []string{"c1", "c2"} {
		u.module().ask(message{call: call, from: "f", dialog: "5"}.String())
		doc := sessionDoc(call, "f")
		doc.RecordID, doc.Reason = call, report.ReasonTimeout
		r.expire(doc)
	}
	eventually(t, "the records", func() bool { return len(u.records()) == 2 })
	known := func() int { return len(u.calls.snapshot(func(*callState) bool { return true })) }
	u.clock.Advance(DefaultCleanupExpired - time.Hour)
	u.maintainSafely()
	if known() != 2 {
		t.Errorf("%d calls after 23 hours, want 2", known())
	}
	u.clock.Advance(time.Hour + time.Minute)
	eventually(t, "they are dropped with one warning", func() bool {
		return known() == 0 && u.logged(`msg="expired calls forgotten: the SIP proxy never removed them" calls=2`)
	})
}
