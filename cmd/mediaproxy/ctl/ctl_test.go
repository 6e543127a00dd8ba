package ctl

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/manage"
)

func ptr[T any](v T) *T { return &v }

// encode writes documents as a dispatcher does.
func encode(t *testing.T, format manage.Format, docs ...any) string {
	t.Helper()
	raw := make([]json.RawMessage, len(docs))
	for i, doc := range docs {
		text, err := report.Append(nil, doc)
		if err != nil {
			t.Fatal(err)
		}
		raw[i] = text
	}
	return string(manage.AppendDocs(nil, format, raw))
}

var relays = []any{
	report.Relay{Name: "berlin/192.0.2.1", IP: "192.0.2.1", Version: "1.0", Status: "active", Uptime: 93784, SessionCount: 12, Capacity: 4500,
		StreamCount: map[string]int{"video": 2, "audio": 12}, BPSRelayed: 2345678,
		Moved: report.Moved{Mover: "tc", Packets: 20000, KernelPackets: 19700}},
	report.Relay{Name: "paris", IP: "192.0.2.4", Version: "1.0", Status: "active", StreamCount: map[string]int{},
		Moved: report.Moved{Mover: "user-space", NotKernel: "no CAP_BPF: permission denied", Packets: 7}},
	report.Relay{IP: "192.0.2.2", Version: "4.1.2", Status: "halting", Uptime: 59, StreamCount: map[string]int{}}, // the original
	map[string]string{"status": "error", "ip": "192.0.2.3"},
}

var calls = []any{
	report.Session{CallID: "c1@198.51.100.7", FromTag: "f1", FromURI: "alice@example.com", ToTag: ptr("t1"), ToURI: "bob@example.com",
		StartTime: ptr(1900000000.25), Duration: 3725, CallerUA: "Phone A", CalleeUA: "Phone B", Username: ptr("alice"), DialogID: "12:34", Relay: "berlin/192.0.2.1",
		Streams: []report.Stream{
			{MediaType: "audio", Status: "active", CallerCodec: "G711u", CalleeCodec: "G711u", EndTime: 3725,
				CallerBytes: 37250000, CalleeBytes: 37248000, CallerPackets: 186250, CalleePackets: 186240,
				CallerLocal: "192.0.2.1:50000", CalleeLocal: "192.0.2.1:50002", CallerRemote: "198.51.100.7:9000", CalleeRemote: "203.0.113.9:7078",
				Caller: &report.Quality{Lost: 3, JitterMS: 1.25, Silent: 0.02, Mover: "user-space"},
				Callee: &report.Quality{Refused: 17, Silent: -1, Mover: "undecided"}},
			{MediaType: "video", Status: "conntrack timeout", TimeoutWait: 90, StartTime: 10, EndTime: 200, CallerCodec: "Unknown", CalleeCodec: "Unknown",
				CallerLocal: "192.0.2.1:50004", CalleeLocal: "192.0.2.1:50006", CallerRemote: "Unknown", CalleeRemote: "Unknown"},
		}},
	report.Session{CallID: "c2", FromURI: "eve\x1b[2J\tx@example.com", ToURI: "x\u202e@example.com", CallerUA: "Unknown", CalleeUA: "Unknown", Streams: []report.Stream{}},
}

var explanation = report.Explanation{
	Session: calls[0].(report.Session),
	Streams: []report.StreamExplanation{{MediaType: "audio", Status: "active", Created: 1900000000, Age: 12.5, Answered: true,
		Legs: []report.Leg{{Party: "caller", Path: "RTP", Local: "192.0.2.1:50000", SDP: "10.0.0.5:9000\x1b[2J", LastMedia: -1, Mover: "undecided"}}}},
	Findings: []report.Finding{{What: "one-way audio: the callee does not hear the caller", Cause: "nothing reaches the relay", Check: "the caller's firewall"}},
}

func fake(t *testing.T, format manage.Format) *fakeDispatcher {
	return &fakeDispatcher{answers: map[string]string{
		"summary":              encode(t, format, relays...),
		"sessions order=start": encode(t, format, calls...),
		"session c1":           encode(t, format, calls...),
		"explain c1":           encode(t, format, explanation, explanation),
		"terminate c1":         encode(t, format, map[string]int{"terminated": 1}),
		"terminate c2":         encode(t, format, map[string]int{"terminated": 1}, map[string]int{"terminated": 2}),
		"drain berlin":         encode(t, format, map[string]string{"status": "halting"}),
		"drain berlin cancel":  encode(t, format, map[string]string{"status": "active"}),
		"version":              "1.2.3\r\n",

		"session lost":   "error no relay has a call with this Call-ID\r\n",
		"terminate lost": "error no relay has a call with this Call-ID\r\n",
		"drain lost":     "error no connected relay has this name or address\r\n",
		"session none":   encode(t, format),
		"explain none":   encode(t, format),
		"terminate none": encode(t, format, map[string]int{"terminated": 0}),
		"terminate gone": encode(t, format),
		"drain none":     encode(t, format),
		"sessions from=al to=bo relay=r order=-duration limit=5": encode(t, format, calls[0]),
		"sessions lost":     encode(t, format),
		"sessions limit=7":  encode(t, format),
		"accounting":        encode(t, format, report.Backend{Name: "webhook", Waiting: 3, OldestAge: 12, Stored: 7, Failed: 2, LastError: "away\x1b", LastErrorAge: 4}),
		"cluster":           encode(t, format, inCluster),
		"drain refused":     "error this relay is an older program\x1b and cannot drain\r\n",
		"session cut":       `[{"call_id": "`,
		"session hangup":    "",
		"session strange":   "[3]\r\n",
		"session text":      "hello\r\n",
		"session broken":    "[{]\r\n",
		"terminate strange": "[{}]\r\n",
		"drain strange":     "[{}]\r\n",
	}}
}

var inCluster = report.Cluster{Name: "sip2", Size: 3, Leader: "sip1", Replicas: 3, MapOpen: true, Entries: 41, Queued: 1, Written: 90, Retried: 2, Located: 5, Hinted: 4, TakenOver: 6,
	Servers: []report.Server{{Name: "sip1", Seen: true, Leader: true}, {Name: "sip2\x1b", Seen: true, Self: true}}}

func TestGolden(t *testing.T) {
	for _, format := range []manage.Format{manage.Array, manage.Lines} {
		dir := fake(t, format).onSocket(t)
		for name, args := range map[string][]string{
			"summary":          {"summary"},
			"summary-json":     {"summary", "--json"},
			"sessions":         {"sessions"},
			"sessions-filter":  {"sessions", "--from", "al", "--to", "bo", "--relay", "r", "--order", "-duration", "--limit", "5"},
			"sessions-nothing": {"sessions", "--limit", "7"},
			"session":          {"session", "c1"},
			"accounting":       {"accounting"},
			"cluster":          {"cluster"},
			"terminate":        {"terminate", "c1"},
			"terminate-json":   {"terminate", "c2", "--json"},
			"terminate-more":   {"terminate", "c2"},
			"drain":            {"drain", "berlin"},
			"drain-json":       {"drain", "berlin", "--json"},
			"drain-cancel":     {"drain", "berlin", "--cancel"},
			"version":          {"version"},
			"version-json":     {"version", "--json"},
		} {
			golden(t, name, mustRun(t, dir, args...))
		}
	}
}

// mustRun runs a command that must succeed and print nothing harmful.
func mustRun(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, code, err := run(t, append([]string{"--runtime-dir", dir}, args...)...)
	if err != nil || code != 0 {
		t.Errorf("%v: exit code %d, %v", args, code, err)
	}
	if strings.ContainsAny(out, "\x1b\u202e") {
		t.Errorf("%v lets an escape sequence through: %q", args, out)
	}
	return out
}

// The original dispatcher knows three words and no filter.
func TestOriginalDispatcher(t *testing.T) {
	full := fake(t, manage.Array).answers
	dispatcher := &fakeDispatcher{answers: map[string]string{"summary": full["summary"], "sessions": full["sessions order=start"], "version": "4.1.2\r\n"}}
	dir := dispatcher.onSocket(t)
	golden(t, "summary", mustRun(t, dir, "summary"))
	golden(t, "sessions", mustRun(t, dir, "sessions"))
	if got := mustRun(t, dir, "version"); got != "4.1.2\n" {
		t.Errorf("version %q", got)
	}
	_, code, err := run(t, "drain", "r", "--runtime-dir", dir)
	if code != 1 || err == nil || err.Error() != "this dispatcher does not know the command drain; it may be an older program" {
		t.Errorf("drain: exit code %d, %v", code, err)
	}
}

// What --json prints is what the dispatcher said, in either of its formats.
func TestJSON(t *testing.T) {
	for _, format := range []manage.Format{manage.Array, manage.Lines} {
		dir := fake(t, format).onSocket(t)
		for _, tc := range []struct {
			args []string
			docs []any
		}{
			{[]string{"summary"}, relays},
			{[]string{"sessions"}, calls},
			{[]string{"session", "c1"}, calls},
			{[]string{"explain", "c1"}, []any{explanation, explanation}},
		} {
			out := mustRun(t, dir, append(tc.args, "--json")...)
			var got, want bytes.Buffer
			if err := json.Compact(&got, []byte(out)); err != nil {
				t.Fatalf("%v: %v in %s", tc.args, err, out)
			}
			if err := json.Compact(&want, []byte(encode(t, manage.Array, tc.docs...))); err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Errorf("%v: got\n%s\nwant\n%s", tc.args, got.String(), want.String())
			}
		}
	}
}

func TestExplain(t *testing.T) {
	out := mustRun(t, fake(t, manage.Array).onSocket(t), "explain", "c1")
	sentences := strings.Join(explanation.Sentences(), "\n") + "\n"
	sentences = strings.ReplaceAll(sentences, "\x1b", `\x1b`)
	if want := sentences + "\n" + sentences; out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	if !strings.Contains(out, `\x1b[2J`) || !strings.Contains(out, "check: the caller's firewall") {
		t.Errorf("got\n%s", out)
	}
}

func TestNothingFound(t *testing.T) {
	dispatcher := fake(t, manage.Array)
	dispatcher.answers["summary"] = "[]\r\n"
	dir := dispatcher.onSocket(t)
	for want, args := range map[string][]string{
		"no relay is connected to the dispatcher":      {"summary"},
		"no call with Call-ID none;":                   {"session", "none"},
		"no call with Call-ID none; see: mediaproxy":   {"explain", "none"},
		"no call with Call-ID none; ":                  {"terminate", "none"},
		"no call with Call-ID lost;":                   {"session", "lost"},
		"no call with Call-ID lost; ":                  {"terminate", "lost"},
		"no relay lost is connected":                   {"drain", "lost"},
		"no call with Call-ID gone;":                   {"terminate", "gone"},
		"no relay none is connected; see: mediaproxy ": {"drain", "none"},
		"no call like that":                            {"sessions", "--lost"},
	} {
		out, code, err := run(t, append(args, "--runtime-dir", dir)...)
		if code != 3 || out != "" || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: exit code %d, %v, printed %q", args, code, err, out)
		}
	}
	for _, callID := range []string{"none", "lost"} {
		out, code, _ := run(t, "session", callID, "--json", "--runtime-dir", dir)
		if code != 3 || out != "[]\n" {
			t.Errorf("%s with --json: exit code %d, printed %q", callID, code, out)
		}
	}
}

func TestFailures(t *testing.T) {
	dir := fake(t, manage.Array).onSocket(t)
	for want, args := range map[string][]string{
		`the dispatcher refused drain: this relay is an older program\x1b and cannot drain`: {"drain", "refused"},
		"this dispatcher does not know the command explain":                                 {"explain", "unknown"},
		"this dispatcher does not know filters":                                             {"sessions", "--order", "from"},
		"the dispatcher hung up in the middle of its answer":                                {"session", "cut"},
		"the dispatcher hung up without an answer; its log says why":                        {"session", "hangup"},
		"answer of the dispatcher: document 1: json":                                        {"session", "strange"},
		`answer of the dispatcher: "hello" instead of documents`:                            {"session", "text"},
		"answer of the dispatcher: invalid character":                                       {"session", "broken"},
		"answer of the dispatcher: {}: no number of ended sessions":                         {"terminate", "strange"},
		"answer of the dispatcher: {}: no status":                                           {"drain", "strange"},
	} {
		_, code, err := run(t, append(args, "--runtime-dir", dir)...)
		if code != 1 || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: exit code %d, %v; want %q", args, code, err, want)
		}
	}
}

func TestUsage(t *testing.T) {
	dispatcher := fake(t, manage.Array)
	dir := dispatcher.onSocket(t)
	for want, args := range map[string][]string{
		"a command is needed: summary":            {},
		"no command frobnicate; there are":        {"frobnicate"},
		`nothing may follow, got "now"`:           {"summary", "now"},
		"CALL-ID wanted, got 0 words":             {"session"},
		"CALL-ID wanted, got 2 words":             {"explain", "a", "b"},
		"RELAY wanted, got 0":                     {"drain"},
		`CALL-ID "a b": empty, or has a space`:    {"terminate", "a b"},
		`CALL-ID "a\nquit"`:                       {"terminate", "a\nquit"},
		`CALL-ID ""`:                              {"session", ""},
		`--from "a b"`:                            {"sessions", "--from", "a b"},
		`--to ""`:                                 {"sessions", "--to", ""},
		"--limit 0: not a number above 0":         {"sessions", "--limit", "0"},
		"sessions: order=age: not one of start":   {"sessions", "--order", "age"},
		"unknown flag: --frobnicate":              {"sessions", "--frobnicate"},
		"--plain, --certs and --pair need":        {"summary", "--plain"},
		"--runtime-dir and --server exclude":      {"summary", "--server", "x"},
		"--timeout 0s: not a time to wait":        {"summary", "--timeout", "0"},
		`invalid argument "x" for "--limit" flag`: {"sessions", "--limit", "x"},
	} {
		_, code, err := run(t, append(args, "--runtime-dir", dir)...)
		if code != 2 || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: exit code %d, %v; want %q", args, code, err, want)
		}
	}
	if len(dispatcher.asked) > 0 {
		t.Errorf("the dispatcher was asked %q", dispatcher.asked)
	}
}

func TestSpanAndBits(t *testing.T) {
	for seconds, want := range map[int64]string{0: "0s", 59: "59s", 60: "1m0s", 3725: "1h2m", 93784: "1d2h"} {
		if got := span(seconds); got != want {
			t.Errorf("span(%d) = %s, want %s", seconds, got, want)
		}
	}
	for rate, want := range map[float64]string{0: "0 bit/s", 999: "999 bit/s", 1500: "1.5 kbit/s", 64e6: "64.0 Mbit/s", 640e6: "640 Mbit/s", 5e12: "5000 Gbit/s"} {
		if got := bits(rate); got != want {
			t.Errorf("bits(%v) = %s, want %s", rate, got, want)
		}
	}
}
