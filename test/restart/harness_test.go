package restart

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) { os.Exit(site.Main(m, 4)) }

// mover is what moves packets, and how long they may stand still when the relay is
// started: from the start of its process to the first packet.
type mover struct {
	name     string
	settings []string
	gap      time.Duration
}

var movers = []mover{
	{"a socket for each port", []string{"fast_path = off"}, time.Second},
	{"what the host allows", nil, time.Second}, // loopback is no Ethernet: sockets for each address, or as above
}

// ends are the ways in which a relay goes.
var ends = []struct {
	name string
	end  func(*stage)
}{
	{"killed", func(s *stage) { s.r.Kill() }},
	{"told to stop", func(s *stage) { s.r.Signal(syscall.SIGTERM); s.gone() }},
}

// each runs a test for every mover and every end.
func each(t *testing.T, run func(s *stage, end func()), settings ...string) {
	for _, m := range movers {
		for _, e := range ends {
			t.Run(m.name+", "+e.name, func(t *testing.T) {
				t.Parallel()
				s := newStage(t, m, settings...)
				run(s, func() { e.end(s) })
			})
		}
	}
}

// stages counts them: each has a network of its own on loopback.
var stages atomic.Uint32

// stage is a dispatcher, a relay, and room for phones.
type stage struct {
	*testing.T
	*site.Site
	net      string // "127.19.4."
	link     string // where the relay finds the dispatcher
	mover    mover
	settings []string // of the relay
	d, r     *site.Process
	module   *site.Line
}

func newStage(t *testing.T, m mover, settings ...string) *stage {
	s := &stage{T: t, Site: site.New(t, site.Options{}), net: fmt.Sprintf("127.19.%d.", stages.Add(1)), mover: m}
	s.settings = append(append(s.settings, m.settings...), settings...)
	s.link = s.net + "9"
	s.d = s.DispatcherAt(s.net + "9")
	s.module = s.d.Module()
	s.start()
	return s
}

// start runs the relay and waits until the dispatcher knows its calls. It returns when
// the process was begun.
func (s *stage) start() time.Time {
	s.Helper()
	known := s.d.Log.Count("calls of the relay compared")
	began := time.Now()
	s.r = s.RelayAt("r1", s.net+"1", s.link, s.settings...)
	site.Eventually(s, "the dispatcher knows the relay's calls", func() bool { return s.d.Log.Count("calls of the relay compared") > known })
	return began
}

// gone waits for the end of the relay.
func (s *stage) gone() {
	s.Helper()
	site.Eventually(s, "the relay has ended", func() bool { return !s.r.Alive() })
}

// manage is the answer of the management port.
func (s *stage) manage(command string) string {
	s.Helper()
	return s.d.Manage(s.net+"9", command)
}

// sessions are the documents about all calls, by Call-ID, without what goes on while
// they last.
func (s *stage) sessions() map[string]report.Session {
	s.Helper()
	var list []report.Session
	if err := json.Unmarshal([]byte(s.manage("sessions")), &list); err != nil {
		s.Fatal(err)
	}
	calls := map[string]report.Session{}
	for _, doc := range list {
		doc.Duration = 0
		for i := range doc.Streams {
			st := &doc.Streams[i]
			st.EndTime, st.Caller, st.Callee = 0, nil, nil
			st.CallerBytes, st.CalleeBytes, st.CallerPackets, st.CalleePackets = 0, 0, 0, 0
		}
		calls[doc.CallID] = doc
	}
	return calls
}

// packets is how many packets the caller of a call has sent, in all its streams.
func (s *stage) packets(id string) (n uint64) {
	s.Helper()
	var list []report.Session
	if err := json.Unmarshal([]byte(s.manage("session "+id)), &list); err != nil || len(list) != 1 {
		s.Fatalf("session %s: %v", id, err)
	}
	for _, st := range list[0].Streams {
		n += st.CallerPackets
	}
	return n
}

// records is how often the end of a call was taken over.
func (s *stage) records(id string) int { return s.d.Log.Count(`msg="call over"`, "call_id="+id+" ") }

// undisturbed fails if the dispatcher has dropped or ended a call by itself.
func (s *stage) undisturbed() {
	s.Helper()
	for _, bad := range []string{"call dropped", "ended here", "placed anew", "taken back"} {
		if s.d.Log.Has(bad) {
			s.Errorf("the dispatcher says: %s", bad)
		}
	}
}

// call is one with an audio stream, and perhaps one of video.
type call struct {
	*stage
	id         string
	alice, bob *phone
	video      [2]netip.AddrPort // of alice's and bob's SDP; invalid: none
	hold       bool
	cseq       int
	nat        bool // the signalling names another port of bob than he sends from
}

func (s *stage) newCall(id string) *call {
	s.Helper()
	return &call{stage: s, id: id, alice: newPhone(s, s.net+"101:0"), bob: newPhone(s, s.net+"102:0")}
}

// setUp has a call whose parties have been heard.
func (s *stage) setUp(id string, edit func(*call)) *call {
	s.Helper()
	c := s.newCall(id)
	if edit != nil {
		edit(c)
	}
	c.invite()
	c.alice.speak()
	c.bob.speak()
	c.heard(time.Now())
	return c
}

func (c *call) message(kind string, from *phone, video netip.AddrPort) site.Message {
	addr := from.addr
	if c.nat && from == c.bob {
		addr = netip.AddrPortFrom(addr.Addr(), 9)
	}
	m := site.Message{Kind: kind, CallID: c.id, From: "a", CSeq: c.cseq, Dialog: "7:" + c.id, Source: addr.Addr().String(), Media: site.Audio(addr)}
	if c.hold && kind == "request" {
		m.Media = strings.Replace(m.Media, "sendrecv", "sendonly", 1)
	}
	if video.IsValid() {
		m.Media += ",video:" + strings.TrimPrefix(site.Audio(video), "audio:")
	}
	if kind == "reply" || c.cseq > 1 {
		m.To = "b"
	}
	return m
}

// offer is the caller's next INVITE.
func (c *call) offer() {
	c.Helper()
	c.cseq++
	c.bob.to(c.module.Update(c.message("request", c.alice, c.video[0]))[0])
}

func (c *call) answer() {
	c.Helper()
	c.alice.to(c.module.Update(c.message("reply", c.bob, c.video[1]))[0])
}

func (c *call) invite() {
	c.Helper()
	c.offer()
	c.answer()
}

// heard waits until both parties have heard each other after a moment.
func (c *call) heard(since time.Time) {
	c.Helper()
	site.Eventually(c, "the parties of "+c.id+" hear each other", func() bool { return c.alice.first(since) > 0 && c.bob.first(since) > 0 })
}

// hangUp removes the call and has it reported once.
func (c *call) hangUp() {
	c.Helper()
	if got := c.module.Ask(site.Remove(c.id, "a", "b")); got != "removed" {
		c.Errorf("remove of %s: %q", c.id, got)
		return
	}
	site.Eventually(c, "the end of call "+c.id+" is taken over", func() bool { return c.records(c.id) == 1 })
}
