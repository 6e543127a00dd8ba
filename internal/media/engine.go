package media

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
)

// ErrNoAddress: the relay has no address of the family that a stream needs.
var ErrNoAddress = errors.New("the relay has no address of this family (add one to relay_ip)")

// maxBindTries bounds the search for a pair that no other program has.
const maxBindTries = 64

// Engine opens streams and holds what they share.
type Engine struct {
	// set in NewEngine, read-only afterwards
	cfg    Config
	policy policy
	table  forward.Table
	log    *slog.Logger

	groups  atomic.Uint32
	refused [len(refusals)]atomic.Uint64

	mu       sync.RWMutex // guards what follows
	pools    map[netip.Addr]*pool
	open     map[netip.AddrPort]*Stream
	restored []*Stream // that wait for Resume
}

// refusals are the reasons that are counted for metrics.
var refusals = [...]report.Why{
	report.IgnoredBeforeSDP, report.IgnoredNotAnswered, report.IgnoredWaiting, report.IgnoredCollecting, report.IgnoredInconsistent,
	report.IgnoredDirection, report.IgnoredInUse, report.IgnoredOtherStream, report.IgnoredMoves, report.IgnoredStrict,
	report.IgnoredUnusable, report.IgnoredObsolete,
}

// NewEngine runs streams on a table. The table stays the caller's to close.
func NewEngine(cfg Config, table forward.Table, log *slog.Logger) *Engine {
	cfg.setDefaults()
	e := &Engine{
		cfg: cfg, policy: policy{mode: cfg.Learning, trusted: cfg.TrustedRanges}, table: table, log: log,
		pools: map[netip.Addr]*pool{}, open: map[netip.AddrPort]*Stream{},
	}
	for _, a := range cfg.Locals {
		e.poolFor(a)
	}
	return e
}

// Spec describes a stream to open.
type Spec struct {
	MediaType string
	IPv6      bool
	// Faces are the parties' addresses, used to find the local address that
	// faces each if the configuration wants that. Invalid: unknown.
	Faces  [2]netip.Addr
	CallID string // for the log
	// Changed is called when packets changed what the next process has to know: an
	// address was learned or left, media began. It is called under locks of the packet
	// path and must return at once. nil: nobody wants to know.
	Changed func()
}

// Open makes a stream with four fresh ports, or none at all.
func (e *Engine) Open(spec Spec) (*Stream, error) {
	s := &Stream{
		engine: e, callID: spec.CallID, changed: spec.Changed, mediaType: spec.MediaType, udptl: spec.MediaType == "image",
		created: e.table.Now(), wall: time.Now(),
	}
	group := e.groups.Add(1)
	for side := range s.legs[RTP] {
		local, err := e.localFor(spec.Faces[side], spec.IPv6)
		if err == nil {
			err = e.openPair(s, Side(side), local, group)
		}
		if err != nil {
			e.release(s)
			return nil, err
		}
	}
	e.register(s)
	s.mu.Lock() // datagrams may be there already
	s.running = true
	s.mu.Unlock()
	return s, nil
}

// register notes whose the ports are.
func (e *Engine) register(s *Stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for path := range s.legs {
		for _, l := range s.legs[path] {
			e.open[l.port.Local()] = s
		}
	}
}

// openPair binds RTP on an even port and RTCP on the odd one above.
func (e *Engine) openPair(s *Stream, side Side, local netip.Addr, group uint32) error {
	pool := e.poolFor(local)
	var taken []uint16 // pairs that other programs use; back when the search is over
	defer func() {
		for _, p := range taken {
			pool.give(p, false, 0)
		}
	}()
	for range maxBindTries {
		now := e.table.Now()
		number, early, err := pool.take(now)
		if err != nil {
			return fmt.Errorf("open a port on %s: %w", local, err)
		}
		pair, err := e.bindPair(s, side, local, number, group)
		if errors.Is(err, forward.ErrPortInUse) {
			taken = append(taken, number)
			continue
		}
		if err != nil {
			taken = append(taken, number)
			return fmt.Errorf("open a port on %s: %w", local, err)
		}
		s.legs[RTP][side], s.legs[RTCP][side] = pair[RTP], pair[RTCP]
		if early {
			s.history.add(entry{at: now, why: report.EarlyReuse, side: side})
			e.log.Warn("a media port is used again before its rest is over; widen port_range", "call_id", s.callID, "port", number, "port_rest_time", e.cfg.PortRest)
		}
		return nil
	}
	return fmt.Errorf("open a port on %s: %d pairs in a row are used by other programs: %w", local, maxBindTries, ErrNoPorts)
}

func (e *Engine) bindPair(s *Stream, side Side, local netip.Addr, number uint16, group uint32) (pair [2]*leg, err error) {
	for path := range pair {
		l := &leg{stream: s, side: side, path: Path(path), first: Never}
		// Datagrams may arrive from here on; the stream is not running yet.
		l.port, err = e.table.Open(netip.AddrPortFrom(local, number+uint16(path)), group, l)
		if err != nil {
			if path == int(RTCP) {
				pair[RTP].port.Close(nil)
			}
			return pair, err
		}
		pair[path] = l
	}
	return pair, nil
}

// release closes a stream's ports; each pair returns to its pool when both are
// closed. The caller holds the stream's lock, or nobody else has it.
func (e *Engine) release(s *Stream) {
	for side := range 2 {
		var open []*leg
		for path := range 2 {
			if l := s.legs[path][side]; l != nil && l.isOpen() {
				open = append(open, l)
			}
		}
		if len(open) != 2 {
			continue
		}
		local := open[RTP].port.Local()
		pool := e.poolFor(local.Addr())
		var used atomic.Bool
		var closed atomic.Int32
		for _, l := range open {
			e.mu.Lock()
			delete(e.open, l.port.Local())
			e.mu.Unlock()
			l.installed = forward.Flow{}
			l.queue = nil
			l.port.Close(func(u bool) {
				if u {
					used.Store(true)
				}
				if closed.Add(1) == 2 {
					pool.give(local.Port(), used.Load(), e.table.Now())
				}
			})
		}
	}
}

func (e *Engine) localFor(party netip.Addr, v6 bool) (netip.Addr, error) {
	if e.cfg.Detect != nil && party.IsValid() && party.Is6() == v6 {
		if a, err := e.cfg.Detect(party); err == nil {
			return a, nil
		}
	}
	for _, a := range e.cfg.Locals {
		if a.Is6() == v6 {
			return a, nil
		}
	}
	return netip.Addr{}, ErrNoAddress
}

// Advertise is the address that a party is told for a local one.
func (e *Engine) Advertise(local netip.Addr) netip.Addr {
	for _, a := range e.cfg.Advertised {
		if a.Is6() == local.Is6() {
			return a
		}
	}
	return local
}

// DefaultAddress is what a party is told when no stream says otherwise.
func (e *Engine) DefaultAddress(v6 bool) netip.Addr {
	a, err := e.localFor(netip.Addr{}, v6)
	if err != nil && len(e.cfg.Locals) > 0 {
		a = e.cfg.Locals[0]
	}
	return e.Advertise(a)
}

func (e *Engine) poolFor(a netip.Addr) *pool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pools[a] == nil {
		e.pools[a] = newPool(e.cfg.FirstPort, e.cfg.EndPort, e.cfg.PortRest, e.cfg.Pick)
	}
	return e.pools[a]
}

func (e *Engine) isLocal(a netip.Addr) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.pools[a] != nil
}

// streamAt is the stream that has a port open, nil if none.
func (e *Engine) streamAt(a netip.AddrPort) *Stream {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.open[a]
}

// Owns says whether a is one of the ports of s, as told to the parties.
func (e *Engine) Owns(s *Stream, a netip.AddrPort) bool {
	for side := range s.legs[RTP] {
		local := s.Local(Side(side))
		if a == local || a == netip.AddrPortFrom(e.Advertise(local.Addr()), local.Port()) {
			return true
		}
	}
	return false
}

func (e *Engine) countRefused(why report.Why) {
	for i, w := range refusals {
		if w == why {
			e.refused[i].Add(1)
			return
		}
	}
}

// Now is the time of the forwarding table.
func (e *Engine) Now() time.Duration { return e.table.Now() }

// Mover names what moves decided flows.
func (e *Engine) Mover() string { return e.table.Mover() }

// Moved tells what moves decided flows, and how much of it.
func (e *Engine) Moved() report.Moved {
	s := e.table.Stats()
	return report.Moved{Mover: e.table.Mover(), NotKernel: s.NotKernel, Packets: s.Packets, KernelPackets: s.Kernel.Packets}
}

// BytesRelayed grows with every datagram that was sent on.
func (e *Engine) BytesRelayed() uint64 { return e.table.Stats().Bytes }

// PortsFree counts the pairs that a stream could still get.
func (e *Engine) PortsFree() int {
	e.mu.RLock()
	defer e.mu.RUnlock()
	n := 0
	for _, p := range e.pools {
		n += p.available()
	}
	return n
}

// EngineStats are counters since the start.
type EngineStats struct {
	Forward    forward.Stats
	Refused    map[report.Why]uint64
	EarlyReuse uint64
	PortsFree  int
}

// Stats reads the counters.
func (e *Engine) Stats() EngineStats {
	st := EngineStats{Forward: e.table.Stats(), Refused: map[report.Why]uint64{}, PortsFree: e.PortsFree()}
	for i, w := range refusals {
		if n := e.refused[i].Load(); n > 0 {
			st.Refused[w] = n
		}
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, p := range e.pools {
		st.EarlyReuse += p.earlyReuses()
	}
	return st
}

// Close closes the table's ports.
func (e *Engine) Close() error { return e.table.Close() }
