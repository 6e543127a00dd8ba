package relay

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.org/mediaproxy/internal/wire/relaylink"
)

var (
	errRefused   = errors.New("dispatcher refuses this relay")
	errDuplicate = errors.New("another link reaches the same dispatcher")
)

// link keeps one connection to one address of a dispatcher, for as long as the
// address is wanted or the dispatcher owns calls.
type link struct {
	// set in newLink, read-only afterwards
	relay  *Relay
	addr   netip.AddrPort
	log    *slog.Logger
	cancel context.CancelFunc // ends run

	wanted atomic.Bool // the dispatchers setting leads here now

	mu       sync.Mutex                // guards what follows
	peer     relaylink.DispatcherHello // last greeting heard here; zero: never one
	conn     *conn                     // ready for use; nil: not connected
	since    time.Time
	problem  string // why it is not connected
	quiet    bool   // it breaks again and again for one reason, which was logged
	connects uint64
}

// run connects again and again until ctx ends.
func (l *link) run(ctx context.Context) {
	p := pace{reconnect: l.relay.cfg.ReconnectDelay}
	for ctx.Err() == nil {
		var lived time.Duration
		err := l.twin()
		stood := false
		if err == nil {
			stood, lived, err = l.attempt(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		kind := classify(err, stood)
		wait := p.wait(kind, lived)
		l.report(kind, err, lived, wait)
		if !stood && kind != endDuplicate && l.relay.unreachable(l.addr) {
			// The entry went on to another address. This link is wanted no
			// longer and will be ended unless it still owns calls.
			l.log.Info("dispatcher cannot be reached here, trying its next address")
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// attempt makes one connection and serves it to its end. stood says whether it
// was ever ready for use.
func (l *link) attempt(ctx context.Context) (stood bool, lived time.Duration, err error) {
	dialCtx, cancel := context.WithTimeout(ctx, l.relay.cfg.DialTimeout)
	nc, alpn, err := l.relay.cfg.Dial(dialCtx, l.addr)
	cancel()
	if err != nil {
		return false, 0, err
	}
	start := l.relay.cfg.Now()
	c := newConn(l, nc, alpn != relaylink.ALPN)
	err = c.serve(ctx)
	l.down(c)
	return c.stood(), l.relay.cfg.Now().Sub(start), err
}

// up notes that c is ready: at once on the plain protocol, after the greetings
// on link/2.
func (l *link) up(c *conn, peer relaylink.DispatcherHello) {
	l.mu.Lock()
	if !c.plain {
		l.peer = peer
	}
	l.conn = c
	l.since = l.relay.cfg.Now()
	l.connects++
	level := slog.LevelInfo
	if l.quiet {
		level = slog.LevelDebug
	}
	l.mu.Unlock()
	l.log.Log(context.Background(), level, "connected to dispatcher", "protocol", c.protocol(), "name", peer.Name, "version", peer.Version)
	l.relay.reached(l.addr)
}

// down notes that c is gone; what it carried unacknowledged is due again.
func (l *link) down(c *conn) {
	l.relay.records.lost(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == c {
		l.conn = nil
		l.since = l.relay.cfg.Now()
	}
}

// report logs why there is no connection, once for each new reason.
func (l *link) report(kind ending, err error, lived, wait time.Duration) {
	l.mu.Lock()
	text := err.Error()
	repeated := text == l.problem && lived < steady
	l.problem = text
	l.quiet = repeated && lived > 0
	l.mu.Unlock()
	level := slog.LevelWarn
	if repeated {
		level = slog.LevelDebug
	}
	message := "connection to dispatcher lost"
	switch kind {
	case endUnreachable:
		message = "cannot connect to dispatcher"
	case endCertificate:
		message = "certificate problem with dispatcher; check [TLS] certs_path and the passports on both sides"
	case endRefused:
		message = "dispatcher refuses this relay; check [Relay] name on this relay and the passport on the dispatcher"
	case endDuplicate:
		message = "dispatcher is already connected under another address"
	}
	l.log.Log(context.Background(), level, message, "error", err, "retry_in", wait)
}

// twin returns errDuplicate when another live link reaches the dispatcher that
// this one last reached: the dispatcher would drop one connection for the
// other for ever.
func (l *link) twin() error {
	l.mu.Lock()
	me := l.peer
	l.mu.Unlock()
	if me.Instance == "" {
		return nil
	}
	for _, other := range l.relay.allLinks() {
		if other == l {
			continue
		}
		other.mu.Lock()
		same := other.conn != nil && other.peer.Name == me.Name && other.peer.Instance == me.Instance
		other.mu.Unlock()
		if same {
			return errDuplicate
		}
	}
	return nil
}

// connected returns the connection if it is ready for use.
func (l *link) connected() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// hears reports whether the dispatcher knows a feature.
func (l *link) hears(feature string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.peer.Features, feature)
}

// owns reports whether calls of that owner belong to the dispatcher behind
// this link. Both its names count: the dispatcher may have been upgraded to
// link/2, or put back, while the call was up.
func (l *link) owns(owner string) bool {
	if owner == l.addr.String() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer.Name != "" && owner == l.peer.Name
}
