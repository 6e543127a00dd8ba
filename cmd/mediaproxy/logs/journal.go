package logs

import (
	"context"
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// journalHandler sends records to the journal. Attributes stand in the message, and
// those outside of groups are fields of their own too: `journalctl CALL_ID=...` finds
// all that was said about a call.
type journalHandler struct {
	line
	fields  map[string]string // read-only; set by WithAttrs
	grouped bool
	send    func(message string, priority journal.Priority, fields map[string]string) error
}

func newJournal(o Options) (slog.Handler, bool) {
	if !journal.Enabled() {
		return nil, false
	}
	fields := map[string]string{"SYSLOG_IDENTIFIER": o.Program}
	return journalHandler{line: newLine(o.Level), fields: fields, send: journal.Send}, true
}

func (h journalHandler) Enabled(_ context.Context, level slog.Level) bool { return h.enabled(level) }

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	fields := make(map[string]string, len(h.fields)+r.NumAttrs())
	for name, value := range h.fields {
		fields[name] = value
	}
	if !h.grouped {
		r.Attrs(func(a slog.Attr) bool { addField(fields, a); return true })
	}
	return h.send(h.print(ctx, r), priority(r.Level), fields)
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if !h.grouped {
		fields := make(map[string]string, len(h.fields)+len(attrs))
		for name, value := range h.fields {
			fields[name] = value
		}
		for _, a := range attrs {
			addField(fields, a)
		}
		h.fields = fields
	}
	h.line = h.withAttrs(attrs)
	return h
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.grouped = true
		h.line = h.withGroup(name)
	}
	return h
}

// addField names a field as the journal wants it: capitals, digits and underscores,
// a letter first. Its own fields cannot be overwritten.
func addField(fields map[string]string, a slog.Attr) {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, a.Key)
	name = strings.TrimLeft(name, "_0123456789")
	switch name {
	case "", "MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER":
		return
	}
	fields[name] = a.Value.Resolve().String()
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level > slog.LevelError:
		return journal.PriCrit
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
