package relay

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// page decodes the next answer.
func (d *remote) page(seq string) (docs []report.Session, next uint64) {
	d.t.Helper()
	line := strings.TrimPrefix(d.skipTo(seq+" "), seq+" ")
	raw, next, err := relaylink.ParsePage(nil, []byte(line))
	if err != nil || !json.Valid([]byte(line)) || line[0] != '{' {
		d.t.Fatalf("%q: %v", line, err)
	}
	for _, doc := range raw {
		docs = append(docs, report.Session{})
		if err := json.Unmarshal(doc, &docs[len(docs)-1]); err != nil {
			d.t.Fatal(err)
		}
	}
	return docs, next
}

func TestSessionsInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, realTable(t, forward.NewFake()))
		d := g.accept(addrA)
		d.greet("d1")
		for i := range 5 {
			d.offer("u", fmt.Sprint("c", i), "dialog_id", "77")
			d.skipTo("u ")
		}
		d.command("sessions", "1", "limit", "2")
		docs, next := d.page("1")
		if len(docs) != 2 || docs[0].CallID != "c0" || docs[1].CallID != "c1" || next == 0 || docs[0].DialogID != "77" || docs[0].Relay != "r1" {
			t.Fatalf("got %+v, next %d", docs, next)
		}
		// Set-ups and ends of calls have their turn between pages.
		d.command("remove", "r", "call_id", "c1", "from_tag", "f")
		d.skipTo("r {")
		d.command("remove", "r", "call_id", "c2", "from_tag", "f")
		d.skipTo("r {")
		d.offer("u", "c5")
		d.skipTo("u ")
		d.command("sessions", "2", "limit", "2", "after", fmt.Sprint(next), "plain", "yes")
		docs, next = d.page("2")
		if len(docs) != 2 || docs[0].CallID != "c3" || docs[1].CallID != "c4" || next == 0 || docs[0].DialogID != "" || docs[0].Relay != "" {
			t.Fatalf("got %+v, next %d", docs, next)
		}
		d.command("sessions", "3", "limit", "100000", "after", fmt.Sprint(next))
		if docs, next = d.page("3"); len(docs) != 1 || docs[0].CallID != "c5" || next != 0 {
			t.Fatalf("got %+v, next %d", docs, next)
		}
		d.command("sessions", "4", "limit", "1", "after", "18446744073709551615")
		if docs, next = d.page("4"); len(docs) != 0 || next != 0 {
			t.Fatalf("behind the end: got %+v, next %d", docs, next)
		}
		for _, c := range []struct{ limit, after, want string }{
			{"0", "", "error header limit: a page of nothing"},
			{"x", "", `error header limit: "x" is not a number`},
			{"2", "-1", `error header after: "-1" is not the next of a page`},
		} {
			d.command("sessions", "5", "limit", c.limit, "after", c.after)
			if line := d.skipTo("5 "); line != "5 "+c.want+"\r\n" {
				t.Errorf("limit %s after %s: got %q", c.limit, c.after, line)
			}
		}
		// Without the header, as ever.
		d.command("sessions", "6", "plain", "yes")
		if line := d.skipTo("6 "); !strings.HasPrefix(line, `6 [{"call_id": "c0"`) || strings.Count(line, "call_id") != 4 || strings.Contains(line, "dialog_id") {
			t.Errorf("got %q", line)
		}
	})
}

// An old dispatcher knows no pages: what it sends as headers changes nothing.
func TestPlainSessionsAreWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) { plainAt(addrA)(g, c); realTable(t, forward.NewFake())(g, c) })
		d := g.accept(addrA)
		for i := range 3 {
			d.offer("u", fmt.Sprint("c", i), "dialog_id", "77")
			d.skipTo("u ")
		}
		d.command("sessions", "1", "limit", "2", "plain", "no")
		if line := d.skipTo("1 "); !strings.HasPrefix(line, `1 [{"call_id": "c0"`) || strings.Count(line, "call_id") != 3 || strings.Contains(line, "dialog_id") {
			t.Errorf("got %q", line)
		}
	})
}

// The memory of a page is that of the page before.
func TestPagesLeaveNoGarbage(t *testing.T) {
	calls := &fakeCalls{}
	for i := range 1000 {
		calls.docs = append(calls.docs, report.Session{CallID: fmt.Sprint("c", i), Streams: []report.Stream{{MediaType: "audio"}}})
	}
	r, err := New(Config{Name: "r1", IPs: []netip.Addr{netip.MustParseAddr("203.0.113.9")}, Dial: newFakeNet().dial},
		calls, &fakeMedia{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{relay: r, log: r.log}
	var body []byte
	few := func(limit string) float64 {
		cmd := relaylink.Command{Headers: []control.Header{{Name: relaylink.HeaderLimit, Value: limit}}}
		return testing.AllocsPerRun(10, func() {
			if body, err = c.sessions(cmd); err != nil {
				t.Fatal(err)
			}
		})
	}
	if one, many := few("1"), few("200"); many > one+3 {
		t.Errorf("%.0f allocations for a page of 200, %.0f for one of 1", many, one)
	}
	if n := strings.Count(string(body), "call_id"); n != 200 {
		t.Errorf("%d sessions", n)
	}
}
