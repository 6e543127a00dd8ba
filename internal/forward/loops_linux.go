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
	kernel   *kernel // nil: all is moved here
	why      string  // that is nil
	memory   *memory // nil: records of their own
	clock    func() time.Time
	start    time.Time // when the monotonic clock of the host began
	capacity int
	reaper   *reaper

	ports  atomic.Int64 // open now
	closed atomic.Bool
	wg     sync.WaitGroup
}

// NewLoops starts the user-space table.
func NewLoops(cfg Config, log *slog.Logger) (Table, error) {
	t, err := newLoops(cfg, nil, log)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func newLoops(cfg Config, k *kernel, log *slog.Logger) (*loops, error) {
	cfg.setDefaults(runtime.GOMAXPROCS(0))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("read the file descriptor limit: %w", err)
	}
	t := &loops{
		log: log, kernel: k, why: cfg.notKernel, clock: cfg.Clock, start: cfg.Clock().Add(-monotonic()),
		capacity: max(0, int(min(limit.Cur, maxDescriptors))-cfg.ReservedDescriptors),
	}
	switch {
	case k != nil:
		t.memory = k.mem
	case cfg.Memory != "" && len(cfg.Locals) > 0:
		m, err := fileMemory(cfg.Memory, cfg.Locals)
		if err != nil {
			log.Warn("the counters of calls end with this process", "error", err)
		}
		t.memory = m
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
	t.reaper = newReaper(t.waitForBatches, t.closePort)
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
func (t *loops) Capacity() int      { return t.capacity }

// Mover implements Table.
func (t *loops) Mover() string {
	if t.kernel != nil {
		return MoverKernel
	}
	return MoverUser
}

// Open implements Table.
func (t *loops) Open(local netip.AddrPort, group uint32, h Handler) (Port, error) {
	return t.open(local, group, h, false)
}

// Adopt implements Table.
func (t *loops) Adopt(local netip.AddrPort, group uint32, h Handler) (Port, error) {
	return t.open(local, group, h, true)
}

func (t *loops) open(local netip.AddrPort, group uint32, h Handler, adopt bool) (Port, error) {
	if t.closed.Load() {
		return nil, ErrClosed
	}
	if t.ports.Add(1) > int64(t.capacity) {
		t.ports.Add(-1)
		return nil, ErrTooManyPorts
	}
	fd, err := bindUDP(local)
	if err != nil {
		t.ports.Add(-1)
		return nil, fmt.Errorf("bind %s: %w", local, err)
	}
	p := &port{slow: t, kernel: t.kernel, boundSocket: boundSocket{fd: fd, loop: t.loops[int(group)%len(t.loops)], ttl: -1, tos: -1}}
	if t.kernel == nil {
		p.why.Store(&t.why)
	}
	if t.memory == nil {
		p.entry = newEntry(local, h)
	} else if err := t.memory.enter(&p.entry, local, h, adopt); err != nil {
		unix.Close(fd)
		t.ports.Add(-1)
		return nil, err
	}
	if err := p.loop.add(p); err != nil {
		unix.Close(fd)
		t.ports.Add(-1)
		return nil, fmt.Errorf("watch %s: %w", local, err)
	}
	return p, nil
}

// Claimed implements Table.
func (t *loops) Claimed() int {
	if t.memory == nil {
		return 0
	}
	return t.memory.unclaimed()
}

func (t *loops) sendFrom(p *port, to netip.AddrPort, payload []byte) error {
	if t.closed.Load() {
		return ErrClosed
	}
	name := newSockaddr(to, p.local.Addr().Is6())
	return sendTo(p.fd, payload, &name)
}

func (t *loops) retire(p *port, done func(used bool)) {
	p.boundSocket.mu.Lock() // a connect or dissolve that has begun ends first
	defer p.boundSocket.mu.Unlock()
	t.reaper.add(p, done)
}

// closePort gives a descriptor back that no loop has in hand any more.
func (t *loops) closePort(p *port) {
	p.loop.remove(p)
	unix.Close(p.fd)
	if t.memory != nil {
		t.memory.leave(&p.entry)
	}
	t.ports.Add(-1)
}

func (t *loops) waitForBatches() {
	for _, l := range t.loops {
		l.waitForBatch()
	}
}

// Stats implements Table.
func (t *loops) Stats() Stats {
	s := Stats{Ports: int(t.ports.Load())}
	for _, l := range t.loops {
		l.addTo(&s)
	}
	if t.kernel == nil {
		s.NotKernel = t.why
		return s
	}
	t.kernel.addTo(&s)
	return s
}

// Close implements Table.
func (t *loops) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.end()
	if t.kernel != nil {
		t.kernel.close()
	} else if t.memory != nil {
		t.memory.close()
	}
	return nil
}

// abandon ends a table that was never used. What a former process left stays.
func (t *loops) abandon() {
	t.closed.Store(true)
	t.end()
	t.kernel.abandon()
}

func (t *loops) end() {
	t.reaper.stop()
	for _, l := range t.loops {
		l.stop()
	}
	t.wg.Wait()
	addProcessors(-len(t.loops))
	for _, l := range t.loops {
		l.release()
	}
}
