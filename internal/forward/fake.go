package forward

import (
	"net/netip"
	"sync"
	"time"

	"example.org/mediaproxy/internal/wire/rtp"
)

// Fake is a table without a network, for tests of the rooms above. Its clock
// stands still until Advance.
type Fake struct {
	// Limit is how many ports may be open; 0: any number.
	Limit int
	// InUse names ports that cannot be bound.
	InUse map[netip.AddrPort]bool

	mu    sync.Mutex
	now   time.Duration
	ports map[netip.AddrPort]*fakePort
	left  map[netip.AddrPort]*fakePort // of the process before, see Next
	sent  []Sent
}

// Sent is a datagram that a Fake was asked to transmit.
type Sent struct {
	From, To netip.AddrPort
	Payload  string
}

// NewFake returns an empty table. Its clock begins at an hour: a record takes 0 for never.
func NewFake() *Fake {
	return &Fake{now: time.Hour, ports: map[netip.AddrPort]*fakePort{}, InUse: map[netip.AddrPort]bool{}}
}

type fakePort struct {
	entry
	table *Fake
	flow  *Flow // guarded by table.mu
}

// Open implements Table.
func (t *Fake) Open(local netip.AddrPort, _ uint32, h Handler) (Port, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.InUse[local] || t.ports[local] != nil {
		return nil, ErrPortInUse
	}
	if t.Limit > 0 && len(t.ports) >= t.Limit {
		return nil, ErrTooManyPorts
	}
	p := &fakePort{entry: newEntry(local, h), table: t}
	t.ports[local] = p
	return p, nil
}

// Next is the table of the next process on the same host, for which this one's ports
// wait with their counters and flows. This one is not to be used any more.
func (t *Fake) Next() *Fake {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := NewFake()
	next.Limit, next.InUse, next.now, next.left = t.Limit, t.InUse, t.now, t.ports
	return next
}

// Adopt implements Table.
func (t *Fake) Adopt(local netip.AddrPort, group uint32, h Handler) (Port, error) {
	t.mu.Lock()
	p := t.left[local]
	if p == nil || t.InUse[local] || t.ports[local] != nil {
		t.mu.Unlock()
		return t.Open(local, group, h)
	}
	defer t.mu.Unlock()
	delete(t.left, local)
	p.handler, p.table = h, t
	t.ports[local] = p
	return p, nil
}

// Claimed implements Table.
func (t *Fake) Claimed() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.left)
	t.left = nil
	return n
}

// Now implements Table.
func (t *Fake) Now() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// Advance moves the clock.
func (t *Fake) Advance(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now += d
}

// Capacity implements Table.
func (t *Fake) Capacity() int {
	if t.Limit > 0 {
		return t.Limit
	}
	return 1 << 16
}

// Mover implements Table.
func (t *Fake) Mover() string { return "fake" }

// Stats implements Table.
func (t *Fake) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{Ports: len(t.ports)}
}

// Close implements Table.
func (t *Fake) Close() error { return nil }

// Open ports, for tests that look for leaks.
func (t *Fake) OpenPorts() int { return t.Stats().Ports }

// Deliver lets a datagram arrive and returns what was sent because of it.
func (t *Fake) Deliver(to, from netip.AddrPort, payload []byte) []Sent {
	t.mu.Lock()
	p, before := t.ports[to], len(t.sent)
	var flow *Flow
	if p != nil {
		flow = p.flow
	}
	now := t.now
	t.mu.Unlock()
	if p == nil {
		return nil
	}
	p.used.Store(true)
	kind := rtp.Classify(payload)
	verdict := Verdict{}
	if flow != nil && flow.Source == from {
		verdict = Verdict{Accepted: true, Out: flow.Out, Dest: flow.Dest}
	} else {
		verdict = p.handler.Handle(Datagram{Now: now, Source: from, Payload: payload, Kind: kind})
	}
	if !verdict.Accepted {
		p.rec.refused.Add(1)
	} else {
		p.accept(now, payload, kind)
		if verdict.Out == nil || verdict.Out.Send(verdict.Dest, payload) != nil {
			p.side.unsent.Add(1)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Sent(nil), t.sent[before:]...)
}

func (p *fakePort) Local() netip.AddrPort { return p.local }

func (p *fakePort) Install(f Flow) { p.setFlow(&f) }

func (p *fakePort) Know(addrs [3]netip.Addr) { p.know(addrs) }

func (p *fakePort) Withdraw() { p.setFlow(nil) }

func (p *fakePort) setFlow(f *Flow) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.flow = f
}

func (p *fakePort) Send(to netip.AddrPort, payload []byte) error {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.used.Store(true)
	p.table.sent = append(p.table.sent, Sent{From: p.local, To: to, Payload: string(payload)})
	return nil
}

func (p *fakePort) Counters() Counters {
	c := p.counters()
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	if p.flow != nil {
		c.Decided, c.Mover = true, "fake"
	}
	return c
}

func (p *fakePort) Close(done func(used bool)) {
	p.table.mu.Lock()
	delete(p.table.ports, p.local)
	p.table.mu.Unlock()
	if done != nil {
		done(p.used.Load())
	}
}
