// Package logs makes the one logger of a program: text or JSON on the terminal, the
// journal under systemd, syslog in the background.
//
// All of them take the same records. An attribute call_id, which every record about a
// call has, stays a field where the destination has fields.
package logs

import (
	"fmt"
	"io"
	"log/slog"
)

// Destination is where log records go.
type Destination uint8

const (
	Terminal Destination = iota
	Journal              // falls back to the terminal where there is no journal
	Syslog               // for programs in the background
)

// Options of Open.
type Options struct {
	Destination Destination
	Program     string       // the name under which syslog files records
	JSON        bool         // on the terminal: one object per line
	Level       slog.Leveler // may change while the program runs
	Stderr      io.Writer    // the terminal
}

// Open returns the logger. The error says that the destination is not there and where
// records go instead; the logger is good all the same.
func Open(o Options) (*slog.Logger, error) {
	switch o.Destination {
	case Journal:
		if h, ok := newJournal(o); ok {
			return slog.New(h), nil
		}
		return slog.New(terminal(o)), fmt.Errorf("no journal answers on this host: log records go to the terminal")
	case Syslog:
		h := newSyslog(o)
		return slog.New(h), h.connect()
	}
	return slog.New(terminal(o)), nil
}

func terminal(o Options) slog.Handler {
	options := &slog.HandlerOptions{Level: o.Level}
	if o.JSON {
		return slog.NewJSONHandler(o.Stderr, options)
	}
	return slog.NewTextHandler(o.Stderr, options)
}
