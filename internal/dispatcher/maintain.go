package dispatcher

import (
	"errors"
	"time"
)

const (
	// maintainEvery is the clock of everything that is not urgent.
	maintainEvery = time.Second
	// verifyEvery is when calls are cleaned up, and compared with relays that
	// need not tell us how a call ended.
	verifyEvery = 600 * time.Second
	// retryEvery is when finished calls of old relays are handed over again that
	// were not taken.
	retryEvery = 10 * time.Second
)

// maintainLoop runs maintain until the dispatcher stops.
func (d *Dispatcher) maintainLoop() {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		select {
		case <-d.stopping:
			return
		case <-ticker.C:
			d.maintainSafely()
		}
	}
}

func (d *Dispatcher) maintainSafely() {
	defer d.recovered("maintenance", "", nil)
	d.maintaining.Lock()
	defer d.maintaining.Unlock()
	d.maintain(d.cfg.Now())
}

// maintain does what is due at this time.
func (d *Dispatcher) maintain(now time.Time) {
	for _, l := range d.registry.links() {
		d.watch(l, now)
	}
	d.forgetDead(now)
	d.payOwed(now)
	d.unheard.forget(now)
	d.keepLostSoon()
	if now.Sub(d.lastRetry) >= retryEvery {
		d.lastRetry = now
		d.running.Go(d.retryFinished)
	}
	if now.Sub(d.lastVerifyPass) >= verifyEvery {
		d.lastVerifyPass = now
		d.forgetExpired(now)
		d.verifyUnsure()
	}
}

// watch marks a relay that leaves commands unanswered, and drops the connection
// of one that does not even ping.
func (d *Dispatcher) watch(l *link, now time.Time) {
	if n := l.overdue(now, d.cfg.RelayTimeout); n > 0 {
		d.count.relayTimeouts.Add(uint64(n))
		l.log.Warn("relay does not answer, it gets no new calls until it pings", "commands", n, "timeout", d.cfg.RelayTimeout)
		d.registry.change(l, func(r *relayState) {
			if r.timedOut.IsZero() {
				r.timedOut = now
			}
		})
	}
	dead := false
	d.registry.change(l, func(r *relayState) {
		dead = !r.timedOut.IsZero() && now.Sub(r.timedOut) >= d.cfg.RelayRecoverInterval
	})
	if dead {
		l.close(errors.New("relay did not answer and did not ping either"))
	}
}

// forgetDead drops relays that are gone for long, and their calls.
func (d *Dispatcher) forgetDead(now time.Time) {
	for _, r := range d.registry.forgetDead(now.Add(-d.cfg.CleanupDeadRelaysAfter)) {
		calls := d.calls.of(r, func(c *callState) bool { return c.placing == nil })
		for _, c := range calls {
			if left, ok := d.calls.abandon(c); ok {
				d.owe(left, r.lastSeen(d.registry))
			}
		}
		d.log.Warn("relay forgotten", "relay", r.name, "away", d.cfg.CleanupDeadRelaysAfter, "calls", len(calls))
	}
}

// forgetExpired drops calls for whose end the SIP proxy was waited in vain.
func (d *Dispatcher) forgetExpired(now time.Time) {
	before := now.Add(-d.cfg.CleanupExpiredSessionsAfter)
	calls := d.calls.snapshot(func(c *callState) bool { return !c.expired.IsZero() && c.expired.Before(before) })
	for _, c := range calls {
		d.calls.delete(c)
	}
	if len(calls) > 0 {
		d.log.Warn("expired calls forgotten: the SIP proxy never removed them", "calls", len(calls), "after", d.cfg.CleanupExpiredSessionsAfter)
	}
}

// verifyUnsure compares calls whose end may not have been told to us.
func (d *Dispatcher) verifyUnsure() {
	for _, l := range d.registry.links() {
		if len(d.calls.of(l.relay, func(c *callState) bool { return c.unsure })) > 0 {
			d.running.Go(func() { l.resync(true) })
		}
	}
}
