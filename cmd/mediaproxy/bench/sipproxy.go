package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/wire/control"
)

// What a command was for.
const (
	forOffer = iota
	forAnswer
	forRemove
	purposes
)

var purposeNames = [purposes]string{"offer", "answer", "remove"}

// grace is how long after the last command was due those are still sent that had to
// wait for others. What is left then counts as not sent.
const grace = 5 * time.Second

// sipProxy is the load: processes of a SIP proxy, each with one connection and one
// command at a time on it, as the modules have.
type sipProxy struct {
	// set before run, read-only afterwards
	socket   string
	fleet    *fleet
	patience time.Duration
	expired  int
	calls    int
	workers  int
	every    time.Duration // between two new calls, of all workers
	start    time.Time
	end      time.Time

	latency  [purposes]Histogram // of answered commands, since they were due
	late     Histogram           // how long after they were due commands were sent
	offered  atomic.Uint64
	answered atomic.Uint64
	updates  atomic.Uint64 // of the answered

	mu     sync.Mutex // guards what follows
	last   time.Time  // when the last answer came
	errors map[string]uint64
	sample string // the first error in full
}

// run sends until the end; it returns early only with the context.
func (p *sipProxy) run(ctx context.Context) {
	p.errors = map[string]uint64{}
	var running sync.WaitGroup
	for i := range p.workers {
		running.Go(func() { (&worker{p: p, number: i}).run(ctx) })
	}
	running.Wait()
}

func (p *sipProxy) failed(kind string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errors[kind]++
	if p.sample == "" {
		p.sample = fmt.Sprintf("%s: %v", kind, err)
	}
}

// live is a call and the relay that has it.
type live struct {
	call  call
	relay *relay
}

// worker is one process of the proxy. It has every so-manieth call for itself, so that
// commands of one call stay in order.
type worker struct {
	p      *sipProxy
	number int

	conn    net.Conn
	in      *bufio.Reader
	out     []byte
	last    time.Time // when the last answer came
	live    []live    // the oldest first
	begun   live      // the last one, to be answered; relay nil: none
	expired live      // reported by its relay, to be removed; relay nil: none
}

// run does for each of its new calls, in equal steps: the offer, the end of the oldest
// call, the answer.
func (w *worker) run(ctx context.Context) {
	p := w.p
	defer func() {
		w.hangUp()
		p.mu.Lock()
		defer p.mu.Unlock()
		if w.last.After(p.last) {
			p.last = w.last
		}
	}()
	next := call(w.number)
	for ; int(next) < p.calls; next += call(p.workers) {
		w.live = append(w.live, live{next, p.fleet.first(next)})
	}
	target := len(w.live)
	round := p.every * time.Duration(p.workers)
	for due := p.start.Add(p.every * time.Duration(w.number)); due.Before(p.end) && ctx.Err() == nil; due = due.Add(round) {
		w.offer(ctx, due, next)
		next += call(p.workers)
		w.finish(ctx, due.Add(round/3), target)
		w.answer(ctx, due.Add(2*round/3))
	}
}

func (w *worker) offer(ctx context.Context, due time.Time, n call) {
	answer, ok := w.ask(ctx, due, forOffer, n.offer())
	if !ok {
		return
	}
	r, err := w.p.fleet.relayOf(answer.IP)
	if err != nil {
		w.p.fleet.fault("offer: %v", err)
		return
	}
	w.begun = live{n, r}
}

// answer sends what the callee's 200 brings; from then on the call can end.
func (w *worker) answer(ctx context.Context, due time.Time) {
	c := w.begun
	w.begun = live{}
	if c.relay == nil {
		return // the offer failed, or the end came first
	}
	answer, ok := w.ask(ctx, due, forAnswer, c.call.answer())
	if ok && answer.IP.String() != c.relay.ip {
		w.p.fleet.fault("answer of %s came from %s, its offer from %s", c.call.id(), answer.IP, c.relay.ip)
	}
	w.live = append(w.live, c)
}

// finish ends the oldest call, and removes the one that its relay reported a round ago.
func (w *worker) finish(ctx context.Context, due time.Time, target int) {
	if c := w.expired; c.relay != nil {
		w.expired = live{}
		w.ask(ctx, due, forRemove, c.call.remove())
	}
	if len(w.live) < target || len(w.live) == 0 || !due.Before(w.p.end) {
		return
	}
	c := w.live[0]
	w.live = w.live[1:]
	if !c.call.expires(w.p.expired) {
		w.ask(ctx, due, forRemove, c.call.remove())
		return
	}
	c.relay.expire(c.call)
	w.expired = c
}

// ask has a command answered that is due at this time, if that is before the end. After
// the grace it is only counted.
func (w *worker) ask(ctx context.Context, due time.Time, purpose int, r control.Request) (control.Answer, bool) {
	p := w.p
	if !due.Before(p.end) {
		return control.Answer{}, false
	}
	select {
	case <-time.After(time.Until(due)):
	case <-ctx.Done():
		return control.Answer{}, false
	}
	p.offered.Add(1)
	sent := time.Now()
	if sent.After(p.end.Add(grace)) {
		p.failed("not sent", errors.New("others were not answered in time"))
		return control.Answer{}, false
	}
	p.late.Add(sent.Sub(due))
	line, err := w.exchange(sent, r)
	if err != nil {
		w.hangUp() // a late answer must not be taken for that of the next command
		kind := "connection"
		if errors.Is(err, os.ErrDeadlineExceeded) {
			kind = "no reply"
		}
		p.failed(kind, err)
		return control.Answer{}, false
	}
	var answer control.Answer
	if purpose != forRemove {
		answer, err = control.ParseAnswer([]byte(line))
	} else if line != control.ReplyRemoved {
		err = fmt.Errorf("%q is not %q", line, control.ReplyRemoved)
	}
	if err != nil {
		p.failed("refused", fmt.Errorf("%s: %w", purposeNames[purpose], err))
		return control.Answer{}, false
	}
	now := time.Now()
	p.latency[purpose].Add(now.Sub(due))
	p.answered.Add(1)
	if purpose != forRemove {
		p.updates.Add(1)
	}
	w.last = now
	return answer, true
}

func (w *worker) exchange(now time.Time, r control.Request) (line string, err error) {
	if w.conn == nil {
		if w.conn, err = net.DialTimeout("unix", w.p.socket, w.p.patience); err != nil {
			return "", err
		}
		w.in = bufio.NewReaderSize(w.conn, 512)
	}
	if err := w.conn.SetDeadline(now.Add(w.p.patience)); err != nil {
		return "", err
	}
	w.out = control.Append(w.out[:0], r)
	if _, err := w.conn.Write(w.out); err != nil {
		return "", err
	}
	line, err = w.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

func (w *worker) hangUp() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}
