package dispatcher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// answered makes an answered call on a relay and returns the id of its report.
func answered(u *under, r *fakeRelay, call string) string {
	u.t.Helper()
	m := u.module()
	for _, request := range []string{offer(call), message{call: call, from: "f", to: "t", reply: true, dialog: "7:8"}.String()} {
		if got := m.ask(request); got != ports {
			u.t.Fatal(got)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.got {
		if id := get(c, relaylink.HeaderRecord); id != "" && get(c, "call_id") == call {
			return id
		}
	}
	u.t.Fatalf("relay was not told what the report of %s is called", call)
	return ""
}

// lose breaks a relay's connection, and lets it be away for long.
func (u *under) lose(r *fakeRelay) {
	u.t.Helper()
	r.close()
	eventually(u.t, "the loss is seen", func() bool { l, _, _ := u.registry.current(u.registry.find(r.name)); return l == nil })
	u.pass(longAway + time.Second)
}

func (u *under) isRunning() bool {
	select {
	case <-u.stopping:
		return false
	default:
		return true
	}
}

// A call whose relay is lost has one record: its relay's, if that comes, else a partial one.
func TestPartialRecord(t *testing.T) {
	full := func(id string) report.Session {
		s := sessionDoc("c1", "f")
		s.RecordID, s.Reason = id, report.ReasonRemoved
		return s
	}
	hungUp := func(u *under, _ string) {
		u.clock.Advance(time.Minute)
		if got := u.module().ask(remove("c1", "f", "t")); got != "error" {
			u.t.Errorf("remove: %q", got)
		}
		u.module().ask(remove("c1", "f", "t")) // its module tries again, or another one does
	}
	for _, c := range []struct {
		name     string
		then     func(*under, string)
		duration int64 // of the partial record; -1: there is none
		later    func(*under, string)
		full     bool
	}{
		{"hung up while its relay is away", hungUp, 66, nil, false},
		{"reported within the grace", func(u *under, id string) {
			hungUp(u, id)
			r := u.relay("a", having(relaylink.Call{CallID: "c1", FromTag: "f", Owner: "d1", RecordID: id}),
				handling(func(c relaylink.Command) (string, bool) { return docText(full(id)), c.Name == relaylink.Remove }))
			eventually(u.t, "the call is ended there", func() bool { return len(r.acked()) == 1 })
		}, -1, nil, true},
		{"reported after the partial record", hungUp, 66, func(u *under, id string) {
			u.relay("a").expire(full(id))
		}, true},
		{"forgotten by its relay", func(u *under, _ string) { u.relay("a") }, 0, nil, false},
		{"its relay never came back", func(u *under, _ string) {
			u.pass(DefaultCleanupDeadRelays + time.Second)
			eventually(u.t, "the relay is forgotten", func() bool { return u.registry.find("a") == nil })
		}, 0, nil, false},
		{"nothing is kept for the next process", func(u *under, id string) { hungUp(u, id); u.stop() }, 66, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, nil)
			r := u.relay("a")
			id := answered(u, r, "c1")
			u.lose(r)
			c.then(u, id)
			if n := len(u.records()); n > 0 && c.duration >= 0 && u.isRunning() {
				t.Errorf("%d records before the relay had time to report", n)
			}
			u.pass(reportGrace - time.Second)
			u.pass(2 * time.Second)
			if c.later != nil {
				c.later(u, id)
			}
			want := 0
			if c.duration >= 0 {
				want++
			}
			if c.full {
				want++
			}
			eventually(t, "all records", func() bool { return len(u.records()) >= want })
			u.stop()
			list := u.records()
			if len(list) != want {
				t.Fatalf("%d records, want %d: %+v", len(list), want, list)
			}
			for i, s := range list {
				partial := c.duration >= 0 && i == 0
				if s.RecordID != id || s.Partial != partial || s.CallID != "c1" {
					t.Errorf("record %d: %+v", i, s)
				}
				if partial && (s.Duration != c.duration || s.Reason != report.ReasonRelayLost || !s.TimedOut() || s.AllStreamsICE() || s.StartTime == nil ||
					s.FromURI != "alice@example.com" || *s.ToTag != "t" || s.DialogID != "7:8" || s.Relay != "a" || s.Streams == nil) {
					t.Errorf("partial record %+v", s)
				}
			}
		})
	}
}

// What moves to another relay leaves a record behind, and gets one there.
func TestPartialRecordOfACallThatMoved(t *testing.T) {
	u := start(t, nil)
	a := u.relay("a")
	first := answered(u, a, "c1")
	u.lose(a)
	b := u.relay("b")
	if got := u.module().ask(message{call: "c1", from: "f", to: "t"}.String()); got != ports {
		t.Fatal(got)
	}
	second := answered(u, b, "c1")
	u.pass(reportGrace + time.Second)
	if list := u.records(); len(list) != 1 || list[0].RecordID != first || first == second || !list[0].Partial {
		t.Errorf("records %+v, ids %q and %q", list, first, second)
	}
}

func TestNoPartialRecordOfAnUnansweredCall(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a")
	u.module().ask(offer("c1"))
	u.lose(r)
	u.pass(DefaultCleanupDeadRelays + time.Second)
	eventually(t, "the relay is forgotten", func() bool { return u.registry.find("a") == nil })
	u.pass(reportGrace + time.Second)
	if list := u.records(); len(list) > 0 {
		t.Errorf("records %+v", list)
	}
}

// A restarted dispatcher knows the calls of relays that are away, and what it owes.
func TestLostCallsSurviveARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "lost-calls.json")
	with := func(c *Config) { c.LostCallsFile = file }
	u := start(t, with)
	r := u.relay("a")
	alive, over := answered(u, r, "alive"), answered(u, r, "over")
	u.lose(r)
	u.module().ask(remove("over", "f", "t"))
	u.pass(0)
	u.stop()

	next := start(t, with)
	next.clock.Advance(time.Minute)
	if s := next.Stats(); s.LostCalls != 1 {
		t.Errorf("%+v", s)
	}
	if got := next.module().ask(remove("alive", "f", "t")); got != "error" {
		t.Errorf("remove: %q", got)
	}
	next.pass(reportGrace + time.Second)
	ids := map[string]int{}
	for _, s := range next.records() {
		if s.Partial {
			ids[s.RecordID]++
		}
	}
	if len(ids) != 2 || ids[alive] != 1 || ids[over] != 1 {
		t.Errorf("records %v, want %s and %s", ids, alive, over)
	}
	back := next.relay("a", having(relaylink.Call{CallID: "alive", FromTag: "f", Owner: "d1", RecordID: alive}))
	eventually(t, "a call that was hung up is ended when its relay is back", func() bool { return back.count(relaylink.Remove) == 1 })
	next.stop()

	for _, damaged := range []string{"{", `{"version": 99}`} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if u := start(t, with); !u.logged("are not known") || !u.logged(file) {
			t.Errorf("%s: not said", damaged)
		}
	}
}

// A remove that comes before the relays are back ends the call when its relay is.
func TestRemoveBeforeTheRelayIsBack(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 50 * time.Millisecond })
	m := u.module()
	for _, request := range []string{remove("c1", "f", "t"), remove("c2", "t", "f"), remove("c3", "other", "")} {
		if got := m.ask(request); got != "error" {
			t.Fatal(got)
		}
	}
	var calls []relaylink.Call
	for _, id := range []string{"c1", "c2", "c3", "c4"} {
		calls = append(calls, relaylink.Call{CallID: id, FromTag: "f", Owner: "d1", RecordID: "r-" + id})
	}
	r := u.relay("a", having(calls...))
	eventually(t, "two calls are over", func() bool { return len(u.records()) == 2 })
	if left := r.calls(); len(left) != 2 || left[0] != "c3" || left[1] != "c4" {
		t.Errorf("the relay still has %v", left)
	}
	u.pass(unheardTime + time.Second)
	if u.unheard.size != 0 || len(u.unheard.byCall) != 0 {
		t.Errorf("%+v is kept", u.unheard.byCall)
	}
	m.ask(remove("never", "f", "t"))
	if u.unheard.size != 0 {
		t.Error("a remove is kept although all relays have told their calls")
	}
}

func TestLostCallsCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	u := start(t, func(c *Config) { c.LostCallsFile = filepath.Join(dir, "file", "lost-calls.json") })
	r := u.relay("a")
	answered(u, r, "c1")
	u.lose(r)
	u.pass(time.Second)
	u.pass(time.Second)
	if n := strings.Count(u.log.String(), "would be forgotten by a restart"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// A clock that is set forward or back costs no call and makes no record.
func TestClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{-48 * time.Hour, 48 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			u := start(t, nil)
			r := u.relay("a")
			answered(u, r, "c1")
			u.pass(by)
			u.pass(time.Second)
			if s := u.Stats(); s.Calls != 1 || s.Relays != 1 || s.LostCalls != 0 || len(u.records()) != 0 {
				t.Errorf("%+v, records %+v", s, u.records())
			}
			m := u.module()
			for _, step := range [][2]string{
				{offer("c2"), ports},
				{message{call: "c1", from: "f", to: "t"}.String(), ports},
				{remove("c1", "f", "t"), "removed"},
			} {
				if got := m.ask(step[0]); got != step[1] {
					t.Errorf("%q: got %q, want %q", step[0], got, step[1])
				}
			}
			eventually(t, "one record", func() bool { return len(u.records()) == 1 && !u.records()[0].Partial })
		})
	}
}
