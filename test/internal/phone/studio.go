package phone

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	packetTime = 20 * time.Millisecond
	// Phones are not all in step: each belongs to one of so many groups, which take
	// turns.
	groups = 4
)

// Studio is the clock of many phones.
type Studio struct {
	start time.Time
	stop  chan struct{}
	done  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	phones [groups][]*Phone
	next   int
	ports  map[netip.Addr]uint16
	late   time.Duration
}

// NewStudio starts the clock.
func NewStudio() *Studio {
	s := &Studio{start: time.Now(), stop: make(chan struct{}), ports: map[netip.Addr]uint16{}}
	s.done.Go(s.run)
	return s
}

// Close stops the clock. Phones are closed by who opened them.
func (s *Studio) Close() {
	close(s.stop)
	s.done.Wait()
}

// Late is how far the clock was behind at worst: a measure of how busy this machine
// is, and what all times measured by phones are uncertain by.
func (s *Studio) Late() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late
}

func (s *Studio) now() int64 { return int64(time.Since(s.start)) }

func (s *Studio) run() {
	ticker := time.NewTicker(packetTime / groups)
	defer ticker.Stop()
	for turn := 1; ; turn++ {
		due := s.start.Add(time.Duration(turn) * packetTime / groups)
		for now := time.Now(); now.Before(due); now = time.Now() {
			select {
			case <-s.stop:
				return
			case <-ticker.C:
			}
		}
		s.turn(turn%groups, due)
	}
}

func (s *Studio) turn(group int, due time.Time) {
	now := time.Now()
	s.mu.Lock()
	s.late = max(s.late, now.Sub(due))
	phones := slices.Clone(s.phones[group])
	s.mu.Unlock()
	for _, p := range phones {
		p.tick(now)
	}
}

func (s *Studio) add(p *Phone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	group := s.next % groups
	s.phones[group] = append(s.phones[group], p)
}

func (s *Studio) remove(p *Phone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.phones {
		s.phones[i] = slices.DeleteFunc(s.phones[i], func(q *Phone) bool { return q == p })
	}
}

const (
	firstPort = 10000
	lastPort  = 60000
)

// open binds the next free pair of ports at an address. Ports are not used again
// soon: what is still on its way to the last user would reach the next.
func (s *Studio) open(at Listener, ip netip.Addr) (sockets, error) {
	for range 100 {
		s.mu.Lock()
		port := s.ports[ip]
		if port < firstPort || port > lastPort {
			port = firstPort
		}
		s.ports[ip] = port + 2
		s.mu.Unlock()
		pair := sockets{addr: netip.AddrPortFrom(ip, port)}
		var err error
		if pair.rtp, err = at.ListenUDP(pair.addr); err == nil {
			pair.rtcp, err = at.ListenUDP(netip.AddrPortFrom(ip, port+1))
		}
		if err == nil {
			return pair, nil
		}
		pair.close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			return sockets{}, err
		}
	}
	return sockets{}, syscall.EADDRINUSE
}
