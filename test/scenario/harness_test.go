package scenario

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The scenarios wait for the relay's sweeps, not for the processor.
	flag.Set("test.parallel", "16")
	if code := m.Run(); code != 0 {
		os.Exit(code)
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// payload is what the phones say, time and again.
var payload = site.Payload(512)

// every plays a scenario over both link protocols, with and without signaling_ip.
func every(t *testing.T, play func(*stage)) {
	for _, plain := range []bool{false, true} {
		for _, signaling := range []bool{false, true} {
			name := map[bool]string{false: "link2", true: "plain"}[plain] + map[bool]string{false: "", true: "+signaling_ip"}[signaling]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				play(newStage(t, plain, signaling))
			})
		}
	}
}

// stages counts them: each has an address of its own, so that all can use the ports
// of the scripts.
var stages atomic.Uint32

// stage is one host with everything on it: dispatcher, relay and the phones.
type stage struct {
	*testing.T
	site       *site.Site
	dispatcher *site.Dispatcher
	relay      *site.Relay
	ip         netip.Addr
	signaling  bool
}

func newStage(t *testing.T, plain, signaling bool) *stage {
	n := stages.Add(1)
	s := &stage{T: t, site: site.New(t, site.Options{Plain: plain}), signaling: signaling, ip: netip.AddrFrom4([4]byte{127, 12, byte(n), 1})}
	s.dispatcher = s.site.Dispatcher("d", nil)
	c := site.RelayConfig{Media: site.Lowest(s.ip.String(), 50000, 50100), Dispatchers: []string{s.dispatcher.RelayAddr().String()}}
	c.Media.Pick = nil // as in service
	s.relay = s.site.Relay("r", c)
	return s
}

// phone opens a socket of a party on a port of the scripts.
func (s *stage) phone(port uint16) *site.Phone {
	s.Helper()
	return site.NewPhone(s, netip.AddrPortFrom(s.ip, port).String())
}

// call is one script's call.
type call struct {
	*stage
	module     *site.Line
	id         string
	alice, bob *party
}

// party is who speaks in a message.
type party struct {
	name, agent, tag string
	cseq             int
}

func (s *stage) call() *call {
	s.Helper()
	return &call{stage: s, module: s.dispatcher.Module(), id: letters(24),
		alice: &party{name: "Alice", agent: "Alice's phone", tag: letters(8), cseq: 1},
		bob:   &party{name: "Bob", agent: "Bob's phone", tag: letters(8), cseq: 1}}
}

func letters(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rand.IntN(26))
	}
	return string(b)
}

// stream writes one element of the media header. A fifth field is there only if given.
func (s *stage) stream(kind string, port uint16, direction string, parameters ...string) string {
	return s.streamAt(kind, s.ip.String(), port, direction, parameters...)
}

func (s *stage) streamAt(kind, ip string, port uint16, direction string, parameters ...string) string {
	return strings.Join(append([]string{kind, ip, fmt.Sprint(port), direction}, parameters...), ":")
}

// request is an offer, or an ACK, of one party to the other.
func (c *call) request(by *party, media ...string) []netip.AddrPort {
	c.Helper()
	return c.update("request", by, c.other(by), by.agent, by.cseq, media)
}

// provisional and final are the answers to the request that the party made last.
func (c *call) provisional(to *party, media ...string) []netip.AddrPort {
	c.Helper()
	return c.update("reply", to, c.other(to), c.other(to).agent, to.cseq, media)
}

func (c *call) final(to *party, media ...string) []netip.AddrPort {
	c.Helper()
	ports := c.provisional(to, media...)
	to.cseq++
	return ports
}

func (c *call) other(p *party) *party {
	if p == c.alice {
		return c.bob
	}
	return c.alice
}

// update sends the headers in the order of the scripts and returns where the reply
// says that media is to go.
func (c *call) update(kind string, from, to *party, agent string, cseq int, media []string) []netip.AddrPort {
	c.Helper()
	lines := []string{"update", "call_id: " + c.id, "from_tag: " + from.tag, "to_tag: " + to.tag, "from_uri: " + from.uri(), "to_uri: " + to.uri(),
		fmt.Sprintf("cseq: %d", cseq), "user_agent: " + agent, "media: " + strings.Join(media, ","), "type: " + kind, "dialog_id: 1234567890"}
	if c.signaling {
		lines = append(lines, "signaling_ip: "+c.ip.String())
	}
	line := c.module.Ask(strings.Join(lines, "\r\n") + "\r\n\r\n")
	answer, err := control.ParseAnswer([]byte(line))
	if err != nil || len(answer.Ports) != len(media) || answer.IP != c.ip {
		c.Fatalf("%s of %s for %q: got %q, want %v and %d ports", kind, from.name, media, line, c.ip, len(media))
	}
	ports := make([]netip.AddrPort, len(media))
	for i, p := range answer.Ports {
		ports[i] = netip.AddrPortFrom(answer.IP, p)
	}
	return ports
}

func (p *party) uri() string {
	return fmt.Sprintf("%s <%s@example.com>", p.name, strings.ToLower(p.name))
}

// remove hangs up for one party and wants that reply.
func (c *call) remove(by *party, want string) {
	c.Helper()
	got := c.module.Ask(fmt.Sprintf("remove\r\ncall_id: %s\r\nfrom_tag: %s\r\nto_tag: %s\r\n\r\n", c.id, by.tag, c.other(by).tag))
	if got != want {
		c.Fatalf("remove by %s: got %q, want %q", by.name, got, want)
	}
}

// leg is a phone and where it was told to send.
type leg struct {
	phone *site.Phone
	to    netip.AddrPort
}

// flow is one stream's two legs.
type flow [2]leg

// talk sends twice a second of the site's clock, both ways on every stream, and
// fails unless everything arrives, each from the port that the phone itself sends to.
func (s *stage) talk(seconds int, flows ...flow) {
	s.Helper()
	for range 2 * seconds {
		for _, f := range flows {
			for i, from := range f {
				to := f[1-i]
				from.phone.Send(from.to, payload)
				if source := to.phone.Await(payload); source != to.to {
					s.Fatalf("phone %v heard %v, want the port it sends to, %v", to.phone.Addr, source, to.to)
				}
			}
		}
		s.site.Clock.Advance(500 * time.Millisecond)
	}
}

// same fails unless both answers name the same ports.
func (s *stage) same(what string, got, want []netip.AddrPort) {
	s.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Fatalf("%s: got ports %v, want those of before, %v", what, got, want)
	}
}

// gone fails unless the relay has forgotten all calls.
func (s *stage) gone() {
	s.Helper()
	if n := s.relay.Table.Len(); n != 0 {
		s.Fatalf("%d sessions are left on the relay, want none", n)
	}
}
