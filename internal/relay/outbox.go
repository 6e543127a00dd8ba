package relay

import (
	"errors"
	"io"
	"sync"
)

// keptBuffer is the largest buffer the writer keeps for the next lines.
const keptBuffer = 256 << 10

var errBacklog = errors.New("dispatcher does not read: too much waits to be written")

// outbox collects lines for one connection. Everything that waits is written
// in one piece by a single writer goroutine, so hundreds of answers to a burst
// of commands cost one system call.
type outbox struct {
	// set in newOutbox, read-only afterwards
	limit int           // see Config.MaxBacklog
	wake  chan struct{} // capacity 1: something changed

	mu     sync.Mutex // guards what follows
	buf    []byte     // waiting
	writes int        // bytes now in the hands of the writer
	spare  []byte     // for the next swap
	closed bool       // nothing more is taken; what waits is still written
	err    error      // first failure
}

func newOutbox(limit int) *outbox { return &outbox{limit: limit, wake: make(chan struct{}, 1)} }

// add queues whole lines. They are not written before flush is called, which
// lets the reader answer a batch of commands at once.
func (o *outbox) add(lines []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err != nil:
		return o.err
	case o.closed:
		return io.ErrClosedPipe
	case len(o.buf)+o.writes > o.limit:
		o.err = errBacklog
		o.buf = nil
		return o.err
	}
	o.buf = append(o.buf, lines...)
	return nil
}

// flush wakes the writer.
func (o *outbox) flush() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// close lets the writer finish what waits and then return.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.flush()
}

// writeTo writes until close or the first failure, which it returns.
func (o *outbox) writeTo(w io.Writer) error {
	for {
		b, more := o.swap()
		if len(b) > 0 {
			if _, err := w.Write(b); err != nil {
				return o.fail(err)
			}
			continue
		}
		if !more {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.err
		}
		<-o.wake
	}
}

// swap hands what waits to the writer.
func (o *outbox) swap() (b []byte, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b = o.buf
	o.buf, o.spare = o.spare[:0], nil
	if cap(b) <= keptBuffer {
		o.spare = b
	}
	o.writes = len(b)
	return b, !o.closed && o.err == nil
}

func (o *outbox) fail(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.buf, o.writes = nil, 0
	return o.err
}

// backlog returns how many bytes wait.
func (o *outbox) backlog() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.buf) + o.writes
}
