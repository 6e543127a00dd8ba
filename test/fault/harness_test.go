package fault

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) { os.Exit(site.Main(m, 4)) }

var payload = site.Payload(172)

// stages counts them: each has a network of its own on loopback.
var stages atomic.Uint32

// stage is a dispatcher and room for relays and phones.
type stage struct {
	*testing.T
	*site.Site
	net string // "127.17.4."
	d   *site.Process
}

func newStage(t *testing.T, settings ...string) *stage {
	s := &stage{T: t, Site: site.New(t, site.Options{}), net: fmt.Sprintf("127.17.%d.", stages.Add(1))}
	s.d = s.dispatcher(settings...)
	return s
}

func (s *stage) dispatcher(settings ...string) *site.Process {
	s.Helper()
	return s.DispatcherAt(s.net+"9", settings...)
}

// relay starts r1, r2, … and waits until the dispatcher knows its calls.
func (s *stage) relay(n int, settings ...string) *site.Process {
	s.Helper()
	name := fmt.Sprintf("r%d", n)
	known := s.d.Log.Count("calls of the relay compared", "relay="+name)
	p := s.RelayAt(name, fmt.Sprintf("%s%d", s.net, n), s.net+"9", settings...)
	site.Eventually(s, name+" is known to the dispatcher", func() bool {
		return s.d.Log.Count("calls of the relay compared", "relay="+name) > known
	})
	return p
}

// manage is the answer of the management port.
func (s *stage) manage(command string) string {
	s.Helper()
	return s.d.Manage(s.net+"9", command)
}

// call is one that is set up.
type call struct {
	*stage
	id             string
	alice, bob     *site.Phone
	toAlice, toBob netip.AddrPort // where each sends to
}

func (s *stage) newCall(id string) *call {
	s.Helper()
	return &call{stage: s, id: id, alice: site.NewPhone(s, s.net+"101:0"), bob: site.NewPhone(s, s.net+"102:0")}
}

// offer is the caller's INVITE number n; relay is the preferred one, or nothing.
func (c *call) offer(n int, relay string) site.Message {
	m := site.Message{Kind: "request", CallID: c.id, From: "a", CSeq: n, Dialog: "1:1", Source: c.alice.Addr.Addr().String(), Relay: relay, Media: site.Audio(c.alice.Addr)}
	if n > 1 {
		m.To = "b"
	}
	return m
}

func (c *call) answer(n int) site.Message {
	return site.Message{Kind: "reply", CallID: c.id, From: "a", To: "b", CSeq: n, Dialog: "1:1", Source: c.bob.Addr.Addr().String(), Media: site.Audio(c.bob.Addr)}
}

func (c *call) remove() string { return site.Remove(c.id, "a", "b") }

// setUp has the call on its way through a module's connection.
func (s *stage) setUp(module *site.Line, id, relay string) *call {
	s.Helper()
	c := s.newCall(id)
	c.invite(module, 1, relay)
	c.talk()
	return c
}

func (c *call) invite(module *site.Line, n int, relay string) {
	c.Helper()
	c.toBob = module.Update(c.offer(n, relay))[0]
	c.toAlice = module.Update(c.answer(n))[0]
}

// talk has every word of both parties arrive.
func (c *call) talk() {
	c.Helper()
	for range 3 {
		site.Exchange(c, c.alice, c.toAlice, c.bob, c.toBob, payload)
		site.Exchange(c, c.bob, c.toBob, c.alice, c.toAlice, payload)
	}
}

// records is how often the end of a call was taken over.
func (c *call) records() int { return c.d.Log.Count("call over", "call_id="+c.id+" ") }

// hangUp removes the call and has it reported once.
func (c *call) hangUp(module *site.Line) {
	c.Helper()
	if got := module.Ask(c.remove()); got != "removed" {
		c.Fatalf("remove of %s: %q", c.id, got)
	}
	site.Eventually(c, "the end of call "+c.id+" is taken over", func() bool { return c.records() == 1 })
}

// until asks again and again until the answer begins with a word.
func until(t testing.TB, module *site.Line, request, prefix string) string {
	t.Helper()
	var got string
	for end := time.Now().Add(site.Patience); time.Now().Before(end); {
		if got = module.Ask(request); strings.HasPrefix(got, prefix) {
			return got
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("waited in vain for an answer %q…, last got %q", prefix, got)
	return ""
}
