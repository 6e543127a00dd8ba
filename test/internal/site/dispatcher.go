package site

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/internal/dispatcher"
	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/report"
)

// Dispatcher is one that runs.
type Dispatcher struct {
	*dispatcher.Dispatcher
	Log  *Log
	Stop func() // waits for the end; may be called again

	t testing.TB

	mu      sync.Mutex // guards what follows
	records []report.Session
}

// Dispatcher starts one on loopback. Its name tells it apart on this site; edit may
// change its configuration.
func (s *Site) Dispatcher(name string, edit func(*dispatcher.Config)) *Dispatcher {
	s.t.Helper()
	d := &Dispatcher{Log: &Log{}, t: s.t}
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	cfg := dispatcher.Config{
		Name: name, Version: "4.1.2", SocketPath: filepath.Join(s.dir, name+".sock"),
		RelayListen: loopback, RelayTLS: s.Store(pki.Dispatcher).ServerConfig(pki.Passport{}), ManagementListen: loopback,
		Finished: d.finished, Now: s.Clock.Now,
		SetupTimeout: 3 * time.Second, // a busy machine is not what is tested here
	}
	if edit != nil {
		edit(&cfg)
	}
	var err error
	d.Dispatcher, err = dispatcher.New(cfg, slog.New(slog.NewTextHandler(d.Log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	d.Stop = sync.OnceFunc(func() {
		cancel()
		awaitEnd(s.t, "dispatcher "+name, ended)
	})
	s.t.Cleanup(func() { d.Stop(); d.Log.printed(s.t, "dispatcher "+name) })
	select {
	case <-d.Ready():
	case err := <-ended:
		s.t.Fatalf("dispatcher %s: %v", name, err)
	}
	return d
}

func awaitEnd(t testing.TB, what string, ended <-chan error) {
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%s ended with: %v", what, err)
		}
	case <-time.After(2 * Patience):
		t.Errorf("%s does not end", what)
	}
}

func (d *Dispatcher) finished(s report.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records = append(d.records, s)
	return nil
}

// Records are the finished calls so far, in the order of their reports.
func (d *Dispatcher) Records() []report.Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]report.Session(nil), d.records...)
}

// AwaitRecords waits until that many calls are finished, and fails if it were more.
func (d *Dispatcher) AwaitRecords(n int) []report.Session {
	d.t.Helper()
	Eventually(d.t, "finished calls", func() bool { return len(d.Records()) >= n })
	records := d.Records()
	if len(records) != n {
		d.t.Fatalf("got %d finished calls, want %d: %+v", len(records), n, records)
	}
	return records
}

// Module connects to the dispatcher's socket as a process of the SIP proxy does.
func (d *Dispatcher) Module() *Line {
	d.t.Helper()
	return Dial(d.t, "unix", d.SocketPath())
}

// Manager connects to the management port.
func (d *Dispatcher) Manager() *Line {
	d.t.Helper()
	return Dial(d.t, "tcp", d.ManagementAddr().String())
}
