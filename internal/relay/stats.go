package relay

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// counters count what happened since the start.
type counters struct {
	updates, removes, failed, unknown, halted, badLines, panics, ended, acknowledged atomic.Uint64
}

// Stats is what the relay says about itself for metrics.
type Stats struct {
	Updates      uint64 // update commands
	Removes      uint64 // remove commands
	Failed       uint64 // commands answered `error` for another reason than the next two
	Unknown      uint64 // commands for calls that do not exist here
	Halted       uint64 // updates refused because of a drain
	BadLines     uint64 // lines of dispatchers that were skipped
	Panics       uint64 // bugs met and survived
	Ended        uint64 // finished calls that had to be acknowledged
	Acknowledged uint64 // of these: acknowledged
	Waiting      int    // of these: not yet acknowledged
	Dropped      uint64 // of these: lost, because too many waited

	Draining   bool
	BPSRelayed float64
	Links      []LinkStats
}

// LinkStats describes one link to a dispatcher.
type LinkStats struct {
	Addr      string
	Name      string // as the dispatcher last called itself; empty: it never did
	Wanted    bool   // false: kept only for the calls its dispatcher owns
	Connected bool
	Protocol  string    // link/2 or plain; empty: not connected
	Since     time.Time // of being connected or not; zero: never connected
	Problem   string    // why it is not connected
	Connects  uint64    // connections made so far
	Backlog   int       // bytes that wait to be written
}

// Stats returns the relay's numbers.
func (r *Relay) Stats() Stats {
	waiting, dropped := r.records.counts()
	s := Stats{
		Updates: r.count.updates.Load(), Removes: r.count.removes.Load(),
		Failed: r.count.failed.Load(), Unknown: r.count.unknown.Load(), Halted: r.count.halted.Load(),
		BadLines: r.count.badLines.Load(), Panics: r.count.panics.Load(),
		Ended: r.count.ended.Load(), Acknowledged: r.count.acknowledged.Load(),
		Waiting: waiting, Dropped: dropped,
		Draining: r.Draining(), BPSRelayed: r.traffic.rate(),
	}
	for _, l := range r.allLinks() {
		s.Links = append(s.Links, l.stats())
	}
	return s
}

func (l *link) stats() LinkStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LinkStats{
		Addr: l.addr.String(), Name: l.peer.Name, Wanted: l.wanted.Load(), Connected: l.conn != nil,
		Since: l.since, Connects: l.connects,
	}
	if l.conn == nil {
		s.Problem = l.problem
	} else {
		s.Protocol = l.conn.protocol()
		s.Backlog = l.conn.out.backlog()
	}
	return s
}

// maxNoise bounds the log lines about bad commands in one second: a dispatcher
// that sends nonsense must not fill the disk.
const maxNoise = 20

// noise counts such lines.
type noise struct {
	mu         sync.Mutex // guards what follows
	logged     int        // in this second
	suppressed int
}

// flush begins the next second.
func (n *noise) flush(log *slog.Logger) {
	n.mu.Lock()
	suppressed := n.suppressed
	n.logged, n.suppressed = 0, 0
	n.mu.Unlock()
	if suppressed > 0 {
		log.Warn("more problems with commands were met than are logged", "not_logged", suppressed)
	}
}

func (n *noise) allow() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.logged >= maxNoise {
		n.suppressed++
		return false
	}
	n.logged++
	return true
}

// complain logs something that a peer may cause at any rate.
func (r *Relay) complain(log *slog.Logger, level slog.Level, message string, attrs ...any) {
	if level < slog.LevelWarn || r.noise.allow() {
		log.Log(context.Background(), level, message, attrs...)
	}
}
