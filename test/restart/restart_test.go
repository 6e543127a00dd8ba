package restart

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/site"
)

// TestRestart: calls in every state, before and after.
func TestRestart(t *testing.T) {
	each(t, func(s *stage, end func()) {
		talking := s.setUp("talking", nil)
		natted := s.setUp("natted", func(c *call) { c.nat = true })
		held := s.setUp("held", nil)
		held.hold = true
		held.invite()
		dropped := s.setUp("dropped-video", func(c *call) {
			c.video = [2]netip.AddrPort{netip.MustParseAddrPort(s.net + "101:7000"), netip.MustParseAddrPort(s.net + "102:7000")}
		})
		dropped.video = [2]netip.AddrPort{}
		dropped.invite()
		early := s.newCall("early")
		early.offer()
		calls := []*call{talking, natted, held, dropped, early}

		before, packets := s.sessions(), s.packets("talking")
		if len(before) != len(calls) || before["held"].Streams[0].Status != report.StatusOnHold || before["natted"].Streams[0].CalleeRemote != natted.bob.addr.String() ||
			len(before["dropped-video"].Streams) != 2 {
			t.Fatalf("not the calls that this test is about: %+v", before)
		}
		last := s.newCall("last")
		last.offer()
		end()
		began := s.start()

		// No word of signalling has passed.
		for _, c := range []*call{talking, natted, dropped} {
			c.heard(began)
			for _, p := range []*phone{c.alice, c.bob} {
				if gap := p.first(began); gap > s.mover.gap {
					s.Errorf("%s: media flowed again after %v, want at most %v", c.id, gap, s.mover.gap)
				}
				if p.moved() {
					s.Errorf("%s: media comes from another port", c.id)
				}
			}
		}
		after := s.sessions()
		if _, ok := after["last"]; !ok {
			s.Error("the call that was answered last is not there")
		}
		delete(after, "last")
		if !reflect.DeepEqual(before, after) {
			s.Errorf("sessions before\n%+v\nafter\n%+v", before, after)
		}
		if n := s.packets("talking"); n < packets {
			s.Errorf("the caller had sent %d packets, now %d", packets, n)
		}
		if got := s.manage("explain talking"); !strings.Contains(got, string(report.Restored)) || !strings.Contains(got, string(report.LearnedSDP)) {
			s.Errorf("explain talking: %s", got)
		}
		s.r.Log.Await(s, "calls of the former process are taken over", "sessions=6", "unacknowledged_reports=0")

		// Calls go on where they were.
		early.answer()
		last.answer()
		for _, c := range []*call{early, last} {
			c.alice.speak()
			c.bob.speak()
		}
		held.hold = false
		for _, c := range []*call{talking, natted, held} {
			c.invite()
		}
		now := time.Now()
		for _, c := range append(calls, last) {
			c.heard(now)
			if c.alice.moved() || c.bob.moved() {
				s.Errorf("%s: media comes from another port", c.id)
			}
		}
		for _, c := range append(calls, last) {
			c.hangUp()
		}
		if !s.d.Log.Has("call over", "call_id=dropped-video ", "streams=2") {
			s.Error("the report of a call lacks the stream that was closed before the restart")
		}
		if got := s.sessions(); len(got) != 0 {
			s.Errorf("sessions are left: %v", slices.Collect(maps.Keys(got)))
		}
		s.undisturbed()
	})
}

// TestRestartAgain: one restart after the other, with calls that come and go in between.
func TestRestartAgain(t *testing.T) {
	each(t, func(s *stage, end func()) {
		var calls []*call
		for i := range 3 {
			calls = append(calls, s.setUp(fmt.Sprint("call-", 2*i), nil), s.setUp(fmt.Sprint("call-", 2*i+1), nil))
			calls[len(calls)-1].hangUp()
			calls = calls[:len(calls)-1]
			end()
			began := s.start()
			for _, c := range calls {
				c.heard(began)
			}
			if got := s.sessions(); len(got) != len(calls) {
				s.Fatalf("%d sessions after restart %d, want %d", len(got), i+1, len(calls))
			}
		}
		for _, c := range calls {
			c.hangUp()
		}
		s.undisturbed()
	})
}

// TestPendingReport: calls that end while nobody acknowledges it are reported by the next
// relay, once.
func TestPendingReport(t *testing.T) {
	each(t, func(s *stage, end func()) {
		silent, talking := s.setUp("silent", nil), s.setUp("talking", nil)
		s.d.Freeze()
		silent.alice.silent()
		silent.bob.silent()
		s.r.Log.Await(s, "call over", "call_id=silent", "reason=timeout")
		end()
		s.d.Thaw()
		began := s.start()
		s.r.Log.Await(s, "calls of the former process are taken over", "sessions=1", "unacknowledged_reports=1")
		talking.heard(began)
		site.Eventually(s, "the silent call is reported", func() bool { return s.records("silent") == 1 })
		talking.hangUp()
		// What would come again comes with the next start at the latest.
		s.r.Kill()
		s.start()
		s.r.Log.Await(s, "calls of the former process are taken over", "sessions=0")
		s.setUp("later", nil).hangUp()
		for _, id := range []string{"silent", "talking"} {
			if n := s.records(id); n != 1 {
				s.Errorf("call %s was taken over %d times, want once", id, n)
			}
		}
	}, "idle_timeout = 2")
}

// TestSecondStop: who asks twice wants the calls to end.
func TestSecondStop(t *testing.T) {
	t.Parallel()
	s := newStage(t, movers[0])
	c := s.setUp("c", nil)
	s.r.Signal(syscall.SIGTERM)
	s.r.Log.Await(t, "stop once more to end them", "sessions=1")
	now := time.Now()
	c.heard(now) // it goes on meanwhile,
	s.setUp("late", nil)
	time.Sleep(time.Until(now.Add(250 * time.Millisecond))) // a second signal right behind the first does not count
	s.r.Signal(syscall.SIGTERM)
	s.gone()
	for _, id := range []string{"c", "late"} {
		site.Eventually(t, "the end of "+id+" is taken over", func() bool { return s.records(id) == 1 })
	}
	if !s.d.Log.Has("call over", "call_id=c ", "relay stopped") {
		t.Error("the reason of the end is not that the relay stopped")
	}
	s.start()
	s.r.Log.Await(t, "calls of the former process are taken over", "sessions=0", "unacknowledged_reports=0")
}

// TestEndOnStop: on_stop = end is as in the original.
func TestEndOnStop(t *testing.T) {
	t.Parallel()
	s := newStage(t, movers[0], "on_stop = end")
	s.setUp("c", nil)
	began := time.Now()
	s.r.Signal(syscall.SIGTERM)
	s.gone()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
	site.Eventually(t, "the end is taken over", func() bool { return s.records("c") == 1 })
	s.start()
	s.r.Log.Await(t, "calls of the former process are taken over", "sessions=0")
}
