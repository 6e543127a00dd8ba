package dispatcher

import (
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

const ports = "203.0.113.9 50002"

func TestCallOverBothProtocols(t *testing.T) {
	for _, tt := range []struct {
		name  string
		relay func(u *under) *fakeRelay
	}{
		{"link/2", func(u *under) *fakeRelay { return u.relay("a") }},
		{"plain", func(u *under) *fakeRelay { return u.relay("127.0.0.1", plainFrom("127.0.0.1")) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := start(t, nil)
			r := tt.relay(u)
			m := u.module()
			first := message{call: "c1", from: "f", dialog: "77"}.String()
			for _, step := range []struct{ request, want string }{
				{first, ports},
				{message{call: "c1", from: "f", to: "t", reply: true}.String(), ports},
				{message{call: "c1", from: "f", to: "t", reply: true, noMedia: true}.String(), ports},
				{message{call: "c1", from: "t", to: "f"}.String(), ports}, // the callee's re-INVITE
				{remove("c1", "t", "f"), "removed"},                       // and its BYE
				{remove("c1", "f", "t"), "error"},
				{message{call: "c2", from: "f", reply: true, noMedia: true}.String(), "error"},
			} {
				if got := m.ask(step.request); got != step.want {
					t.Fatalf("%q\n got %q\nwant %q", step.request, got, step.want)
				}
			}
			eventually(t, "one record", func() bool { return len(u.records()) == 1 })
			s := u.records()[0]
			if s.CallID != "c1" || s.DialogID != "77" || s.Reason != report.ReasonRemoved || s.RecordID == "" || s.Relay != r.name || s.TimedOut() {
				t.Errorf("record %+v", s)
			}
			if n := r.count(relaylink.Update); n != 4 {
				t.Errorf("relay got %d updates, want 4: nothing without media may be asked for an unknown call", n)
			}
			// Headers arrive as they came and in their order, without the empty ones.
			want := "update\r\ntype: request\r\ndialog_id: 77\r\ncall_id: c1\r\ncseq: 1\r\nfrom_uri: alice@example.com\r\nto_uri: bob@example.com\r\n" +
				"from_tag: f\r\nuser_agent: Phone/1.0\r\nmedia: audio:192.0.2.1:4000:sendrecv:ice=no\r\n\r\n"
			for _, c := range r.got {
				if c.Name == relaylink.Update {
					if id := get(c, relaylink.HeaderRecord); (id == "") != r.plain {
						t.Errorf("record_id %q", id)
					}
					c.Seq, c.Headers = "", slices.DeleteFunc(c.Headers, func(h control.Header) bool { return h.Name == relaylink.HeaderRecord })
					if got := strings.Replace(string(relaylink.AppendCommand(nil, c)), "update ", "update", 1); got != want {
						t.Errorf("relay got\n%q\nwant\n%q", got, want)
					}
					break
				}
			}
			if calls, _ := u.calls.counts(); calls != 0 {
				t.Errorf("%d calls are still known", calls)
			}
		})
	}
}

// silent never answers updates.
func silent(c relaylink.Command) (string, bool) { return "", c.Name == relaylink.Update }

func TestNextRelayInsideTheDeadline(t *testing.T) {
	for _, tt := range []struct {
		name string
		bad  func(relaylink.Command) (string, bool)
	}{
		{"silent", silent},
		{"error", func(c relaylink.Command) (string, bool) { return "error ports exhausted", c.Name == relaylink.Update }},
		{"halting", func(c relaylink.Command) (string, bool) { return "halting", c.Name == relaylink.Update }},
		{"None", func(c relaylink.Command) (string, bool) { return "None", c.Name == relaylink.Update }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const deadline = 2 * time.Second // the half of it is for the first
			u := start(t, func(c *Config) { c.SetupTimeout = deadline })
			bad := u.relay("bad", handling(tt.bad))
			good := u.relay("good")
			m := u.module()
			begun := time.Now()
			if got := m.ask(message{call: "c", from: "f", mediaRelay: "bad"}.String()); got != ports {
				t.Errorf("got %q", got)
			}
			if took := time.Since(begun); took > deadline {
				t.Errorf("took %v", took)
			}
			if bad.count(relaylink.Update) != 1 || good.count(relaylink.Update) != 1 || u.Stats().Failovers != 1 {
				t.Errorf("bad got %d, good %d updates, %+v", bad.count(relaylink.Update), good.count(relaylink.Update), u.Stats())
			}
			// In-dialog messages follow the call.
			if got := m.ask(message{call: "c", from: "t", to: "f"}.String()); got != ports || good.count(relaylink.Update) != 2 {
				t.Errorf("got %q, good has %d", got, good.count(relaylink.Update))
			}
		})
	}
}

func TestNoRelayAnswersInTime(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 100 * time.Millisecond })
	u.relay("bad", handling(silent))
	m := u.module()
	begun := time.Now()
	if got := m.ask(offer("c")); got != "error" {
		t.Errorf("got %q", got)
	}
	if took := time.Since(begun); took < 90*time.Millisecond || took > patience {
		t.Errorf("took %v", took)
	}
	if calls, _ := u.calls.counts(); calls != 0 {
		t.Errorf("%d calls known after a failed set-up", calls)
	}
}

func TestRelayAwayForAMoment(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 3 * time.Second })
	r := u.relay("a")
	m := u.module()
	if got := m.ask(offer("c")); got != ports {
		t.Fatal(got)
	}
	calls := r.sessions
	r.close()
	eventually(t, "the loss is seen", func() bool { return u.Stats().LostCalls == 1 })
	m.send(message{call: "c", from: "f", to: "t", reply: true}.String())
	other := u.module()
	other.send(offer("new"))
	again := u.relay("a", having(calls...))
	if got := m.receive(); got != ports {
		t.Errorf("the known call got %q", got)
	}
	if got := other.receive(); got != ports {
		t.Errorf("the new call got %q", got)
	}
	if got := m.ask(remove("c", "f", "t")); got != "removed" || again.count(relaylink.Remove) != 1 {
		t.Errorf("got %q", got)
	}
}

func TestLostCallIsPlacedAnew(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = time.Second })
	a := u.relay("a")
	m := u.module()
	if got := m.ask(message{call: "c", from: "f", dialog: "5"}.String()); got != ports {
		t.Fatal(got)
	}
	old := a.sessions
	a.close()
	b := u.relay("b")
	eventually(t, "the call is lost", func() bool { return u.Stats().LostCalls == 1 })
	if got := u.manager().ask("sessions lost\r\n"); !strings.Contains(got, `"call_id": "c"`) || !strings.Contains(got, `"dialog_id": "5", "relay": "a"`) {
		t.Errorf("sessions lost: %s", got)
	}
	if got := m.ask(message{call: "c", from: "f", to: "t", reply: true}.String()); got != "error" || b.count(relaylink.Update) != 0 {
		t.Errorf("a reply got %q", got)
	}
	if got := m.ask(message{call: "c", from: "t", to: "f"}.String()); got != ports || b.count(relaylink.Update) != 1 {
		t.Errorf("an offer got %q", got)
	}
	if s := u.Stats(); s.Moved != 1 || s.LostCalls != 0 {
		t.Errorf("%+v", s)
	}
	// When the old relay is back with the call, it is ended there and only there.
	a2 := u.relay("a", having(old...))
	eventually(t, "the old session is removed", func() bool { return len(a2.calls()) == 0 })
	if got := m.ask(remove("c", "f", "t")); got != "removed" || b.count(relaylink.Remove) != 1 {
		t.Errorf("got %q", got)
	}
	eventually(t, "both halves are recorded", func() bool { return len(u.records()) == 2 })
}

func TestRemoveWhileRelayIsAway(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 500 * time.Millisecond })
	a := u.relay("a")
	m := u.module()
	if got := m.ask(offer("c")); got != ports {
		t.Fatal(got)
	}
	calls := a.sessions
	a.close()
	eventually(t, "the loss is seen", func() bool { return u.Stats().LostCalls == 1 })
	if got := m.ask(remove("c", "f", "")); got != "error" {
		t.Errorf("got %q", got)
	}
	back := u.relay("a", having(calls...))
	eventually(t, "it is ended when the relay is back", func() bool { return len(back.calls()) == 0 && len(u.records()) == 1 })
}

func TestTwoRemovesAtOnce(t *testing.T) {
	u := start(t, nil)
	held := make(chan relaylink.Command, 2)
	r := u.relay("a", handling(func(c relaylink.Command) (string, bool) {
		if c.Name == relaylink.Remove {
			held <- c
		}
		return "", c.Name == relaylink.Remove
	}))
	m1, m2 := u.module(), u.module()
	if got := m1.ask(offer("c")); got != ports {
		t.Fatal(got)
	}
	m1.send(remove("c", "f", "t"))
	first := <-held
	m2.send(remove("c", "t", "f"))
	r.answer(first, r.usual(first))
	if a, b := m1.receive(), m2.receive(); a != "removed" || b != "removed" {
		// The second may also have come after the first was done.
		if a != "removed" || b != "error" {
			t.Errorf("got %q and %q", a, b)
		}
	}
	eventually(t, "one record", func() bool { return len(u.records()) == 1 })
	if r.count(relaylink.Remove) != 1 {
		t.Errorf("relay was asked %d times", r.count(relaylink.Remove))
	}
}

func TestRemoveAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		records      int
	}{
		{"unknown on the relay", "error", 0},
		{"unknown on the relay, with reason", "error no such session", 0},
		{"unreadable", "whatever", 1},
		{"broken JSON", `{"call_id": `, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := start(t, nil)
			r := u.relay("a")
			r.handleWith(func(c relaylink.Command) (string, bool) {
				if c.Name == relaylink.Remove {
					r.usual(c)
				}
				return tt.answer, c.Name == relaylink.Remove
			})
			m := u.module()
			m.ask(offer("c"))
			if got := m.ask(remove("c", "f", "")); got != "removed" {
				t.Errorf("got %q", got)
			}
			if got := m.ask(remove("c", "f", "")); got != "error" {
				t.Errorf("the call is still known: %q", got)
			}
			eventually(t, "the records", func() bool { return len(u.records()) == tt.records })
		})
	}
}

func TestTagsOfRemove(t *testing.T) {
	for _, tags := range [][2]string{{"f", "t"}, {"t", "f"}, {"f", ""}, {"t", ""}, {"", ""}, {"", "f"}} {
		u := start(t, nil)
		r := u.relay("a")
		m := u.module()
		m.ask(offer("c"))
		m.ask(message{call: "c", from: "f", to: "t", reply: true}.String())
		if got := m.ask(remove("c", tags[0], tags[1])); got != "removed" || len(r.calls()) != 0 {
			t.Errorf("tags %q: got %q, relay has %v", tags, got, r.calls())
		}
	}
}

func TestSameCallIDOtherTags(t *testing.T) {
	u := start(t, nil)
	relays := []*fakeRelay{u.relay("a"), u.relay("b"), u.relay("c")}
	m := u.module()
	for _, from := range []string{"f1", "f2", "f3"} {
		if got := m.ask(message{call: "c", from: from}.String()); got != ports {
			t.Fatal(got)
		}
	}
	for _, r := range relays {
		if n := len(r.calls()); n != 0 && n != 3 {
			t.Errorf("relay %s has %d of the three: one Call-ID belongs together", r.name, n)
		}
	}
	if got := m.ask(remove("c", "f2", "")); got != "removed" {
		t.Error(got)
	}
	if calls, _ := u.calls.counts(); calls != 2 {
		t.Errorf("%d calls left, want 2", calls)
	}
}

func TestModuleLeavesWhileWaiting(t *testing.T) {
	u := start(t, nil)
	held := make(chan relaylink.Command, 1)
	r := u.relay("a", handling(func(c relaylink.Command) (string, bool) {
		if c.Name == relaylink.Update {
			held <- c
		}
		return "", c.Name == relaylink.Update
	}))
	m := u.module()
	m.send(offer("c"))
	c := <-held
	m.conn.Close()
	r.answer(c, r.usual(c))
	eventually(t, "the connection is gone", func() bool { return u.Stats().Modules == 0 })
	if got := u.module().ask(remove("c", "f", "")); got != "removed" {
		t.Errorf("the call is not known: %q", got)
	}
}

func TestConcurrentMessagesOfANewCall(t *testing.T) {
	u := start(t, nil)
	a, b := u.relay("a"), u.relay("b")
	var modules []*module
	for range 20 {
		m := u.module()
		m.send(offer("c"))
		modules = append(modules, m)
	}
	for _, m := range modules {
		if got := m.receive(); got != ports {
			t.Errorf("got %q", got)
		}
	}
	if na, nb := len(a.calls()), len(b.calls()); na+nb != 1 {
		t.Errorf("the call is on %d + %d relays", na, nb)
	}
}

func TestLinkLostDuringSetup(t *testing.T) {
	u := start(t, func(c *Config) { c.SetupTimeout = 3 * time.Second })
	got := make(chan struct{}, 1)
	first := u.relay("a", handling(func(c relaylink.Command) (string, bool) {
		if c.Name == relaylink.Update {
			got <- struct{}{}
		}
		return "", c.Name == relaylink.Update
	}))
	m := u.module()
	m.send(offer("c"))
	<-got
	first.close()
	second := u.relay("a")
	if reply := m.receive(); reply != ports || second.count(relaylink.Update) != 1 {
		t.Errorf("got %q", reply)
	}
}
