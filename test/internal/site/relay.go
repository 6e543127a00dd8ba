package site

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/journal"
	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/relay"
	"example.org/mediaproxy/internal/session"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// Relay is one that runs.
type Relay struct {
	*relay.Relay
	Table  *session.Table
	Engine *media.Engine
	Log    *Log
	Stop   func() // ends its calls and waits for the end; may be called again
	Leave  func() // the same, but the calls are left to the next one

	t     testing.TB
	clock *Clock
	calls *watchedCalls
}

// watchedCalls counts the sweeps for time-outs, so that a test knows when a moment of
// its clock has been looked at.
type watchedCalls struct {
	*session.Table
	began, ended atomic.Int64
}

func (c *watchedCalls) Sweep() []session.Finished {
	c.began.Add(1)
	defer c.ended.Add(1)
	return c.Table.Sweep()
}

// RelayConfig of a relay. Media needs Locals and ports only.
type RelayConfig struct {
	Media       media.Config
	Dispatchers []string
	Edit        func(*relay.Config) // may be nil
	Unlinked    bool                // do not wait for the links
	// State is the folder of its journal, Boot names the run of the host. Without State
	// its calls end with it.
	State, Boot string
}

// Relay starts one and waits until it is linked to all its dispatchers.
func (s *Site) Relay(name string, c RelayConfig) *Relay {
	s.t.Helper()
	r := &Relay{Log: &Log{}, t: s.t, clock: s.Clock}
	log := slog.New(slog.NewTextHandler(r.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	table, err := forward.NewLoops(forward.Config{Clock: s.Clock.Now, Threads: 1}, log)
	if err != nil {
		s.t.Skip(err) // no mover on this system
	}
	r.Engine = media.NewEngine(c.Media, table, log)
	calls := session.Config{Relay: name, Clock: s.Clock.Now, Boot: c.Boot}
	kept := s.journal(c.State, &calls)
	r.Table = session.New(calls, r.Engine, log)
	r.calls = &watchedCalls{Table: r.Table}
	cfg := relay.Config{
		Name: name, Version: "4.1.2", IPs: c.Media.Locals, Dispatchers: c.Dispatchers, Dial: s.dial(s.Store(pki.Relay)),
		ReconnectDelay: time.Second, Now: s.Clock.Now, Durable: kept != nil,
	}
	if kept != nil {
		kept.Each(func(id string, record []byte) {
			if f, ended := r.Table.Restore(id, record); ended {
				cfg.Pending = append(cfg.Pending, f)
			}
		})
		r.Table.Resume()
	}
	if c.Edit != nil {
		c.Edit(&cfg)
	}
	if r.Relay, err = relay.New(cfg, r.calls, r.Engine, log); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }()
	var once sync.Once
	end := func(calls bool) {
		r.Relay.Stop(calls)
		if !calls {
			r.Relay.Stop(false) // nobody else will think twice
		}
		awaitEnd(s.t, "relay "+name, ended)
		if err := table.Close(); err != nil {
			s.t.Errorf("close the ports of relay %s: %v", name, err)
		}
		if kept != nil {
			if err := kept.Close(); err != nil {
				s.t.Errorf("close the journal of relay %s: %v", name, err)
			}
		}
	}
	r.Stop = func() { once.Do(func() { end(true) }) }
	r.Leave = func() { once.Do(func() { end(false) }) }
	s.t.Cleanup(func() { r.Stop(); r.Log.printed(s.t, "relay "+name) })
	Eventually(s.t, "relay "+name+" is linked to its dispatchers", func() bool {
		up := 0
		for _, l := range r.Stats().Links {
			if l.Connected {
				up++
			}
		}
		return c.Unlinked || up == len(c.Dispatchers)
	})
	return r
}

// journal opens one, if there is a folder for it.
func (s *Site) journal(folder string, calls *session.Config) *journal.Log {
	s.t.Helper()
	if folder == "" {
		return nil
	}
	log, err := journal.Open(folder, journal.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	calls.Keeper = log
	return log
}

func (s *Site) dial(store *pki.Store) relay.Dial {
	var alpn []string
	if !s.opts.Plain {
		alpn = []string{relaylink.ALPN}
	}
	return func(ctx context.Context, addr netip.AddrPort) (net.Conn, string, error) {
		conn, err := (&tls.Dialer{Config: store.ClientConfig(pki.Passport{}, alpn...)}).DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return nil, "", err
		}
		return conn, conn.(*tls.Conn).ConnectionState().NegotiatedProtocol, nil
	}
}

// Elapse sets the clock forward and waits until the relay has looked for time-outs at
// that moment.
func (r *Relay) Elapse(d time.Duration) {
	r.t.Helper()
	r.clock.Advance(d)
	began := r.calls.began.Load()
	Eventually(r.t, "the relay looks for time-outs", func() bool { return r.calls.ended.Load() > began })
}

// Lowest is the configuration of an engine with one address and a range from which
// ports are taken in order.
func Lowest(ip string, first, end uint16) media.Config {
	return media.Config{Locals: []netip.Addr{netip.MustParseAddr(ip)}, FirstPort: first, EndPort: end, Pick: media.Lowest}
}
