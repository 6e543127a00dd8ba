package chain

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var payload = site.Payload(172)

// provider is one SIP proxy with its dispatcher and relay.
type provider struct {
	d      *site.Dispatcher
	r      *site.Relay
	module *site.Line
	source string // of the SIP messages from the caller's side

	toNext, toPrev netip.AddrPort
}

func newProvider(s *site.Site, name, ip, source string) *provider {
	d := s.Dispatcher(name, nil)
	r := s.Relay("relay of "+name, site.RelayConfig{Media: site.Lowest(ip, 50000, 50100), Dispatchers: []string{d.RelayAddr().String()}})
	return &provider{d: d, r: r, module: d.Module(), source: source}
}

func (p *provider) offer(media netip.AddrPort) netip.AddrPort {
	p.toNext = p.module.Update(site.Message{Kind: "request", CallID: "chain", From: "a", Source: p.source, Media: site.Audio(media)})[0]
	return p.toNext
}

func (p *provider) answer(media netip.AddrPort, source string) netip.AddrPort {
	p.toPrev = p.module.Update(site.Message{Kind: "reply", CallID: "chain", From: "a", To: "b", Source: source, Media: site.Audio(media)})[0]
	return p.toPrev
}

// addresses of the parties of a chain.
const (
	aliceIP, bobIP   = "127.15.1.1", "127.15.1.2"
	relay1, relay2   = "127.15.0.1", "127.15.0.2"
	proxy1IP, proxy2 = "127.15.2.1", "127.15.2.2"
)

type chain struct {
	one, two       *provider
	alice, bob     *site.Phone
	toAlice, toBob netip.AddrPort // where each sends to
}

// newChain sets a call up. aliceSDP is what the caller believes its address to be.
func newChain(t *testing.T, aliceSDP string) *chain {
	s := site.New(t, site.Options{})
	c := &chain{
		one: newProvider(s, "one", relay1, aliceIP), two: newProvider(s, "two", relay2, proxy1IP),
		alice: site.NewPhone(t, aliceIP+":4000"), bob: site.NewPhone(t, bobIP+":3000"),
	}
	c.toBob = c.two.offer(c.one.offer(netip.MustParseAddrPort(aliceSDP)))
	c.toAlice = c.one.answer(c.two.answer(c.bob.Addr, bobIP), proxy2)
	return c
}

func (c *chain) aliceSpeaks(t *testing.T) {
	t.Helper()
	site.Exchange(t, c.alice, c.toAlice, c.bob, c.toBob, payload)
}

func (c *chain) bobSpeaks(t *testing.T) {
	t.Helper()
	site.Exchange(t, c.bob, c.toBob, c.alice, c.toAlice, payload)
}

// bothReport hangs up on both proxies and compares the records.
func (c *chain) bothReport(t *testing.T, caller, callee uint64) {
	t.Helper()
	for _, p := range []*provider{c.one, c.two} {
		if got := p.module.Ask(site.Remove("chain", "a", "b")); got != "removed" {
			t.Fatalf("remove: %q", got)
		}
		got := p.d.AwaitRecords(1)[0]
		if got.Reason != report.ReasonRemoved || len(got.Streams) != 1 {
			t.Fatalf("got record %+v", got)
		}
		if st := got.Streams[0]; st.CallerPackets != caller || st.CalleePackets != callee {
			t.Errorf("%s reports %d and %d packets, want %d and %d", got.Relay, st.CallerPackets, st.CalleePackets, caller, callee)
		}
	}
}

// TestWhoSpeaksFirst: each relay sends to the address that the other put into the SDP
// before it has heard from there, so the first word of either party arrives.
func TestWhoSpeaksFirst(t *testing.T) {
	t.Run("caller", func(t *testing.T) {
		c := newChain(t, aliceIP+":4000")
		for range 10 {
			c.aliceSpeaks(t)
		}
		c.bobSpeaks(t)
		c.bothReport(t, 10, 1)
	})
	t.Run("callee", func(t *testing.T) {
		c := newChain(t, aliceIP+":4000")
		for range 10 {
			c.bobSpeaks(t)
		}
		c.aliceSpeaks(t)
		c.bothReport(t, 1, 10)
	})
}

// TestNAT: the caller's SDP names a private address. Until it has spoken there is
// nowhere to send the callee's media, and no relay guesses; then it flows both ways.
func TestNAT(t *testing.T) {
	c := newChain(t, "192.168.1.5:4000")
	c.bob.Send(c.toBob, payload)
	// The second relay has passed it on; the first has nowhere to send it.
	site.Eventually(t, "the callee's packet reaches the first relay", func() bool {
		sessions := c.one.r.Table.Sessions()
		return len(sessions) == 1 && sessions[0].Streams[0].CalleePackets == 1
	})
	for range 5 {
		c.aliceSpeaks(t)
		c.bobSpeaks(t)
	}
	c.bothReport(t, 5, 6)
}

// TestLoop: two relays are told that each is the caller and the callee of the other. A
// packet that gets in goes round until its hops are used up, and no longer.
func TestLoop(t *testing.T) {
	s := site.New(t, site.Options{})
	one, two := newProvider(s, "one", relay1, proxy1IP), newProvider(s, "two", relay2, proxy1IP)
	// What the other relay answers is not known before it was asked. The ports are
	// taken in order: the caller's is the first, the callee's the second pair.
	port := func(ip string, n uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), n) }
	one.offer(port(relay2, 50002))
	one.answer(port(relay2, 50000), "")
	two.offer(port(relay1, 50002))
	two.answer(port(relay1, 50000), "")
	if one.toPrev != port(relay1, 50000) || two.toNext != port(relay2, 50002) {
		t.Fatalf("the relays opened %v and %v, want 50000 and 50002", one.toPrev, two.toNext)
	}
	stats := func() (packets, ended uint64) {
		for _, p := range []*provider{one, two} {
			f := p.r.Engine.Stats().Forward
			packets += f.Packets
			ended += f.TTLExpired
		}
		return packets, ended
	}
	// A socket on the other relay's host: its address is that of the SDP.
	stray := site.NewPhone(t, relay2+":40000")
	stray.Send(port(relay1, 50000), payload)
	site.Eventually(t, "the packet's hops are used up", func() bool { _, ended := stats(); return ended > 0 })
	packets, ended := stats()
	if hops := firstHops(t); packets != hops-1 || ended != 1 {
		t.Errorf("the packet was passed on %d times and dropped %d times, want %d and 1", packets, ended, hops-1)
	}
	if got := one.module.Ask(site.Remove("chain", "a", "b")); got != "removed" {
		t.Fatalf("remove: %q", got)
	}
}

// firstHops is the time to live that this host gives its datagrams.
func firstHops(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_default_ttl")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 8)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
