package dispatcher

import (
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

const (
	unheardTime = time.Minute // for relays to come back
	maxUnheard  = 10_000
)

// unheard are removes of calls that nobody knew, while a relay was away that may have them:
// the SIP proxy does not say it twice. The call is ended when its relay lists it.
type unheard struct {
	mu     sync.Mutex // guards what follows
	byCall map[string][]unheardRemove
	size   int
}

type unheardRemove struct {
	fromTag, toTag string
	at             time.Time
}

// noteUnheard keeps a remove, unless all relays that were here lately have told their calls.
func (d *Dispatcher) noteUnheard(r control.Remove) {
	now := d.cfg.Now()
	if synced, _ := d.registry.readyFor(""); synced && !d.registry.someAway() && now.Sub(d.started) > unheardTime {
		return
	}
	u := &d.unheard
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.size >= maxUnheard {
		return
	}
	if u.byCall == nil {
		u.byCall = map[string][]unheardRemove{}
	}
	id := report.Text(r.CallID)
	u.byCall[id] = append(u.byCall[id], unheardRemove{report.Text(r.FromTag), report.Text(r.ToTag), now})
	u.size++
}

// has says whether a call that a relay lists was hung up.
func (u *unheard) has(c relaylink.Call) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.byCall[report.Text(c.CallID)] {
		if from := report.Text(c.FromTag); r.fromTag == from || r.toTag != "" && r.toTag == from {
			return true
		}
	}
	return false
}

func (u *unheard) forget(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, list := range u.byCall {
		if now.Sub(list[len(list)-1].at) > unheardTime {
			delete(u.byCall, id)
			u.size -= len(list)
		}
	}
}

// someAway says whether a relay that was here is not connected.
func (g *registry) someAway() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.relays {
		if r.link == nil {
			return true
		}
	}
	return false
}
