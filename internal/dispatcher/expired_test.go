package dispatcher

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

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
			if s.TimedOut() != (tt.reason == report.ReasonTimeout || tt.reason == report.ReasonShutdown) || s.AllStreamsICE() != (tt.reason == report.ReasonUnused) {
				t.Errorf("timed out %v, all ICE %v", s.TimedOut(), s.AllStreamsICE())
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
	const keep = 100
	r := newRecords(keep)
	for i := range 3 * keep {
		id := fmt.Sprint(i)
		if r.claim(id) != recordNew {
			t.Fatal(id)
		}
		r.done(id)
		if len(r.young)+len(r.older) > 2*keep {
			t.Fatalf("%d ids kept", len(r.young)+len(r.older))
		}
	}
	if r.claim(fmt.Sprint(3*keep-1)) != recordDone || r.claim(fmt.Sprint(2*keep)) != recordDone {
		t.Error("the latest ids are forgotten")
	}
}

func TestCleanupOfDeadRelays(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a")
	u.module().ask(offer("lost"))
	r.close()
	eventually(t, "the loss is seen", func() bool { return u.Stats().LostCalls == 1 })
	u.pass(DefaultCleanupDeadRelays - time.Hour)
	if u.Stats().Calls != 1 || u.registry.find("a") == nil {
		t.Error("forgotten an hour too early")
	}
	u.pass(time.Hour + time.Second)
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
	u.pass(DefaultCleanupExpired - time.Hour)
	if known() != 2 {
		t.Errorf("%d calls after 23 hours, want 2", known())
	}
	u.pass(time.Hour + time.Minute)
	eventually(t, "they are dropped with one warning", func() bool {
		return known() == 0 && u.logged(`msg="expired calls forgotten: the SIP proxy never removed them" calls=2`)
	})
}

func TestRecordsOfOldRelaysAreKept(t *testing.T) {
	u := start(t, nil)
	r := u.relay("127.0.0.1", plainFrom("127.0.0.1"))
	u.failFinished(errors.New("disk full"))
	r.expire(sessionDoc("c1", "f"))
	r.expire(sessionDoc("c2", "f"))
	eventually(t, "the hook failed twice", func() bool { return u.Stats().FinishErrors == 2 })
	u.pass(retryEvery)
	eventually(t, "the hook failed again", func() bool { return u.Stats().FinishErrors == 3 })
	u.failFinished(nil)
	u.pass(retryEvery)
	eventually(t, "both are taken", func() bool { return len(u.records()) == 2 })
	got := u.records()
	if first, second := got[0].CallID, got[1].CallID; min(first, second) != "c1" || max(first, second) != "c2" { // they are handed over at once
		t.Errorf("%+v", got)
	}
}
