package media

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/snapshot"
)

func record(s *Stream) []byte { return snapshot.Append(nil, s, (*Stream).Fields) }

func parse(t testing.TB, b []byte) *Stream {
	t.Helper()
	s := new(Stream)
	if err := snapshot.Parse(b, s, (*Stream).Fields); err != nil {
		t.Fatal(err)
	}
	return s
}

// nextProcess takes the call over on the table of the next process.
func (c *call) nextProcess(t testing.TB, changed func()) (orphans int) {
	t.Helper()
	s := parse(t, record(c.Stream))
	cfg := c.engine.cfg
	c.net = c.net.Next()
	e := NewEngine(cfg, c.net, slog.New(slog.DiscardHandler))
	if err := e.Restore(s, "c", changed); err != nil {
		t.Fatal(err)
	}
	c.Stream = s
	return e.Resume()
}

// talking is a call whose parties have been heard, the callee behind a NAT.
func talking(t testing.TB) *call {
	t.Helper()
	e, fake := newEngine(t, Config{})
	s, err := e.Open(Spec{MediaType: "audio", CallID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	c := &call{Stream: s, net: fake}
	c.describe(Caller, phoneA)
	c.describe(Callee, phoneB)
	c.Answered()
	c.deliver(callerPort, phoneA)
	c.deliver(calleePort, ap("203.0.113.50:31000"))
	return c
}

func TestNextProcessGoesOn(t *testing.T) {
	c := talking(t)
	before, stats := c.Explain(), c.Stats()
	if n := c.nextProcess(t, nil); n != 0 {
		t.Errorf("%d ports are left over", n)
	}
	after := c.Explain()
	if got := after.Decisions[len(after.Decisions)-1]; got.Why != report.Restored {
		t.Errorf("last decision %+v", got)
	}
	after.Decisions = after.Decisions[:len(after.Decisions)-1]
	if !equalJSON(t, before, after) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if now := c.Stats(); now != stats {
		t.Errorf("before %+v\nafter  %+v", stats, now)
	}
	if c.engine.PortsFree() != 48 {
		t.Errorf("%d pairs are free, want 48 of 50", c.engine.PortsFree())
	}
	// Nothing is learned anew: the first packet of each goes where it went before.
	if got, want := c.deliver(callerPort, phoneA), calleeRoute(calleePort, ap("203.0.113.50:31000")); got != want {
		t.Errorf("caller's packet: %s, want %s", got, want)
	}
	if got := c.deliver(callerPort, ap("203.0.113.50:999")); got != "" {
		t.Errorf("a stranger's packet: %s", got)
	}
	c.Close("closed")
	if n := c.net.OpenPorts(); n != 0 || c.engine.PortsFree() != 50 {
		t.Errorf("%d ports open, %d pairs free after the end", n, c.engine.PortsFree())
	}
}

func equalJSON(t testing.TB, a, b any) bool {
	t.Helper()
	x, err := report.Append(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := report.Append(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

// A stream that has ended keeps its counters in the record: its ports are gone.
func TestEndedStreamKeepsItsCounters(t *testing.T) {
	c := talking(t)
	c.Close("closed")
	before, stats := c.Explain(), c.Stats()
	s := parse(t, record(c.Stream))
	e := NewEngine(c.engine.cfg, c.net.Next(), slog.New(slog.DiscardHandler))
	if err := e.Restore(s, "c", nil); err != nil {
		t.Fatal(err)
	}
	e.Resume()
	if got := s.Stats(); got != stats {
		t.Errorf("got  %+v\nwant %+v", got, stats)
	}
	if !equalJSON(t, before, s.Explain()) {
		t.Errorf("got  %+v\nwant %+v", s.Explain(), before)
	}
	if e.PortsFree() != 50 {
		t.Errorf("%d pairs are free", e.PortsFree())
	}
}

// A port that cannot be had ends the stream and leaves nothing behind.
func TestPortThatCannotBeAdopted(t *testing.T) {
	for _, port := range []string{":50000", ":50001", ":50002", ":50003"} {
		c := talking(t)
		b := record(c.Stream)
		next := c.net.Next()
		next.InUse = map[netip.AddrPort]bool{ap(relay + port): true}
		e := NewEngine(c.engine.cfg, next, slog.New(slog.DiscardHandler))
		s := parse(t, b)
		if err := e.Restore(s, "c", nil); !errors.Is(err, forward.ErrPortInUse) || !strings.Contains(err.Error(), relay+port) {
			t.Errorf("%s: got %v", port, err)
		}
		e.Resume()
		s.Close("closed") // it has ended: nothing happens
		if next.OpenPorts() != 0 || e.PortsFree() != 50 {
			t.Errorf("%s: %d ports open, %d pairs free", port, next.OpenPorts(), e.PortsFree())
		}
		if st := s.Stats(); st.Parties[Caller].Local != callerPort || len(s.Explain().Legs) != 4 {
			t.Errorf("%s: %+v", port, st)
		}
	}
	c := talking(t)
	e := NewEngine(c.engine.cfg, c.net.Next(), slog.New(slog.DiscardHandler))
	b := record(c.Stream)
	if err := e.Restore(parse(t, b), "c", nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Restore(parse(t, b), "c", nil); !errors.Is(err, ErrPortTaken) {
		t.Errorf("the same port twice: %v", err)
	}
}

// Ports of a range that is no longer configured are used to the end of their calls.
func TestRangeChanged(t *testing.T) {
	c := talking(t)
	cfg := c.engine.cfg
	cfg.FirstPort, cfg.EndPort = 50002, 50100
	next := c.net.Next()
	e := NewEngine(cfg, next, slog.New(slog.DiscardHandler))
	s := parse(t, record(c.Stream))
	if err := e.Restore(s, "c", nil); err != nil {
		t.Fatal(err)
	}
	e.Resume()
	if n := e.PortsFree(); n != 48 {
		t.Errorf("%d pairs free, want 48 of 49", n)
	}
	s.Close("closed")
	if n := e.PortsFree(); n != 49 || next.OpenPorts() != 0 {
		t.Errorf("%d pairs free, want 49", n)
	}
}

// What nobody heard while the process was away is no silence.
func TestTimeoutsAfterRestart(t *testing.T) {
	c := talking(t)
	c.net.Advance(2 * time.Hour) // the host ran on, the relay did not
	c.nextProcess(t, nil)
	if got, ok, _ := c.Expired(); ok {
		t.Fatalf("expired at once: %+v", got)
	}
	// A stranger with the IP of the callee does not take its place at once either.
	if got := c.deliver(calleePort, ap("203.0.113.50:999")); got != "" {
		t.Errorf("it went to %s", got)
	}
	c.net.Advance(89 * time.Second)
	if got, ok, _ := c.Expired(); ok {
		t.Fatalf("expired after 89 s: %+v", got)
	}
	c.net.Advance(2 * time.Second)
	if got, ok, _ := c.Expired(); !ok || got.Status != report.StatusIdle {
		t.Errorf("got %+v, want %s", got, report.StatusIdle)
	}
}

// After a restart of the host its clock begins anew and nothing is left of the ports.
func TestHostRestarted(t *testing.T) {
	c := talking(t)
	c.net.Advance(time.Hour)
	c.Describe(Caller, Party{Addr: phoneA, Direction: SendOnly}) // on hold for 90 minutes, half of them before
	c.net.Advance(45 * time.Minute)
	b := record(c.Stream)
	net := forward.NewFake()
	net.Advance(-time.Hour + 3*time.Minute)           // since the start of the host,
	shift := net.Now() - 45*time.Minute - c.net.Now() // which was away for most of 45
	s := new(Stream)
	fields := func(s *Stream, k *snapshot.Coder) { k.Shift(shift); s.Fields(k) }
	if err := snapshot.Parse(b, s, fields); err != nil {
		t.Fatal(err)
	}
	e := NewEngine(c.engine.cfg, net, slog.New(slog.DiscardHandler))
	if err := e.Restore(s, "c", nil); err != nil {
		t.Fatal(err)
	}
	e.Resume()
	if !s.OnHold() {
		t.Error("no longer on hold")
	}
	if age := s.Explain().Age; age < 9000 || age > 9001 {
		t.Errorf("its age is %v s, want 2.5 hours", age)
	}
	if delay := s.Stats().FirstMedia; delay != c.Stats().FirstMedia {
		t.Errorf("first media after %v, want %v", delay, c.Stats().FirstMedia)
	}
	net.Advance(29 * time.Minute) // 7140 s on hold
	if got, ok, _ := s.Expired(); ok {
		t.Fatalf("expired early: %+v", got)
	}
	net.Advance(2 * time.Minute)
	if got, ok, _ := s.Expired(); !ok || got.Status != report.StatusHoldTimeout {
		t.Errorf("got %+v, want %s", got, report.StatusHoldTimeout)
	}
	got := route(net.Deliver(calleePort, ap("203.0.113.50:31000"), []byte{0x80, 8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0}))
	if want := calleeRoute(callerPort, phoneA); got != want {
		t.Errorf("media goes %s, want %s", got, want)
	}
}

// The next process hears of what packets change, and of nothing else.
func TestChangedIsTold(t *testing.T) {
	e, fake := newEngine(t, Config{})
	n := 0
	s, err := e.Open(Spec{MediaType: "audio", CallID: "c", Changed: func() { n++ }})
	if err != nil {
		t.Fatal(err)
	}
	c := &call{Stream: s, net: fake}
	expect := func(what string, want int) {
		t.Helper()
		if n != want {
			t.Errorf("%s: told %d times, want %d", what, n, want)
		}
		n = 0
	}
	c.deliver(callerPort, phoneA)
	expect("refused", 0)
	c.describe(Caller, phoneA)
	c.describe(Callee, phoneB)
	expect("signalling", 0)
	stun := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
	c.net.Deliver(callerPort, phoneA, stun)
	expect("learned from a check", 1)
	c.deliver(callerPort, phoneA)
	expect("first media", 1)
	c.deliver(callerPort, phoneA)
	expect("more media", 0)
	c.deliver(callerPort, ap("8.8.4.4:4004"))
	expect("a stranger", 0)
	c.net.Advance(3 * time.Second)
	c.deliver(callerPort, ap("8.8.4.4:4004"))
	expect("moved", 1)
	c.nextProcess(t, func() { n += 10 })
	c.deliver(calleePort, ap("203.0.113.50:31000"))
	expect("in the next process", 10)
}

// Whatever has happened to a stream, the next process knows all of it and decides the
// same about what comes next.
func TestNextProcessKnowsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fake := forward.NewFake()
		e := NewEngine(Config{Locals: []netip.Addr{netip.MustParseAddr(relay)}, FirstPort: 50000, EndPort: 50100, Pick: Lowest}, fake, slog.New(slog.DiscardHandler))
		s, err := e.Open(Spec{MediaType: rapid.SampledFrom([]string{"audio", "image"}).Draw(t, "type"), CallID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		c := &call{Stream: s, net: fake}
		happen(t, c, rapid.IntRange(0, 120).Draw(t, "events"))
		b := record(c.Stream)
		again := new(Stream)
		if err := snapshot.Parse(b, again, (*Stream).Fields); err != nil {
			t.Fatal(err)
		}
		next := NewEngine(e.cfg, c.net.Next(), slog.New(slog.DiscardHandler))
		if err := next.Restore(again, "c", nil); err != nil {
			t.Fatal(err)
		}
		next.Resume()
		if again.running {
			if last := len(again.history.entries) - 1; again.history.entries[last].why != report.Restored {
				t.Fatalf("last decision %v", again.history.entries[last])
			} else if len(s.history.entries) < historyLimit { // else the note has pushed one out
				again.history.entries = again.history.entries[:last]
			}
		}
		sameStream(t, again, s)
	})
}

// sameStream compares all that a record has to carry, field by field: one that is
// forgotten in both directions would not show in the records.
func sameStream(t *rapid.T, got, want *Stream) {
	same := func(what string, got, want any) {
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: got %+v, want %+v", what, got, want)
		}
	}
	same("type", got.mediaType, want.mediaType)
	same("udptl", got.udptl, want.udptl)
	same("created", got.created, want.created)
	same("wall", got.wall.UnixNano(), want.wall.UnixNano())
	same("parties", got.parties, want.parties)
	same("hold", got.hold, want.hold)
	same("times", []time.Duration{got.heldAt, got.resumed, got.at, got.endedAt}, []time.Duration{want.heldAt, want.resumed, want.at, want.endedAt})
	same("state", []bool{got.answered, got.running}, []bool{want.answered, want.running})
	if len(want.history.entries) < historyLimit {
		same("history", got.history.decisions(0), want.history.decisions(0))
		same("forgotten", got.history.forgotten, want.history.forgotten)
	}
	for path := range got.legs {
		for side, l := range got.legs[path] {
			old := want.legs[path][side]
			same("learner", l.learner, old.learner)
			same("first media", l.first, old.first)
			same("unreachable", l.unreachable, old.unreachable)
			same("port", l.port.Local(), old.port.Local())
			same("counters", l.port.Counters(), old.port.Counters())
			same("flow", []netip.AddrPort{l.installed.Source, l.installed.Dest}, []netip.AddrPort{old.installed.Source, old.installed.Dest})
		}
	}
}

// Whoever adds a field to these has to think of the record and of sameStream.
func TestFieldsAreAccountedFor(t *testing.T) {
	for _, c := range []struct {
		of   reflect.Type
		want int
	}{{reflect.TypeFor[Stream](), 20}, {reflect.TypeFor[leg](), 9}} {
		if n := c.of.NumField(); n != c.want {
			t.Errorf("%v has %d fields, %d are known here", c.of, n, c.want)
		}
	}
}

// happen lets random things happen to a call.
func happen(t *rapid.T, c *call, n int) {
	sources := []netip.AddrPort{phoneA, ap("8.8.4.4:4004"), ap("203.0.113.50:31000"), ap("203.0.113.77:31000"), ap("192.0.2.66:6000")}
	ports := []netip.AddrPort{callerPort, calleePort, callerRTCP, ap(relay + ":50003")}
	seq := map[netip.AddrPort]uint16{}
	for range n {
		switch rapid.IntRange(0, 12).Draw(t, "event") {
		case 0:
			p := Party{Addr: rapid.SampledFrom([]netip.AddrPort{phoneA, phoneB, ap("0.0.0.0:4000"), ap("8.8.4.4:4020")}).Draw(t, "sdp"),
				Signalling: netip.MustParseAddr(rapid.SampledFrom([]string{"203.0.113.50", "203.0.113.51"}).Draw(t, "signalling")),
				Direction:  Direction(rapid.IntRange(0, 3).Draw(t, "direction")), ICE: rapid.Bool().Draw(t, "ICE"), NewTag: rapid.Bool().Draw(t, "tag")}
			c.Describe(Side(rapid.IntRange(0, 1).Draw(t, "side")), p)
		case 1:
			c.Answered()
		case 2:
			c.net.Advance(time.Duration(rapid.IntRange(0, 4000).Draw(t, "pause")) * time.Millisecond)
		case 3:
			if rapid.IntRange(0, 20).Draw(t, "close") == 0 {
				c.Close("closed")
			}
		default:
			from, to := rapid.SampledFrom(sources).Draw(t, "from"), rapid.SampledFrom(ports).Draw(t, "to")
			seq[from]++
			packet := []byte{0x80, 8, byte(seq[from] >> 8), byte(seq[from]), 0, 0, 0, 1, 0, 0, 0, byte(rapid.IntRange(1, 2).Draw(t, "ssrc"))}
			if rapid.IntRange(0, 5).Draw(t, "check") == 0 {
				packet = append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
			}
			c.net.Advance(20 * time.Millisecond)
			c.net.Deliver(to, from, packet)
		}
	}
}

func BenchmarkFields(b *testing.B) {
	c := talking(b)
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = snapshot.Append(buf[:0], c.Stream, (*Stream).Fields)
	}
	b.ReportMetric(float64(len(buf)), "bytes")
}
