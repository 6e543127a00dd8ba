package forward

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// steered is the table whose user-space part has one socket for each local address
// and processor: the kernel's socket lookup steers to them what comes for an open
// port, and answers leave through raw sockets.
type steered struct {
	// set in newSteered, read-only afterwards
	log     *slog.Logger
	kernel  *kernel
	clock   func() time.Time
	start   time.Time // when the monotonic clock of the host began
	mover   string
	why     string // that is not the kernel
	readers []*reader
	reaper  *reaper
	idents  idents

	ports  []atomic.Pointer[port] // by index of their records
	count  atomic.Int64           // open now
	closed atomic.Bool
	wg     sync.WaitGroup

	mu   sync.Mutex      // guards what follows
	once map[int]*onceAt // by slot: for single datagrams
}

// onceAt sends datagrams that no thread has in a batch.
type onceAt struct {
	mu   sync.Mutex
	fd   int
	head [largestHeader]byte
	b    []byte
}

// newSteered takes over the kernel table's ports. attach has the kernel steer.
func newSteered(cfg Config, k *kernel, mover string, log *slog.Logger) (*steered, error) {
	t := &steered{
		log: log, kernel: k, clock: cfg.Clock, start: cfg.Clock().Add(-monotonic()), mover: mover, why: cfg.notKernel,
		ports: make([]atomic.Pointer[port], len(k.mem.records)), once: map[int]*onceAt{},
	}
	t.idents.init()
	threads := min(cfg.Threads, cpusPerSlot)
	for n := range threads {
		r, err := newReader(t, n, cfg.Inherited)
		if err != nil {
			t.release()
			return nil, err
		}
		t.readers = append(t.readers, r)
	}
	if err := t.steer(); err != nil {
		t.release()
		return nil, err
	}
	addProcessors(len(t.readers))
	t.reaper = newReaper(t.waitForBatches, t.leave)
	for _, r := range t.readers {
		t.wg.Go(r.run)
	}
	t.wg.Go(t.reaper.run)
	return t, nil
}

// steer tells the kernel which socket serves which processor.
func (t *steered) steer() error {
	m := t.kernel.coll.Maps[flowMapSockets]
	for slot := range t.kernel.mem.locals {
		for cpu := range cpusPerSlot {
			r := t.readers[cpu%len(t.readers)]
			key, value := uint32(slot*cpusPerSlot+cpu), uint64(r.sockets[slot])
			if err := m.Put(key, value); err != nil {
				return fmt.Errorf("hand a socket to the kernel: %w", err)
			}
			if cpu >= runtime.NumCPU()-1 && cpu >= len(t.readers)-1 {
				break // others are there only for processors that come later; they get the first
			}
		}
	}
	return nil
}

// Now implements Table.
func (t *steered) Now() time.Duration { return t.clock().Sub(t.start) }

// Capacity implements Table: ports need no descriptors.
func (t *steered) Capacity() int { return len(t.ports) }

// Mover implements Table.
func (t *steered) Mover() string { return t.mover }

// Open implements Table.
func (t *steered) Open(local netip.AddrPort, _ uint32, h Handler) (Port, error) {
	return t.open(local, h, false)
}

// Adopt implements Table.
func (t *steered) Adopt(local netip.AddrPort, _ uint32, h Handler) (Port, error) {
	return t.open(local, h, true)
}

func (t *steered) open(local netip.AddrPort, h Handler, adopt bool) (Port, error) {
	if t.closed.Load() {
		return nil, ErrClosed
	}
	if err := unused(local); err != nil {
		return nil, fmt.Errorf("bind %s: %w", local, err)
	}
	p := &port{slow: t, boundSocket: boundSocket{fd: -1}}
	if t.mover == MoverKernel {
		p.kernel = t.kernel
	} else {
		p.why.Store(&t.why)
	}
	if err := t.kernel.mem.enter(&p.entry, local, h, adopt); err != nil {
		return nil, err
	}
	if p.kernel == nil {
		p.rec.open() // a former process had the kernel move it
	}
	i, _ := t.kernel.mem.index(local)
	t.ports[i].Store(p)
	t.count.Add(1)
	return p, nil
}

// unused makes sure that no other program has bound the port: it would lose its
// datagrams to us.
func unused(local netip.AddrPort) error {
	fd, err := bindUDP(local)
	if err == nil {
		unix.Close(fd)
	}
	if errors.Is(err, ErrTooManyPorts) {
		return nil // nobody can look; the ports are reserved
	}
	return err
}

// Claimed implements Table.
func (t *steered) Claimed() int { return t.kernel.mem.unclaimed() }

// Sockets implements Keeper.
func (t *steered) Sockets() map[string]int {
	sockets := map[string]int{}
	for n, r := range t.readers {
		for slot, local := range t.kernel.mem.locals {
			sockets[socketName(local, n)] = r.sockets[slot]
		}
	}
	return sockets
}

// Stats implements Table.
func (t *steered) Stats() Stats {
	s := Stats{Ports: int(t.count.Load())}
	for _, r := range t.readers {
		r.addTo(&s)
	}
	t.kernel.addTo(&s)
	if t.mover != MoverKernel {
		s.NotKernel = t.why
	}
	return s
}

// sendFrom sends one datagram from a port.
func (t *steered) sendFrom(p *port, to netip.AddrPort, payload []byte) error {
	o, err := t.onceAt(p.local.Addr())
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fd < 0 {
		return ErrClosed
	}
	n := putHeaders(&o.head, p.local, to, -1, -1, payload)
	o.b = append(append(o.b[:0], o.head[:n]...), payload...)
	name := newSockaddr(netip.AddrPortFrom(to.Addr(), 0), p.local.Addr().Is6())
	if errno := rawSend(o.fd, o.b, &name); errno == unix.EMSGSIZE {
		return sendLarge(p.local, to, payload, -1, -1)
	} else if errno != 0 {
		return errno
	}
	return nil
}

func (t *steered) onceAt(local netip.Addr) (*onceAt, error) {
	slot := t.kernel.mem.slot(local)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed.Load() {
		return nil, ErrClosed
	}
	if o := t.once[slot]; o != nil {
		return o, nil
	}
	fd, err := rawSocket(local)
	if err != nil {
		return nil, err
	}
	t.once[slot] = &onceAt{fd: fd}
	return t.once[slot], nil
}

func (t *steered) retire(p *port, done func(used bool)) {
	if p.kernel == nil {
		t.kernel.rest(&p.entry, p.used.Load())
	}
	t.reaper.add(p, done)
}

// leave forgets a port that no thread has in hand any more.
func (t *steered) leave(p *port) {
	i, _ := t.kernel.mem.index(p.local)
	t.ports[i].CompareAndSwap(p, nil)
	t.kernel.mem.leave(&p.entry)
	t.count.Add(-1)
}

func (t *steered) waitForBatches() {
	for _, r := range t.readers {
		r.waitForBatch()
	}
}

// Close implements Table.
func (t *steered) Close() error {
	t.mu.Lock()
	was := t.closed.Swap(true)
	t.mu.Unlock()
	if was {
		return nil
	}
	t.reaper.stop()
	for _, r := range t.readers {
		r.stop()
	}
	t.wg.Wait()
	addProcessors(-len(t.readers))
	for i := range t.ports {
		if p := t.ports[i].Swap(nil); p != nil && !p.dead.Swap(true) {
			p.end()
		}
	}
	t.kernel.close()
	t.release()
	return nil
}

// abandon ends a table that was never used. What a former process left stays.
func (t *steered) abandon() {
	t.reaper.stop()
	for _, r := range t.readers {
		r.stop()
	}
	t.wg.Wait()
	addProcessors(-len(t.readers))
	t.kernel.abandon()
	t.release()
}

func (t *steered) release() {
	for _, r := range t.readers {
		r.release()
	}
	for _, o := range t.once {
		o.mu.Lock()
		unix.Close(o.fd)
		o.fd = -1
		o.mu.Unlock()
	}
}
