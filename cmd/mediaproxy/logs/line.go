package logs

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// line prints records as `message name=value ...`, for destinations that add time and
// level themselves. Attributes are printed by slog's own text handler.
type line struct {
	level slog.Leveler
	attrs slog.Handler
	out   *buffer // what attrs writes to
}

// buffer belongs to a line and everything derived from it.
type buffer struct {
	mu    sync.Mutex // guards bytes
	bytes bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { return b.bytes.Write(p) }

func newLine(level slog.Leveler) line {
	out := new(buffer)
	options := &slog.HandlerOptions{
		Level: slog.Level(-1 << 20), // Enabled of the outer handler decides
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.TimeKey || a.Key == slog.MessageKey) {
				return slog.Attr{}
			}
			return a
		},
	}
	return line{level: level, attrs: slog.NewTextHandler(out, options), out: out}
}

func (l line) enabled(level slog.Level) bool { return level >= l.level.Level() }

// print renders one record.
func (l line) print(ctx context.Context, r slog.Record) string {
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	l.out.bytes.Reset()
	// The copy has no time, and its message is left out by ReplaceAttr.
	bare := slog.NewRecord(time.Time{}, r.Level, "", 0)
	r.Attrs(func(a slog.Attr) bool { bare.AddAttrs(a); return true })
	_ = l.attrs.Handle(ctx, bare) // a bytes.Buffer takes everything
	return strings.TrimSpace(r.Message + " " + strings.TrimSpace(l.out.bytes.String()))
}

func (l line) withAttrs(attrs []slog.Attr) line {
	l.attrs = l.attrs.WithAttrs(attrs)
	return l
}

func (l line) withGroup(name string) line {
	l.attrs = l.attrs.WithGroup(name)
	return l
}
