package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/session"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// fakeCalls is a session table without media: a call is its two tags.
type fakeCalls struct {
	mu      sync.Mutex
	calls   []session.Call
	records int
	expired []session.Finished // what the next Sweep returns
	docs    []report.Session
	last    control.Update
	acked   []string // records that need not outlive the process
	flushes int      // of what packets changed
	flushed int      // calls at the last flush of all
}

func (f *fakeCalls) find(callID, tag string) int {
	for i, c := range f.calls {
		if c.CallID == callID && (tag == "" || c.FromTag == tag) {
			return i
		}
	}
	return -1
}

func (f *fakeCalls) Update(u control.Update, owner string, mayCreate bool) (control.Answer, session.Call, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = u
	switch {
	case u.CallID == "bug":
		panic("a bug in the session table")
	case u.CallID == "full":
		return control.Answer{}, session.Call{}, errors.New("ports exhausted: all 4 of 50000:50004 are in use")
	}
	var before session.Call
	if i := f.find(u.CallID, u.FromTag); i >= 0 {
		before = f.calls[i]
		f.calls[i].Owner = owner
	} else {
		if !mayCreate || !u.HasMedia {
			return control.Answer{}, before, fmt.Errorf("call %s: %w", u.CallID, session.ErrUnknown)
		}
		f.calls = append(f.calls, session.Call{CallID: u.CallID, FromTag: u.FromTag, ToTag: u.ToTag, DialogID: u.DialogID, Owner: owner})
	}
	a := control.Answer{IP: netip.MustParseAddr("203.0.113.9")}
	for i := range u.Media {
		a.Ports = append(a.Ports, 50002+uint16(4*i))
	}
	return a, before, nil
}

func (f *fakeCalls) endLocked(i int, reason string) session.Finished {
	c := f.calls[i]
	f.calls = append(f.calls[:i:i], f.calls[i+1:]...)
	f.records++
	return session.Finished{Owner: c.Owner, Report: report.Session{
		CallID: c.CallID, FromTag: c.FromTag, DialogID: c.DialogID, CallerUA: "Unknown", CalleeUA: "Unknown",
		Streams: []report.Stream{}, RecordID: fmt.Sprintf("r%d", f.records), Reason: reason,
	}}
}

func (f *fakeCalls) Remove(r control.Remove) (session.Finished, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.find(r.CallID, r.FromTag)
	if i < 0 {
		return session.Finished{}, fmt.Errorf("call %s: %w", r.CallID, session.ErrUnknown)
	}
	return f.endLocked(i, report.ReasonRemoved), nil
}

func (f *fakeCalls) Terminate(callID, fromTag string) (ended []session.Finished) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := f.find(callID, fromTag); i >= 0; i = f.find(callID, fromTag) {
		ended = append(ended, f.endLocked(i, report.ReasonTerminated))
	}
	return ended
}

func (f *fakeCalls) EndAll(reason string) (ended []session.Finished) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.calls) > 0 {
		ended = append(ended, f.endLocked(0, reason))
	}
	return ended
}

// expire lets the next Sweep report a call as timed out.
func (f *fakeCalls) expire(callID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := f.find(callID, ""); i >= 0 {
		f.expired = append(f.expired, f.endLocked(i, report.ReasonTimeout))
	}
}

func (f *fakeCalls) Sweep() []session.Finished {
	f.mu.Lock()
	defer f.mu.Unlock()
	ended := f.expired
	f.expired = nil
	return ended
}

func (f *fakeCalls) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls) + len(f.expired) // they end with the next Sweep
}

func (f *fakeCalls) Calls() []session.Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]session.Call(nil), f.calls...)
}

func (f *fakeCalls) Sessions() []report.Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]report.Session(nil), f.docs...)
}

func (f *fakeCalls) Page(after uint64, limit int, each func(*report.Session)) (next uint64) {
	f.mu.Lock()
	docs := f.docs[min(int(after), len(f.docs)):]
	f.mu.Unlock()
	doc := new(report.Session)
	for i := range min(limit, len(docs)) {
		*doc = docs[i]
		each(doc)
	}
	if len(docs) > limit {
		next = after + uint64(limit)
	}
	return next
}

func (f *fakeCalls) Session(callID, fromTag string) (docs []report.Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := f.find(callID, fromTag); i >= 0 {
		docs = append(docs, report.Session{CallID: callID, FromTag: f.calls[i].FromTag, Streams: []report.Stream{}})
	}
	return docs
}

func (f *fakeCalls) Explain(string, string) []report.Explanation { return nil }

func (f *fakeCalls) OneWay() int { return 0 }

func (f *fakeCalls) Flush(all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flushes++; all {
		f.flushed = len(f.calls)
	}
}

func (f *fakeCalls) Acknowledged(recordID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acked = append(f.acked, recordID)
}

// forgotten are the records that need not outlive the process, in order.
func (f *fakeCalls) forgotten() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.acked, " ")
}

func (f *fakeCalls) StreamCount() map[string]int {
	if n := f.Len(); n > 0 {
		return map[string]int{"audio": n}
	}
	return nil
}

// add makes a call without a command.
func (f *fakeCalls) add(callID, owner string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, session.Call{CallID: callID, FromTag: "f", Owner: owner})
}

type fakeMedia struct {
	mu    sync.Mutex
	bytes uint64
}

func (m *fakeMedia) BytesRelayed() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}

func (m *fakeMedia) relay(n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes += n
}
func (*fakeMedia) PortsFree() int      { return 996 }
func (*fakeMedia) Capacity() int       { return 250 }
func (*fakeMedia) Moved() report.Moved { return report.Moved{Mover: "user-space"} }

// fakeNet hands out pipes instead of connections.
type fakeNet struct {
	mu      sync.Mutex
	down    map[netip.AddrPort]error
	plain   map[netip.AddrPort]bool
	dials   map[netip.AddrPort][]time.Time
	accepts chan accepted
}

type accepted struct {
	addr netip.AddrPort
	nc   net.Conn
}

func newFakeNet() *fakeNet {
	return &fakeNet{
		down: map[netip.AddrPort]error{}, plain: map[netip.AddrPort]bool{},
		dials: map[netip.AddrPort][]time.Time{}, accepts: make(chan accepted, 64),
	}
}

func (n *fakeNet) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *fakeNet) dialed(addr string) []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]time.Time(nil), n.dials[netip.MustParseAddrPort(addr)]...)
}

func (n *fakeNet) dial(_ context.Context, addr netip.AddrPort) (net.Conn, string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials[addr] = append(n.dials[addr], time.Now())
	if err := n.down[addr]; err != nil {
		return nil, "", err
	}
	ours, theirs := net.Pipe()
	n.accepts <- accepted{addr, theirs}
	if n.plain[addr] {
		return ours, "", nil
	}
	return ours, relaylink.ALPN, nil
}
