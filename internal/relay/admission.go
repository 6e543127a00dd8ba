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
}

// admit hands an update to the session table. While draining it serves calls
// that exist and refuses to create any.
func (r *Relay) admit(u control.Update, owner string) (control.Answer, error) {
	r.admission.mu.RLock()
	defer r.admission.mu.RUnlock()
	answer, err := r.calls.Update(u, owner, !r.admission.draining)
	if r.admission.draining && u.HasMedia && errors.Is(err, session.ErrUnknown) {
		return control.Answer{}, &refusal{control.ReplyHalting, errDraining.Error()}
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

// drained reports whether the process is to leave now.
func (r *Relay) drained() bool {
	r.admission.mu.RLock()
	leave := r.admission.leave
	r.admission.mu.RUnlock()
	// In this order: a command that ends the last call counts as ending until
	// its record is kept.
	return leave && r.calls.Len() == 0 && r.ending.Load() == 0
}

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
