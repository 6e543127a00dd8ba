package relay

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/session"
)

func durable(_ *rig, c *Config) { c.Durable = true }

// Calls that are left to the next process are served until the last moment, and as well
// as ever: nobody is to turn to another relay because this one restarts.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, durable)
		d := g.accept(addrA)
		d.greet("da")
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		begin := time.Now()
		g.relay.Stop(false)
		synctest.Wait()
		d.offer("2", "c2")
		d.skipTo("2 203.0.113.9 50002")
		d.command("remove", "3", "call_id", "c1", "from_tag", "f")
		d.skipTo("3 {")
		d.send("ack r1\r\n")
		for line := range d.lines {
			if strings.Contains(line, `"draining":true`) {
				t.Errorf("the dispatcher is told of a drain: %s", line)
			}
			if strings.HasPrefix(line, "ping") {
				d.send("pong\r\n")
			}
		}
		if err := <-g.ended; err != nil || time.Since(begin) != 5*time.Second {
			t.Errorf("got %v after %v, want nil after 5 s", err, time.Since(begin))
		}
		if g.calls.Len() != 1 || g.calls.flushed != 1 {
			t.Errorf("%d calls are left, %d were flushed, want 1", g.calls.Len(), g.calls.flushed)
		}
	})
}

func TestHandOverOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, durable)
		d := g.accept(addrA)
		d.greet("da")
		synctest.Wait()
		begin := time.Now()
		g.relay.Stop(false)
		if err := <-g.ended; err != nil || time.Since(begin) != 0 {
			t.Errorf("got %v after %v, want nil at once", err, time.Since(begin))
		}
	})
}

// Whoever asks twice wants the calls to end; a third time, at once.
func TestHandOverReconsidered(t *testing.T) {
	for _, third := range []bool{false, true} {
		t.Run(fmt.Sprint("third ", third), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, durable)
				d := g.accept(addrA)
				d.greet("da")
				d.offer("1", "c1")
				d.want("1 203.0.113.9 50002")
				g.relay.Stop(false)
				time.Sleep(4 * time.Second)
				begin := time.Now()
				g.relay.Stop(true)
				doc := d.expired()
				if doc.CallID != "c1" || doc.Reason != report.ReasonShutdown {
					t.Errorf("got %s %q", doc.CallID, doc.Reason)
				}
				if third {
					g.relay.Stop(true)
				} else {
					time.Sleep(time.Second)
					d.send("ack " + doc.RecordID + "\r\n")
				}
				err, took := <-g.ended, time.Since(begin)
				if err != nil || third && took != 0 || !third && took != time.Second {
					t.Errorf("got %v after %v", err, took)
				}
				if got := g.calls.forgotten(); third == (got == "r1") {
					t.Errorf("acknowledged: %q", got)
				}
				if third != strings.Contains(g.log.String(), "they are reported after the next start") {
					t.Error("the log should say what becomes of the report, if anything does")
				}
			})
		})
	}
}

// Without a call, reports that nobody takes hold up the end for a moment and no more.
func TestHandOverOfReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, durable)
		d := g.accept(addrA)
		d.greet("da")
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		d.command("remove", "2", "call_id", "c1", "from_tag", "f")
		d.skipTo("2 {")
		begin := time.Now()
		g.relay.Stop(false)
		go d.answerPings()
		if err := <-g.ended; err != nil || time.Since(begin) != 5*time.Second {
			t.Errorf("got %v after %v, want nil after 5 s", err, time.Since(begin))
		}
		if !strings.Contains(g.log.String(), "unacknowledged_reports=1") || g.calls.forgotten() != "" {
			t.Error("the report is not left to the next process")
		}
	})
}

// What is in the journal is not lost when nobody acknowledges it.
func TestEndOfDurableRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, durable)
		d := g.accept(addrA)
		d.greet("da")
		d.offer("1", "c1")
		d.want("1 203.0.113.9 50002")
		g.relay.Stop(true)
		d.expired()
		if err := <-g.ended; err != nil {
			t.Errorf("got %v, want an end in good order", err)
		}
		if g.calls.forgotten() != "" {
			t.Error("the report is not left to the next process")
		}
	})
}

func finishedCall(callID, record, owner string) session.Finished {
	return session.Finished{Owner: owner, Report: report.Session{CallID: callID, RecordID: record, Reason: report.ReasonRemoved, Streams: []report.Stream{}}}
}

// What a former process could not get rid of is reported to its owner, or to somebody
// else if that one stays away, until it is acknowledged.
func TestReportsOfFormerProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) {
			both(g, c)
			durable(g, c)
			c.Pending = []session.Finished{finishedCall("c1", "old1", "da"), finishedCall("c2", "old2", "db"), finishedCall("c3", "old3", "gone")}
		})
		d := g.acceptAll(addrA, addrB)
		a, b := d[addrA], d[addrB]
		a.greet("da")
		if got := a.expired(); got.RecordID != "old1" || got.CallID != "c1" || got.Relay != "r1" {
			t.Errorf("got %+v", got)
		}
		b.greet("db")
		if got := b.expired(); got.RecordID != "old2" {
			t.Errorf("got %+v", got)
		}
		b.send("ack old2\r\n")
		go b.answerPings()
		got := a.expired() // old1 again, and old3, whose owner is not there, in any order
		next := a.expired()
		if got.RecordID+next.RecordID != "old1old3" && got.RecordID+next.RecordID != "old3old1" {
			t.Errorf("got %s and %s, want old1 again and old3", got.RecordID, next.RecordID)
		}
		a.send("ack old1\r\nack old3\r\n")
		synctest.Wait()
		if got := g.calls.forgotten(); got != "old2 old1 old3" {
			t.Errorf("acknowledged %q", got)
		}
	})
}

// A record leaves the journal when a dispatcher has it, and not before: on link/2 with
// its ack, in the answer to a dispatcher of the original with that answer.
func TestRecordsLeaveTheJournal(t *testing.T) {
	for _, plain := range []bool{true, false} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, func(g *rig, c *Config) {
					durable(g, c)
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
				d.command("remove", "2", "call_id", "c1", "from_tag", "f")
				d.skipTo("2 {")
				synctest.Wait()
				if got := g.calls.forgotten(); plain != (got == "r1") {
					t.Errorf("after the answer: %q", got)
				}
				if !plain {
					d.send("ack r1\r\n")
				}
				d.offer("3", "c2")
				d.skipTo("3 ")
				g.calls.expire("c2")
				d.expired()
				synctest.Wait()
				if got := g.calls.forgotten(); got != "r1" {
					t.Errorf("before the acknowledgement: %q", got)
				}
				if plain {
					d.skipTo("ping")
					d.send("pong\r\n")
				} else {
					d.send("ack r2\r\n")
				}
				synctest.Wait()
				if got := g.calls.forgotten(); got != "r1 r2" {
					t.Errorf("in the end: %q", got)
				}
			})
		})
	}
}

// What is dropped because too much waits is dropped from the journal, too.
func TestDroppedRecordsLeaveTheJournal(t *testing.T) {
	calls := &fakeCalls{}
	log := &lockedBuffer{}
	_, err := New(Config{IPs: []netip.Addr{netip.MustParseAddr("203.0.113.9")}, Dial: newFakeNet().dial, MaxRecords: 2, Pending: []session.Finished{
		finishedCall("c1", "one", "d"), finishedCall("c2", "two", "d"), finishedCall("c3", "three", "d")}}, calls, &fakeMedia{}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if got := calls.forgotten(); got != "one" || !strings.Contains(log.String(), "call_id=c1") {
		t.Errorf("dropped %q", got)
	}
}

// What packets change is flushed 20 times a second, if there is a journal.
func TestFlush(t *testing.T) {
	for _, keep := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			g := start(t, func(_ *rig, c *Config) { c.Durable = keep })
			time.Sleep(time.Second + time.Millisecond)
			synctest.Wait()
			g.calls.mu.Lock()
			defer g.calls.mu.Unlock()
			if n := g.calls.flushes; keep && n != 20 || !keep && n != 0 {
				t.Errorf("durable %v: %d flushes in a second", keep, n)
			}
		})
	}
}
