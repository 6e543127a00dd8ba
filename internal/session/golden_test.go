package session

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/wire/control"
)

const relayIP = "203.0.113.9"

// bench is a table on a fake network, with ports in order from 50000.
type bench struct {
	*Table
	network *forward.Fake
	engine  *media.Engine
	now     time.Time
	cfg     media.Config
	keeper  keeper
	boot    string
}

func newBench(t interface{ Helper() }, change func(*media.Config)) *bench {
	t.Helper()
	b := &bench{network: forward.NewFake(), now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), keeper: keeper{}, boot: "1"}
	b.cfg = media.Config{Locals: []netip.Addr{netip.MustParseAddr(relayIP), netip.MustParseAddr("2001:db8::9")}, FirstPort: 50000, EndPort: 50100, Pick: media.Lowest}
	if change != nil {
		change(&b.cfg)
	}
	b.begin()
	return b
}

// begin makes the table of a process.
func (b *bench) begin() {
	log := slog.New(slog.DiscardHandler)
	b.engine = media.NewEngine(b.cfg, b.network, log)
	b.Table = New(Config{Clock: func() time.Time { return b.now }, Keeper: b.keeper, Boot: b.boot}, b.engine, log)
}

// advance moves both clocks.
func (b *bench) advance(d time.Duration) {
	b.now = b.now.Add(d)
	b.network.Advance(d)
}

// say applies a message in the shorthand of the vectors: r or a (request or
// reply) and CSeq, then optionally T if the callee began the transaction, then
// streams such as A4000, V0, A0.0.0.0:4000, with /sendonly and the like behind.
// Without streams there is no SDP. It returns ports, "error", and statuses.
func (b *bench) say(t testing.TB, message string) string {
	t.Helper()
	words := strings.Fields(message)
	u := control.Update{Kind: control.KindRequest, CallID: "c", FromTag: "F", FromURI: "alice@example.com", ToURI: "bob@example.com", UserAgent: "UA",
		Signaling: control.Signaling{IP: netip.MustParseAddr("10.0.0.1")}}
	if words[0][0] == 'a' {
		u.Kind = control.KindReply
	}
	n, err := strconv.Atoi(words[0][1:])
	if err != nil {
		t.Fatal(err)
	}
	u.CSeq = uint32(n)
	words = words[1:]
	reverse := len(words) > 0 && words[0] == "T"
	if reverse {
		words = words[1:]
	}
	toTag := len(words) > 0 && words[0] == "+tag"
	if toTag {
		words = words[1:]
	}
	if reverse {
		u.FromTag, u.ToTag = "T", "F"
	} else if u.Kind == control.KindReply || toTag {
		u.ToTag = "T"
	}
	host := "10.0.0.1"
	if reverse == (u.Kind == control.KindRequest) {
		host = "10.0.0.2"
	}
	u.Signaling.IP = netip.MustParseAddr(host)
	for _, w := range words {
		u.HasMedia = true
		u.Media = append(u.Media, shorthand(t, w, host))
	}
	answer, _, err := b.Update(u, "dispatcher", true)
	if err != nil {
		return "error"
	}
	if answer.IP.String() != relayIP {
		t.Errorf("%s: answered address %s, want %s", message, answer.IP, relayIP)
	}
	return strings.Trim(fmt.Sprint(answer.Ports), "[]")
}

func shorthand(t testing.TB, w, host string) control.Media {
	t.Helper()
	m := control.Media{Type: map[byte]string{'A': "audio", 'V': "video", 'I': "image"}[w[0]], Direction: "sendrecv"}
	w, dir, ok := strings.Cut(w[1:], "/")
	if ok {
		m.Direction = dir
	}
	if ip, port, ok := strings.Cut(w, ":"); ok {
		host, w = ip, port
	}
	port, err := strconv.Atoi(w)
	if err != nil {
		t.Fatal(err)
	}
	m.Addr, m.Port = netip.MustParseAddr(host), uint16(port)
	return m
}

// statuses of all streams that ever had ports, in their order.
func (b *bench) statuses(t testing.TB) string {
	t.Helper()
	b.mu.RLock()
	s := b.find("c", "F", "")
	b.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, st := range s.streams {
		out = append(out, st.statusNow())
	}
	return strings.Join(out, ",")
}

type vectorStep struct{ message, ports, statuses string }

const basicCall = "r1 A4000" // 50002, then a1 A3000 -> 50000

type vector struct {
	name  string
	steps []vectorStep
}

var vectors = []vector{
	{"1 offer and answer", []vectorStep{{basicCall, "50002", ""}, {"a1 A3000", "50000", "active"}}},
	{"2 SDP in the ACK", []vectorStep{{basicCall, "50002", ""}, {"a1 A3000", "50000", ""}, {"r1 +tag A4000", "50002", "active"}}},
	{"3 provisional and final answer differ", []vectorStep{{basicCall, "50002", ""}, {"a1 A3000", "50000", ""}, {"a1 A3020", "50000", "active"}}},
	{"4 callee drops video", []vectorStep{
		{"r1 A4000 V4010", "50002 50006", ""}, {"a1 A3000 V3010", "50000 50004", "active,active"},
		{"r1 T A3000", "50000", ""}, {"a1 T A4000", "50002", "active,closed"}}},
	{"5 streams come and go", []vectorStep{
		{"r1 V4000", "50002", ""}, {"a1 V3000", "50000", ""},
		{"r2 V4000 A4010 A4020", "50002 50006 50010", ""}, {"a2 V3000 A3010 A3020", "50000 50004 50008", ""},
		{"r3 A4020", "50010", ""}, {"a3 A3020", "50008", "closed,closed,active"}}},
	{"6 hold by direction", []vectorStep{
		{basicCall, "50002", ""}, {"a1 A3000", "50000", ""},
		{"r2 A4000/sendonly", "50002", "on hold"}, {"a2 A3000/recvonly", "50000", "on hold"},
		{"r3 A4000", "50002", "active"}, {"a3 A3000", "50000", "active"}}},
	{"7 hold by address", []vectorStep{
		{basicCall, "50002", ""}, {"a1 A3000", "50000", ""},
		{"r2 A0.0.0.0:4000", "50002", "on hold"}, {"a2 A0.0.0.0:3000", "50000", "on hold"},
		{"r3 A4000", "50002", "on hold"}, {"a3 A3000", "50000", "active"}}},
	// The original shows `active` first, then opens a new stream: 50006, 50004.
	{"8 first offer on hold", []vectorStep{
		{"r1 A0.0.0.0:4000", "50002", "on hold"}, {"a1 A3000", "50000", "on hold"},
		{"r2 A4000", "50002", "active"}, {"a2 A3000", "50000", "active"}}},
	{"9 INVITE without SDP", []vectorStep{{"a1 A3000", "50000", ""}, {"r1 +tag A4000", "50002", "active"}}},
	{"10 caller drops video", []vectorStep{
		{"r1 A4000 V4010", "50002 50006", ""}, {"a1 A3000 V3010", "50000 50004", ""},
		{"r2 A4000 V0", "50002 0", ""}, {"a2 A3000 V0", "50000 0", "active,closed"}}},
	{"11 offered with port 0", []vectorStep{{"r1 A4000 V0", "50002 0", ""}, {"a1 A3000 V0", "50000 0", "active"}}},
	{"12 rejected stays rejected", []vectorStep{
		{"r1 A4000 V4010", "50002 50006", ""}, {"a1 A3000 V0", "50000 0", "active,rejected"}, {"a1 A3000 V3010", "50000 0", "active,rejected"}}},
	{"13 answer with fewer streams", []vectorStep{{"r1 A4000 V4010", "50002 50006", ""}, {"a1 A3000", "50000 0", "active,rejected"}}},
	{"14 answer with more streams", []vectorStep{{"r1 A4000", "50002", ""}, {"a1 A3000 V3010", "50000", "active"}}},
	{"15 UPDATE before the final answer", []vectorStep{
		{basicCall, "50002", ""}, {"a1 A3000", "50000", ""}, {"r2 A4000", "50002", ""}, {"a2 A3000", "50000", ""}, {"a1 A3000", "50000", "active"}}},
	// The original answers `None`, which the proxy's module writes into the SDP.
	{"16 CSeq never seen", []vectorStep{{"r5 A4000", "50002", ""}, {"a5 A3000", "50000", ""}, {"r4 A4000", "error", ""}, {"r5 A4000", "50002", "active"}}},
	{"17 answer without SDP", []vectorStep{{basicCall, "50002", ""}, {"a1", "50000", "active"}}},
	// The original compares with the refused offer: 50008, 50010.
	{"18 refused re-INVITE", []vectorStep{
		{basicCall, "50002", ""}, {"a1 A3000", "50000", ""},
		{"r2 A5000", "50006", "active,active"}, {"r1 T A3000", "50000", "active,closed"}, {"a1 T A4000", "50002", "active,closed"}}},
	// The original answers 50002 50002 the second time.
	{"19 two equal streams", []vectorStep{
		{"r1 A4000 A4000", "50002 50006", ""}, {"a1 A3000 A3002", "50000 50004", ""}, {"r2 A4000 A4000", "50002 50006", "active,active"}}},

	{"challenged re-INVITE keeps its new ports", []vectorStep{
		{basicCall, "50002", ""}, {"a1 A3000", "50000", ""},
		{"r2 A5000", "50006", ""}, {"r3 A5000", "50006", ""}, {"a3 A3000", "50004", "closed,active"}}},
	{"unknown reply without SDP", []vectorStep{{"a1", "error", ""}}},
	{"unknown request without SDP", []vectorStep{{"r1", "error", ""}}},
	{"answer of another type", []vectorStep{
		{"r1 A4000 V4010", "50002 50006", ""}, {"a1 A3000 A3010", "error", "active,active"}, {"a1 A3000 V3010", "50000 50004", "active,active"}}},
	{"removed stream before one that stays", []vectorStep{
		{"r1 A4000 A4002", "50002 50006", ""}, {"a1 A3000 A3002", "50000 50004", ""},
		{"r2 A0 A4000", "0 50002", ""}, {"a2 A0 A3000", "0 50000", "active,closed"}}},
	{"T.38 takes over", []vectorStep{
		{basicCall, "50002", ""}, {"a1 A3000", "50000", ""}, {"r1 T I3000", "50004", "active,active"}, {"a1 T I4000", "50006", "closed,active"}}},
	{"a spiral passes twice", []vectorStep{
		{basicCall, "50002", ""}, {"r1 A" + relayIP + ":50002", "50002", ""}, {"a1 A3000", "50000", ""}, {"a1 A" + relayIP + ":50000", "50000", "active"}}},
}

// The ports that are answered, step by step. They are those of the original
// where the comment does not say otherwise. A process that ends after any step makes no
// difference to the next.
func TestGoldenVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) { v.run(t, func(*bench, int) {}) })
		t.Run(v.name+", restarted after every step", func(t *testing.T) {
			v.run(t, func(b *bench, _ int) { b.killed(t) })
		})
		for i := range v.steps {
			t.Run(fmt.Sprintf("%s, restarted after step %d", v.name, i+1), func(t *testing.T) {
				v.run(t, func(b *bench, step int) {
					if step == i {
						b.restart(t)
					}
				})
			})
		}
	}
}

// run goes through the steps; after is called behind each.
func (v vector) run(t *testing.T, after func(b *bench, step int)) {
	b := newBench(t, nil)
	for i, step := range v.steps {
		if got := b.say(t, step.message); got != step.ports {
			t.Fatalf("step %d, %s: got %s, want %s", i+1, step.message, got, step.ports)
		}
		after(b, i)
		if step.statuses == "" {
			continue
		}
		if got := b.statuses(t); got != step.statuses {
			t.Errorf("step %d, %s: statuses %s, want %s", i+1, step.message, got, step.statuses)
		}
	}
	if b.Len() > 0 {
		if _, err := b.Remove(control.Remove{CallID: "c", FromTag: "T", ToTag: "F"}); err != nil {
			t.Errorf("remove with swapped tags: %v", err)
		}
	}
	if n := b.network.OpenPorts(); n != 0 || b.Len() != 0 {
		t.Errorf("%d ports and %d sessions left", n, b.Len())
	}
}

func TestSessionsOfOneCallIDStayApart(t *testing.T) {
	b := newBench(t, nil)
	offer := func(tag string) string {
		a, _, err := b.Update(control.Update{Kind: control.KindRequest, CallID: "c", FromTag: tag, CSeq: 1, HasMedia: true,
			Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4000, Direction: "sendrecv"}}}, "d", true)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(a.Ports)
	}
	if first, second := offer("F"), offer("G"); first != "[50002]" || second != "[50006]" {
		t.Errorf("ports %s and %s", first, second)
	}
	if n := len(b.Session("c", "")); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	if _, err := b.Remove(control.Remove{CallID: "c", FromTag: "G"}); err != nil {
		t.Error(err)
	}
	if !b.Known("c", "F", "") || b.Known("c", "G", "") {
		t.Error("the wrong session was removed")
	}
	if n := len(b.Terminate("c", "")); n != 1 || b.Len() != 0 {
		t.Errorf("%d terminated, %d left", n, b.Len())
	}
}

func TestExhaustionOpensNothing(t *testing.T) {
	b := newBench(t, func(c *media.Config) { c.FirstPort, c.EndPort = 50000, 50006 }) // three pairs: one stream and a half
	if got := b.say(t, "r1 A4000 V4010"); got != "error" {
		t.Fatalf("got %s, want an error", got)
	}
	if n := b.network.OpenPorts(); n != 0 || b.Len() != 0 {
		t.Fatalf("%d ports, %d sessions left behind", n, b.Len())
	}
	if got := b.say(t, "r1 A4000"); got != "50002" {
		t.Errorf("one stream: got %s", got)
	}
	if got := b.say(t, "r2 A4000 V4010"); got != "error" {
		t.Errorf("a second one: got %s", got)
	}
	if got, want := b.say(t, "a1 A3000"), "50000"; got != want {
		t.Errorf("the call as it was: got %s, want %s", got, want)
	}
	if got := b.statuses(t); got != "active" {
		t.Errorf("statuses %s", got)
	}
}

func TestDraining(t *testing.T) {
	b := newBench(t, nil)
	u := control.Update{Kind: control.KindRequest, CallID: "c", FromTag: "F", CSeq: 1, HasMedia: true,
		Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4000}}}
	if _, _, err := b.Update(u, "d", false); err != ErrUnknown {
		t.Errorf("a new session: %v, want %v", err, ErrUnknown)
	}
	if _, _, err := b.Update(u, "d", true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Update(u, "d", false); err != nil {
		t.Errorf("a known session: %v", err)
	}
}

func TestFamilies(t *testing.T) {
	b := newBench(t, nil)
	u := control.Update{Kind: control.KindRequest, CallID: "c", FromTag: "F", CSeq: 1, HasMedia: true, Media: []control.Media{
		{Type: "audio", Addr: netip.MustParseAddr("2001:db8::5"), Port: 4000}, {Type: "video", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4002}}}
	a, _, err := b.Update(u, "d", true)
	if err != nil {
		t.Fatal(err)
	}
	if a.IP.String() != "2001:db8::9" || fmt.Sprint(a.Ports) != "[50002 0]" {
		t.Errorf("answer %v: one address stands for all streams, so the other family is refused", a)
	}
}
