package dispatcher

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/manage"
	"example.org/mediaproxy/internal/wire/relaylink"
)

const plainSession = `{"call_id": "c1", "from_tag": "f", "from_uri": "alice@example.com", "to_tag": "t", "to_uri": "bob@example.com", ` +
	`"start_time": 1700000000.5, "duration": 61, "caller_ua": "UA", "callee_ua": "UB", "username": null, ` +
	`"streams": [{"media_type": "audio", "status": "closed", "timeout_wait": 0, "caller_codec": "G711u", "callee_codec": "G711a", ` +
	`"start_time": 0, "end_time": 61, "post_dial_delay": null, "caller_bytes": 1000, "callee_bytes": 2000, "caller_packets": 10, ` +
	`"callee_packets": 20, "caller_local": "203.0.113.9:50000", "callee_local": "203.0.113.9:50002", ` +
	`"caller_remote": "198.51.100.7:9000", "callee_remote": "Unknown"}]}`

const plainSummary = `{"ip": "127.0.0.1", "version": "4.1.2", "status": "active", "uptime": 19, "session_count": 3, "stream_count": {"audio": 2}, "bps_relayed": 0}`

func TestPlainManagementAnswers(t *testing.T) {
	u := start(t, nil)
	op := u.manager()
	for _, step := range [][2]string{{"summary\r\n", "[]"}, {"sessions\n", "[]"}, {"version\r\n", "4.1.2"}, {"nonsense\r\n", "error"}, {"\r\n", "error"}} {
		if got := op.ask(step[0]); got != step[1] {
			t.Errorf("%q without relays: %q, want %q", step[0], got, step[1])
		}
	}
	u.relay("a", having(relaylink.Call{CallID: "c1", FromTag: "f"}), handling(func(c relaylink.Command) (string, bool) {
		if c.Name != relaylink.Sessions {
			return plainSummary, c.Name == relaylink.Summary
		}
		doc := sessionDoc("c1", "f") // with all that link/2 adds
		doc.DialogID = "5"
		doc.Streams[0].Caller = &report.Quality{Lost: 1}
		if get(c, relaylink.HeaderPlain) == "yes" {
			doc = doc.Plain() // what the relay was asked for
		}
		return docText([]report.Session{doc}), true
	}))
	u.relay("127.0.0.1", plainFrom("127.0.0.1"), handling(func(c relaylink.Command) (string, bool) {
		return "error", c.Name == relaylink.Summary || c.Name == relaylink.Sessions
	}))
	for _, step := range [][2]string{
		{"summary\r\n", `[{"status": "error", "ip": "127.0.0.1"}, ` + plainSummary + `]`},
		{"sessions\r\n", "[" + plainSession + "]"},
		{"version\r\n", "4.1.2"},
		{"sessions now\r\n", `error "now" is neither lost nor name=value`},
		{"sessions lost\r\n", "[]"},
	} {
		if got := op.ask(step[0]); got != step[1] {
			t.Errorf("%q\n got %s\nwant %s", step[0], got, step[1])
		}
	}
	op.send("quit\r\n")
	op.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := op.in.ReadByte(); err == nil || os.IsTimeout(err) {
		t.Errorf("quit does not close: %v", err)
	}
}

func TestManagementLinesAndUnixSocket(t *testing.T) {
	path := filepath.Join(os.TempDir(), "mpm-"+newRecordID()[:8])
	u := start(t, func(c *Config) { c.ManagementFormat, c.ManagementSocket = manage.Lines, path })
	for _, name := range []string{"a", "b"} {
		u.relay(name, handling(func(c relaylink.Command) (string, bool) { return plainSummary, c.Name == relaylink.Summary }))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	op := u.manager()
	op.conn = conn
	op.in.Reset(conn)
	if a, b, end := op.ask("summary\r\n"), op.receive(), op.receive(); a != plainSummary || b != plainSummary || end != "" {
		t.Errorf("got %q %q %q", a, b, end)
	}
	if got := op.ask("sessions\r\n"); got != "" {
		t.Errorf("an empty list: %q", got)
	}
}

func TestManagementTLS(t *testing.T) {
	u := start(t, func(c *Config) { c.ManagementTLS = serverTLS() })
	conn, err := tls.Dial("tcp", u.ManagementAddr().String(), clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	op := u.manager() // without certificate: refused below
	op.in.Reset(conn)
	if _, err := conn.Write([]byte("version\r\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := op.in.ReadString('\n'); line != "4.1.2\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	op.conn.Write([]byte("version\r\n"))
	eventually(t, "plain text is refused", func() bool { return u.logged("management connection refused") })
}

func TestSessionsFilters(t *testing.T) {
	doc := func(call, from, to string, duration int64, bytes uint64) report.Session {
		s := sessionDoc(call, "f")
		s.FromURI, s.ToURI, s.Duration = from, to, duration
		s.Streams[0].CallerBytes, s.Streams[0].CalleeBytes = bytes, 0
		started := 1700000000 - float64(duration)
		s.StartTime = &started
		return s
	}
	u := start(t, nil)
	u.relay("a", handling(func(c relaylink.Command) (string, bool) {
		docs := []report.Session{doc("c1", "alice@a", "bob@b", 10, 300), doc("c2", "Carol@a", "dave@b", 30, 100)}
		if c.Name == relaylink.Session {
			docs = docs[:1]
		}
		return docText(docs), c.Name == relaylink.Sessions || c.Name == relaylink.Session
	}))
	u.relay("b", handling(func(c relaylink.Command) (string, bool) {
		docs := []report.Session{doc("c3", "alice@c", "erin@b", 20, 200)}
		if c.Name == relaylink.Session {
			docs = nil
		}
		return docText(docs), c.Name == relaylink.Sessions || c.Name == relaylink.Session
	}))
	for words, want := range map[string]string{
		"order=call_id":            "c1 c2 c3",
		"order=-call_id":           "c3 c2 c1",
		"order=duration":           "c1 c3 c2",
		"order=-duration limit=1":  "c2",
		"order=bytes":              "c2 c3 c1",
		"order=start":              "c2 c3 c1",
		"order=from":               "c2 c1 c3",
		"order=to":                 "c1 c2 c3",
		"from=ALICE order=call_id": "c1 c3",
		"from=alice to=erin":       "c3",
		"relay=b":                  "c3",
		"relay=nowhere":            "",
		"call_id=c1":               "c1",
		"limit=2 order=relay":      "c1 c2",
	} {
		req, err := manage.ParseRequest([]byte("sessions " + words))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range u.Sessions(req.Filter) {
			got = append(got, s.CallID)
			if s.Relay == "" {
				t.Errorf("%s: no relay in %+v", words, s)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("sessions %s: %q, want %q", words, got, want)
		}
	}
}

func TestSessionExplainTerminateDrain(t *testing.T) {
	u := start(t, nil)
	var asked relaylink.Command
	r := u.relay("a")
	r.handleWith(func(c relaylink.Command) (string, bool) {
		known := get(c, "call_id") == "c1"
		switch c.Name {
		case relaylink.Explain:
			if known {
				return `[{"session": {"call_id": "c1"}}]`, true
			}
			return "[]", true
		case relaylink.Terminate:
			if known {
				doc := sessionDoc("c1", "f")
				doc.RecordID, doc.Reason = "r1", report.ReasonTerminated
				r.expire(doc)
				return `{"terminated": 1}`, true
			}
			return `{"terminated": 0}`, true
		case relaylink.Drain:
			asked = c
			if get(c, relaylink.HeaderCancel) == "yes" {
				return `{"status": "active"}`, true
			}
			return `{"status": "halting"}`, true
		}
		return "", false
	})
	m, op := u.module(), u.manager()
	m.ask(message{call: "c1", from: "f", dialog: "5"}.String())
	full := strings.TrimSuffix(plainSession, "}") + `, "relay": "a"}`
	for _, step := range [][2]string{
		{"session c1", "[" + full + "]"},
		{"session c9", "error no relay has a call with this Call-ID"},
		{"session", "error session needs one Call-ID, got 0 words"},
		{"explain c1", `[{"session": {"call_id": "c1"}}]`},
		{"explain c9", "error no relay has a call with this Call-ID"},
		{"terminate c9", "error no relay has a call with this Call-ID"},
		{"terminate c1", `[{"terminated": 1}]`},
		{"drain b", "error no connected relay has this name or address"},
		{"drain a", `[{"status": "halting"}]`},
	} {
		if got := op.ask(step[0] + "\r\n"); got != step[1] {
			t.Errorf("%q\n got %s\nwant %s", step[0], got, step[1])
		}
	}
	eventually(t, "the terminated call is recorded", func() bool { return len(u.records()) == 1 })
	if s := u.records()[0]; s.Reason != report.ReasonTerminated || s.DialogID != "5" {
		t.Errorf("%+v", s)
	}
	if got := m.ask(remove("c1", "f", "t")); got != "removed" || r.count(relaylink.Remove) != 0 {
		t.Errorf("the SIP proxy's remove after it: %q", got)
	}
	if list, _ := u.registry.candidates(nil); len(list) != 0 {
		t.Error("a drained relay is still chosen")
	}
	if got := op.ask("drain 127.0.0.1 cancel\r\n"); got != `[{"status": "active"}]` || get(asked, relaylink.HeaderCancel) != "yes" {
		t.Errorf("cancel: %q", got)
	}
	if got := m.ask(offer("c2")); got != ports {
		t.Errorf("after cancel: %q", got)
	}
}

func TestOldRelayManagement(t *testing.T) {
	u := start(t, nil)
	r := u.relay("127.0.0.1", plainFrom("127.0.0.1"))
	m, op := u.module(), u.manager()
	m.ask(message{call: "c1", from: "f", dialog: "5"}.String())
	for _, step := range [][2]string{
		{"explain c1", "error the call's relay speaks the plain protocol, which has no such command"},
		{"drain 127.0.0.1", "error relay speaks the plain protocol, which has no such command: send HUP to it instead"},
		{"terminate c1", `[{"terminated": 1}]`},
	} {
		if got := op.ask(step[0] + "\r\n"); got != step[1] {
			t.Errorf("%q\n got %s\nwant %s", step[0], got, step[1])
		}
	}
	eventually(t, "the record", func() bool { return len(u.records()) == 1 })
	if s := u.records()[0]; s.Reason != report.ReasonTerminated || s.DialogID != "5" || len(r.calls()) != 0 {
		t.Errorf("%+v", s)
	}
	if got := m.ask(remove("c1", "f", "t")); got != "removed" {
		t.Errorf("remove after it: %q", got)
	}
}

func TestQueriesDoNotDelaySetup(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a", handling(func(c relaylink.Command) (string, bool) {
		return "", c.Name == relaylink.Sessions || c.Name == relaylink.Summary
	}))
	op, m := u.manager(), u.module()
	op.send("sessions\r\nsummary\r\n")
	eventually(t, "the relay is asked", func() bool { return r.count(relaylink.Sessions) > 0 })
	for range 20 {
		begun := time.Now()
		if got := m.ask(offer("c")); got != ports || time.Since(begun) > DefaultRelayTimeout/2 {
			t.Errorf("%q after %v", got, time.Since(begun))
		}
	}
	u.pass(6 * time.Second) // past relay_timeout
	if got := op.receive(); got != "[]" {
		t.Errorf("sessions: %q", got)
	}
}

func TestSummaryFunction(t *testing.T) {
	u := start(t, nil)
	u.relay("a", handling(func(c relaylink.Command) (string, bool) { return plainSummary, c.Name == relaylink.Summary }))
	got := u.Summary()
	want := report.Relay{IP: "127.0.0.1", Version: "4.1.2", Status: "active", Uptime: 19, SessionCount: 3, StreamCount: map[string]int{"audio": 2}}
	if len(got) != 1 || got[0].Name != "a" || got[0].Err != nil || !reflect.DeepEqual(got[0].Doc, want) || !json.Valid(got[0].Raw) {
		t.Errorf("got %+v", got)
	}
}
