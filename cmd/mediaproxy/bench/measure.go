package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"sync"
	"time"

	"example.org/mediaproxy/cmd/mediaproxy/version"
)

const (
	// calm is how long nothing is done before memory is looked at, so that what the
	// last step left behind is collected or not, as in any other run.
	calm = time.Second
	// settling is how long finished calls may take to be acknowledged and stored
	// after the last command.
	settling = 30 * time.Second
)

// measure runs one measurement from start to end.
func measure(ctx context.Context, s settings, say func(string, ...any)) (result *Result, err error) {
	t, err := openTarget(ctx, s)
	if err != nil {
		return nil, err
	}
	f := newFleet(s.relays, t.connect, t.tls)
	defer func() { // the dispatcher first: it is not to lose its relays before it ends
		f.over.Store(true)
		err = errors.Join(err, t.close())
		f.cut()
	}()
	ctx, cancel := t.guard(ctx)
	defer cancel()
	defer func() {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
	}()
	m := &measurement{s: s, t: t, f: f, r: &Result{
		Version: version.Version, Processors: runtime.NumCPU(), Relays: s.relays, Connections: s.connections, Calls: s.calls,
		UpdatesPerSecond: s.rate, Accounting: s.accounting,
	}}
	if err := m.prepare(ctx, say); err != nil {
		return nil, err
	}
	say("sending %.0f updates/s for %v", s.rate, s.duration)
	p, err := m.load(ctx)
	if err != nil {
		return nil, err
	}
	m.settle(ctx)
	m.sum(p)
	return m.r, ctx.Err()
}

// measurement is one on its way.
type measurement struct {
	s settings
	t *target
	f *fleet
	r *Result
}

// prepare brings the dispatcher to where the load finds it: all relays connected, with
// all their calls.
func (m *measurement) prepare(ctx context.Context, say func(string, ...any)) error {
	m.r.Dispatcher.Idle = m.memory(ctx)
	say("connecting %d relays", m.s.relays)
	began := time.Now()
	if err := m.f.connect(ctx); err != nil {
		return err
	}
	m.r.ConnectSeconds = time.Since(began).Seconds()
	m.r.Dispatcher.Connected = m.memory(ctx)
	m.f.cut()
	m.f.fill(m.s.calls)
	say("connecting them again, with %d calls", m.s.calls)
	began = time.Now()
	if err := m.f.connect(ctx); err != nil {
		return err
	}
	m.r.ReconnectSeconds = time.Since(began).Seconds()
	m.r.Dispatcher.Full = m.memory(ctx)
	if m.t.child != nil { // it has complained of the links that were cut
		m.t.child.forget()
	}
	return nil
}

// memory is what the dispatcher has now; 0 where that is not to be seen.
func (m *measurement) memory(ctx context.Context) int64 {
	await(ctx, calm, func() bool { return false })
	bytes, _ := resident(m.t.pid) // 0 then, and so said in the table
	return bytes
}

// load sends the commands and looks at both processes meanwhile.
func (m *measurement) load(ctx context.Context) (*sipProxy, error) {
	p := &sipProxy{
		socket: m.t.socket, fleet: m.f, patience: m.s.patience, expired: m.s.expired, calls: m.s.calls, workers: m.s.connections,
		every: time.Duration(2 * float64(time.Second) / m.s.rate),
	}
	toRelays, toDispatcher := m.f.traffic()
	before, known := m.processors()
	p.start = time.Now()
	p.end = p.start.Add(m.s.duration)
	var watching sync.WaitGroup
	watched, stop := context.WithCancel(ctx)
	watching.Go(func() { m.f.ping(watched) })
	watching.Go(func() { m.watch(watched) })
	p.run(ctx)
	seconds := time.Since(p.start).Seconds()
	after, _ := m.processors()
	stop()
	watching.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.r.Seconds = seconds
	m.r.Generator.Cores = (after.generator - before.generator).Seconds() / seconds
	if known {
		m.r.Dispatcher.Cores = (after.dispatcher - before.dispatcher).Seconds() / seconds
	}
	r2, d2 := m.f.traffic()
	m.r.LinkBytes = LinkBytes{ToRelays: float64(r2-toRelays) / seconds, ToDispatcher: float64(d2-toDispatcher) / seconds}
	return p, nil
}

// processors is the time that both processes have used.
type processors struct{ dispatcher, generator time.Duration }

func (m *measurement) processors() (p processors, known bool) {
	d, err1 := processorTime(m.t.pid)
	g, err2 := processorTime(os.Getpid())
	return processors{d, g}, err1 == nil && err2 == nil
}

// watch notes the most memory that the dispatcher had.
func (m *measurement) watch(ctx context.Context) {
	for await(ctx, calm, func() bool {
		bytes, _ := resident(m.t.pid)
		m.r.Dispatcher.Most = max(m.r.Dispatcher.Most, bytes)
		return false
	}); ctx.Err() == nil; {
		await(ctx, calm, func() bool { return false })
	}
}

// settle waits until all finished calls are acknowledged, and stored if they are to be.
func (m *measurement) settle(ctx context.Context) {
	await(ctx, settling, func() bool { return m.f.owed() == 0 })
	if m.t.webhook != nil {
		ended := m.f.acks.Count()
		await(ctx, settling, func() bool { return m.t.webhook.count.Load() >= ended })
		m.r.Stored = m.t.webhook.count.Load()
	}
}

// sum puts the figures together.
func (m *measurement) sum(p *sipProxy) {
	r := m.r
	r.Offered, r.Answered, r.ErrorKinds, r.FirstError = p.offered.Load(), p.answered.Load(), maps.Clone(p.errors), p.sample
	n, faults := m.f.faultList()
	if n > 0 {
		r.Faults = faults
	}
	r.Unacknowledged = m.f.owed()
	for _, k := range r.ErrorKinds {
		r.Errors += k
	}
	reached := max(m.s.duration.Seconds(), p.last.Sub(p.start).Seconds())
	r.UpdatesReached = float64(p.updates.Load()) / reached
	all := &Histogram{}
	for i := range p.latency {
		all.Merge(&p.latency[i])
	}
	r.Latency = append(r.Latency, summarise("all", all))
	for i, name := range purposeNames {
		r.Latency = append(r.Latency, summarise(name, &p.latency[i]))
	}
	r.Latency = append(r.Latency, summarise("sent late", &p.late), summarise("acknowledged", &m.f.acks))
	r.CallsGiven = m.f.spread()
	r.Dispatcher.Most = max(r.Dispatcher.Most, r.Dispatcher.Full)
	r.Dispatcher.PerRelay = max(0, r.Dispatcher.Connected-r.Dispatcher.Idle) / int64(m.s.relays)
	r.Dispatcher.PerCall = max(0, r.Dispatcher.Most-r.Dispatcher.Connected) / int64(m.s.calls)
	if c := m.t.child; c != nil {
		r.Dispatcher.Warnings, r.Dispatcher.Errors = c.warnings.Load(), c.errors.Load()
		r.DispatcherSaid = c.tail()
	}
}

// sound says why a measurement does not count as carried; empty: it does.
func (r *Result) sound() string {
	p99 := r.Latency[0].P99
	switch {
	case r.Errors > 0:
		return fmt.Sprintf("%d errors: %s", r.Errors, r.FirstError)
	case len(r.Faults) > 0:
		return r.Faults[0]
	case r.Unacknowledged > 0:
		return fmt.Sprintf("%d finished calls were not acknowledged", r.Unacknowledged)
	case p99 >= carried.Seconds()*1000:
		return fmt.Sprintf("p99 %.0f ms", p99)
	}
	return ""
}
