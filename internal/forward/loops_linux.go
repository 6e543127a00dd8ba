package forward

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// loops is the user-space table: a fixed number of threads, each waiting for
// its share of the ports with epoll. A port stays with one thread for life.
type loops struct {
	// set in NewLoops, read-only afterwards
	loops    []*loop
	log      *slog.Logger
	clock    func() time.Time
	start    time.Time // when the monotonic clock of the host began
	capacity int
	reaper   *reaper

	open   atomic.Int64
	closed atomic.Bool
	wg     sync.WaitGroup
}

// NewLoops starts the user-space table.
func NewLoops(cfg LoopConfig, log *slog.Logger) (Table, error) {
	if cfg.Threads == 0 {
		cfg.Threads = runtime.GOMAXPROCS(0)
	}
	if cfg.ReservedDescriptors == 0 {
		cfg.ReservedDescriptors = 256
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("read the file descriptor limit: %w", err)
	}
	t := &loops{
		log: log, clock: cfg.Clock, start: cfg.Clock().Add(-monotonic()),
		capacity: max(0, int(min(limit.Cur, maxDescriptors))-cfg.ReservedDescriptors),
	}
	for range cfg.Threads {
		l, err := newLoop(t)
		if err != nil {
			for _, l := range t.loops {
				l.release()
			}
			return nil, fmt.Errorf("start a packet loop: %w", err)
		}
		t.loops = append(t.loops, l)
	}
	// Under traffic the threads keep a processor each of the Go scheduler, see
	// loop.wait. Everything else is to have as many as before.
	addProcessors(len(t.loops))
	t.reaper = newReaper(t)
	t.wg.Add(len(t.loops) + 1)
	for _, l := range t.loops {
		go func() { defer t.wg.Done(); l.run() }()
	}
	go func() { defer t.wg.Done(); t.reaper.run() }()
	return t, nil
}

// monotonic is the host's clock that no step of the wall clock moves.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0 // cannot be on Linux; then times begin with the process
	}
	return time.Duration(now.Nano())
}

// processors guards the process's setting: tests have several tables at once. Once
// set, Go no longer follows a changed CPU limit of a container by itself.
var processors sync.Mutex

func addProcessors(n int) {
	processors.Lock()
	defer processors.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}

func (t *loops) Now() time.Duration { return t.clock().Sub(t.start) }
func (t *loops) Claimed() int       { return 0 }
func (t *loops) Capacity() int      { return t.capacity }
func (t *loops) Mover() string      { return "user-space" }

func (t *loops) Adopt(local netip.AddrPort, group uint32, h Handler) (Port, error) {
	return t.Open(local, group, h)
}

func (t *loops) Open(local netip.AddrPort, group uint32, h Handler) (Port, error) {
	if t.closed.Load() {
		return nil, ErrClosed
	}
	if t.open.Add(1) > int64(t.capacity) {
		t.open.Add(-1)
		return nil, ErrTooManyPorts
	}
	fd, err := bindUDP(local)
	if err != nil {
		t.open.Add(-1)
		return nil, fmt.Errorf("bind %s: %w", local, err)
	}
	p := &port{entry: entry{local: local, handler: h}, fd: fd, loop: t.loops[int(group)%len(t.loops)], ttl: -1, tos: -1}
	if err := p.loop.add(p); err != nil {
		unix.Close(fd)
		t.open.Add(-1)
		return nil, fmt.Errorf("watch %s: %w", local, err)
	}
	return p, nil
}

func (t *loops) Stats() Stats {
	s := Stats{Ports: int(t.open.Load())}
	for _, l := range t.loops {
		s.Packets += l.packets.Load()
		s.Bytes += l.bytes.Load()
		s.Undecided += l.undecided.Load()
		s.SendErrors += l.sendErrors.Load()
		s.TTLExpired += l.ttlExpired.Load()
		s.Panics += l.panics.Load()
		s.Unreachable += l.unreachable.Load()
	}
	return s
}

func (t *loops) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.reaper.stop()
	for _, l := range t.loops {
		l.stop()
	}
	t.wg.Wait()
	addProcessors(-len(t.loops))
	for _, l := range t.loops {
		l.release()
	}
	return nil
}

// reaper closes ports behind the backs of the loops: a descriptor number may be
// used again only when no loop can still have it in hand. It waits until the
// port's loop has finished the batch it was in.
type reaper struct {
	table *loops

	mu    sync.Mutex // guards what follows
	queue []closing
	ended bool
	wake  chan struct{}
}

type closing struct {
	port *port
	done func(used bool)
}

func newReaper(t *loops) *reaper { return &reaper{table: t, wake: make(chan struct{}, 1)} }

func (r *reaper) add(p *port, done func(used bool)) {
	r.mu.Lock()
	ended := r.ended
	if !ended {
		r.queue = append(r.queue, closing{p, done})
	}
	r.mu.Unlock()
	if ended {
		return // the table closes all descriptors itself
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reaper) stop() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reaper) run() {
	for range r.wake {
		for {
			r.mu.Lock()
			queue, ended := r.queue, r.ended
			r.queue = nil
			r.mu.Unlock()
			if len(queue) == 0 {
				if ended {
					return
				}
				break
			}
			for _, l := range r.table.loops {
				l.waitForBatch()
			}
			for _, c := range queue {
				c.port.loop.remove(c.port)
				unix.Close(c.port.fd)
				r.table.open.Add(-1)
				if c.done != nil {
					c.done(c.port.used.Load())
				}
			}
		}
	}
}
