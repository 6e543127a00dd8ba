package durable

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/module"
)

// tally is how requests were answered.
type tally struct {
	requests int
	cut      int // the process died, or was not there
	early    int // refused while something was down, or up for less than a second
	unknown  int // refused later
	late     int // not answered in the module's time
	stood    int // refused or late while the machine stood still: nobody's fault
	slowest  time.Duration
}

// storm makes calls, each for a while, as the processes of a SIP proxy do. What gets no
// answer is asked again, as the next message of the call would be.
type storm struct {
	t      *testing.T
	socket string
	over   chan struct{} // closed: no more calls

	mu       sync.Mutex
	answered []string // calls that were set up and answered
	tally    tally
	stalls   []time.Time // when the machine had stood still
	settled  time.Time   // from then on every call has to be known; zero: something is down
}

func (s *storm) killed()    { s.settle(time.Time{}) }
func (s *storm) restarted() { s.settle(time.Now().Add(time.Second)) }

func (s *storm) settle(from time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = from
}

func (s *storm) results() ([]string, tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.answered), s.tally
}

// once asks one time. cut: nobody answered, so the request may have been served or not; the
// next time the call may be over.
func (s *storm) once(what func(*module.Client) error, mayBeOver bool) (done, cut bool) {
	began := time.Now()
	c, err := module.Dial(s.socket, module.Timeout)
	if err == nil {
		err = what(c)
		c.Close()
	}
	took := time.Since(began)
	if err != nil {
		time.Sleep(20 * time.Millisecond) // watch is woken by the same end of a stall
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.requests++
	timeout := net.Error(nil)
	switch {
	case err == nil:
		s.tally.slowest = max(s.tally.slowest, took)
		return true, false
	case errors.Is(err, module.ErrRefused):
		switch {
		case mayBeOver || s.settled.IsZero() || began.Before(s.settled):
			s.tally.early++
		case s.stoodSinceLocked(s.settled.Add(-time.Second)):
			s.tally.stood++
		default:
			s.tally.unknown++
			s.t.Logf("%v, %v after everything was up for a second", err, began.Sub(s.settled))
		}
		return false, false
	case errors.As(err, &timeout) && timeout.Timeout() && s.stoodSinceLocked(began):
		s.tally.stood++
	case errors.As(err, &timeout) && timeout.Timeout():
		s.tally.late++
		s.t.Log(err)
	default:
		s.tally.cut++
	}
	return false, true
}

// stall is how long this process has to be kept from a processor to say that the machine
// stands still: the dispatcher has 100 ms to spare of the module's 500.
const stall = 80 * time.Millisecond

// watch notes when the machine stands still, until the storm is over.
func (s *storm) watch() {
	for {
		before := time.Now()
		select {
		case <-s.over:
			return
		case <-time.After(5 * time.Millisecond):
		}
		if now := time.Now(); now.Sub(before) > stall {
			s.mu.Lock()
			s.stalls = append(s.stalls, now)
			s.mu.Unlock()
		}
	}
}

func (s *storm) stoodSinceLocked(from time.Time) bool {
	return slices.ContainsFunc(s.stalls, func(at time.Time) bool { return at.After(from) })
}

func (s *storm) ask(what func(*module.Client) error) bool {
	for range 300 {
		if done, _ := s.once(what, false); done {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

// end removes a call. A proxy says that once; here it is said again if nobody heard it.
func (s *storm) end(id string) {
	remove := func(c *module.Client) error {
		return c.Remove(control.Remove{CallID: id, FromTag: "a", ToTag: "b"})
	}
	for n := range 300 {
		if _, cut := s.once(remove, n > 0); !cut {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// call has an offer, an answer, a re-INVITE and an end.
func (s *storm) call(id string) {
	message := func(kind control.Kind, to string, cseq uint32) func(*module.Client) error {
		return func(c *module.Client) error {
			_, err := c.Update(control.Update{Kind: kind, CallID: id, FromTag: "a", ToTag: to, CSeq: cseq, FromURI: "alice@example.com", ToURI: "bob@example.com",
				UserAgent: "Phone/1.0", HasMedia: true, Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("127.0.0.1"), Port: 4000, Direction: "sendrecv"}}})
			return err
		}
	}
	if !s.ask(message(control.KindRequest, "", 1)) || !s.ask(message(control.KindReply, "b", 1)) {
		s.t.Errorf("call %s was not set up", id)
		return
	}
	s.mu.Lock()
	s.answered = append(s.answered, id)
	s.mu.Unlock()
	time.Sleep(lives)
	if !s.ask(message(control.KindRequest, "b", 2)) {
		s.t.Errorf("call %s was forgotten", id)
	}
	s.end(id)
}

func (s *storm) run() {
	var calls sync.WaitGroup
	defer calls.Wait()
	calls.Go(s.watch)
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-s.over:
			return
		case <-tick.C:
			calls.Go(func() { s.call(fmt.Sprintf("%d@durable", n)) })
		}
	}
}
