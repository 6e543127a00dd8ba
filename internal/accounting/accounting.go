// Package accounting hands finished calls to those who bill, count or search them, one
// back-end beside the other.
//
//	Finished ─▶ outbox, durable ─▶ a queue for each back-end ─▶ Store, again until it is stored
//
// A back-end that is away delays nobody else; what waits for it survives restarts.
package accounting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/state"
)

// Backend is one place where finished calls are stored. To add one: implement this, and
// list it in backends.go.
type Backend interface {
	// Store is called again with the same record until it returns nil, also by the next
	// process: what is stored already has to be told by its ID. An error should say what
	// an operator can do.
	Store(ctx context.Context, r Record) error
	Close() error
}

// Batcher is a Backend that can store several records at once: all, or none and an error.
// Then each comes again alone.
type Batcher interface {
	StoreAll(ctx context.Context, records []Record) error
}

// Record is one finished call.
type Record struct {
	ID      string         // of this call, of all; a partial one has another than the full one
	JSON    []byte         // the document, as readers of the original know it, with more members
	Session report.Session // the same
	Added   time.Time      // when the call's end was reported
	Tries   int            // this one included
}

// Outbox is what keeps records until they are stored.
type Outbox interface {
	Add(ctx context.Context, id string, data []byte, receivers ...string) error
	Receive(ctx context.Context, receiver string, h state.Handler) error
	Queue(ctx context.Context, receiver string) (state.Queue, error)
	Receivers(ctx context.Context) (map[string]uint64, error)
}

// Accounting is at work between New and Close.
type Accounting struct {
	outbox Outbox
	log    *slog.Logger
	cancel context.CancelFunc
	wg     sync.WaitGroup

	names    []string
	backends map[string]*worker
}

// worker is one back-end at work.
type worker struct {
	Backend
	name string

	mu      sync.Mutex // guards what follows
	stored  uint64
	failed  uint64 // tries
	lastErr string
	lastAt  time.Time
}

// New starts the back-ends. What waits for one that is not among them is said, and stays.
func New(backends map[string]Backend, outbox Outbox, log *slog.Logger) *Accounting {
	ctx, cancel := context.WithCancel(context.Background())
	a := &Accounting{outbox: outbox, log: log, cancel: cancel, backends: map[string]*worker{}}
	for name, b := range backends {
		w := &worker{Backend: b, name: name}
		a.backends[name] = w
		a.names = append(a.names, name)
		a.wg.Go(func() { a.work(ctx, w) })
	}
	slices.Sort(a.names)
	a.sayForgotten(ctx)
	return a
}

// sayForgotten warns of records that nobody takes.
func (a *Accounting) sayForgotten(ctx context.Context) {
	waiting, err := a.outbox.Receivers(ctx)
	if err != nil {
		a.log.Warn("what waits in the outbox is not known", "error", err)
	}
	for name, n := range waiting {
		if a.backends[name] == nil {
			a.log.Warn("finished calls wait for a back-end that is not configured", "backend", name, "records", n,
				"hint", "name it in accounting, section [Dispatcher], until they are stored")
		}
	}
}

// work stores records until the end; a queue that breaks is opened again.
func (a *Accounting) work(ctx context.Context, w *worker) {
	h := state.Handler{One: w.store}
	if _, ok := w.Backend.(Batcher); ok {
		h.Many = w.storeAll
	}
	for ctx.Err() == nil {
		err := a.outbox.Receive(ctx, w.name, h)
		if err == nil {
			return
		}
		a.log.Error("the queue of a back-end is interrupted", "backend", w.name, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// store gives one record to the back-end.
func (w *worker) store(ctx context.Context, r state.Record) (err error) {
	defer func() { w.note(err, 1) }()
	defer survive(&err)
	record, err := read(r)
	if err != nil {
		return err
	}
	return w.Store(ctx, record)
}

// storeAll gives several to a Batcher. What is wrong is noted when they come alone.
func (w *worker) storeAll(ctx context.Context, list []state.Record) (err error) {
	defer survive(&err)
	records := make([]Record, len(list))
	for i, r := range list {
		if records[i], err = read(r); err != nil {
			return err
		}
	}
	if err = w.Backend.(Batcher).StoreAll(ctx, records); err == nil {
		w.note(nil, len(records))
	}
	return err
}

// survive turns a bug of a back-end into an error like any other.
func survive(err *error) {
	if bug := recover(); bug != nil {
		*err = fmt.Errorf("a bug was met, please report it: %v", bug)
	}
}

func read(r state.Record) (Record, error) {
	record := Record{ID: r.ID, JSON: r.Data, Added: r.Added, Tries: r.Tries}
	if err := json.Unmarshal(r.Data, &record.Session); err != nil {
		return record, fmt.Errorf("the record cannot be read: %w", err)
	}
	return record, nil
}

func (w *worker) note(err error, records int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.stored += uint64(records)
		return
	}
	w.failed++
	w.lastErr, w.lastAt = err.Error(), time.Now()
}

// Finished keeps a finished call for all back-ends. It returns nil once the call is
// durable, or if there is nothing to account: nobody answered it.
func (a *Accounting) Finished(s report.Session) error {
	if s.StartTime == nil || len(a.names) == 0 {
		return nil
	}
	doc, err := json.Marshal(document(s))
	if err != nil {
		return fmt.Errorf("write the document of a finished call: %w", err)
	}
	id := s.RecordID
	if s.Partial { // the full one that may come later is not the same
		id += partial
	}
	return a.outbox.Add(context.Background(), id, doc, a.names...)
}

// accounted is the document of a finished call: that of relays, and what dispatchers of
// the original add to it.
type accounted struct {
	report.Session
	TimedOut      bool    `json:"timed_out"`
	DialogID      *string `json:"dialog_id"`
	AllStreamsICE *bool   `json:"all_streams_ice,omitempty"` // not of calls that somebody hung up
}

// partial is what the id of a partial record ends in.
const partial = "-partial"

func document(s report.Session) accounted {
	a := accounted{Session: s, TimedOut: s.TimedOut()}
	if s.DialogID != "" {
		a.DialogID = &s.DialogID
	}
	if s.Reason != report.ReasonRemoved {
		ice := s.AllStreamsICE()
		a.AllStreamsICE = &ice
	}
	return a
}

// Status of all back-ends, by name.
func (a *Accounting) Status(ctx context.Context) ([]report.Backend, error) {
	list := []report.Backend{}
	for _, name := range a.names {
		q, err := a.outbox.Queue(ctx, name)
		if err != nil {
			return nil, err
		}
		w := a.backends[name]
		w.mu.Lock()
		s := report.Backend{Name: name, Waiting: q.Waiting, Stored: w.stored, Failed: w.failed, LastError: w.lastErr}
		if !w.lastAt.IsZero() {
			s.LastErrorAge = time.Since(w.lastAt).Seconds()
		}
		w.mu.Unlock()
		if !q.Oldest.IsZero() {
			s.OldestAge = time.Since(q.Oldest).Seconds()
		}
		list = append(list, s)
	}
	return list, nil
}

// Close leaves to the next process what is not stored yet.
func (a *Accounting) Close() error {
	a.cancel()
	a.wg.Wait()
	var errs []error
	for _, w := range a.backends {
		errs = append(errs, w.Close())
	}
	return errors.Join(errs...)
}
