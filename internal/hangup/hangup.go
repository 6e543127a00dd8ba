// Package hangup asks a SIP proxy to end the dialog of a call whose media is over, so
// that nobody pays for silence.
//
//	End ─▶ waits its turn ─▶ one command after the other until the proxy knows the dialog ─▶ log
//	                            ▲ nobody answered, or the proxy failed: again, later
//
// Nothing waits for it: the proxy removes the call from the dispatcher before it answers
// here.
package hangup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/wire/mi"
)

// Dialect is what a SIP proxy calls its commands.
type Dialect string

const (
	Auto     Dialect = "auto" // by the form of a dialog's id
	OpenSIPS Dialect = "opensips"
	Kamailio Dialect = "kamailio"
)

// Config of a Hangup. Zero values mean the defaults.
type Config struct {
	Dialect Dialect
	// Sockets of the SIP proxy, absolute paths or udp:IP:PORT: the first that is there
	// when a dialog is to be ended.
	Sockets []string
	// Local is the path of our own socket, to which the proxy answers.
	Local string
	// GID is the group that may write to it, if Group.
	GID   int
	Group bool

	Answer  time.Duration // for one command, 3 s
	Tries   int           // with every form of the dialog, 5
	Backoff time.Duration // after the first try, then twice as long each time, 1 s
	AtOnce  int           // dialogs that are being ended, 8
	Waiting int           // dialogs that may wait, 100,000
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		value *time.Duration
		to    time.Duration
	}{{&c.Answer, 3 * time.Second}, {&c.Backoff, time.Second}} {
		if *d.value == 0 {
			*d.value = d.to
		}
	}
	for _, n := range []struct {
		value *int
		to    int
	}{{&c.Tries, 5}, {&c.AtOnce, 8}, {&c.Waiting, 100_000}} {
		if *n.value == 0 {
			*n.value = n.to
		}
	}
	if c.Dialect == "" {
		c.Dialect = Auto
	}
}

// Dialog is an answered call as its SIP proxy knows it.
type Dialog struct {
	CallID, FromTag, ToTag string
	ID                     string // as the proxy's module sent it
}

// Stats since the start.
type Stats struct {
	Ended   uint64 // dialogs that the proxy ended
	Unknown uint64 // dialogs that the proxy did not have
	Failed  uint64 // given up
	Waiting int    // now
}

// Hangup ends dialogs until Close.
type Hangup struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	line   *line
	turns  chan struct{}
	wg     sync.WaitGroup

	preferred              atomic.Int32 // of the forms of OpenSIPS: the one that it knew last
	ended, unknown, failed atomic.Uint64

	mu      sync.Mutex // guards what follows
	waiting int
	closed  bool
}

// New opens nothing yet: a SIP proxy may start later.
func New(cfg Config, log *slog.Logger) *Hangup {
	cfg.setDefaults()
	h := &Hangup{cfg: cfg, log: log, line: newLine(cfg, log), turns: make(chan struct{}, cfg.AtOnce)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// End has the dialog ended soon. It returns at once.
func (h *Hangup) End(d Dialog) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if h.waiting >= h.cfg.Waiting {
		h.failed.Add(1)
		h.log.Error("a dialog is not ended: too many wait for the SIP proxy", "call_id", d.CallID, "waiting", h.waiting)
		return
	}
	h.waiting++
	h.wg.Go(func() {
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.waiting--
		}()
		h.end(d)
	})
}

// Close forgets what waits.
func (h *Hangup) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.wg.Wait()
	return h.line.close()
}

// Stats counts.
func (h *Hangup) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{Ended: h.ended.Load(), Unknown: h.unknown.Load(), Failed: h.failed.Load(), Waiting: h.waiting}
}

// outcome of one try.
type outcome uint8

const (
	done    outcome = iota
	unknown         // the proxy has no such dialog, by none of its names
	broken          // nobody answered, or the proxy could not do it
)

// end tries until the proxy has decided.
func (h *Hangup) end(d Dialog) {
	pause := h.cfg.Backoff
	for try := 1; ; try++ {
		how, err := h.try(d)
		log := h.log.With("call_id", d.CallID, "dialog_id", d.ID, "tries", try)
		switch {
		case h.ctx.Err() != nil:
			return
		case how == done:
			h.ended.Add(1)
			log.Info("dialog ended by the SIP proxy")
			return
		case how == unknown:
			h.unknown.Add(1)
			log.Warn("the SIP proxy has no such dialog; it is over, or goes on without media", "error", err)
			return
		case try == h.cfg.Tries:
			h.failed.Add(1)
			log.Error("dialog not ended, the call goes on without media", "error", err, "hint", h.hint(err))
			return
		}
		log.Debug("dialog not ended yet", "error", err, "again_after", pause)
		select {
		case <-h.ctx.Done():
			return
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// try says the dialog's names one after the other, until the proxy knows one.
func (h *Hangup) try(d Dialog) (outcome, error) {
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	case <-h.ctx.Done():
		return broken, h.ctx.Err()
	}
	how, reasons := unknown, []error{}
	for _, f := range h.forms(d) {
		reply, err := h.line.ask(h.ctx, f.method, f.params)
		switch {
		case err != nil:
			return broken, err // the next one would fare no better
		case reply.Done():
			if f.index >= 0 {
				h.preferred.Store(int32(f.index))
			}
			return done, nil
		case !f.isUnknown(reply):
			how = broken
		}
		reasons = append(reasons, refusal{f.method, reply})
	}
	if len(reasons) == 0 {
		return unknown, errors.New("the dialog has no name that the SIP proxy could know; dialect in section [Hangup] has to be that of the proxy")
	}
	return how, errors.Join(reasons...)
}

// refusal is what a proxy said instead of doing it.
type refusal struct {
	method string
	reply  mi.Reply
}

func (r refusal) Error() string {
	return fmt.Sprintf("%s: %d %s", r.method, r.reply.Code, r.reply.Message)
}
