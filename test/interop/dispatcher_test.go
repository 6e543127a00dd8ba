package interop

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.org/mediaproxy/internal/dispatcher"
	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oldRelay connects to a dispatcher as a relay of the original does: TLS with a
// certificate, no ALPN, no greeting. It has answered the question for its sessions.
func oldRelay(t *testing.T, s *site.Site, d *site.Dispatcher, sessions string) *site.Line {
	t.Helper()
	conn, err := tls.Dial("tcp", d.RelayAddr().String(), s.Store(pki.Relay).ClientConfig(pki.Passport{}))
	if err != nil {
		t.Fatal(err)
	}
	r := site.NewLine(t, conn)
	r.Want("sessions 0\r\n\r\n")
	r.Send("0 " + sessions + "\r\n")
	return r
}

// document is what an old relay of version 3 says about a session: the members of 4.x
// but username, which it does not have.
func document(callID string) string {
	return `{"call_id": "` + callID + `", "from_tag": "a-tag", "from_uri": "caller@127.0.0.1:15070", "to_tag": "b-tag", "to_uri": "callee@127.0.0.1:15060", ` +
		`"start_time": 1700000000.311634, "duration": 61, "caller_ua": "Caller/1.0", "callee_ua": "Callee/1.0", ` +
		`"streams": [{"media_type": "audio", "status": "closed", "timeout_wait": 0, "caller_codec": "G711u", "callee_codec": "Dynamic(101)", ` +
		`"start_time": 0, "end_time": 61, "post_dial_delay": 1.0065059661865234, "caller_bytes": 1000, "callee_bytes": 2000, "caller_packets": 10, ` +
		`"callee_packets": 20, "caller_local": "203.0.113.9:16000", "callee_local": "203.0.113.9:16002", "caller_remote": "198.51.100.7:9000", ` +
		`"callee_remote": "Unknown"}]}`
}

// TestOldRelay plays all flows with the module's bytes on one side and the bytes of an
// old relay on the other.
func TestOldRelay(t *testing.T) {
	s := site.New(t, site.Options{})
	d := s.Dispatcher("d", nil)
	relay := oldRelay(t, s, d, "[]")
	module := d.Module()
	seq, records := 1, 0
	for _, engaged := range []bool{true, false} {
		for i, f := range flows {
			callID := fmt.Sprintf("%d-%t@127.0.0.1", i, engaged)
			t.Run(fmt.Sprintf("%s, engaged %t", f.name, engaged), func(t *testing.T) {
				for _, step := range parse(t, callID, f.steps, engaged) {
					module.Send(step.module())
					relay.Want(step.link(seq))
					relay.Send(fmt.Sprintf("%d 203.0.113.9 %s\r\n", seq, step.ports))
					module.Want("203.0.113.9 " + step.ports + "\r\n")
					seq++
				}
				// The tags are those of a BYE of the caller, of one of the callee, or
				// of a call that nobody answered.
				tags := [][2]string{{"a-tag", "b-tag"}, {"b-tag", "a-tag"}, {"a-tag", ""}}[i%3]
				module.Send(request("remove", removal(callID, tags[0], tags[1])))
				relay.Want(request(fmt.Sprintf("remove %d", seq), filled(removal(callID, tags[0], tags[1]))))
				relay.Send(fmt.Sprintf("%d %s\r\n", seq, document(callID)))
				module.Want("removed\r\n")
				seq++
				records++
				got := d.AwaitRecords(records)[records-1]
				if got.CallID != callID || got.Reason != report.ReasonRemoved || got.Duration != 61 || got.Streams[0].CalleePackets != 20 || (got.DialogID != "") != engaged {
					t.Errorf("got record %+v", got)
				}
				// The second remove of a cancelled call: the relay is not asked.
				module.Send(request("remove", removal(callID, "a-tag", "")))
				module.Want("error\r\n")
			})
		}
	}
	relay.Send("ping\r\n")
	relay.Want("pong\r\n") // and nothing else was waiting
}

// TestOldRelayRefuses: the module gets one word, whatever the relay's reasons.
func TestOldRelayRefuses(t *testing.T) {
	s := site.New(t, site.Options{})
	d := s.Dispatcher("d", func(c *dispatcher.Config) { c.SetupTimeout = 200 * time.Millisecond })
	relay := oldRelay(t, s, d, "[]")
	module := d.Module()
	offer := func(callID string) step { return parse(t, callID, flows[0].steps, true)[0] }

	for i, answer := range []string{"error", "None", "halting"} {
		step := offer(answer)
		module.Send(step.module())
		relay.Want(step.link(i + 1))
		relay.Send(fmt.Sprintf("%d %s\r\n", i+1, answer))
		module.Want("error\r\n")
	}
	// It halts: new calls are not offered to it any more.
	module.Send(offer("another").module())
	module.Want("error\r\n")
	d.Log.Await(t, "answered error", "call_id=another")
	relay.Send("17 a late answer\r\nping\r\n")
	relay.Want("pong\r\n")
}

// TestOldRelayExpires: notifications of an old relay, and what becomes of the remove
// that follows.
func TestOldRelayExpires(t *testing.T) {
	s := site.New(t, site.Options{})
	d := s.Dispatcher("d", nil)
	relay := oldRelay(t, s, d, "[]")
	module := d.Module()
	seq := 1
	call := func(callID string, engaged bool) {
		t.Helper()
		for _, step := range parse(t, callID, flows[0].steps, engaged) {
			module.Send(step.module())
			relay.Want(step.link(seq))
			relay.Send(fmt.Sprintf("%d 203.0.113.9 %s\r\n", seq, step.ports))
			module.Want("203.0.113.9 " + step.ports + "\r\n")
			seq++
		}
	}
	for i, c := range []struct {
		name    string
		engaged bool
		edit    *strings.Replacer
		reason  string
		remove  string // what the module's remove is answered afterwards
	}{
		{"silence", true, strings.NewReplacer(`"closed", "timeout_wait": 0`, `"conntrack timeout", "timeout_wait": 180`), report.ReasonTimeout, "removed"},
		{"silence without a dialog", false, strings.NewReplacer(`"closed", "timeout_wait": 0`, `"no-traffic timeout", "timeout_wait": 90`), report.ReasonTimeout, "error"},
		{"ICE went around", true, strings.NewReplacer(`"closed", "timeout_wait": 0`, `"unselected ICE candidate", "timeout_wait": 90`,
			`1.0065059661865234`, `null`), report.ReasonUnused, "error"},
		{"never answered", true, strings.NewReplacer(`1700000000.311634`, `null`, `"duration": 61`, `"duration": 0`), report.ReasonUnanswered, "error"},
		{"relay stopped", true, strings.NewReplacer(`"closed"`, `"active"`), report.ReasonShutdown, "removed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			callID := fmt.Sprintf("%d@expired", i)
			call(callID, c.engaged)
			relay.Send("expired " + c.edit.Replace(document(callID)) + "\r\nping\r\n")
			relay.Want("pong\r\n") // comes after the record was taken over
			got := d.AwaitRecords(i + 1)[i]
			if got.CallID != callID || got.Reason != c.reason {
				t.Errorf("got record of %s, reason %q, want %q", got.CallID, got.Reason, c.reason)
			}
			module.Send(request("remove", removal(callID, "a-tag", "b-tag")))
			module.Want(c.remove + "\r\n")
		})
	}
}

// TestOldRelayReconnects: its connections replace each other by their address; calls
// that it no longer has are dropped, the others go on.
func TestOldRelayReconnects(t *testing.T) {
	s := site.New(t, site.Options{})
	d := s.Dispatcher("d", nil)
	relay := oldRelay(t, s, d, "[]")
	module := d.Module()
	for i, callID := range []string{"kept", "gone"} {
		step := parse(t, callID, flows[0].steps, true)[0]
		module.Send(step.module())
		relay.Want(step.link(i + 1))
		relay.Send(fmt.Sprintf("%d 203.0.113.9 16002\r\n", i+1))
		module.Want("203.0.113.9 16002\r\n")
	}
	// More than the original's own limit of 4 MiB for a line.
	padding := strings.Repeat(" ", 4<<20)
	again := oldRelay(t, s, d, "["+document("kept")+padding+"]")
	relay.WantClosed()
	d.Log.Await(t, "call dropped", "call_id=gone")

	module.Send(request("remove", removal("gone", "a-tag", "b-tag")))
	module.Want("error\r\n")
	module.Send(request("remove", removal("kept", "a-tag", "b-tag")))
	again.Want(request("remove 1", removal("kept", "a-tag", "b-tag")))
	again.Send("1 " + document("kept") + "\r\n")
	module.Want("removed\r\n")
	d.AwaitRecords(1)
}

// TestManagement: the answers that existing readers of the port get.
func TestManagement(t *testing.T) {
	s := site.New(t, site.Options{})
	d := s.Dispatcher("d", nil)
	m := d.Manager()
	m.Send("version\r\nsummary\r\nsessions\r\nnonsense\r\n\r\nSUMMARY\r\n")
	m.Want("4.1.2\r\n[]\r\n[]\r\nerror\r\nerror\r\nerror\r\n")

	relay := oldRelay(t, s, d, "[]")
	const summary = `{"ip": "203.0.113.9", "version": "3.1.0", "status": "active", "uptime": 19, "session_count": 3, "stream_count": {"audio": 2}, "bps_relayed": 0.0}`
	site.Eventually(t, "the relay is known", func() bool { return d.Stats().Relays == 1 })
	m.Send("summary\r\n")
	relay.Want("summary 1\r\n\r\n")
	relay.Send("1 " + summary + "\r\n")
	m.Want("[" + summary + "]\r\n")

	m.Send("sessions\n") // as people type it
	relay.Want("sessions 2\r\n\r\n")
	relay.Send("2 [" + document("c1") + ", " + document("c2") + "]\r\n")
	withUser := strings.NewReplacer(`"Callee/1.0", "streams"`, `"Callee/1.0", "username": null, "streams"`)
	m.Want("[" + withUser.Replace(document("c1")) + ", " + withUser.Replace(document("c2")) + "]\r\n")

	m.Send("summary\r\n")
	relay.Want("summary 3\r\n\r\n")
	relay.Send("3 error\r\n")
	m.Want(`[{"status": "error", "ip": "127.0.0.1"}]` + "\r\n")

	m.Send("quit\r\n")
	m.WantClosed()
}

// TestNoCertificate: a peer without one gets no further than the handshake.
func TestNoCertificate(t *testing.T) {
	s := site.New(t, site.Options{})
	d := s.Dispatcher("d", nil)
	conn, err := tls.Dial("tcp", d.RelayAddr().String(), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells the client with its first read
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("got %v, want the alert that a certificate is required", err)
	}
	d.Log.Await(t, "relay refused", "certificate")
}
