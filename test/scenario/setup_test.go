package scenario

import (
	"math"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
)

// setuptest1: an offer, and nothing more. The session is dropped; nothing is accounted,
// which is what a record without start time says.
func TestSetup1(t *testing.T) {
	every(t, func(s *stage) {
		c := s.call()
		c.request(c.alice, s.stream("audio", 40000, "sendrecv"))
		s.relay.Elapse(85 * time.Second)
		if s.relay.Table.Len() != 1 {
			s.Fatal("the session was dropped before the stream timeout")
		}
		s.relay.Elapse(6 * time.Second)
		got := s.dispatcher.AwaitRecords(1)[0]
		if got.StartTime != nil || got.Reason != report.ReasonUnanswered || got.TimedOut() {
			s.Fatalf("got %+v, want a call that was never answered", got)
		}
		s.gone()
		c.remove(c.alice, "error")
	})
}

// setupCall offers one audio stream and answers it.
func setupCall(c *call, alice, bob uint16) flow {
	c.Helper()
	a, b := c.phone(alice), c.phone(bob)
	toBob := c.request(c.alice, c.stream("audio", alice, "sendrecv"))
	toAlice := c.final(c.alice, c.stream("audio", bob, "sendrecv"))
	return flow{{a, toAlice[0]}, {b, toBob[0]}}
}

// wantAudio checks a record with one audio stream over which both talked for so long.
func wantAudio(c *call, got report.Session, reason, status string, talked, duration int) {
	c.Helper()
	if got.CallID != c.id || got.FromTag != c.alice.tag || got.ToTag == nil || *got.ToTag != c.bob.tag || got.Reason != reason ||
		got.FromURI != c.alice.uri() || got.CallerUA != c.alice.agent || got.CalleeUA != c.bob.agent || got.DialogID != "1234567890" {
		c.Fatalf("got record %+v", got)
	}
	if got.StartTime == nil || math.Abs(float64(got.Duration)-float64(duration)) > 3 {
		c.Fatalf("got start %v and duration %d, want about %d s", got.StartTime, got.Duration, duration)
	}
	if len(got.Streams) != 1 {
		c.Fatalf("got streams %+v, want one", got.Streams)
	}
	packets := uint64(2 * talked)
	bytes := packets * (512 + 28)
	switch st := got.Streams[0]; {
	case st.MediaType != "audio", st.Status != status:
		c.Fatalf("got a %s stream that is %s, want audio that is %s", st.MediaType, st.Status, status)
	case st.CallerPackets != packets, st.CalleePackets != packets, st.CallerBytes != bytes, st.CalleeBytes != bytes:
		c.Fatalf("got %d and %d packets, %d and %d bytes; want %d and %d each way", st.CallerPackets, st.CalleePackets, st.CallerBytes, st.CalleeBytes, packets, bytes)
	}
}

// setuptest2: a call as it should be.
func TestSetup2(t *testing.T) {
	every(t, func(s *stage) {
		c := s.call()
		s.talk(5, setupCall(c, 40000, 30000))
		c.remove(c.bob, "removed")
		wantAudio(c, s.dispatcher.AwaitRecords(1)[0], report.ReasonRemoved, report.StatusClosed, 5, 5)
		s.gone()
	})
}

// setuptest3: both fall silent and nobody hangs up. The dialog has to be ended, and the
// remove that comes of that is answered without asking the relay.
func TestSetup3(t *testing.T) {
	every(t, func(s *stage) {
		c := s.call()
		f := setupCall(c, 40000, 30000)
		s.talk(5, f)
		s.relay.Elapse(80 * time.Second)
		if s.relay.Table.Len() != 1 {
			s.Fatal("the session expired before its time")
		}
		s.relay.Elapse(10 * time.Second)
		got := s.dispatcher.AwaitRecords(1)[0]
		wantAudio(c, got, report.ReasonTimeout, report.StatusIdle, 5, 95)
		if !got.TimedOut() || got.Streams[0].TimeoutWait != 90 {
			s.Fatalf("got %+v, want a time-out of 90 s", got)
		}
		s.gone()
		c.remove(c.alice, "removed")
		c.remove(c.alice, "error")
		s.dispatcher.AwaitRecords(1)
	})
}

// setuptest4: the caller repeats its SDP in the ACK. The scripts counted its CSeq up;
// SIP does not.
func TestSetup4(t *testing.T) {
	every(t, func(s *stage) {
		c := s.call()
		a, b := s.phone(40000), s.phone(30000)
		offer, answer := s.stream("audio", 40000, "sendrecv"), s.stream("audio", 30000, "sendrecv")
		toBob := c.request(c.alice, offer)
		toAlice := c.final(c.alice, answer)
		f := flow{{a, toAlice[0]}, {b, toBob[0]}}
		s.talk(1, f)
		c.alice.cseq--
		s.same("ACK", c.request(c.alice, offer), toBob)
		c.alice.cseq++
		s.same("ACK with the next CSeq", c.request(c.alice, offer), toBob)
		s.talk(5, f)
		c.remove(c.bob, "removed")
		wantAudio(c, s.dispatcher.AwaitRecords(1)[0], report.ReasonRemoved, report.StatusClosed, 6, 6)
	})
}

// multitest1 and multitest2: two calls at the same time, for 30 and 35 seconds.
func TestMulti(t *testing.T) {
	every(t, func(s *stage) {
		one, two := s.call(), s.call()
		f, g := setupCall(one, 40000, 30000), setupCall(two, 40001, 30001)
		s.talk(30, f, g)
		one.remove(one.bob, "removed")
		s.talk(5, g)
		two.remove(two.bob, "removed")
		records := s.dispatcher.AwaitRecords(2)
		wantAudio(one, records[0], report.ReasonRemoved, report.StatusClosed, 30, 30)
		wantAudio(two, records[1], report.ReasonRemoved, report.StatusClosed, 35, 35)
		s.gone()
	})
}
