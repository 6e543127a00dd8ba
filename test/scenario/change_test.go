package scenario

import (
	"strconv"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/site"
)

// updatetest1: early media, then another port of the callee in the final answer.
func TestUpdate1(t *testing.T) {
	every(t, func(s *stage) {
		c := s.call()
		a, early, late := s.phone(40000), s.phone(30000), s.phone(30020)
		toBob := c.request(c.alice, s.stream("audio", 40000, "sendrecv"))
		toAlice := c.provisional(c.alice, s.stream("audio", 30000, "sendrecv"))
		s.talk(5, flow{{a, toAlice[0]}, {early, toBob[0]}})
		s.same("final answer", c.final(c.alice, s.stream("audio", 30020, "sendrecv")), toAlice)
		s.talk(5, flow{{a, toAlice[0]}, {late, toBob[0]}})
		early.WantNothing()
		c.remove(c.alice, "removed")
		wantAudio(c, s.dispatcher.AwaitRecords(1)[0], report.ReasonRemoved, report.StatusClosed, 10, 10)
	})
}

// updatetest2: audio and video; then the callee takes the video away.
func TestUpdate2(t *testing.T) {
	every(t, func(s *stage) {
		c := s.call()
		audioA, videoA, audioB, videoB := s.phone(40000), s.phone(40020), s.phone(30000), s.phone(30020)
		toBob := c.request(c.alice, s.stream("audio", 40000, "sendrecv"), s.stream("video", 40020, "sendrecv"))
		toAlice := c.final(c.alice, s.stream("audio", 30000, "sendrecv"), s.stream("video", 30020, "sendrecv"))
		audio, video := flow{{audioA, toAlice[0]}, {audioB, toBob[0]}}, flow{{videoA, toAlice[1]}, {videoB, toBob[1]}}
		s.talk(5, audio, video)

		s.same("re-INVITE of the callee", c.request(c.bob, s.stream("audio", 30000, "sendrecv")), toAlice[:1])
		s.same("answer of the caller", c.final(c.bob, s.stream("audio", 40000, "sendrecv")), toBob[:1])
		s.talk(5, audio)
		videoA.Send(toAlice[1], payload)
		s.talk(1, audio)
		videoB.WantNothing()

		c.remove(c.alice, "removed")
		got := s.dispatcher.AwaitRecords(1)[0]
		wantStreams(s, got, "audio closed 22", "video closed 10")
		if end := got.Streams[1].EndTime; end != 5 {
			s.Errorf("video ended after %d s, want 5", end)
		}
	})
}

// wantStreams compares media type, status and packets from each party.
func wantStreams(s *stage, got report.Session, want ...string) {
	s.Helper()
	if len(got.Streams) != len(want) {
		s.Fatalf("got streams %+v, want %q", got.Streams, want)
	}
	for i, st := range got.Streams {
		if st.CallerPackets != st.CalleePackets {
			s.Errorf("stream %d has %d packets of the caller and %d of the callee, want as many", i, st.CallerPackets, st.CalleePackets)
		}
		if text := st.MediaType + " " + st.Status + " " + strconv.FormatUint(st.CallerPackets, 10); text != want[i] {
			s.Errorf("stream %d: got %q, want %q", i, text, want[i])
		}
	}
}

// updatetest3: video, then two audio streams as well, then only the second of them.
func TestUpdate3(t *testing.T) {
	every(t, func(s *stage) {
		c := s.call()
		phones := map[uint16]*site.Phone{}
		for _, port := range []uint16{40000, 40020, 40040, 30000, 30020, 30040} {
			phones[port] = s.phone(port)
		}
		video, one, two := s.stream("video", 40000, "sendrecv"), s.stream("audio", 40020, "sendrecv"), s.stream("audio", 40040, "sendrecv")
		videoB, oneB, twoB := s.stream("video", 30000, "sendrecv"), s.stream("audio", 30020, "sendrecv"), s.stream("audio", 30040, "sendrecv")

		toBob := c.request(c.alice, video)
		toAlice := c.final(c.alice, videoB)
		v := flow{{phones[40000], toAlice[0]}, {phones[30000], toBob[0]}}
		s.talk(5, v)

		toBob3 := c.request(c.alice, video, one, two)
		toAlice3 := c.final(c.alice, videoB, oneB, twoB)
		s.same("video in the second offer", toBob3[:1], toBob)
		s.same("video in the second answer", toAlice3[:1], toAlice)
		a1 := flow{{phones[40020], toAlice3[1]}, {phones[30020], toBob3[1]}}
		a2 := flow{{phones[40040], toAlice3[2]}, {phones[30040], toBob3[2]}}
		s.talk(5, v, a1, a2)

		s.same("third offer", c.request(c.alice, two), toBob3[2:])
		s.same("third answer", c.final(c.alice, twoB), toAlice3[2:])
		s.talk(5, a2)
		c.remove(c.alice, "removed")
		wantStreams(s, s.dispatcher.AwaitRecords(1)[0], "video closed 20", "audio closed 10", "audio closed 20")
		s.gone()
	})
}

// holdCall talks, is held for five minutes without media, and is resumed.
func holdCall(s *stage, held, heldAnswer string) {
	c := s.call()
	a, b := s.phone(40000), s.phone(30000)
	offer, answer := s.stream("audio", 40000, "sendrecv"), s.stream("audio", 30000, "sendrecv")
	toBob := c.request(c.alice, offer)
	toAlice := c.final(c.alice, answer)
	f := flow{{a, toAlice[0]}, {b, toBob[0]}}
	s.talk(5, f)

	s.same("offer of the hold", c.request(c.alice, held), toBob)
	s.same("answer to the hold", c.final(c.alice, heldAnswer), toAlice)
	for range 3 {
		s.relay.Elapse(100 * time.Second)
	}
	live := s.relay.Table.Sessions()
	if len(live) != 1 || live[0].Streams[0].Status != report.StatusOnHold {
		s.Fatalf("after five minutes on hold: got %+v, want one session with its stream on hold", live)
	}

	s.same("offer of the resume", c.request(c.alice, offer), toBob)
	s.same("answer to the resume", c.final(c.alice, answer), toAlice)
	s.talk(5, f)
	if st := s.relay.Table.Sessions()[0].Streams[0]; st.Status != report.StatusActive {
		s.Fatalf("after the resume the stream is %q", st.Status)
	}
	c.remove(c.alice, "removed")
	wantAudio(c, s.dispatcher.AwaitRecords(1)[0], report.ReasonRemoved, report.StatusClosed, 10, 310)
}

// holdtest1: hold by direction.
func TestHold1(t *testing.T) {
	every(t, func(s *stage) {
		holdCall(s, s.stream("audio", 40000, "sendonly"), s.stream("audio", 30000, "recvonly"))
	})
}

// holdtest2: hold by the address 0.0.0.0 on both sides.
func TestHold2(t *testing.T) {
	every(t, func(s *stage) {
		holdCall(s, s.streamAt("audio", "0.0.0.0", 40000, "sendrecv"), s.streamAt("audio", "0.0.0.0", 30000, "sendrecv"))
	})
}

// binding is a STUN binding request without attributes (RFC 5389 section 6).
var binding = append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, payload[:12]...)

// icetest1: the agents check the way over the relay and find a better one.
func TestICE1(t *testing.T) {
	every(t, func(s *stage) {
		c := s.call()
		a, b := s.phone(40000), s.phone(30000)
		toBob := c.request(c.alice, s.stream("audio", 40000, "sendrecv", "ice=yes"))
		toAlice := c.final(c.alice, s.stream("audio", 30000, "sendrecv", "ice=yes"))
		for range 6 {
			a.Send(toAlice[0], binding)
			b.Await(binding)
			b.Send(toBob[0], binding)
			a.Await(binding)
			s.site.Clock.Advance(500 * time.Millisecond)
		}
		s.relay.Elapse(240 * time.Second)
		got := s.dispatcher.AwaitRecords(1)[0]
		if got.TimedOut() || !got.AllStreamsICE() || got.Reason != report.ReasonUnused {
			s.Fatalf("got reason %q, want one by which the call is not ended", got.Reason)
		}
		if len(got.Streams) != 1 || got.Streams[0].Status != report.StatusUnselectedICE || got.Streams[0].TimeoutWait != 90 {
			s.Fatalf("got streams %+v, want one unselected", got.Streams)
		}
		s.gone()
		c.remove(c.bob, "error")
	})
}
