package cluster

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/module"
)

const (
	rate  = 30 // calls a second
	lives = 3 * time.Second
)

// storm makes calls as three SIP proxies do that share them: each message goes to another
// dispatcher, and to the next one if that does not answer.
type storm struct {
	w    *world
	over chan struct{} // closed: no more calls

	mu       sync.Mutex
	phase    string
	took     map[string][]time.Duration // answers, by phase
	answered []string
	gone     int // removes that nobody answered: done before the answer was lost
	failed   int // questions that had to be asked elsewhere
}

// enter begins a phase.
func (s *storm) enter(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
}

// ask tries one dispatcher after the other, for as long as a caller has patience.
func (s *storm) ask(first int, what func(*module.Client) error) error {
	var last error
	for n := range 60 {
		socket := filepath.Join(s.w.dispatchers[(first+n)%3].dir, "dispatcher.sock")
		c, err := module.Dial(socket, module.Timeout)
		if err == nil {
			s.mu.Lock()
			phase := s.phase
			s.mu.Unlock()
			began := time.Now()
			err = what(c)
			took := time.Since(began)
			c.Close()
			if err == nil {
				s.mu.Lock()
				s.took[phase] = append(s.took[phase], took)
				s.mu.Unlock()
				return nil
			}
		}
		last = err
		s.mu.Lock()
		s.failed++
		s.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
	return last
}

// call has an offer, an answer, a re-INVITE and an end.
func (s *storm) call(id string, first int) {
	message := func(kind control.Kind, to string, cseq uint32, ports *control.Answer) func(*module.Client) error {
		return func(c *module.Client) (err error) {
			*ports, err = c.Update(control.Update{Kind: kind, CallID: id, FromTag: "a", ToTag: to, CSeq: cseq, FromURI: "alice@example.com", ToURI: "bob@example.com",
				DialogID: "4:2", UserAgent: "Phone/1.0", HasMedia: true,
				Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("198.51.100.50"), Port: 4000, Direction: "sendrecv"}}})
			return err
		}
	}
	var offered, answered, again control.Answer
	if err := s.ask(first, message(control.KindRequest, "", 1, &offered)); err != nil {
		s.w.Errorf("call %s was not set up: %v", id, err)
		return
	}
	if err := s.ask(first+1, message(control.KindReply, "b", 1, &answered)); err != nil {
		s.w.Errorf("call %s was not answered: %v", id, err)
		return
	}
	s.mu.Lock()
	s.answered = append(s.answered, id)
	s.mu.Unlock()
	time.Sleep(lives)
	if err := s.ask(first+2, message(control.KindRequest, "b", 2, &again)); err != nil {
		s.w.Errorf("call %s was forgotten: %v", id, err)
	} else if again.IP != offered.IP || !slices.Equal(again.Ports, offered.Ports) {
		s.w.Errorf("call %s went from %v %v to %v %v: it was made anew", id, offered.IP, offered.Ports, again.IP, again.Ports)
	}
	removed := func(c *module.Client) error {
		return c.Remove(control.Remove{CallID: id, FromTag: "a", ToTag: "b"})
	}
	if s.ask(first+1, removed) != nil {
		s.mu.Lock()
		s.gone++
		s.mu.Unlock()
	}
}

func (s *storm) run() {
	var calls sync.WaitGroup
	defer calls.Wait()
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-s.over:
			return
		case <-tick.C:
			calls.Go(func() { s.call(fmt.Sprintf("%d@cluster", n), n) })
		}
	}
}

// figures are how long answers took in a phase.
func (s *storm) figures(phase string) (n int, p50, p99, slowest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	took := slices.Sorted(slices.Values(s.took[phase]))
	if n = len(took); n == 0 {
		return 0, 0, 0, 0
	}
	return n, took[n/2], took[n*99/100], took[n-1]
}
