package relay

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/mediaproxy/internal/report"
)

// The exchanges below are those of the original's protocol, byte for byte.
func TestPlainExchanges(t *testing.T) {
	const update = "type: request\r\ndialog_id: 13116830126763\r\ncall_id: c1\r\ncseq: 1\r\nfrom_uri: alice@example.com\r\n" +
		"to_uri: bob@example.com\r\nfrom_tag: f\r\nuser_agent: Phone/1.0\r\n" +
		"media: audio:192.168.1.5:4000:sendrecv:ice=no,video:192.168.1.5:4002:sendrecv:ice=no\r\n"
	const remove8 = `8 {"call_id": "c1", "from_tag": "f", "from_uri": "", "to_tag": null, "to_uri": "", "start_time": null, ` +
		`"duration": 0, "caller_ua": "Unknown", "callee_ua": "Unknown", "username": null, "streams": []}`
	for _, c := range []struct {
		name string
		send string
		want []string
	}{
		{"update without signaling_ip", "update 7\r\n" + update + "\r\n", []string{"7 203.0.113.9 50002 50006"}},
		{"line feeds only", strings.ReplaceAll("update 7\r\n"+update+"\r\n", "\r\n", "\n"), []string{"7 203.0.113.9 50002 50006"}},
		{"remove", "update 7\r\n" + update + "\r\nremove 8\r\ncall_id: c1\r\nfrom_tag: f\r\n\r\n",
			[]string{"7 203.0.113.9 50002 50006", remove8}},
		{"remove of an unknown call", "remove 9\r\ncall_id: nobody\r\nfrom_tag: f\r\n\r\n", []string{"9 error"}},
		{"no sessions", "sessions 0\r\n\r\n", []string{"0 []"}},
		{"answers in order, numbers opaque", "sessions x1\r\n\r\nremove 007\r\ncall_id: n\r\nfrom_tag: f\r\n\r\nsessions 2\r\n\r\n",
			[]string{"x1 []", "007 error", "2 []"}},
		{"headers of an unknown command are no commands", "dance 3\r\nsessions: 4\r\ncall_id: c1\r\nsessions 5\r\n\r\nsessions 6\r\n\r\n",
			[]string{"3 error", "6 []"}},
		{"a command of link/2", "list 3\r\n\r\nsessions 4\r\n\r\n", []string{"3 error", "4 []"}},
		{"pong between headers", "update 7\r\n" + strings.Replace(update, "cseq:", "pong\r\ncseq:", 1) + "\r\n",
			[]string{"7 203.0.113.9 50002 50006"}},
		{"header without colon and space", "update 7\r\nnonsense\r\nx:y\r\n" + update + "\r\n", []string{"7 203.0.113.9 50002 50006"}},
		{"first line that is no command", "nonsense\r\none two three\r\nsessions 1\r\n\r\n", []string{"1 []"}},
		{"missing header", "update 7\r\n" + strings.Replace(update, "from_tag: f\r\n", "", 1) + "\r\nsessions 8\r\n\r\n",
			[]string{"7 error", "8 []"}},
		{"cseq that is no number", "update 7\r\n" + strings.Replace(update, "cseq: 1", "cseq: one", 1) + "\r\n", []string{"7 error"}},
		{"type that is neither", "update 7\r\n" + strings.Replace(update, "request", "question", 1) + "\r\n", []string{"7 error"}},
		{"unreadable media", "update 7\r\n" + strings.Replace(update, "audio:192", "audio,192", 1) + "\r\n", []string{"7 error"}},
		{"reply without media for an unknown call is never None", "update 7\r\n" +
			strings.Replace(update[:strings.Index(update, "media:")], "request", "reply", 1) + "\r\n", []string{"7 error"}},
		{"a bug answers error and the next command works", "update 7\r\n" + strings.Replace(update, "c1", "bug", 1) + "\r\nsessions 8\r\n\r\n",
			[]string{"7 error", "8 []"}},
		{"ports exhausted", "update 7\r\n" + strings.Replace(update, "c1", "full", 1) + "\r\n", []string{"7 error"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, plainAt(addrA))
				d := g.accept(addrA)
				d.send(c.send)
				for _, want := range c.want {
					d.want(want)
				}
				d.none(5 * time.Second)
			})
		})
		t.Run(c.name+", byte by byte", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, plainAt(addrA))
				d := g.accept(addrA)
				for i := range len(c.send) {
					d.send(c.send[i : i+1])
				}
				for _, want := range c.want {
					d.want(want)
				}
			})
		})
	}
}

func TestPlainPreservesBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		d.offer("1", "c\xff1", "user_agent", "Tel\xe9fono: \t\x00x ")
		d.want("1 203.0.113.9 50002")
		if got, want := g.calls.last.UserAgent, "Tel\xe9fono: \t\x00x "; got != want {
			t.Errorf("got user agent %q, want %q", got, want)
		}
		if got := g.calls.last.CallID; got != "c\xff1" {
			t.Errorf("got Call-ID %q", got)
		}
	})
}

func TestPlainKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		begin := time.Now()
		for i := 1; i <= 20; i++ { // answered, it stands
			d.want("ping")
			if got, want := time.Since(begin), time.Duration(i)*10*time.Second; got != want {
				t.Fatalf("ping %d came after %v, want %v", i, got, want)
			}
			d.send("pong\r\n")
		}
		d.send("pong\r\npong\r\n") // nobody asked: no credit for later
		begin = time.Now()
		d.closed(time.Minute)
		if got := time.Since(begin); got != 40*time.Second {
			t.Errorf("a silent dispatcher was given up after %v, want 40 s", got)
		}
	})
}

// An old dispatcher forgets every call that is missing from the answer to its
// first `sessions`, so the reports of those that ended must stand before it.
func TestPlainReportsComeBeforeSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		d.offer("1", "c1", "dialog_id", "77")
		d.want("1 203.0.113.9 50002")
		d.close()
		g.calls.expire("c1")
		d = g.accept(addrA)
		d.send("sessions 0\r\n\r\n")
		line := d.next()
		if !strings.HasPrefix(line, `expired {"call_id": "c1"`) || strings.Contains(line, "record_id") || strings.Contains(line, "dialog_id") {
			t.Fatalf("got %q, want the plain report of c1 first", line)
		}
		d.want("ping")
		d.want("0 []")
		d.close() // without a pong: nobody knows whether it was read
		d = g.accept(addrA)
		if got := d.expired().CallID; got != "c1" {
			t.Fatalf("got report of %q, want c1 again", got)
		}
		d.want("ping")
		d.send("pong\r\n")
		d.none(time.Minute)
		if s := g.relay.Stats(); s.Waiting != 0 || s.Acknowledged != 1 {
			t.Errorf("got %d waiting, %d acknowledged, want 0 and 1", s.Waiting, s.Acknowledged)
		}
	})
}

// The pong of a keep-alive that was sent before a report proves nothing.
func TestPlainPongsCountInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		d.want("ping") // at 10 s, not answered yet
		g.calls.expire("c1")
		if line := d.next(); !strings.HasPrefix(line, "expired ") {
			t.Fatalf("got %q, want the report", line)
		}
		d.want("ping")
		d.send("pong\r\n")
		synctest.Wait()
		if s := g.relay.Stats(); s.Waiting != 1 {
			t.Fatalf("got %d waiting after the keep-alive's pong, want 1", s.Waiting)
		}
		d.send("pong\r\n")
		synctest.Wait()
		if s := g.relay.Stats(); s.Waiting != 0 {
			t.Fatalf("got %d waiting after the report's pong, want 0", s.Waiting)
		}
	})
}

func TestPlainRemoveIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		d.command("remove", "2", "call_id", "c1", "from_tag", "f")
		d.skipTo("2 {")
		d.close()
		d = g.accept(addrA)
		d.none(time.Minute)
	})
}

func TestPlainSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		d.command("summary", "2")
		d.want(`2 {"ip": "203.0.113.9", "version": "1.0", "status": "active", "uptime": 0, "session_count": 1, "stream_count": {"audio": 1}, "bps_relayed": 0}`)
		g.media.relay(30000)
		d.none(16 * time.Second)
		d.command("summary", "3")
		d.want(`3 {"ip": "203.0.113.9", "version": "1.0", "status": "active", "uptime": 16, "session_count": 1, "stream_count": {"audio": 1}, "bps_relayed": 16000}`)
	})
}

func TestPlainSessionsFitTheLine(t *testing.T) {
	var docs []report.Session
	for range 10 {
		docs = append(docs, report.Session{CallID: "c", FromTag: "f", RecordID: "no",
			Streams: []report.Stream{{MediaType: "audio", Caller: &report.Quality{}}, {MediaType: "video"}}})
	}
	full, err := plainSessions(docs, 1<<20)
	if err != nil || strings.Contains(string(full), "quality") || strings.Contains(string(full), "record_id") {
		t.Fatalf("got %s, %v: link/2 members in the plain form", full, err)
	}
	previous := len(full) + 1
	for _, limit := range []int{len(full) + 64, len(full), 1000} { // all, without streams, Call-IDs only
		line, err := plainSessions(docs, limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []struct {
			CallID string `json:"call_id"`
		}
		if err := json.Unmarshal(line, &got); err != nil || len(got) != 10 || got[9].CallID != "c" {
			t.Errorf("limit %d: got %s, %v: not all ten calls", limit, line, err)
		}
		if len(line) > limit-64 || len(line) >= previous {
			t.Errorf("limit %d: got %d bytes, want at most %d and fewer than %d", limit, len(line), limit-64, previous)
		}
		previous = len(line)
	}
}

func TestTooLongLineEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		d.send("update 1\r\nuser_agent: " + strings.Repeat("x", 16384-12) + "\r\n\r\n")
		d.want("1 error") // the longest line that is allowed; the rest is missing
		go d.nc.Write([]byte("update 2\r\nuser_agent: " + strings.Repeat("x", 20000) + "\r\n"))
		d.closed(time.Second)
		g.accept(addrA)
	})
}
