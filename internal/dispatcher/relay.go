package dispatcher

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/wire/relaylink"
)

// relayState is one relay by its identity: the name it announces, or, for an
// old one, the address it connects from. It outlives its connections.
type relayState struct {
	// set when made, read-only afterwards
	key   string
	name  string
	plain bool

	calls atomic.Int64 // attributed to it in the table of calls
	up    atomic.Bool  // link is not nil; readable without the lock
	first *callState   // of those attributed to it; guarded by callTable.mu

	// guarded by registry.mu
	link     *link // nil: not connected
	lostAt   time.Time
	ip       netip.Addr // where it connects from
	hello    relaylink.RelayHello
	addrs    []netip.Addr
	load     relaylink.Load
	given    int // calls placed since it told its load
	halting  bool
	timedOut time.Time // a command was not answered; cleared by a ping
	suspect  bool      // did not answer a set-up in time; cleared by anything it says
	synced   bool      // its calls are known
}

func (r *relayState) isUp() bool { return r.up.Load() }

// registry holds the relays.
type registry struct {
	lists sync.Pool // of candidates

	mu      sync.Mutex // guards what follows, and the relays; never held while waiting
	relays  map[string]*relayState
	changed chan struct{} // closed and replaced when a relay comes, goes or is known
}

func newRegistry() *registry {
	return &registry{relays: map[string]*relayState{}, changed: make(chan struct{})}
}

func (g *registry) broadcastLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// attach makes l the connection of its relay and returns the one it replaces.
// With a live connection of another process under the same name it does
// nothing but return that one as incumbent.
func (g *registry) attach(l *link, evict *link) (replaced, incumbent *link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := "name " + l.hello.Name
	if l.plain {
		key = "address " + l.ip.String()
	}
	r := g.relays[key]
	if r == nil {
		r = &relayState{key: key, plain: l.plain, name: l.hello.Name}
		if l.plain {
			r.name = l.ip.String()
		}
	}
	old := r.link
	if old != nil && old != evict && !l.plain && old.hello.Instance != l.hello.Instance {
		return nil, old
	}
	g.relays[key] = r
	l.relay = r
	r.link, r.ip, r.hello, r.load, r.given = l, l.ip, l.hello, l.hello.Load, 0
	r.addrs = append([]netip.Addr{l.ip}, l.hello.Addrs()...)
	r.halting, r.timedOut, r.suspect, r.synced = l.hello.Draining, time.Time{}, false, false
	r.up.Store(true)
	g.broadcastLocked()
	return old, nil
}

// detach notes that a connection is gone.
func (g *registry) detach(l *link, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := l.relay; r != nil && r.link == l {
		r.link, r.lostAt = nil, now
		r.up.Store(false)
		g.broadcastLocked()
	}
}

// change edits a relay's state, but only while l is its connection.
func (g *registry) change(l *link, edit func(*relayState)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := l.relay; r != nil && r.link == l {
		edit(r)
	}
}

// synced notes that the relay's calls are known.
func (g *registry) synced(l *link) {
	g.change(l, func(r *relayState) {
		r.synced = true
		g.broadcastLocked()
	})
}

// current returns the relay's connection, since when it is away if it has
// none, and a channel that is closed at the next change.
func (g *registry) current(r *relayState) (l *link, lostAt time.Time, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return r.link, r.lostAt, g.changed
}

// readyFor says whether a call can be looked for: on the relay with this name, which then is
// connected, or, without a name, because the calls of every connected relay are known.
func (g *registry) readyFor(name string) (bool, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.relays {
		switch {
		case r.link == nil:
		case name != "" && r.name == name:
			return true, g.changed
		case name == "" && !r.synced:
			return false, g.changed
		}
	}
	return name == "" && len(g.relays) > 0, g.changed
}

// loadOf is what the relay of a connection said last of its load.
func (g *registry) loadOf(l *link) relaylink.Load {
	g.mu.Lock()
	defer g.mu.Unlock()
	return l.relay.load
}

// links returns the connections, in the order of the relays' names.
func (g *registry) links() []*link {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []*link
	for _, r := range g.relays {
		if r.link != nil {
			list = append(list, r.link)
		}
	}
	slices.SortFunc(list, func(a, b *link) int { return cmp.Compare(a.relay.key, b.relay.key) })
	return list
}

func (g *registry) connected() int { return len(g.links()) }

// find returns the relay that an operator means by a name or an address.
func (g *registry) find(what string) *relayState {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found *relayState
	for _, r := range g.relays {
		c := Candidate{Name: r.name, Addrs: r.addrs}
		if c.preferredBy(what) && (found == nil || found.link == nil || r.name == what) {
			found = r
		}
	}
	return found
}

// candidates returns the relays that take new calls and are not in tried. The list is
// to be released: with hundreds of relays a new one for each call is most of what a
// dispatcher would leave to the garbage collector.
func (g *registry) candidates(tried []*relayState) (list []Candidate, changed <-chan struct{}) {
	if free, ok := g.lists.Get().(*[]Candidate); ok {
		list = (*free)[:0]
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.relays {
		if r.link == nil || r.halting || !r.timedOut.IsZero() || slices.Contains(tried, r) {
			continue
		}
		c := Candidate{Name: r.name, Addrs: r.addrs, Labels: r.hello.Labels, Capacity: r.hello.Capacity,
			Sessions: r.load.Sessions + r.given, BPS: r.load.BPS,
			relay: r, suspect: r.suspect}
		if r.plain {
			c.Sessions = int(r.calls.Load())
		}
		list = append(list, c)
	}
	return list, g.changed
}

// release gives a list of candidates back; nobody may use it afterwards.
func (g *registry) release(list []Candidate) {
	clear(list)
	g.lists.Put(&list)
}

// heard notes that the relay said something.
func (g *registry) heard(l *link) {
	if l.quiet.CompareAndSwap(true, false) {
		g.change(l, func(r *relayState) { r.suspect = false })
	}
}

// suspectNow puts the relay behind the others until it says something.
func (g *registry) suspectNow(l *link) {
	g.change(l, func(r *relayState) { r.suspect = true })
	l.quiet.Store(true)
}

// forgetDead drops relays that have been away since before the time given, and
// returns them.
func (g *registry) forgetDead(before time.Time) []*relayState {
	g.mu.Lock()
	defer g.mu.Unlock()
	var dead []*relayState
	for key, r := range g.relays {
		if r.link == nil && r.lostAt.Before(before) {
			delete(g.relays, key)
			dead = append(dead, r)
		}
	}
	return dead
}
