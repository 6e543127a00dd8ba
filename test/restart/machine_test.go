package restart

import (
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/site"
)

// TestMachineRestarted: the host was away for a few minutes and its monotonic clock begins
// anew. Calls are on the same ports, learn and relay again, and their times are right. A
// call on hold stays so, one that ended meanwhile ends by silence.
func TestMachineRestarted(t *testing.T) {
	t.Parallel()
	const relayIP, phones = "127.19.200.1", "127.19.200."
	s := site.New(t, site.Options{})
	d := s.Dispatcher("d", nil)
	cfg := site.RelayConfig{Media: site.Lowest(relayIP, 50000, 50100), Dispatchers: []string{d.RelayAddr().String()}, State: t.TempDir(), Boot: "one"}
	r := s.Relay("r", cfg)
	module := d.Module()
	payload := site.Payload(172)

	alice, bob := site.NewPhone(t, phones+"101:0"), site.NewPhone(t, phones+"102:0")
	message := func(id, kind, direction string, cseq int, from *site.Phone) site.Message {
		m := site.Message{Kind: kind, CallID: id, From: "a", CSeq: cseq, Dialog: "3:" + id, Source: from.Addr.Addr().String(), Media: site.Audio(from.Addr)}
		if kind == "reply" || cseq > 1 {
			m.To = "b"
		}
		if direction != "" {
			m.Media = "audio:" + from.Addr.Addr().String() + ":4000:" + direction + ":ice=no"
		}
		return m
	}
	toBob := module.Update(message("c", "request", "", 1, alice))[0]
	toAlice := module.Update(message("c", "reply", "", 1, bob))[0]
	talk := func() {
		t.Helper()
		for range 3 {
			site.Exchange(t, alice, toAlice, bob, toBob, payload)
			site.Exchange(t, bob, toBob, alice, toAlice, payload)
		}
	}
	talk()
	for i, kind := range []string{"request", "reply", "request", "reply"} {
		direction := "sendrecv"
		if i >= 2 {
			direction = "sendonly"
		}
		module.Update(message("held", kind, direction, 1+i/2, alice))
	}
	s.Clock.Advance(20 * time.Second)
	before := documents(r)

	r.Leave()
	s.Clock.Advance(5 * time.Minute)
	cfg.Boot = "two"
	r = s.Relay("r", cfg)
	after := documents(r)
	if after["c"] != before["c"] || after["held"] != before["held"] || len(after) != 2 {
		t.Errorf("calls before\n%+v\nafter\n%+v", before, after)
	}
	x := r.Table.Explain("c", "")[0]
	if age := x.Streams[0].Age; age < 320 || age > 325 {
		t.Errorf("the stream is %v s old, want 320", age)
	}
	talk()
	module = d.Module() // which the dispatcher would have closed by now
	if got := module.Update(message("c", "request", "", 2, alice)); got[0] != toBob {
		t.Errorf("re-INVITE: got %v, want %v", got[0], toBob)
	}
	talk()
	r.Elapse(85 * time.Second)
	if n := r.Table.Len(); n != 2 {
		t.Fatalf("%d calls after 85 s, want 2", n)
	}
	r.Elapse(10 * time.Second)
	if got := d.AwaitRecords(1)[0]; got.CallID != "c" || got.Reason != report.ReasonTimeout || got.Streams[0].Status != report.StatusIdle {
		t.Errorf("the end of a call without media: %+v", got)
	}
	if n := r.Table.Len(); n != 1 {
		t.Errorf("%d calls are left, want the one on hold", n)
	}
}

// document is what of a call must not change.
type document struct {
	start                                                float64
	fromTag, toTag, dialog, status, local, remote, other string
}

func documents(r *site.Relay) map[string]document {
	calls := map[string]document{}
	for _, s := range r.Table.Sessions() {
		st := s.Streams[0]
		calls[s.CallID] = document{start: *s.StartTime, fromTag: s.FromTag, toTag: *s.ToTag, dialog: s.DialogID, status: st.Status,
			local: st.CallerLocal + " " + st.CalleeLocal, remote: st.CallerRemote, other: st.CalleeRemote}
	}
	return calls
}
