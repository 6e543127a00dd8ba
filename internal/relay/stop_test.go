package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/mediaproxy/internal/report"
)

func TestDrainByCommandStaysUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, both)
		d := g.acceptAll(addrA, addrB)
		a, b := d[addrA], d[addrB]
		a.greet("da")
		b.greet("db")
		a.offer("1", "c1")
		a.want("1 203.0.113.9 50002")
		a.command("drain", "2")
		a.skipTo(`2 {"status": "halting"}`)
		if line := b.next(); !strings.HasPrefix(line, "ping {") || !strings.Contains(line, `"draining":true`) {
			t.Errorf("got %q, want the other dispatcher told at once", line)
		}
		a.offer("3", "c2")
		a.skipTo("3 halting this relay takes no new calls")
		a.offer("4", "c1")
		a.skipTo("4 203.0.113.9 50002")
		a.command("update", "5", "type", "reply", "call_id", "c3", "cseq", "1", "from_uri", "a", "to_uri", "b", "from_tag", "f", "user_agent", "u")
		a.skipTo("5 error") // would create nothing anyway
		a.command("summary", "6")
		if line := a.skipTo("6 "); !strings.Contains(line, `"status": "halting"`) {
			t.Errorf("got %q", line)
		}
		a.command("remove", "7", "call_id", "c1", "from_tag", "f")
		a.skipTo("7 {")
		a.send("ack r1\r\n")
		go b.answerPings()
		a.none(10 * time.Minute) // idle, and still there
		a.command("drain", "8", "cancel", "yes")
		a.skipTo(`8 {"status": "active"}`)
		a.offer("9", "c4")
		a.skipTo("9 203.0.113.9 50002")
		a.command("drain", "10", "cancel", "perhaps")
		a.skipTo("10 error header cancel")
		if s := g.relay.Stats(); s.Halted != 1 {
			t.Errorf("got %d halted, want 1", s.Halted)
		}
	})
}

func TestHangUpDrainsAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		g.relay.Drain(true)
		d.offer("2", "c2")
		d.want("2 halting")
		d.offer("3", "c1")
		d.want("3 203.0.113.9 50002")
		d.none(time.Minute)
		g.calls.expire("c1")
		if got := d.expired().CallID; got != "c1" {
			t.Errorf("got report of %s", got)
		}
		d.want("ping")
		select {
		case err := <-g.ended:
			t.Fatalf("left with %v before the report was acknowledged", err)
		case <-time.After(8 * time.Second):
		}
		d.send("pong\r\n")
		if err := <-g.ended; err != nil {
			t.Errorf("got %v, want an end in good order", err)
		}
		d.closed(time.Second)
	})
}

func TestHangUpWhenIdleLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		synctest.Wait()
		begin := time.Now()
		g.relay.Drain(true)
		if err := <-g.ended; err != nil || time.Since(begin) != 0 {
			t.Errorf("got %v after %v, want nil at once", err, time.Since(begin))
		}
	})
}

func TestHangUpCanBeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("d1")
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		g.relay.Drain(true)
		d.command("drain", "2") // does not take back that the process leaves
		d.skipTo(`2 {"status": "halting"}`)
		d.command("drain", "3", "cancel", "yes")
		d.skipTo(`3 {"status": "active"}`)
		d.command("remove", "4", "call_id", "c1", "from_tag", "f")
		d.skipTo("4 {")
		d.send("ack r1\r\n")
		d.none(time.Minute)
	})
}

func TestStopEndsAndReportsAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) { both(g, c); plainAt(addrB)(g, c) })
		d := g.acceptAll(addrA, addrB)
		a, b := d[addrA], d[addrB]
		a.greet("da")
		for i := range 3 {
			a.offer("1", fmt.Sprint("a", i))
			a.want("1 203.0.113.9 50002")
		}
		b.offer("1", "b0")
		b.want("1 203.0.113.9 50002")
		begin := time.Now()
		g.relay.Stop(true)
		for i := range 3 {
			doc := a.expired()
			if doc.CallID != fmt.Sprint("a", i) || doc.Reason != report.ReasonShutdown {
				t.Errorf("got %s %q", doc.CallID, doc.Reason)
			}
			a.send("ack " + doc.RecordID + "\r\n")
		}
		a.offer("2", "late")
		a.skipTo("2 halting")
		b.skipTo(`expired {"call_id": "b0"`)
		b.want("ping")
		b.send("pong\r\n")
		if err := <-g.ended; err != nil || time.Since(begin) != 0 {
			t.Errorf("got %v after %v, want nil at once", err, time.Since(begin))
		}
		a.closed(time.Second)
		b.closed(time.Second)
	})
}

func TestStopWaitsOnlySoLong(t *testing.T) {
	for _, c := range []struct {
		name   string
		second bool
		want   time.Duration
	}{{"three seconds", false, 3 * time.Second}, {"not after a second stop", true, time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, nil)
				d := g.accept(addrA)
				d.greet("da")
				d.offer("1", "c1")
				d.want("1 203.0.113.9 50002")
				begin := time.Now()
				g.relay.Stop(true)
				d.expired()
				if c.second {
					time.Sleep(time.Second)
					g.relay.Stop(true)
				}
				if err := <-g.ended; !errors.Is(err, errLost) || time.Since(begin) != c.want {
					t.Errorf("got %v after %v, want %v after %v", err, time.Since(begin), errLost, c.want)
				}
				if !strings.Contains(g.log.String(), "level=ERROR msg=\"stopped before a dispatcher acknowledged all finished calls\" lost=1") {
					t.Error("the loss is not in the log")
				}
			})
		})
	}
}

// A dispatcher that stores slowly but steadily gets all reports of a full relay.
func TestStopWaitsWhileReportsAreAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 20
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("da")
		for i := range calls {
			g.calls.add(fmt.Sprint("c", i), "da")
		}
		begin := time.Now()
		g.relay.Stop(true)
		for range calls {
			id := d.expired().RecordID
			time.Sleep(time.Second)
			d.send("ack " + id + "\r\n")
		}
		if err := <-g.ended; err != nil || time.Since(begin) != calls*time.Second {
			t.Errorf("got %v after %v, want all acknowledged after 20 s", err, time.Since(begin))
		}
	})
}

// When the owner is away, any other dispatcher is better than a lost report.
func TestStopReportsToOthersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, both)
		d := g.acceptAll(addrA, addrB)
		a, b := d[addrA], d[addrB]
		a.greet("da")
		b.greet("db")
		a.offer("1", "c1")
		a.want("1 203.0.113.9 50002")
		g.net.set(func() { g.net.down[a.addr] = fmt.Errorf("connection refused") })
		a.close()
		synctest.Wait()
		g.relay.Stop(true)
		if got := b.expired().CallID; got != "c1" {
			t.Errorf("got report of %s", got)
		}
		b.send("ack r1\r\n")
		if err := <-g.ended; err != nil {
			t.Error(err)
		}
	})
}

func TestStopCannotBeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("da")
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		g.relay.Stop(true)
		d.expired()
		d.command("drain", "2", "cancel", "yes")
		d.skipTo(`2 {"status": "halting"}`)
		d.offer("3", "c2")
		d.skipTo("3 halting")
		if n := g.calls.Len(); n != 0 {
			t.Errorf("got %d calls created while leaving", n)
		}
	})
}

func TestStopIsBoundedWhenTheDispatcherDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		a := <-g.net.accepts // nobody reads here
		defer a.nc.Close()
		g.calls.add("c1", addrA)
		begin := time.Now()
		g.relay.Stop(true)
		err := <-g.ended
		if waited := time.Since(begin); !errors.Is(err, errLost) || waited > 4*time.Second {
			t.Errorf("got %v after %v, want %v within 4 s", err, waited, errLost)
		}
	})
}

func TestStopWithoutEndLeavesCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, nil)
		d := g.accept(addrA)
		d.greet("da")
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		g.relay.Stop(false)
		if err := <-g.ended; err != nil || g.calls.Len() != 1 {
			t.Errorf("got %v and %d calls, want nil and 1", err, g.calls.Len())
		}
		d.closed(time.Second)
	})
}

func TestConfigProblemsComeTogether(t *testing.T) {
	_, err := New(Config{Dispatchers: []string{"ok.example", "a:b", "x y"}, IPs: []netip.Addr{{}}}, &fakeCalls{}, &fakeMedia{}, nil)
	for _, want := range []string{"dial", "not valid", `"a:b"`, `"x y"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to mention %s", err, want)
		}
	}
}

func TestNoDispatchersIdles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(_ *rig, c *Config) { c.Dispatchers = nil })
		time.Sleep(time.Hour)
		if !strings.Contains(g.log.String(), "no dispatchers are configured") {
			t.Error("the log does not say why nothing happens")
		}
	})
}

// The answer to the `remove` of the last call, and its acknowledgement, come
// before the end.
func TestHangUpOutlivesTheLastRemove(t *testing.T) {
	for _, plain := range []bool{true, false} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, func(g *rig, c *Config) {
					if plain {
						plainAt(addrA)(g, c)
					}
				})
				d := g.accept(addrA)
				if !plain {
					d.greet("da")
				}
				d.offer("1", "c1")
				d.want("1 203.0.113.9 50002")
				g.relay.Drain(true)
				d.command("remove", "2", "call_id", "c1", "from_tag", "f")
				d.skipTo(`2 {"call_id": "c1"`)
				if !plain {
					select {
					case err := <-g.ended:
						t.Fatalf("left with %v before the acknowledgement", err)
					case <-time.After(5 * time.Second):
					}
					d.send("ack r1\r\n")
				}
				if err := <-g.ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
