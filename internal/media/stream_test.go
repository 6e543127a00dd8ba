package media

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
)

const relay = "203.0.113.9"

var (
	callerPort, calleePort = ap(relay + ":50000"), ap(relay + ":50002")
	callerRTCP             = ap(relay + ":50001")
	phoneA, phoneB         = ap("8.8.4.4:4000"), ap("192.168.1.5:3000") // routable and not
)

type call struct {
	*Stream
	net *forward.Fake
	seq uint16
}

func newEngine(t testing.TB, cfg Config) (*Engine, *forward.Fake) {
	t.Helper()
	if cfg.Locals == nil {
		cfg.Locals = []netip.Addr{netip.MustParseAddr(relay)}
	}
	cfg.FirstPort, cfg.EndPort, cfg.Pick = 50000, 50100, Lowest
	fake := forward.NewFake()
	return NewEngine(cfg, fake, slog.New(slog.DiscardHandler)), fake
}

func newCall(t testing.TB, mediaType string) *call {
	t.Helper()
	e, fake := newEngine(t, Config{})
	s, err := e.Open(Spec{MediaType: mediaType, CallID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	return &call{Stream: s, net: fake}
}

func (c *call) describe(side Side, a netip.AddrPort) {
	c.Describe(side, Party{Addr: a, Signalling: netip.MustParseAddr("203.0.113.50")})
}

// deliver sends the next RTP packet and tells where it came out, empty if nowhere.
func (c *call) deliver(to, from netip.AddrPort) string {
	c.seq++
	p := make([]byte, 172)
	p[0], p[1] = 0x80, 8
	binary.BigEndian.PutUint16(p[2:], c.seq)
	c.net.Advance(20 * ms)
	return route(c.net.Deliver(to, from, p))
}

func route(sent []forward.Sent) string {
	var out []string
	for _, s := range sent {
		out = append(out, s.From.String()+">"+s.To.String())
	}
	return strings.Join(out, " ")
}

func (c *call) whys() string {
	var out []string
	for _, d := range c.Explain().Decisions {
		out = append(out, string(d.Why))
	}
	return strings.Join(out, " ")
}

func TestMediaFindsItsWay(t *testing.T) {
	c := newCall(t, "audio")
	if got := c.deliver(callerPort, phoneA); got != "" {
		t.Fatalf("before any SDP: %s", got)
	}
	c.describe(Caller, phoneA)
	if got := c.deliver(callerPort, phoneA); got != "" {
		t.Fatalf("with no callee: %s", got)
	}
	c.describe(Callee, phoneB)
	if got := c.deliver(callerPort, phoneA); got != "" {
		t.Fatalf("a private SDP address was used unheard: %s", got)
	}
	nat := ap("203.0.113.50:31000")
	if got, want := c.deliver(calleePort, nat), calleeRoute(callerPort, phoneA); got != want {
		t.Fatalf("from the callee: %s, want %s", got, want)
	}
	if got, want := c.deliver(callerPort, phoneA), calleeRoute(calleePort, nat); got != want {
		t.Fatalf("to the learned address: %s, want %s", got, want)
	}
	for side := range 2 {
		if !c.legs[RTP][side].port.Counters().Decided {
			t.Errorf("the %v's direction is not decided", Side(side))
		}
	}
	st := c.Stats()
	if st.Parties[Caller].Packets != 3 || st.Parties[Caller].Codec != "G711a" || st.Parties[Callee].Learned != nat || st.Parties[Caller].Quality.Refused != 1 {
		t.Errorf("stats %+v", st)
	}
	if got, want := c.whys(), "ignored-before-sdp learned-sdp no-destination no-destination learned-known-ip"; got != want {
		t.Errorf("decisions %s, want %s", got, want)
	}
}

func calleeRoute(from, to netip.AddrPort) string { return from.String() + ">" + to.String() }

func TestRoutableSDPAddressIsUsedUnheard(t *testing.T) {
	c := newCall(t, "audio")
	c.describe(Caller, phoneA)
	c.describe(Callee, phoneB)
	if got, want := c.deliver(calleePort, ap("203.0.113.50:31000")), calleeRoute(callerPort, phoneA); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := route(c.net.Deliver(ap(relay+":50003"), ap("203.0.113.50:31001"), []byte("\x80\xc8\x00\x06\xde\xad\xbe\xef"))),
		calleeRoute(callerRTCP, ap("8.8.4.4:4001")); got != want {
		t.Errorf("RTCP: got %s, want %s", got, want)
	}
}

// RTCP from the IP whose RTP was learned needs no proof of its own; from
// anywhere else nothing is one, or sprayers would get the ports of phones
// without RTCP.
func TestRTCPFollowsRTP(t *testing.T) {
	c := newCall(t, "audio")
	c.describe(Caller, phoneA)
	c.describe(Callee, phoneB)
	c.Answered()
	c.net.Advance(2 * time.Second)
	far := ap("8.8.8.8:9000")
	for range 5 {
		c.deliver(calleePort, far)
	}
	if got := c.Stats().Parties[Callee].Learned; got != far {
		t.Fatalf("learned %v", got)
	}
	for range 200 {
		if got := c.deliver(ap(relay+":50003"), ap("9.9.9.9:9001")); got != "" {
			t.Fatalf("a stranger's datagram on the RTCP port went to %s", got)
		}
	}
	if got := route(c.net.Deliver(ap(relay+":50003"), ap("8.8.8.8:9001"), []byte("\x80\xc8\x00\x06\xde\xad\xbe\xef"))); got == "" {
		t.Error("RTCP of the learned IP is refused")
	}
}

func TestChecksWaitForADestination(t *testing.T) {
	c := newCall(t, "audio")
	c.describe(Caller, phoneA)
	check := []byte("\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl")
	for range 20 {
		if got := route(c.net.Deliver(callerPort, phoneA, check)); got != "" {
			t.Fatalf("sent %s", got)
		}
	}
	c.describe(Callee, phoneB)
	c.seq = 0
	sent := route(c.net.Deliver(calleePort, ap("203.0.113.50:31000"), check))
	if n := strings.Count(sent, calleeRoute(calleePort, ap("203.0.113.50:31000"))); n != maxQueued {
		t.Errorf("%d queued checks came out, want %d: %s", n, maxQueued, sent)
	}
	if n := strings.Count(sent, calleeRoute(callerPort, phoneA)); n != 1 {
		t.Errorf("the check itself came out %d times", n)
	}
	if c.legs[RTP][Callee].port.Counters().Decided {
		t.Error("a check alone decided a direction")
	}
}

// A call may pass the same relay twice, but media never circles.
func TestOwnAddresses(t *testing.T) {
	e, fake := newEngine(t, Config{RoutableRanges: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}})
	first, err := e.Open(Spec{MediaType: "audio"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := e.Open(Spec{MediaType: "audio"})
	if err != nil {
		t.Fatal(err)
	}
	c := &call{Stream: first, net: fake}
	self := netip.MustParseAddr(relay)
	first.Describe(Caller, Party{Addr: phoneA})
	for _, x := range []struct {
		name string
		to   netip.AddrPort
		want string
	}{
		{"another stream", second.Local(Caller), calleeRoute(calleePort, second.Local(Caller))},
		{"the same stream", first.Local(Caller), ""},
	} {
		first.Describe(Callee, Party{Addr: x.to})
		if got := c.deliver(callerPort, phoneA); got != x.want {
			t.Errorf("%s: went to %q, want %q", x.name, got, x.want)
		}
	}
	first.Describe(Callee, Party{Addr: ap("8.8.8.8:3000"), Signalling: self})
	if got := c.deliver(calleePort, netip.AddrPortFrom(self, 12345)); got == "" {
		t.Error("a phone on this host, by its signalling, is refused")
	}
	first.Describe(Callee, Party{Addr: ap("8.8.8.8:3000"), Signalling: netip.MustParseAddr("8.8.8.8")})
	if got := c.deliver(calleePort, netip.AddrPortFrom(self, 12346)); got != "" {
		t.Errorf("a closed port of the relay was accepted as a party: %s", got)
	}
}

func TestReinviteReturnsToLearning(t *testing.T) {
	c := newCall(t, "audio")
	c.describe(Caller, phoneA)
	c.describe(Callee, ap("8.8.8.8:3000"))
	c.deliver(callerPort, phoneA)
	c.deliver(calleePort, ap("8.8.8.8:3000"))
	c.describe(Callee, ap("8.8.8.8:3020"))
	if got, want := c.deliver(callerPort, phoneA), calleeRoute(calleePort, ap("8.8.8.8:3020")); got != want {
		t.Errorf("after a changed SDP: %s, want %s", got, want)
	}
	c.describe(Callee, phoneB)
	if got := c.deliver(callerPort, phoneA); got != "" {
		t.Errorf("media still goes to an address of before: %s", got)
	}
}

func TestForkedAnswer(t *testing.T) {
	c := newCall(t, "audio")
	c.describe(Caller, phoneA)
	c.describe(Callee, ap("8.8.8.8:3000"))
	c.deliver(calleePort, ap("8.8.8.8:3000"))
	c.Describe(Callee, Party{Addr: ap("8.8.8.8:3000"), Signalling: netip.MustParseAddr("203.0.113.50"), NewTag: true})
	if st := c.Stats(); st.Parties[Callee].Learned.IsValid() {
		t.Error("another phone answered, but the first one's address is still learned")
	}
	if !strings.Contains(c.whys(), string(report.ReopenedTag)) {
		t.Error("not in the decision log: " + c.whys())
	}
}

func TestUDPTLIsLearned(t *testing.T) {
	c := newCall(t, "image")
	c.describe(Caller, phoneA)
	c.describe(Callee, phoneB)
	c.Answered()
	c.net.Advance(2 * time.Second)
	for i := range byte(5) {
		c.net.Deliver(calleePort, ap("8.8.8.8:9"), []byte{0x80, i, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0}) // looks like RTP with a wild sequence
		c.net.Advance(30 * ms)
	}
	st := c.Stats()
	if st.Parties[Callee].Learned != ap("8.8.8.8:9") || st.Parties[Callee].Codec != "T38" {
		t.Errorf("learned %v, codec %s", st.Parties[Callee].Learned, st.Parties[Callee].Codec)
	}
}

func TestOpenIsAllOrNothing(t *testing.T) {
	e, fake := newEngine(t, Config{})
	fake.InUse[ap(relay+":50001")] = true // another program has an RTCP port
	s, err := e.Open(Spec{MediaType: "audio"})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Local(Caller); got != ap(relay+":50002") {
		t.Errorf("caller's port %v, want the next whole pair", got)
	}
	s.Close("test")
	s.Close("twice")
	for n := uint16(50000); n < 50100; n++ {
		fake.InUse[netip.AddrPortFrom(netip.MustParseAddr(relay), n)] = n != 50004 && n != 50005
	}
	if _, err := e.Open(Spec{MediaType: "audio"}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("with one pair left: %v, want %v", err, ErrNoPorts)
	}
	fake.Limit = 3
	clear(fake.InUse)
	if _, err := e.Open(Spec{MediaType: "audio"}); !errors.Is(err, forward.ErrTooManyPorts) {
		t.Errorf("without descriptors: %v, want %v", err, forward.ErrTooManyPorts)
	}
	if _, err := e.Open(Spec{MediaType: "audio", IPv6: true}); !errors.Is(err, ErrNoAddress) {
		t.Errorf("IPv6 without an address: %v, want %v", err, ErrNoAddress)
	}
	if n := fake.OpenPorts(); n != 0 {
		t.Errorf("%d ports left open", n)
	}
	if n := e.PortsFree(); n != 50 {
		t.Errorf("%d pairs free, want all 50", n)
	}
}

func TestOneWayTimeout(t *testing.T) {
	e, fake := newEngine(t, Config{OneWayTimeout: 20 * time.Second})
	s, err := e.Open(Spec{MediaType: "audio"})
	if err != nil {
		t.Fatal(err)
	}
	c := &call{Stream: s, net: fake}
	c.describe(Caller, phoneA)
	c.describe(Callee, ap("8.8.8.8:3000"))
	c.Answered()
	for i := range 999 {
		if c.deliver(callerPort, phoneA); c.OneWay() != (i >= 499) {
			t.Fatalf("after %d ms one-way is %v", 20*(i+1), c.OneWay())
		}
	}
	if _, expired, _ := c.Expired(); expired {
		t.Fatal("too early")
	}
	c.deliver(callerPort, phoneA)
	if got, expired, _ := c.Expired(); !expired || got.Status != report.StatusOneWay {
		t.Errorf("got %+v %v", got, expired)
	}
}
