package relay

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

func TestGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(_ *rig, c *Config) {
			c.Labels = []string{"region=eu"}
			c.IPs = append(c.IPs, netip.MustParseAddr("2001:db8::9"))
		})
		d := g.accept(addrA)
		hello := d.greet("d1")
		if hello.Name != "r1" || hello.Instance != "i1" || hello.IP != "203.0.113.9" || len(hello.IPs) != 2 || hello.IPs[1] != "2001:db8::9" ||
			hello.Capacity != 250 || hello.Draining || hello.Load.PortsFree != 996 || len(hello.Labels) != 1 {
			t.Errorf("got hello %+v", hello)
		}
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		if owner := g.calls.Calls()[0].Owner; owner != "d1" {
			t.Errorf("got owner %q, want the dispatcher's name", owner)
		}
		d.want(`ping {"sessions":1,"streams":1,"bps":0,"ports_free":996,"draining":false}`)
		if s := g.relay.Stats(); len(s.Links) != 1 || !s.Links[0].Connected || s.Links[0].Name != "d1" || s.Links[0].Protocol != "link/2" {
			t.Errorf("got stats %+v", s)
		}
	})
}

func TestDispatcherWithoutGreetingIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		g.accept(addrA).closed(11 * time.Second)
		d := g.accept(addrA)
		d.send("sessions 1\r\n\r\n")
		d.closed(time.Second)
		d = g.accept(addrA)
		d.send("hello {\r\n")
		d.closed(time.Second)
	})
}

func TestRefusedRelayRetriesSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		begin := time.Now()
		for i := range 3 {
			d := g.accept(addrA)
			if got, want := time.Since(begin), time.Duration(i)*time.Minute; got != want {
				t.Errorf("attempt %d came after %v, want %v", i+1, got, want)
			}
			d.send("hello {\"name\": \"d1\", \"instance\": \"x\", \"refused\": \"name r1 is in use by another relay\"}\r\n")
			d.closed(time.Second)
		}
		if n := strings.Count(g.log.String(), "level=WARN msg=\"dispatcher refuses this relay"); n != 1 {
			t.Errorf("got %d warnings, want one for one unchanged reason", n)
		}
		if s := g.relay.Stats().Links[0]; s.Connected || !strings.Contains(s.Problem, "name r1 is in use") {
			t.Errorf("got %+v, want the dispatcher's reason", s)
		}
	})
}

func TestReasonsOnLink2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		for _, c := range []struct{ name, callID, want string }{
			{"update", "full", "error ports exhausted: all 4 of 50000:50004 are in use"},
			{"update", "bug", "error internal error"},
			{"remove", "nobody", "error call nobody: unknown session"},
			{"session", "", "error header call_id is missing"},
			{"terminate", "", "error header call_id is missing"},
			{"dance", "c", "error unknown command"},
		} {
			if c.name == "update" {
				d.offer("1", c.callID)
			} else {
				d.command(c.name, "1", "call_id", c.callID)
			}
			if got := d.next(); !strings.HasPrefix(got, "1 "+c.want) {
				t.Errorf("%s %s: got %q, want %q", c.name, c.callID, got, c.want)
			}
		}
		d.command("update", "2", "call_id", "c1", "type", "request")
		if got := d.next(); !strings.HasPrefix(got, "2 error ") || !strings.Contains(got, "from_tag") {
			t.Errorf("got %q, want an error that names from_tag", got)
		}
		if s := g.relay.Stats(); s.Panics != 1 || s.Unknown != 1 || s.Failed != 6 {
			t.Errorf("got %d panics, %d unknown, %d failed, want 1, 1, 6", s.Panics, s.Unknown, s.Failed)
		}
		if log := g.log.String(); !strings.Contains(log, "call_id=bug") || !strings.Contains(log, "fakeCalls") {
			t.Error("the log has neither the call nor the stack of the bug")
		}
	})
}

// Sessions are asked for in full by operators, and by monitoring all the time in
// the form of the original.
func TestSessionsInBothForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		g.calls.mu.Lock()
		g.calls.docs = []report.Session{{CallID: "c1", DialogID: "7", Streams: []report.Stream{}}}
		g.calls.mu.Unlock()
		d.command("sessions", "2", "plain", "yes")
		if got := d.next(); !strings.HasPrefix(got, `2 [{"call_id": "c1"`) || strings.Contains(got, "dialog_id") {
			t.Errorf("plain: %s", got)
		}
		d.command("sessions", "3", "plain", "no")
		if got := d.next(); !strings.HasPrefix(got, `3 [{"call_id": "c1"`) || !strings.Contains(got, "dialog_id") {
			t.Errorf("in full: %s", got)
		}
	})
}

func TestReportsRepeatUntilAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		d.offer("1", "c1", "dialog_id", "77")
		d.want("1 203.0.113.9 50002")
		g.calls.expire("c1")
		first := d.expired()
		if first.RecordID != "r1" || first.Reason != report.ReasonTimeout || first.DialogID != "77" || first.Relay != "r1" {
			t.Fatalf("got report %+v", first)
		}
		for range 3 {
			begin := time.Now()
			if again := d.expired(); again.RecordID != "r1" || time.Since(begin) != 10*time.Second {
				t.Fatalf("got %s after %v, want r1 every 10 s", again.RecordID, time.Since(begin))
			}
		}
		d.send("ack r9\r\n") // of nothing
		d.send("ack r1\r\nack r1\r\n")
		d.none(time.Minute)
	})
}

func TestRemoveIsRepeatedAsReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		d.command("remove", "2", "call_id", "c1", "from_tag", "f")
		answer := strings.TrimPrefix(d.skipTo("2 "), "2 ")
		var doc report.Session
		if err := json.Unmarshal([]byte(answer), &doc); err != nil || doc.RecordID != "r1" || doc.Reason != "removed" {
			t.Fatalf("got %s, %v", answer, err)
		}
		d.close() // before the acknowledgement
		begin := time.Now()
		d = g.accept(addrA)
		d.greet("d1")
		if got := d.expired(); got.RecordID != "r1" || got.Reason != "removed" || time.Since(begin) > 2*time.Second {
			t.Fatalf("got %+v after %v, want r1 at once", got, time.Since(begin))
		}
		d.send("ack r1\r\n")
		d.none(time.Minute)
	})
}

func TestDispatcherDiesMidCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		for i := range 3 {
			d.offer("1", fmt.Sprint("c", i))
			d.want("1 203.0.113.9 50002")
		}
		g.net.set(func() { g.net.down[d.addr] = &net.OpError{Op: "dial", Err: fmt.Errorf("connection refused")} })
		d.close()
		g.calls.expire("c1")
		time.Sleep(10 * time.Minute) // of the bubble's clock
		if n := g.calls.Len(); n != 2 {
			t.Fatalf("got %d calls, want the other two untouched", n)
		}
		g.net.set(func() { delete(g.net.down, d.addr) })
		d = g.accept(addrA)
		d.greet("d1")
		if got := d.expired().CallID; got != "c1" {
			t.Fatalf("got report of %s, want c1", got)
		}
		d.send("ack r1\r\n")
		d.command("list", "5")
		d.skipTo(`5 {"total": 2, "calls": [{"call_id": "c0", "from_tag": "f", "to_tag": "", "dialog_id": "", "owner": "d1"}, {"call_id": "c2"`)
	})
}

func TestReconnectPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		begin := time.Now()
		after := func(want time.Duration) *remote {
			t.Helper()
			d := g.accept(addrA)
			if got := time.Since(begin); got != want {
				t.Errorf("connected after %v, want %v", got, want)
			}
			d.greet("d1")
			synctest.Wait()
			begin = time.Now()
			return d
		}
		after(0).close()
		after(time.Second).close()      // a first loss
		after(10 * time.Second).close() // lost again before 5 s
		d := after(10 * time.Second)
		d.none(6 * time.Second)
		d.close()
		d = after(7 * time.Second) // 6 s connected, then a first loss again
		g.net.set(func() { g.net.down[d.addr] = fmt.Errorf("connection refused") })
		d.close()
		time.Sleep(35 * time.Second)
		dials := g.net.dialed(addrA)
		for i := len(dials) - 3; i < len(dials); i++ {
			if gap := dials[i].Sub(dials[i-1]); gap != 10*time.Second {
				t.Errorf("retried after %v, want 10 s", gap)
			}
		}
	})
}

func TestListPagesAndFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		for _, id := range []string{"b1", "a2", "c1"} {
			g.calls.add(id, "main")
		}
		for _, c := range []struct {
			headers []string
			total   int
			want    string
		}{
			{nil, 3, "b1 a2 c1"},
			{[]string{"order", "call_id"}, 3, "a2 b1 c1"},
			{[]string{"order", "-call_id"}, 3, "c1 b1 a2"},
			{[]string{"order", "-created"}, 3, "c1 a2 b1"},
			{[]string{"filter", "1"}, 2, "b1 c1"},
			{[]string{"limit", "1", "offset", "1"}, 3, "a2"},
			{[]string{"limit", "0"}, 3, ""},
			{[]string{"offset", "99"}, 3, ""},
		} {
			d.command("list", "1", c.headers...)
			var list relaylink.CallList
			line := d.next()
			if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "1 ")), &list); err != nil {
				t.Fatalf("%v: %q: %v", c.headers, line, err)
			}
			var ids []string
			for _, call := range list.Calls {
				ids = append(ids, call.CallID)
			}
			if got := strings.Join(ids, " "); got != c.want || list.Total != c.total {
				t.Errorf("%v: got %q of %d, want %q of %d", c.headers, got, list.Total, c.want, c.total)
			}
		}
		for _, bad := range [][]string{{"order", "size"}, {"limit", "-1"}, {"offset", "x"}} {
			d.command("list", "2", bad...)
			if got := d.next(); !strings.HasPrefix(got, "2 error header "+bad[0]) {
				t.Errorf("%v: got %q, want an error that names the header", bad, got)
			}
		}
	})
}

func TestTerminateReportsAfterItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		d.command("session", "2", "call_id", "c1")
		if got := d.next(); !strings.HasPrefix(got, `2 [{"call_id": "c1"`) {
			t.Errorf("got %q", got)
		}
		d.command("explain", "3", "call_id", "nobody")
		d.want("3 []")
		d.command("terminate", "4", "call_id", "c1")
		d.want(`4 {"terminated": 1}`)
		if doc := d.expired(); doc.Reason != report.ReasonTerminated {
			t.Errorf("got reason %q, want terminated", doc.Reason)
		}
		d.send("ack r1\r\n")
		d.command("terminate", "5", "call_id", "c1")
		d.want(`5 {"terminated": 0}`)
	})
}

// A dispatcher that was away long gets its backlog at the pace at which it
// acknowledges.
func TestBacklogIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 2000
		g := start(t, nil)
		for i := range calls {
			id := fmt.Sprint("c", i)
			g.calls.add(id, "d1")
			g.calls.expire(id)
		}
		time.Sleep(2 * time.Second)
		d := g.accept(addrA)
		d.greet("d1")
		synctest.Wait()
		if n := len(d.lines); n != window {
			t.Fatalf("got %d reports at once, want %d", n, window)
		}
		seen := map[string]bool{}
		for len(seen) < calls {
			doc := d.expired()
			if seen[doc.RecordID] {
				t.Fatalf("%s came twice", doc.RecordID)
			}
			seen[doc.RecordID] = true
			d.send("ack " + doc.RecordID + "\r\n")
		}
		d.none(time.Minute)
		if s := g.relay.Stats(); s.Waiting != 0 || s.Acknowledged != calls {
			t.Errorf("got %d waiting, %d acknowledged", s.Waiting, s.Acknowledged)
		}
	})
}

func TestRecordsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) {
			c.MaxRecords = 3
			g.net.down[netip.MustParseAddrPort(addrA)] = fmt.Errorf("connection refused")
		})
		for i := range 5 {
			g.calls.add(fmt.Sprint("c", i), "d1")
			g.calls.expire(fmt.Sprint("c", i))
		}
		time.Sleep(2 * time.Second)
		if s := g.relay.Stats(); s.Waiting != 3 || s.Dropped != 2 {
			t.Errorf("got %d waiting, %d dropped, want 3 and 2", s.Waiting, s.Dropped)
		}
		if log := g.log.String(); !strings.Contains(log, "level=ERROR msg=\"the report of a finished call is lost") || !strings.Contains(log, "call_id=c0") {
			t.Errorf("the loss is not in the log:\n%s", log)
		}
		g.net.set(func() { clear(g.net.down) })
		d := g.accept(addrA)
		d.greet("d1")
		for _, want := range []string{"r3", "r4", "r5"} {
			if got := d.expired().RecordID; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}

func TestDispatcherThatDoesNotReadIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) { plainAt(addrA)(g, c); c.MaxBacklog = 1 << 20 })
		g.calls.mu.Lock()
		for range 100 {
			g.calls.docs = append(g.calls.docs, report.Session{CallID: strings.Repeat("c", 1000)})
		}
		g.calls.mu.Unlock()
		a := <-g.net.accepts // nobody reads here
		defer a.nc.Close()
		taken := 0
		for ; taken < 20; taken++ {
			if _, err := fmt.Fprintf(a.nc, "sessions %d\r\n\r\n", taken); err != nil {
				break
			}
		}
		if taken < 9 || taken > 12 {
			t.Errorf("got %d documents of 0.12 MB into a queue of 1 MB, want about 9", taken)
		}
		g.accept(addrA)
		if !strings.Contains(g.log.String(), errBacklog.Error()) {
			t.Error("the reason is not in the log")
		}
	})
}
