package relay

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/session"
)

// realTable gives the relay the session table of the program, on a network
// that is not there.
func realTable(t *testing.T, network *forward.Fake) func(*rig, *Config) {
	return func(g *rig, c *Config) {
		log := slog.New(slog.DiscardHandler)
		engine := media.NewEngine(media.Config{Locals: c.IPs}, network, log)
		t.Cleanup(func() { engine.Close() })
		g.table = session.New(session.Config{Relay: c.Name}, engine, log)
	}
}

func TestCommandsOnTheRealTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, realTable(t, forward.NewFake()))
		d := g.accept(addrA)
		d.greet("d1")
		d.offer("1", "c1", "dialog_id", "77", "signaling_ip", "198.51.100.7", "record_id", "its-report")
		offered := d.next()
		if !strings.HasPrefix(offered, "1 203.0.113.9 ") {
			t.Fatalf("got %q, want the relay's address and a port", offered)
		}
		d.offer("2", "c1")
		if again := d.next(); again[2:] != offered[2:] {
			t.Errorf("got %q for a repeated offer, want %q", again, offered)
		}
		d.command("update", "3", "type", "reply", "call_id", "c1", "cseq", "1", "from_uri", "a@x", "to_uri", "b@x",
			"from_tag", "f", "to_tag", "t", "user_agent", "UB", "media", "audio:192.0.2.6:5000:sendrecv:ice=no")
		if line := d.next(); !strings.HasPrefix(line, "3 203.0.113.9 ") || line[2:] == offered[2:] {
			t.Errorf("got %q, want the port that faces the caller", line)
		}
		d.command("update", "4", "type", "reply", "call_id", "c2", "cseq", "1", "from_uri", "a@x", "to_uri", "b@x", "from_tag", "f", "user_agent", "U")
		if line := d.next(); line != "4 error unknown session\r\n" {
			t.Errorf("got %q for a reply without media to nothing", line)
		}
		d.command("list", "5")
		d.want(`5 {"total": 1, "calls": [{"call_id": "c1", "from_tag": "f", "to_tag": "t", "dialog_id": "77", "owner": "d1", ` +
			`"record_id": "its-report", "start_time": 946684800, "from_uri": "a@x", "to_uri": "b@x"}]}`)
		d.command("explain", "6", "call_id", "c1")
		if line := d.next(); !strings.Contains(line, string(report.Answered)) {
			t.Errorf("got %q, want an explanation", line)
		}
		d.command("sessions", "7")
		if line := d.next(); !strings.HasPrefix(line, `7 [{"call_id": "c1"`) || !strings.Contains(line, `"callee_ua": "UB"`) {
			t.Errorf("got %q", line)
		}
		d.command("remove", "8", "call_id", "c1", "from_tag", "t", "to_tag", "f") // the callee hangs up
		line := d.next()
		for _, want := range []string{`8 {"call_id": "c1"`, `"record_id": "`, `"reason": "removed"`, `"dialog_id": "77"`, `"relay": "r1"`} {
			if !strings.Contains(line, want) {
				t.Errorf("got %q, want it to contain %s", line, want)
			}
		}
		_, id, _ := strings.Cut(line, `"record_id": "`)
		id, _, _ = strings.Cut(id, `"`)
		d.send("ack " + id + "\r\n")
		d.none(30 * time.Second)
	})
}

// A dead call ends by itself, frees its ports and is reported.
func TestTimeOutOnTheRealTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := forward.NewFake()
		g := start(t, func(g *rig, c *Config) { plainAt(addrA)(g, c); realTable(t, network)(g, c) })
		d := g.accept(addrA)
		d.offer("1", "c1")
		d.skipTo("1 203.0.113.9 ")
		if n := network.OpenPorts(); n != 4 {
			t.Errorf("got %d ports open, want 4", n)
		}
		d.none(5 * time.Second)
		network.Advance(91 * time.Second)
		if got := d.expired(); got.CallID != "c1" {
			t.Errorf("got report of %q, want c1", got.CallID)
		}
		if n := network.OpenPorts(); n != 0 {
			t.Errorf("got %d ports open, want none", n)
		}
		d.want("ping")
		d.command("remove", "2", "call_id", "c1", "from_tag", "f")
		d.skipTo("2 error")
	})
}

var _ Media = (*media.Engine)(nil)
