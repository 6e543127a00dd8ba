package session

import (
	"net/netip"
	"testing"
	"time"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

func TestDocument(t *testing.T) {
	b := newBench(t, nil)
	b.say(t, "r1 A4000 V4010")
	b.advance(2 * time.Second)
	b.say(t, "a1 A3000 V0")
	b.network.Deliver(netip.MustParseAddrPort(relayIP+":50000"), netip.MustParseAddrPort("10.0.0.1:4000"), rtpPacket(8))
	b.network.Deliver(netip.MustParseAddrPort(relayIP+":50002"), netip.MustParseAddrPort("10.0.0.2:3000"), rtpPacket(101))
	b.advance(3500 * time.Millisecond)
	f, err := b.Remove(control.Remove{CallID: "c", FromTag: "F"})
	if err != nil {
		t.Fatal(err)
	}
	d := f.Report
	if d.RecordID == "" || d.Reason != report.ReasonRemoved {
		t.Errorf("record %q reason %q", d.RecordID, d.Reason)
	}
	line, err := report.Append(nil, d.Plain())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"call_id": "c", "from_tag": "F", "from_uri": "alice@example.com", "to_tag": "T", "to_uri": "bob@example.com", ` +
		`"start_time": 1893456002, "duration": 3, "caller_ua": "UA", "callee_ua": "UA", "username": null, "streams": [` +
		`{"media_type": "audio", "status": "closed", "timeout_wait": 0, "caller_codec": "G711a", "callee_codec": "Dynamic(101)", "start_time": 0, "end_time": 3, ` +
		`"post_dial_delay": 2, "caller_bytes": 200, "callee_bytes": 200, "caller_packets": 1, "callee_packets": 1, ` +
		`"caller_local": "203.0.113.9:50000", "callee_local": "203.0.113.9:50002", "caller_remote": "10.0.0.1:4000", "callee_remote": "10.0.0.2:3000"}, ` +
		`{"media_type": "video", "status": "rejected", "timeout_wait": 0, "caller_codec": "Unknown", "callee_codec": "Unknown", "start_time": 0, "end_time": 0, ` +
		`"post_dial_delay": null, "caller_bytes": 0, "callee_bytes": 0, "caller_packets": 0, "callee_packets": 0, ` +
		`"caller_local": "203.0.113.9:50004", "callee_local": "203.0.113.9:50006", "caller_remote": "Unknown", "callee_remote": "Unknown"}]}`
	if string(line) != want {
		t.Errorf("got\n%s\nwant\n%s", line, want)
	}
	x := b.Explain("c", "")
	if len(x) != 1 || len(x[0].Streams) != 2 {
		t.Fatalf("a finished session is explained by %d documents", len(x))
	}
}

func rtpPacket(pt byte) []byte {
	p := make([]byte, 172)
	p[0], p[1] = 0x80, pt
	return p
}

func TestTimeouts(t *testing.T) {
	caller, callee := netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:3000")
	toCaller, toCallee := netip.MustParseAddrPort(relayIP+":50000"), netip.MustParseAddrPort(relayIP+":50002")
	bothSend := func(b *bench) {
		b.network.Deliver(toCaller, caller, rtpPacket(8))
		b.network.Deliver(toCallee, callee, rtpPacket(8))
	}
	for _, c := range []struct {
		name   string
		run    func(t *testing.T, b *bench)
		wait   time.Duration
		status string // of the stream; empty: not in the document, because never answered
		reason string
	}{
		{"never answered", func(t *testing.T, b *bench) { b.say(t, "r1 A4000") }, 90 * time.Second, "", report.ReasonUnanswered},
		{"no media", func(t *testing.T, b *bench) { b.say(t, "r1 A4000"); b.say(t, "a1 A3000") }, 90 * time.Second, report.StatusNoTraffic, report.ReasonTimeout},
		{"idle", func(t *testing.T, b *bench) { b.say(t, "r1 A4000"); b.say(t, "a1 A3000"); bothSend(b) }, 120 * time.Second, report.StatusIdle, report.ReasonTimeout},
		{"held", func(t *testing.T, b *bench) {
			b.say(t, "r1 A4000")
			b.say(t, "a1 A3000")
			bothSend(b)
			b.advance(10 * time.Second)
			b.say(t, "r2 A4000/sendonly")
			b.say(t, "a2 A3000/recvonly")
		}, 7200 * time.Second, report.StatusHoldTimeout, report.ReasonTimeout},
		{"checks are no media", func(t *testing.T, b *bench) {
			b.say(t, "r1 A4000")
			b.say(t, "a1 A3000")
			b.network.Deliver(toCaller, caller, []byte("\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl"))
		}, 90 * time.Second, report.StatusNoTraffic, report.ReasonTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, func(cfg *media.Config) { cfg.IdleTimeout = 120 * time.Second })
			c.run(t, b)
			b.advance(c.wait - time.Second)
			if f := b.Sweep(); len(f) != 0 {
				t.Fatalf("expired a second too early: %+v", f[0].Report)
			}
			b.advance(time.Second)
			f := b.Sweep()
			if len(f) != 1 || b.Len() != 0 || b.network.OpenPorts() != 0 {
				t.Fatalf("%d finished, %d left, %d ports", len(f), b.Len(), b.network.OpenPorts())
			}
			d := f[0].Report
			if f[0].Owner != "dispatcher" || d.Reason != c.reason {
				t.Errorf("owner %q reason %q, want %q", f[0].Owner, d.Reason, c.reason)
			}
			if c.status == "" {
				if d.StartTime != nil || len(d.Streams) != 0 {
					t.Errorf("a call that was never answered: %+v", d)
				}
				return
			}
			if s := d.Streams[0]; s.Status != c.status || s.TimeoutWait != int64(c.wait/time.Second) {
				t.Errorf("status %q after %d s, want %q after %v", s.Status, s.TimeoutWait, c.status, c.wait)
			}
		})
	}
}

// Connectivity checks went through, then the agents found a better way.
func TestUnselectedICE(t *testing.T) {
	b := newBench(t, nil)
	for _, u := range []control.Update{
		{Kind: control.KindRequest, CSeq: 1, Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4000, ICE: true}, {Type: "video", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4002, ICE: true}}},
		{Kind: control.KindReply, CSeq: 1, ToTag: "T", Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("10.0.0.2"), Port: 3000, ICE: true}, {Type: "video", Addr: netip.MustParseAddr("10.0.0.2"), Port: 0}}},
	} {
		u.CallID, u.FromTag, u.HasMedia = "c", "F", true
		if _, _, err := b.Update(u, "d", true); err != nil {
			t.Fatal(err)
		}
	}
	b.advance(91 * time.Second)
	f := b.Sweep()
	if len(f) != 1 || f[0].Report.Reason != report.ReasonUnused {
		t.Fatalf("got %+v, want one session that ICE went around (a rejected stream beside changes nothing)", f)
	}
}

// A session without streams does not stay for ever.
func TestEmptySessionEnds(t *testing.T) {
	b := newBench(t, nil)
	b.say(t, "r1 A4000")
	b.say(t, "a1 A0")
	b.advance(89 * time.Second)
	if f := b.Sweep(); len(f) != 0 {
		t.Fatal("ended too early")
	}
	b.advance(2 * time.Second)
	if f := b.Sweep(); len(f) != 1 {
		t.Fatal("an empty session stays")
	}
}
