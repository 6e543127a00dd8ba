package dispatcher

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

var (
	errLinkLost = errors.New("connection to the relay lost")
	errNoAnswer = errors.New("relay did not answer in time")
	errTooLong  = errors.New("command does not fit what an old relay reads")
)

const (
	// maxUnsent bounds what waits for a relay that does not read. A command is
	// about 500 bytes: this is more than any set-up rate fills before the relay
	// timeout marks the relay.
	maxUnsent = 16 << 20
	// writeTimeout ends a link whose peer takes nothing at all.
	writeTimeout = 30 * time.Second
)

// link is one connection of a relay. Commands of many goroutines share it: each
// appends its bytes to out and waits on its own channel; one goroutine writes
// what has come together, another reads and hands out the answers.
type link struct {
	// set before the link is attached, read-only afterwards
	d     *Dispatcher
	conn  *tls.Conn
	plain bool
	ip    netip.Addr
	hello relaylink.RelayHello // zero on the plain protocol
	relay *relayState
	log   *slog.Logger

	quiet  atomic.Bool   // nothing heard since a set-up was given up on it
	wake   chan struct{} // something to write
	done   chan struct{} // closed with the link
	finish finishQueue

	mu      sync.Mutex // guards what follows
	out     []byte
	seq     uint64
	pending map[uint64]*pending
	closed  bool
	cause   error
}

// result is what came of a command.
type result struct {
	body []byte
	err  error
}

// pending is a command without an answer yet.
type pending struct {
	command string
	sent    time.Time
	answer  chan result  // holds one
	late    func(result) // instead of answer, once nobody waits any more
	overdue bool         // counted as such; only late waits for it still
}

func newLink(d *Dispatcher, conn *tls.Conn, ip netip.Addr, plain bool) *link {
	l := &link{d: d, conn: conn, ip: ip, plain: plain, wake: make(chan struct{}, 1), done: make(chan struct{}),
		pending: map[uint64]*pending{}}
	l.finish.init()
	return l
}

// send starts a command.
func (l *link) send(command string, hs []control.Header) (uint64, *pending, error) {
	if l.plain {
		var err error
		if hs, err = plainHeaders(hs); err != nil {
			return 0, nil, err
		}
	}
	p := &pending{command: command, sent: l.d.cfg.Now(), answer: make(chan result, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, nil, errLinkLost
	}
	if len(l.out) > maxUnsent {
		return 0, nil, errNoAnswer
	}
	seq := l.seq
	l.seq++
	l.pending[seq] = p
	l.out = relaylink.AppendCommand(l.out, relaylink.Command{Name: command, Seq: strconv.FormatUint(seq, 10), Headers: hs})
	l.wakeLocked()
	return seq, p, nil
}

// plainHeaders makes headers readable for an old relay, which closes its link
// on bytes that are not UTF-8 and on lines that are too long.
func plainHeaders(hs []control.Header) ([]control.Header, error) {
	copied := false
	for i, h := range hs {
		if text := report.Text(h.Value); text != h.Value {
			if !copied {
				hs, copied = append([]control.Header(nil), hs...), true
			}
			hs[i].Value = text
		}
		if len(h.Name)+2+len(hs[i].Value) > relaylink.MaxCommandLine {
			return nil, fmt.Errorf("header %.40s of %d bytes: %w", h.Name, len(hs[i].Value), errTooLong)
		}
	}
	return hs, nil
}

// write queues bytes that are no command.
func (l *link) write(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.out = append(l.out, b...)
		l.wakeLocked()
	}
}

func (l *link) wakeLocked() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// ask runs a command and waits for its answer until the deadline. If none came,
// late, when not nil, gets the answer that comes afterwards.
func (l *link) ask(command string, hs []control.Header, deadline time.Time, late func(result)) ([]byte, error) {
	seq, p, err := l.send(command, hs)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case r := <-p.answer:
		return r.body, r.err
	case <-timer.C:
	}
	l.mu.Lock()
	if l.pending[seq] == p {
		p.late = late
		if late == nil {
			p.late = func(result) {}
		}
	}
	l.mu.Unlock()
	select {
	case r := <-p.answer: // it came just now
		return r.body, r.err
	default:
		return nil, errNoAnswer
	}
}

// answered handles the answer to a command.
func (l *link) answered(seq string, body []byte) {
	n, err := strconv.ParseUint(seq, 10, 64)
	l.mu.Lock()
	p := l.pending[n]
	if err != nil || p == nil {
		l.mu.Unlock()
		l.log.Debug("answer to no command that waits", "seq", seq)
		return
	}
	delete(l.pending, n)
	late := p.late
	if late == nil { // under the lock, so that ask sees either the answer or its own late
		p.answer <- result{body: body}
	}
	l.mu.Unlock()
	if late != nil {
		late(result{body: body})
	}
}

// lateFactor is for how many relay timeouts an answer that must be undone is
// waited for.
const lateFactor = 12

// overdue fails the commands that were not answered within the timeout and
// returns how many they were. Those whose late answer must be undone are kept
// a while longer.
func (l *link) overdue(now time.Time, timeout time.Duration) (n int) {
	var dropped []*pending
	l.mu.Lock()
	for seq, p := range l.pending {
		age := now.Sub(p.sent)
		if age < timeout {
			continue
		}
		if !p.overdue {
			p.overdue = true
			n++
		}
		if p.late == nil || age >= lateFactor*timeout {
			delete(l.pending, seq)
			dropped = append(dropped, p)
		}
	}
	lates := l.releaseLocked(dropped, errNoAnswer)
	l.mu.Unlock()
	for _, late := range lates {
		late(result{err: errNoAnswer})
	}
	return n
}

// releaseLocked fails commands and returns those to be told without the lock.
func (l *link) releaseLocked(list []*pending, err error) (lates []func(result)) {
	for _, p := range list {
		if p.late != nil {
			lates = append(lates, p.late)
			continue
		}
		p.answer <- result{err: err}
	}
	return lates
}

// close ends the link once; commands without an answer fail.
func (l *link) close(cause error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed, l.cause, l.out = true, cause, nil
	list := make([]*pending, 0, len(l.pending))
	for _, p := range l.pending {
		list = append(list, p)
	}
	clear(l.pending)
	lates := l.releaseLocked(list, errLinkLost)
	close(l.done)
	l.mu.Unlock()

	l.d.registry.detach(l, l.d.cfg.Now())
	l.conn.NetConn().Close()
	for _, late := range lates {
		late(result{err: errLinkLost})
	}
}

// writeLoop writes what has come together until the link ends.
func (l *link) writeLoop() {
	var spare []byte
	for {
		select {
		case <-l.done:
			return
		case <-l.wake:
		}
		l.mu.Lock()
		batch := l.out
		l.out = spare[:0]
		l.mu.Unlock()
		l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := l.conn.Write(batch); err != nil {
			l.close(fmt.Errorf("write to relay: %w", err))
			return
		}
		if spare = batch; cap(spare) > 1<<20 {
			spare = nil // a burst must not keep its memory
		}
	}
}

// flush waits until what was queued is written, for at most a moment.
func (l *link) flush() {
	const moment = 200 * time.Millisecond
	l.ask(relaylink.Summary, nil, time.Now().Add(moment), nil)
}
