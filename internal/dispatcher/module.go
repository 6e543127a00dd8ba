package dispatcher

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"example.org/mediaproxy/internal/wire/control"
)

// requestError is a request that cannot be read. Its cause says where.
type requestError struct{ cause error }

func (e *requestError) Error() string { return e.cause.Error() }
func (e *requestError) Unwrap() error { return e.cause }

var errUnknownCommand = errors.New("unknown command")

// replyTimeout bounds the write of a reply to a module that does not read.
const replyTimeout = 5 * time.Second

// moduleConns are the open connections of the SIP proxy's processes.
type moduleConns struct {
	mu       sync.Mutex // guards what follows
	open     map[net.Conn]struct{}
	stopping bool
}

func (m *moduleConns) add(c net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return false
	}
	m.open[c] = struct{}{}
	return true
}

func (m *moduleConns) remove(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, c)
}

// stop makes idle connections end now and busy ones after their reply: it only
// takes the reading away from them.
func (m *moduleConns) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	for c := range m.open {
		c.SetReadDeadline(time.Unix(1, 0))
	}
}

// serveModule answers one process of the SIP proxy, request by request.
func (d *Dispatcher) serveModule(ctx context.Context, conn net.Conn) {
	if !d.modules.add(conn) {
		return
	}
	defer d.modules.remove(conn)
	d.count.modules.Add(1)
	defer d.count.modules.Add(-1)
	var buf, reply []byte
	chunk := make([]byte, 8192) // what the modules' longest request fits
	for {
		req, n, err := control.Parse(buf, control.MaxLine)
		switch {
		case errors.Is(err, control.ErrIncomplete):
			read, err := conn.Read(chunk)
			if read > 0 {
				buf = append(buf, chunk[:read]...)
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
				d.log.Debug("module's connection ended", "reason", err)
			}
			return
		case errors.Is(err, control.ErrTooLong):
			d.count.badRequests.Add(1)
			d.count.errors.Add(1)
			d.log.Warn("request of the SIP proxy refused, connection closed: where the next one starts is unknown",
				"reason", err, "limit", control.MaxLine, "start", clip(buf))
			d.reply(conn, append(reply[:0], "error\r\n"...))
			return
		}
		reply = append(append(reply[:0], d.request(ctx, req, err)...), '\r', '\n')
		if buf = append(buf[:0], buf[n:]...); len(buf) == 0 && cap(buf) > keepBuffer {
			buf = nil
		}
		if !d.reply(conn, reply) {
			d.log.Info("SIP proxy closed its connection before the reply", "command", req.Command, "reply", clip(reply))
			return
		}
		if d.isStopping() {
			return
		}
	}
}

// reply writes a whole reply at once: the modules look for its end only in the
// newest piece they read.
func (d *Dispatcher) reply(conn net.Conn, line []byte) bool {
	conn.SetWriteDeadline(time.Now().Add(replyTimeout))
	_, err := conn.Write(line)
	return err == nil
}

// request serves one request and returns its reply, always one word or line.
func (d *Dispatcher) request(ctx context.Context, req control.Request, syntax error) string {
	reply, err := d.handle(ctx, req, syntax)
	if err == nil {
		return reply
	}
	d.count.errors.Add(1)
	callID, _ := req.Get("call_id")
	var bad *requestError
	switch {
	case errors.As(err, &bad):
		d.count.badRequests.Add(1)
		d.log.Warn("request of the SIP proxy cannot be read", "command", clip([]byte(req.Command)), "call_id", callID, "reason", err)
	case errors.Is(err, errUnknownCall) && req.Command == control.CommandRemove:
		// Usual after a call that expired here, or never had media.
		d.log.Debug("remove of a call that is not known", "call_id", callID)
	default:
		d.log.Warn("request of the SIP proxy answered error", "command", req.Command, "call_id", callID, "reason", err)
	}
	return control.ReplyError
}

func (d *Dispatcher) handle(ctx context.Context, req control.Request, syntax error) (reply string, err error) {
	callID, _ := req.Get("call_id")
	defer d.recovered("request "+clip([]byte(req.Command)), callID, &err)
	if syntax != nil {
		return "", &requestError{syntax}
	}
	switch req.Command {
	case control.CommandUpdate:
		return d.update(ctx, req.Headers)
	case control.CommandRemove:
		return d.remove(ctx, req.Headers, false)
	}
	return "", &requestError{errUnknownCommand}
}
