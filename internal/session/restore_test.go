package session

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/snapshot"
)

// keeper is a Keeper in memory.
type keeper map[string][]byte

func (k keeper) Put(id string, record []byte) { k[id] = bytes.Clone(record) }
func (k keeper) Delete(id string)             { delete(k, id) }

type fatal interface {
	Helper()
	Fatalf(string, ...any)
}

// restart has the next process take the calls over after an end in good order. It
// returns what that has to report.
func (b *bench) restart(t fatal) []Finished {
	t.Helper()
	b.Flush(true)
	b.network = b.network.Next()
	return b.resume(t)
}

// killed is the same after the end of a process that was killed.
func (b *bench) killed(t fatal) []Finished {
	t.Helper()
	b.network = b.network.Next()
	return b.resume(t)
}

func (b *bench) resume(t fatal) (reports []Finished) {
	t.Helper()
	b.begin()
	for _, id := range slices.Sorted(maps.Keys(b.keeper)) {
		if f, ended := b.Restore(id, b.keeper[id]); ended {
			reports = append(reports, f)
		}
	}
	if n := b.Resume(); n != 0 {
		t.Fatalf("%d ports of the former process are not claimed", n)
	}
	return reports
}

// words are all documents about the calls, without what a restart adds.
func (b *bench) words(t fatal) string {
	t.Helper()
	var out strings.Builder
	for _, doc := range append([]any{b.Calls(), b.StreamCount(), b.OneWay(), b.engine.PortsFree()}, documentsOf(b)...) {
		line, err := report.Append(nil, doc)
		if err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Fprintf(&out, "%s\n", line)
	}
	return out.String()
}

func documentsOf(b *bench) (docs []any) {
	for _, s := range b.Sessions() {
		docs = append(docs, s)
		for _, x := range b.Explain(s.CallID, s.FromTag) {
			for i := range x.Streams {
				x.Streams[i].Decisions = slices.DeleteFunc(x.Streams[i].Decisions, func(d report.Decision) bool { return d.Why == report.Restored })
			}
			docs = append(docs, x)
		}
	}
	return docs
}

// Whatever calls have been through, the next process has them as they were, and what the
// signalling says next has the same answers as if nothing had happened.
func TestNextProcessHasTheSameCalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.IntRange(0, 1<<30), 1, 60).Draw(t, "events")
		at := rapid.IntRange(0, len(seed)-1).Draw(t, "restart before event")
		noRest := func(c *media.Config) { c.PortRest = 1 } // how long ports rested is not kept
		one, two := newBench(t, noRest), newBench(t, noRest)
		for i, n := range seed {
			if i == at {
				restartAndCompare(t, two, rapid.Bool().Draw(t, "killed"))
			}
			if got, want := two.event(n), one.event(n); got != want {
				t.Fatalf("event %d (%d): after a restart %q, else %q", i, n, got, want)
			}
		}
		if got, want := fmt.Sprint(two.Calls(), two.StreamCount(), two.engine.PortsFree()), fmt.Sprint(one.Calls(), one.StreamCount(), one.engine.PortsFree()); got != want {
			t.Fatalf("with a restart %s, without %s", got, want)
		}
	})
}

func restartAndCompare(t fatal, b *bench, killed bool) {
	t.Helper()
	words, bones := b.words(t), b.bones()
	if killed {
		b.killed(t)
	} else if b.restart(t); b.words(t) != words {
		t.Fatalf("before\n%s\nafter\n%s", words, b.words(t))
	}
	if after := b.bones(); after != bones {
		t.Fatalf("before\n%s\nafter\n%s", bones, after)
	}
}

// bones are all that the table knows of its calls besides media, field by field: one that
// is forgotten in both directions would not show in the records.
func (b *bench) bones() string {
	var out strings.Builder
	for _, s := range b.all() {
		number := map[*stream]int{nil: -1}
		for i, st := range s.streams {
			number[st] = i
			fmt.Fprintf(&out, "%s ", st.bones())
		}
		for i, o := range s.offers {
			fmt.Fprintf(&out, "offer %v %v agreed %v", o.pair, o.by, s.agreed == o)
			for _, st := range o.streams {
				if n, ok := number[st]; ok {
					fmt.Fprintf(&out, " %d", n)
				} else {
					fmt.Fprintf(&out, " %d:%s", i, st.bones())
				}
			}
		}
		if a := s.agreed; a != nil {
			fmt.Fprintf(&out, " agreed %v %v %d", a.pair, a.by, len(a.streams))
		}
		fmt.Fprintln(&out, s.order, s.callID, s.fromTag, s.created.UnixNano(), s.toTag, s.fromURI, s.toURI, s.agents, s.username, s.dialogID, s.owner, s.faces, s.tags,
			s.start.UnixNano(), s.changed.UnixNano(), s.end.UnixNano(), s.ended, s.reason, s.record)
	}
	return out.String()
}

func (st *stream) bones() string {
	return fmt.Sprint(st.mediaType, st.v6, st.media != nil, st.created.UnixNano(), st.start.UnixNano(), st.end.UnixNano(), st.status, st.wait, st.addrs)
}

// The agreed offer is kept although there are too many after it to keep it for messages
// that come late; streams of another family are, too.
func TestOldOffersAreKept(t *testing.T) {
	b := newBench(t, nil)
	b.say(t, "r1 A4000")
	b.say(t, "a1 A3000")
	for i := range 2 * keptOffers {
		b.say(t, fmt.Sprintf("r%d A4000 A%d", 2+i, 5000+2*i))
		restartAndCompare(t, b, i%2 == 0)
	}
	if s := b.all()[0]; len(s.offers) != keptOffers || s.agreed == nil || s.agreed.pair[media.Caller] != 1 {
		t.Errorf("%d offers, agreed %+v", len(s.offers), s.agreed)
	}
	u := control.Update{Kind: control.KindRequest, CallID: "c", FromTag: "F", CSeq: 99, HasMedia: true, Media: []control.Media{
		{Type: "audio", Addr: netip.MustParseAddr("2001:db8::5"), Port: 4000}, {Type: "video", Addr: netip.MustParseAddr("2001:db8::5")}}}
	if _, _, err := b.Update(u, "d", true); err != nil {
		t.Fatal(err)
	}
	restartAndCompare(t, b, true)
}

// Whoever adds a field to these has to think of the record and of bones.
func TestFieldsAreAccountedFor(t *testing.T) {
	for _, c := range []struct {
		of   reflect.Type
		want int
	}{{reflect.TypeFor[Session](), 26}, {reflect.TypeFor[stream](), 11}, {reflect.TypeFor[offer](), 3}} {
		if n := c.of.NumField(); n != c.want {
			t.Errorf("%v has %d fields, %d are known here", c.of, n, c.want)
		}
	}
}

// event lets one thing happen and tells what came of it. The same number is the same
// event.
func (b *bench) event(n int) string {
	b.advance(time.Millisecond)
	pick := func(of int) int { v := n % of; n /= of; return v }
	call, fromCallee := fmt.Sprint("call-", pick(2)), pick(4) == 0
	switch pick(8) {
	case 0:
		b.advance(time.Duration(pick(9)) * 350 * time.Millisecond)
		return ""
	case 1:
		b.packet(pick(14), pick(3))
		return "" // after a restart nothing counts as silence, so this may differ
	case 2:
		if pick(6) > 0 {
			return ""
		}
		ended, err := b.Remove(control.Remove{CallID: call, FromTag: "F"})
		doc := ended.Report
		return fmt.Sprint(doc.CallID, doc.Duration, len(doc.Streams), err)
	}
	u := control.Update{Kind: control.KindRequest, CallID: call, FromTag: "F", FromURI: "a@example.com", ToURI: "b@example.com", UserAgent: "UA",
		CSeq: uint32(1 + pick(20)), DialogID: []string{"", "7:8"}[pick(2)], Signaling: control.Signaling{IP: netip.MustParseAddr("10.0.0.1"), Username: []string{"", "al"}[pick(2)]}}
	if reply := pick(2) == 1; reply {
		u.Kind, u.ToTag = control.KindReply, []string{"", "T", "T", "U"}[pick(4)]
	}
	if fromCallee {
		u.FromTag, u.ToTag = "T", "F"
	}
	for range pick(4) {
		m := control.Media{Type: []string{"audio", "audio", "video", "image"}[pick(4)], Addr: netip.MustParseAddr([]string{"10.0.0.1", "10.0.0.2", "0.0.0.0"}[pick(3)]),
			Port: []uint16{4000, 3000, 0}[pick(3)], Direction: []string{"sendrecv", "sendonly"}[pick(2)], ICE: pick(5) == 0}
		u.HasMedia, u.Media = true, append(u.Media, m)
	}
	answer, _, err := b.Update(u, "dispatcher", true)
	return fmt.Sprint(answer, err)
}

func (b *bench) packet(port, source int) {
	from := netip.MustParseAddrPort([]string{"10.0.0.1:4000", "10.0.0.2:3000", "192.0.2.66:6000"}[source])
	b.advance(20 * time.Millisecond)
	b.network.Deliver(netip.AddrPortFrom(netip.MustParseAddr(relayIP), uint16(50000+port)), from, rtpPacket(8))
}

// What the ends of a session leave behind is a report, until it is acknowledged.
func TestReportsOutliveTheProcess(t *testing.T) {
	b := newBench(t, nil)
	b.say(t, "r1 A4000 V4010")
	b.say(t, "a1 A3000 V0")
	b.network.Deliver(netip.MustParseAddrPort(relayIP+":50000"), netip.MustParseAddrPort("10.0.0.1:4000"), rtpPacket(8))
	b.advance(time.Minute)
	want, err := b.Remove(control.Remove{CallID: "c", FromTag: "F"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // once more after the second process, which does not get rid of it either
		reports := b.restart(t)
		if len(reports) != 1 || reports[0].Owner != "dispatcher" || b.Len() != 0 {
			t.Fatalf("%d reports and %d calls, want one report: %+v", len(reports), b.Len(), reports)
		}
		got, err := report.Append(nil, reports[0].Report)
		if err != nil {
			t.Fatal(err)
		}
		if line, _ := report.Append(nil, want.Report); !bytes.Equal(got, line) {
			t.Errorf("got\n%s\nwant\n%s", got, line)
		}
	}
	b.Acknowledged("another")
	if len(b.keeper) != 1 {
		t.Error("another report was acknowledged, and this one is gone")
	}
	b.Acknowledged(want.Report.RecordID)
	if reports := b.restart(t); len(reports) != 0 || len(b.keeper) != 0 {
		t.Errorf("%d reports, %d records after the acknowledgement", len(reports), len(b.keeper))
	}
	if got := b.say(t, "r1 A4000"); got != "50002" {
		t.Errorf("the next call: %s", got)
	}
}

// Each end of a session is kept before anybody hears of it; one that never came to be
// leaves nothing.
func TestWhatIsKept(t *testing.T) {
	b := newBench(t, func(c *media.Config) { c.FirstPort, c.EndPort = 50000, 50008 })
	kept := func(live, ended int) {
		t.Helper()
		gotLive, gotEnded := 0, 0
		for _, record := range b.keeper {
			h := head{}
			if err := snapshot.Parse(record, &h, (*head).fields); err != nil {
				t.Fatal(err)
			}
			if h.ended {
				gotEnded++
			} else {
				gotLive++
			}
		}
		if gotLive != live || gotEnded != ended {
			t.Errorf("%d live and %d ended sessions are kept, want %d and %d", gotLive, gotEnded, live, ended)
		}
	}
	b.say(t, "r1 A4000 V4010 A5000") // more than there is
	kept(0, 0)
	b.say(t, "r1 A4000")
	kept(1, 0)
	b.say(t, "r2 A4000 V4010 A5000") // refused
	kept(1, 0)
	b.Terminate("c", "")
	kept(0, 1)
	b.say(t, "r1 A4000 V4010")
	b.advance(80 * time.Second)
	b.network.Deliver(netip.MustParseAddrPort(relayIP+":50000"), netip.MustParseAddrPort("10.0.0.1:4000"), rtpPacket(8))
	b.advance(11 * time.Second)
	if n := len(b.Sweep()); n != 0 {
		t.Fatalf("%d ended", n)
	}
	kept(1, 1)
	if got := b.statuses(t); !strings.Contains(got, report.StatusNoTraffic) {
		t.Fatalf("statuses %s", got)
	}
	restartAndCompare(t, b, false)
	b.EndAll(report.ReasonShutdown)
	kept(0, 2)
}

// Packets leave their mark with the next Flush, not before: their path waits for nobody.
func TestPacketsAreKeptByFlush(t *testing.T) {
	b := newBench(t, nil)
	b.say(t, "r1 A4000")
	b.say(t, "a1 A3000")
	before := bytes.Clone(b.keeper["call/1"])
	b.network.Deliver(netip.MustParseAddrPort(relayIP+":50002"), netip.MustParseAddrPort("10.0.0.2:3000"), rtpPacket(8))
	if !bytes.Equal(b.keeper["call/1"], before) {
		t.Error("the packet's path has written a record")
	}
	b.Flush(false)
	after := bytes.Clone(b.keeper["call/1"])
	if bytes.Equal(after, before) {
		t.Error("what was learned is not kept")
	}
	delete(b.keeper, "call/1")
	b.Flush(false)
	if len(b.keeper) != 0 {
		t.Error("kept again although nothing changed")
	}
}

// A call whose port another program has got is reported as ended; the others go on.
func TestPortLostMeanwhile(t *testing.T) {
	b := newBench(t, nil)
	b.say(t, "r1 A4000 V4010")
	b.say(t, "a1 A3000 V3010")
	other := control.Update{Kind: control.KindRequest, CallID: "other", FromTag: "F", CSeq: 1, HasMedia: true,
		Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("10.0.0.9"), Port: 4000, Direction: "sendrecv"}}}
	want, _, err := b.Update(other, "d2", true)
	if err != nil {
		t.Fatal(err)
	}
	b.network.InUse[netip.MustParseAddrPort(relayIP+":50006")] = true // of the video
	b.network = b.network.Next()
	log := &strings.Builder{}
	b.engine = media.NewEngine(b.cfg, b.network, slog.New(slog.DiscardHandler))
	b.Table = New(Config{Clock: func() time.Time { return b.now }, Keeper: b.keeper, Boot: "1"}, b.engine, slog.New(slog.NewTextHandler(log, nil)))
	var reports []Finished
	for id, record := range maps.Clone(b.keeper) {
		if f, ended := b.Restore(id, record); ended {
			reports = append(reports, f)
		}
	}
	b.Resume()
	if len(reports) != 1 || reports[0].Report.CallID != "c" || reports[0].Report.Reason != report.ReasonNotRestored || reports[0].Owner != "dispatcher" {
		t.Fatalf("reports %+v", reports)
	}
	if s := log.String(); strings.Count(s, "level=ERROR") != 1 || !strings.Contains(s, "call_id=c ") || !strings.Contains(s, ":50006") {
		t.Errorf("the log says %s", s)
	}
	if got, _, err := b.Update(other, "d2", false); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the other call: %v %v, want %v", got, err, want)
	}
	if n := b.network.OpenPorts(); n != 4 {
		t.Errorf("%d ports are open, want those of the other call", n)
	}
	// It is a finished call like any other from here on.
	delete(b.network.InUse, netip.MustParseAddrPort(relayIP+":50006"))
	if again := b.restart(t); len(again) != 1 || again[0].Report.RecordID != reports[0].Report.RecordID {
		t.Errorf("the next process reports %+v", again)
	}
}

// Records that cannot be read cost their call and nothing else.
func TestUnreadableRecords(t *testing.T) {
	newer := func(h head) []byte {
		h.version = recordVersion + 1
		return snapshot.Append(nil, &h, (*head).fields)
	}
	for _, c := range []struct {
		name, id string
		record   []byte
		want     string
		stays    bool
	}{
		{"newer", "call/5", newer(head{callID: "c5", fromTag: "F"}), "call_id=c5 ended=false", false},
		{"newer report", "call/5", newer(head{callID: "c5", fromTag: "F", ended: true}), "call_id=c5 ended=true", true},
		{"garbled", "call/5", []byte{0xff}, "ends within a field", false},
		{"empty", "call/5", nil, "not the record of a call", false},
		{"offer of no stream", "call/5", snapshot.Append(nil, &head{version: 1}, func(h *head, c *snapshot.Coder) {
			offers := []offerRecord{{streams: []int{9}}}
			h.fields(c)
			snapshot.List(c, 28, &offers, (*offerRecord).fields)
		}), "an offer names stream 9 of 0", false},
		{"foreign id", "something", nil, `"something" is not the id of a call`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			log := &strings.Builder{}
			b.Table = New(Config{Keeper: b.keeper}, b.engine, slog.New(slog.NewTextHandler(log, nil)))
			b.keeper.Put(c.id, c.record)
			if _, ended := b.Restore(c.id, c.record); ended || b.Len() != 0 || b.network.OpenPorts() != 0 {
				t.Error("something was restored")
			}
			if !strings.Contains(strings.ReplaceAll(log.String(), `\"`, `"`), c.want) || strings.Count(log.String(), "level=ERROR") != 1 {
				t.Errorf("the log says %s, want %s", log, c.want)
			}
			if _, there := b.keeper[c.id]; there != c.stays {
				t.Errorf("the record is there: %v", there)
			}
			b.say(t, "r1 A4000")
			if c.id == "call/5" && b.keeper["call/6"] == nil {
				t.Errorf("ids begin anew: %v", slices.Collect(maps.Keys(b.keeper)))
			}
		})
	}
}

// The host was restarted: its clock begins anew, and some time has passed.
func TestHostRestarted(t *testing.T) {
	for _, c := range []struct {
		name string
		away time.Duration // by the wall clock
		age  float64       // of the stream then
	}{
		{"three minutes", 3 * time.Minute, 10 + 180},
		{"its clock is behind", -time.Hour, 10},
		{"its clock is years ahead", 100000 * time.Hour, 10 + 86400},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			b.say(t, "r1 A4000")
			b.say(t, "a1 A3000")
			b.network.Deliver(netip.MustParseAddrPort(relayIP+":50000"), netip.MustParseAddrPort("10.0.0.1:4000"), rtpPacket(8))
			b.advance(10 * time.Second)
			b.say(t, "a1 A3000")
			start := *b.Session("c", "F")[0].StartTime
			b.network = b.network.Next()
			b.network.Advance(-30 * time.Minute) // what a clock that began anew may show
			b.now, b.boot = b.now.Add(c.away), "2"
			b.resume(t)
			x := b.Explain("c", "F")[0]
			if got := x.Streams[0].Age; got < c.age-0.01 || got > c.age+0.01 {
				t.Errorf("the stream is %v s old, want %v", got, c.age)
			}
			if got := *x.Session.StartTime; got != start {
				t.Errorf("the call began at %v, want %v", got, start)
			}
			if n := len(b.Sweep()); n != 0 {
				t.Error("it expired at once")
			}
			if got := b.say(t, "r2 A4000"); got != "50002" {
				t.Errorf("re-INVITE: %s", got)
			}
		})
	}
	// The same name of the run and an earlier time: a container whose clock has an offset
	// of its own.
	b := newBench(t, nil)
	b.say(t, "r1 A4000")
	b.network = b.network.Next()
	b.network.Advance(-30 * time.Minute)
	b.resume(t)
	if age := b.Explain("c", "F")[0].Streams[0].Age; age != 0 {
		t.Errorf("the stream is %v s old, want 0", age)
	}
}

// The journal was damaged so that a call is in it twice: one of both goes on.
func TestCallIsThereTwice(t *testing.T) {
	b := newBench(t, nil)
	b.say(t, "r1 A4000")
	b.keeper["call/2"] = b.keeper["call/1"]
	b.network = b.network.Next()
	reports := b.resume(t)
	if len(reports) != 1 || b.Len() != 1 || b.network.OpenPorts() != 4 {
		t.Fatalf("%d reports, %d calls, %d ports", len(reports), b.Len(), b.network.OpenPorts())
	}
	if got := b.say(t, "a1 A3000"); got != "50000" {
		t.Errorf("the call: %s", got)
	}
}

func BenchmarkKeep(b *testing.B) {
	t := newBench(b, nil)
	t.say(b, "r1 A4000")
	t.say(b, "a1 A3000")
	s := t.all()[0]
	b.ReportAllocs()
	for b.Loop() {
		s.keep()
	}
	b.ReportMetric(float64(len(t.keeper["call/1"])), "bytes")
}

// The dispatcher that served a call last owns it, in the next process too.
func TestOwnerIsWhoServedItLast(t *testing.T) {
	b := newBench(t, nil)
	offer := control.Update{Kind: control.KindRequest, CallID: "c", FromTag: "F", CSeq: 1, HasMedia: true,
		Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4000, Direction: "sendrecv"}}}
	if _, before, err := b.Update(offer, "d1", true); err != nil || before.Owner != "" {
		t.Fatalf("a new call was %q's, %v", before.Owner, err)
	}
	offer.CSeq, offer.ToTag = 2, "T"
	if _, before, err := b.Update(offer, "d2", false); err != nil || before.Owner != "d1" || before.CallID != "c" || before.FromTag != "F" {
		t.Fatalf("before: %+v, %v", before, err)
	}
	if reports := b.restart(t); len(reports) != 0 || b.Len() != 1 || b.Calls()[0].Owner != "d2" {
		t.Errorf("%d reports, calls %+v", len(reports), b.Calls())
	}
}
