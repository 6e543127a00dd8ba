package relay

import (
	"errors"
	"sync"

	"example.org/mediaproxy/internal/session"
	"example.org/mediaproxy/internal/wire/control"
)

// admission decides whether calls may be created.
type admission struct {
	mu       sync.RWMutex // held for reading while an update may create a call
	draining bool
	leave    bool // end the process when the last call has ended
	final    bool // the process ends now; nothing can undo it
}

// admit hands an update to the session table. While draining it serves calls
// that exist and refuses to create any.
func (r *Relay) admit(u control.Update, owner string) (control.Answer, error) {
	r.admission.mu.RLock()
	defer r.admission.mu.RUnlock()
	answer, before, err := r.calls.Update(u, owner, !r.admission.draining)
	if r.admission.draining && u.HasMedia && errors.Is(err, session.ErrUnknown) {
		return control.Answer{}, &refusal{control.ReplyHalting, errDraining.Error()}
	}
	if err == nil {
		r.release(before, owner)
	}
	return answer, err
}

// Drain begins (or cancels) the drain that HUP asks for: new calls are
// refused, and Run returns when the last call has ended.
func (r *Relay) Drain(on bool) { r.setDraining(on, on) }

func (r *Relay) setDraining(on, leave bool) {
	switch changed := r.admission.set(on, leave); {
	case changed && on:
		r.log.Info("draining: new calls are refused, existing ones go on", "sessions", r.calls.Len(), "leave_when_idle", leave)
	case changed:
		r.log.Info("draining cancelled: new calls are taken again")
	}
	r.wake()
	r.announce()
}

// set returns when no update that began under the former rule is still under
// way. It reports whether the rule changed.
func (a *admission) set(draining, leave bool) (changed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.final {
		return false
	}
	changed = a.draining != draining
	a.draining = draining
	// Asking for a drain once more never takes back that the process leaves.
	a.leave = draining && (leave || a.leave)
	return changed
}

// Draining reports whether new calls are refused.
func (r *Relay) Draining() bool {
	r.admission.mu.RLock()
	defer r.admission.mu.RUnlock()
	return r.admission.draining
}

// close refuses new calls for good.
func (a *admission) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.draining, a.leave, a.final = true, true, true
}

// closeIfDrained does so if the process is to leave when idle and idle says
// that it is. The lock is held over both, so that no call slips in between.
func (a *admission) closeIfDrained(idle func() bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leave && idle() {
		a.draining, a.final = true, true
	}
	return a.final
}

// idle reports whether no call is left. In this order: a command that ends the
// last call counts as ending until its record is kept.
func (r *Relay) idle() bool { return r.calls.Len() == 0 && r.ending.Load() == 0 }

// announce tells the dispatchers at once, not with the next keep-alive.
func (r *Relay) announce() {
	for _, c := range r.connections() {
		if !c.plain {
			c.announce()
		}
	}
}

func (r *Relay) status() string {
	if r.Draining() {
		return "halting"
	}
	return "active"
}
