package interop

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/relay"
	"example.org/mediaproxy/test/internal/site"
)

// oldDispatcher is the listener of one of the original: TLS, no ALPN.
type oldDispatcher struct {
	t        *testing.T
	listener net.Listener
}

func newOldDispatcher(t *testing.T, s *site.Site) *oldDispatcher {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", s.Store(pki.Dispatcher).ServerConfig(pki.Passport{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &oldDispatcher{t, l}
}

// accept takes the relay's next connection and asks, as the original does at once, for
// its sessions.
func (d *oldDispatcher) accept() *site.Line {
	d.t.Helper()
	late := time.AfterFunc(site.Patience, func() { d.listener.Close() })
	defer late.Stop()
	conn, err := d.listener.Accept()
	if err != nil {
		d.t.Fatalf("the relay does not connect: %v", err)
	}
	l := site.NewLine(d.t, conn)
	l.Send("sessions 0\r\n\r\n")
	return l
}

const relayIP = "127.16.0.1"

// newRelay starts one of ours; it offers link/2 and gets the plain protocol.
func newRelay(t *testing.T, s *site.Site, d *oldDispatcher) (*site.Relay, *site.Line) {
	t.Helper()
	r := s.Relay("r", site.RelayConfig{
		Media: site.Lowest(relayIP, 16000, 16100), Dispatchers: []string{d.listener.Addr().String()},
		Edit: func(c *relay.Config) { c.KeepaliveInterval = 200 * time.Millisecond }, Unlinked: true,
	})
	return r, d.accept()
}

// patient reads the next line that is no keep-alive, and answers those.
func patient(l *site.Line) string {
	for {
		line := l.Receive()
		if line != "ping" {
			return line
		}
		l.Send("pong\r\n")
	}
}

// started hides what differs from run to run.
var started = regexp.MustCompile(`"start_time": [0-9]{10}\.[0-9]+`)

// TestOldDispatcher plays all flows with the bytes of an old dispatcher.
func TestOldDispatcher(t *testing.T) {
	s := site.New(t, site.Options{})
	old := newOldDispatcher(t, s)
	r, link := newRelay(t, s, old)
	if got := patient(link); got != "0 []" {
		t.Fatalf("sessions: got %q", got)
	}
	seq := 1
	for _, engaged := range []bool{true, false} {
		for i, f := range flows {
			callID := fmt.Sprintf("%d-%t@127.0.0.1", i, engaged)
			t.Run(fmt.Sprintf("%s, engaged %t", f.name, engaged), func(t *testing.T) {
				steps := parse(t, callID, f.steps, engaged)
				answered := false
				for _, step := range steps {
					link.Send(step.link(seq))
					if got, want := patient(link), fmt.Sprintf("%d %s %s", seq, relayIP, step.ports); got != want {
						t.Fatalf("%q: got %q, want %q", step.link(seq), got, want)
					}
					seq++
					answered = answered || step.reply
				}
				// An old relay's `dialog_id` and other words of ours must not appear.
				link.Send(request(fmt.Sprintf("remove %d", seq), []string{"call_id: " + callID, "from_tag: b-tag", "to_tag: a-tag"}))
				got := started.ReplaceAllString(patient(link), `"start_time": T`)
				want := fmt.Sprintf(`%d {"call_id": %q, "from_tag": "a-tag", "from_uri": "caller@127.0.0.1:15070", "to_tag": `, seq, callID)
				if !strings.HasPrefix(got, want) {
					t.Errorf("remove: got %s\nwant %s…", got, want)
				}
				for _, word := range []string{"record_id", "reason", "dialog_id", "quality", `"relay"`} {
					if strings.Contains(got, word) {
						t.Errorf("remove: %s has %s, which old readers do not know", got, word)
					}
				}
				if f.name == "audio" {
					wantDocument(t, got, seq, callID)
				}
				if answered != strings.Contains(got, `"start_time": T`) {
					t.Errorf("remove: got %s; answered %t", got, answered)
				}
				seq++
				link.Send(request(fmt.Sprintf("remove %d", seq), removal(callID, "a-tag", "b-tag")))
				if got, want := patient(link), fmt.Sprintf("%d error", seq); got != want {
					t.Errorf("second remove: got %q, want %q", got, want)
				}
				seq++
				site.Eventually(t, "the ports are free again", func() bool { return r.Engine.PortsFree() == 50 })
			})
		}
	}
}

// wantDocument compares a whole document of a session with one stream.
func wantDocument(t *testing.T, got string, seq int, callID string) {
	t.Helper()
	want := fmt.Sprintf(`%d {"call_id": "%s", "from_tag": "a-tag", "from_uri": "caller@127.0.0.1:15070", "to_tag": "b-tag", "to_uri": "callee@127.0.0.1:15060", `+
		`"start_time": T, "duration": 0, "caller_ua": "Caller/1.0", "callee_ua": "Callee/1.0", "username": null, `+
		`"streams": [{"media_type": "audio", "status": "closed", "timeout_wait": 0, "caller_codec": "Unknown", "callee_codec": "Unknown", `+
		`"start_time": 0, "end_time": 0, "post_dial_delay": null, "caller_bytes": 0, "callee_bytes": 0, "caller_packets": 0, "callee_packets": 0, `+
		`"caller_local": "127.16.0.1:16000", "callee_local": "127.16.0.1:16002", "caller_remote": "Unknown", "callee_remote": "Unknown"}]}`, seq, callID)
	if got != want {
		t.Errorf("remove: got\n%s\nwant\n%s", got, want)
	}
}

// TestOldDispatcherHearsOfExpiry: the report of a call that timed out is followed by a
// ping; only its pong proves that it was read. Without one, the next connection
// brings it again, before the dispatcher is told which sessions there are.
func TestOldDispatcherHearsOfExpiry(t *testing.T) {
	s := site.New(t, site.Options{})
	old := newOldDispatcher(t, s)
	r, link := newRelay(t, s, old)
	patient(link)
	for seq, step := range parse(t, "silent", flows[0].steps, true) {
		link.Send(step.link(seq + 1))
		if got := patient(link); !strings.HasSuffix(got, step.ports) {
			t.Fatalf("update: got %q", got)
		}
	}
	s.Clock.Advance(91 * time.Second)
	first := patient(link)
	if !strings.HasPrefix(first, `expired {"call_id": "silent", "from_tag": "a-tag", `) || !strings.Contains(first, `"status": "no-traffic timeout", "timeout_wait": 90`) {
		t.Fatalf("got %q, want the report of the call", first)
	}
	if got := link.Receive(); got != "ping" {
		t.Fatalf("after the report: got %q, want a ping", got)
	}
	link.Conn.Close() // it was not read

	link = old.accept()
	if again := link.Receive(); again != first {
		t.Fatalf("on the next connection: got %q, want the report again", again)
	}
	if got := link.Receive(); got != "ping" {
		t.Fatalf("after the report: got %q, want a ping", got)
	}
	link.Send("pong\r\n")
	if got := patient(link); got != "0 []" {
		t.Fatalf("sessions: got %q", got)
	}
	site.Eventually(t, "the record is acknowledged", func() bool { return r.Stats().Waiting == 0 })
}

// TestOldDispatcherAsks: the other commands, what goes wrong, and bytes that need not
// be text.
func TestOldDispatcherAsks(t *testing.T) {
	s := site.New(t, site.Options{})
	old := newOldDispatcher(t, s)
	r, link := newRelay(t, s, old)
	patient(link)
	ask := func(text, want string) {
		t.Helper()
		link.Send(text)
		if got := patient(link); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	link.Send("summary 1\r\n\r\n")
	summary := regexp.MustCompile(`^1 \{"ip": "127.16.0.1", "version": "4.1.2", "status": "active", "uptime": \d+, "session_count": 0, "stream_count": \{\}, "bps_relayed": 0(\.0)?`)
	if got := patient(link); !summary.MatchString(got) {
		t.Errorf("summary: got %q", got)
	}
	offer := parse(t, "asked", flows[0].steps, false)[0]
	ask("dance 2\r\ncall_id: asked\r\n\r\n", "2 error")
	ask(strings.Replace(offer.link(3), "signaling_ip: "+callerIP+"\r\n", "", 1), "3 127.16.0.1 16002")
	ask(strings.Replace(offer.link(4), "cseq: 1", "cseq: one", 1), "4 error")
	ask(strings.Replace(offer.link(5), "Caller/1.0", "Caf\xe9/1.0", 1), "5 127.16.0.1 16002")
	ask(strings.Replace(offer.link(6), "cseq: 1", "cseq: 0", 1), "6 error") // an offer that was never seen: the original says None

	r.Drain(true)
	other := parse(t, "other", flows[0].steps, false)[0]
	ask(other.link(7), "7 halting")
	ask(offer.link(8), "8 127.16.0.1 16002") // a call that exists
	r.Drain(false)

	// It keeps the line to its relay busy and the relay its calls.
	phone := site.NewPhone(t, "127.16.0.2:0")
	media := site.Payload(172)
	callee := site.NewPhone(t, "127.16.0.3:0")
	call := step{callID: "alive", cseq: "1", from: "a-tag", media: site.Audio(phone.Addr)}
	link.Send(call.link(9))
	toCallee := portOf(t, patient(link))
	answer := step{callID: "alive", cseq: "1", from: "a-tag", to: "b-tag", reply: true, media: site.Audio(callee.Addr)}
	link.Send(answer.link(10))
	toCaller := portOf(t, patient(link))
	site.Exchange(t, phone, toCaller, callee, toCallee, media)
	site.Exchange(t, callee, toCallee, phone, toCaller, media)
	link.Conn.Close()
	site.Exchange(t, phone, toCaller, callee, toCallee, media)
	link = old.accept()
	if got := patient(link); !strings.Contains(got, `"call_id": "alive"`) || !strings.Contains(got, `"call_id": "asked"`) {
		t.Errorf("sessions on the new connection: got %q", got)
	}
	for i, callID := range []string{"alive", "asked"} {
		link.Send(request(fmt.Sprintf("remove %d", i+1), removal(callID, "a-tag", "b-tag")))
		if got := patient(link); !strings.HasPrefix(got, fmt.Sprintf("%d {", i+1)) {
			t.Errorf("remove: got %q", got)
		}
	}
}

func portOf(t *testing.T, answer string) netip.AddrPort {
	t.Helper()
	_, body, _ := strings.Cut(answer, " ")
	ports, err := site.Ports(body)
	if err != nil || len(ports) != 1 {
		t.Fatalf("answer %q: %v", answer, err)
	}
	return ports[0]
}
