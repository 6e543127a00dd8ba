package badinput

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) { os.Exit(site.Main(m, 8)) }

var payload = site.Payload(172)

// stage is a dispatcher with a relay and a call that is up.
type stage struct {
	*testing.T
	*site.Site
	net  string
	d, r *site.Process

	alice, bob     *site.Phone
	toAlice, toBob netip.AddrPort
	calls          int
}

// newStage has the network 127.18.n.0.
func newStage(t *testing.T, n int) *stage {
	s := &stage{T: t, Site: site.New(t, site.Options{}), net: fmt.Sprintf("127.18.%d.", n)}
	s.d = s.DispatcherAt(s.net + "9")
	s.r = s.RelayAt("r1", s.net+"1", s.net+"9")
	s.d.Log.Await(t, "calls of the relay compared", "relay=r1")
	s.alice, s.bob = site.NewPhone(t, s.net+"101:0"), site.NewPhone(t, s.net+"102:0")
	s.toAlice, s.toBob = s.invite("up")
	s.serves()
	return s
}

func (s *stage) invite(callID string) (toAlice, toBob netip.AddrPort) {
	s.Helper()
	module := s.d.Module()
	defer module.Conn.Close()
	m := site.Message{Kind: "request", CallID: callID, From: "a", Source: s.net + "101", Media: site.Audio(s.alice.Addr)}
	toBob = module.Update(m)[0]
	m.Kind, m.To, m.Source, m.Media = "reply", "b", s.net+"102", site.Audio(s.bob.Addr)
	return module.Update(m)[0], toBob
}

// serves fails unless the call that was up talks and another can be set up and ended.
func (s *stage) serves() {
	s.Helper()
	if !s.d.Alive() || !s.r.Alive() {
		s.Fatalf("dispatcher runs: %t, relay runs: %t", s.d.Alive(), s.r.Alive())
	}
	site.Exchange(s, s.alice, s.toAlice, s.bob, s.toBob, payload)
	site.Exchange(s, s.bob, s.toBob, s.alice, s.toAlice, payload)
	s.calls++
	callID := fmt.Sprintf("serves-%d", s.calls)
	s.invite(callID)
	module := s.d.Module()
	defer module.Conn.Close()
	if got := module.Ask(site.Remove(callID, "a", "b")); got != "removed" {
		s.Fatalf("remove of %s: %q", callID, got)
	}
}

// logs waits for one more log line with these words than there were before.
func (s *stage) logs(p *site.Process, do func(), words ...string) {
	s.Helper()
	before := p.Log.Count(words...)
	do()
	site.Eventually(s, fmt.Sprintf("another log line with %q", words), func() bool { return p.Log.Count(words...) > before })
}
