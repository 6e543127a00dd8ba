package relay

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// resolveLoop looks the entries up at once and then every check interval.
func (r *Relay) resolveLoop(ctx context.Context) {
	tick := time.NewTicker(r.cfg.DNSCheckInterval)
	defer tick.Stop()
	for {
		r.resolve(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// resolve looks all entries up, each on its own: a name whose servers are slow
// delays no other entry.
func (r *Relay) resolve(ctx context.Context) {
	r.mu.Lock()
	choices := slices.Clone(r.choices)
	r.mu.Unlock()
	var asking sync.WaitGroup
	for _, c := range choices {
		asking.Go(func() {
			found, err := lookup(ctx, r.cfg.Resolver, c.target, r.cfg.KeepConfiguredPort)
			if ctx.Err() == nil {
				r.resolved(c, found, err)
			}
		})
	}
	asking.Wait()
}

// resolved takes the answer for one entry. A failed look-up changes nothing;
// only the word of a name server that the name is gone does.
func (r *Relay) resolved(c *choice, found []netip.AddrPort, err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	gone := errors.Is(err, errGone)
	r.mu.Lock()
	changed := problem != c.problem
	c.problem = problem
	if err == nil || gone {
		c.found(found)
	}
	kept := c.current
	r.mu.Unlock()

	switch {
	case !changed:
	case err == nil:
		r.log.Info("dispatcher found again", "dispatcher", c.target.text, "address", kept)
	case gone:
		r.log.Warn("dispatcher left out: its name has neither a service record nor an address", "dispatcher", c.target.text)
	case kept.IsValid():
		r.log.Warn("cannot look the dispatcher up, its last address stays in use", "dispatcher", c.target.text, "address", kept, "error", err)
	default:
		r.log.Warn("cannot look the dispatcher up", "dispatcher", c.target.text, "error", err)
	}
	r.adjust()
}

// adjust starts links to addresses that are wanted now and marks the others as
// no longer wanted; retire ends those.
func (r *Relay) adjust() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.linkCtx == nil || r.linkCtx.Err() != nil {
		return
	}
	wanted := make(map[netip.AddrPort]bool)
	for _, c := range r.choices {
		if c.current.IsValid() {
			wanted[c.current] = true
		}
	}
	for addr, l := range r.links {
		l.wanted.Store(wanted[addr])
		delete(wanted, addr)
	}
	for addr := range wanted {
		ctx, cancel := context.WithCancel(r.linkCtx)
		l := &link{relay: r, addr: addr, cancel: cancel, log: r.log.With("dispatcher", addr.String())}
		l.wanted.Store(true)
		r.links[addr] = l
		r.running.Go(func() { l.run(ctx) })
	}
}

// retire ends links that are no longer wanted and whose dispatcher owns no
// calls any more. Until then they keep their connection.
func (r *Relay) retire() {
	for _, l := range r.allLinks() {
		if l.wanted.Load() || r.owned(l) {
			continue
		}
		r.mu.Lock()
		if !l.wanted.Load() && r.links[l.addr] == l {
			delete(r.links, l.addr)
			l.cancel()
			l.log.Info("link closed: the dispatchers setting leads elsewhere now and the dispatcher owns no calls")
		}
		r.mu.Unlock()
	}
}

// unreachable notes that no connection to addr could be made. It reports
// whether an entry moved on to its next address.
func (r *Relay) unreachable(addr netip.AddrPort) bool {
	r.mu.Lock()
	moved := false
	for _, c := range r.choices {
		moved = c.unreachable(addr) || moved
	}
	r.mu.Unlock()
	if moved {
		r.adjust()
	}
	return moved
}

func (r *Relay) reached(addr netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.choices {
		c.reached(addr)
	}
}

// allLinks returns the links by address, so that logs and tests see one order.
func (r *Relay) allLinks() []*link {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*link, 0, len(r.links))
	for _, l := range r.links {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *link) int { return a.addr.Compare(b.addr) })
	return all
}

// connections returns those that are ready for use.
func (r *Relay) connections() []*conn {
	var ready []*conn
	for _, l := range r.allLinks() {
		if c := l.connected(); c != nil {
			ready = append(ready, c)
		}
	}
	return ready
}
