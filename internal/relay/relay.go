package relay

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/report"
)

// Relay talks to dispatchers on behalf of one table of calls.
type Relay struct {
	// set in New, read-only afterwards
	cfg     Config
	calls   Calls
	media   Media
	log     *slog.Logger
	records *records
	started time.Time
	poke    chan struct{} // capacity 1: Run has to look whether it may end
	stop    chan bool     // capacity 2: Stop was called; whether calls end
	hurry   chan struct{} // closed by a Stop after the one that decided

	admission admission
	traffic   traffic
	own       ownPackets
	count     counters
	noise     noise
	dirty     atomic.Bool // calls ended and were not yet reported
	stopping  atomic.Bool
	ending    atomic.Int64   // commands under way that may end calls
	running   sync.WaitGroup // links and the resolver loop

	mu      sync.Mutex // guards what follows; never held together with another lock
	choices []*choice  // one per entry of Dispatchers
	links   map[netip.AddrPort]*link
	linkCtx context.Context // of all links; nil: not running
	leaving bool            // Stop was called
	decided bool            // and will not be decided otherwise
	hurried bool            // hurry is closed
}

// New checks the configuration and returns a relay that does nothing until
// Run. Calls and media must outlive it.
func New(cfg Config, calls Calls, media Media, log *slog.Logger) (*Relay, error) {
	cfg, targets, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	r := &Relay{
		cfg: cfg, calls: calls, media: media, log: orDiscard(log),
		records: newRecords(cfg.MaxRecords, cfg.RepeatInterval),
		started: cfg.Now(),
		poke:    make(chan struct{}, 1), stop: make(chan bool, 2), hurry: make(chan struct{}),
		links: make(map[netip.AddrPort]*link),
	}
	for _, t := range targets {
		r.choices = append(r.choices, &choice{target: t})
	}
	r.finished(cfg.Pending)
	return r, nil
}

// Run serves until Stop, until a drain by Drain has seen its last call end, or
// until ctx ends, which is the same as Stop(true). It returns nil when it left
// in good order and an error when reports of finished calls were lost.
func (r *Relay) Run(ctx context.Context) error {
	// The links outlive ctx: they carry the last reports.
	links, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.mu.Lock()
	r.linkCtx = links
	r.mu.Unlock()
	if len(r.choices) == 0 {
		r.log.Error("no dispatchers are configured, the relay idles; set dispatchers in section [Relay]")
	}
	r.running.Go(func() { r.resolveLoop(links) })
	r.running.Go(func() { r.flushLoop(links) })
	defer r.running.Wait()
	defer cancel()

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	r.traffic.start(r.cfg.Now(), r.media.BytesRelayed())
	for {
		select {
		case <-ctx.Done():
			return r.leave(true, r.cfg.StopWait, tick)
		case end := <-r.stop:
			if !end {
				return r.handOver(tick)
			}
			return r.leave(true, r.cfg.StopWait, tick)
		case <-r.poke:
		case <-tick.C:
			r.tick()
		}
		if r.admission.closeIfDrained(r.idle) {
			r.log.Info("drained: the last call has ended")
			return r.leave(false, r.cfg.DrainWait, tick)
		}
	}
}

// Stop makes Run return. With end, all calls end now and are reported. Without, they are
// left to the next process: everything goes on for KeepWait, in which a Stop with end
// decides otherwise. Any further Stop ends the waiting.
func (r *Relay) Stop(end bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.decided && (end || !r.leaving):
		r.leaving, r.decided = true, end
		r.stop <- end
	case !r.hurried:
		r.hurried = true
		close(r.hurry)
	}
}

// wake makes Run look whether it may end.
func (r *Relay) wake() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// leave ends calls if asked to, and waits until the reports are acknowledged.
// It gives up when none was for the time wait, and in any case after ten times
// that: a dispatcher that needs a while for thousands of them gets it.
func (r *Relay) leave(end bool, wait time.Duration, tick *time.Ticker) error {
	r.stopping.Store(true)
	r.admission.close() // from here on no call is created
	r.announce()
	if end {
		ended := r.calls.EndAll(report.ReasonShutdown)
		r.log.Info("stopping, all calls end", "sessions", len(ended))
		r.finished(ended)
	}
	r.dirty.Store(true) // also what waited for an owner that is away
	last := time.NewTimer(10 * wait)
	defer last.Stop()
	stalled := time.NewTimer(wait)
	defer stalled.Stop()
	for fewest := math.MaxInt; ; {
		r.deliverPending()
		ending := r.ending.Load() // before the count: see idle
		waiting, _ := r.records.counts()
		if waiting == 0 && ending == 0 {
			return nil
		}
		if waiting < fewest {
			fewest = waiting
			stalled.Reset(wait)
		}
		select {
		case <-r.poke:
		case <-tick.C:
			r.dirty.Store(true) // a link may have come back
		case <-r.hurry:
			return r.lost(waiting)
		case <-stalled.C:
			return r.lost(waiting)
		case <-last.C:
			return r.lost(waiting)
		}
	}
}

// handOver leaves the calls to the next process. Nobody notices before it ends: until
// then commands and packets are served as ever.
func (r *Relay) handOver(tick *time.Ticker) error {
	if !r.nothingLeft() {
		r.log.Info("stopping, the next process gets the calls; stop once more to end them", "sessions", r.calls.Len(), "in", r.cfg.KeepWait)
	}
	wait := time.NewTimer(r.cfg.KeepWait)
	defer wait.Stop()
	for waiting := true; waiting && !r.nothingLeft(); {
		select {
		case <-r.stop: // with end, see Stop
			return r.leave(true, r.cfg.StopWait, tick)
		case <-r.hurry:
			waiting = false
		case <-wait.C:
			waiting = false
		case <-r.poke:
		case <-tick.C:
			r.tick()
		}
	}
	r.admission.close() // a call that is answered from here on would not be kept
	r.calls.Flush(true)
	reports, _ := r.records.counts()
	r.log.Info("stopped, the next process gets the calls", "sessions", r.calls.Len(), "unacknowledged_reports", reports)
	return nil
}

// nothingLeft says that there is nothing to hand over.
func (r *Relay) nothingLeft() bool {
	idle := r.idle() // before the count: see there
	waiting, _ := r.records.counts()
	return idle && waiting == 0
}

func (r *Relay) lost(waiting int) error {
	if r.cfg.Durable {
		r.log.Warn("stopped before a dispatcher acknowledged all finished calls; they are reported after the next start", "unacknowledged_reports", waiting)
		return nil
	}
	r.log.Error("stopped before a dispatcher acknowledged all finished calls", "lost", waiting)
	return errLost
}

var errLost = errors.New("reports of finished calls were lost: no dispatcher acknowledged them in time")

// tick is what happens once a second.
func (r *Relay) tick() {
	defer r.survive()
	expired := r.calls.Sweep()
	for _, f := range expired { // said here too: the dispatcher may be away
		r.log.Info("call over", "call_id", f.Report.CallID, "reason", f.Report.Reason, "owner", f.Owner)
	}
	r.finished(expired)
	r.sample()
	r.noise.flush(r.log)
	r.retire()
	r.dirty.Store(true) // repeats may be due
	r.deliverPending()
}

// survive, deferred, keeps a bug in periodic work from ending the calls.
func (r *Relay) survive() {
	if bug := recover(); bug != nil {
		r.count.panics.Add(1)
		r.log.Error("a bug was met in the periodic work; calls go on, please report it", "panic", bug)
	}
}

// flushEvery is how much of what packets changed a killed process may lose.
const flushEvery = 50 * time.Millisecond

// flushLoop keeps what packets changed, away from their path.
func (r *Relay) flushLoop(ctx context.Context) {
	if !r.cfg.Durable {
		return
	}
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.flush()
		}
	}
}

func (r *Relay) flush() {
	defer r.survive()
	r.calls.Flush(false)
}
