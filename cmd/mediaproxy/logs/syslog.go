package logs

import (
	"context"
	"errors"
	"log/slog"
	"log/syslog"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// syslogHandler sends records to the syslog of this host.
type syslogHandler struct {
	line
	conn *syslogConn
}

// syslogConn is shared by a handler and all derived from it.
type syslogConn struct {
	program string
	dial    func(program string) (*syslog.Writer, error)

	mu sync.Mutex     // guards w
	w  *syslog.Writer // nil: not connected yet
}

var errNoSyslog = errors.New("no syslog answers on this host: log records are lost until one does (--systemd logs to the journal, --no-fork to the terminal)")

func newSyslog(o Options) syslogHandler {
	dial := func(program string) (*syslog.Writer, error) {
		return syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, program)
	}
	return syslogHandler{line: newLine(o.Level), conn: &syslogConn{program: o.Program, dial: dial}}
}

// connect finds out whether somebody listens. A later record tries again.
func (h syslogHandler) connect() error {
	return h.conn.with(func(*syslog.Writer) error { return nil })
}

func (c *syslogConn) with(use func(*syslog.Writer) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w == nil {
		w, err := c.dial(c.program)
		if err != nil {
			return errNoSyslog
		}
		c.w = w
	}
	return use(c.w)
}

func (h syslogHandler) Enabled(_ context.Context, level slog.Level) bool { return h.enabled(level) }

func (h syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	text := h.print(ctx, r)
	return h.conn.with(func(w *syslog.Writer) error {
		switch priority(r.Level) {
		case journal.PriCrit:
			return w.Crit(text)
		case journal.PriErr:
			return w.Err(text)
		case journal.PriWarning:
			return w.Warning(text)
		case journal.PriInfo:
			return w.Info(text)
		}
		return w.Debug(text)
	})
}

func (h syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.line = h.withAttrs(attrs)
	return h
}

func (h syslogHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.line = h.withGroup(name)
	}
	return h
}
