package durable

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/module"
	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) { os.Exit(site.Main(m, 4)) }

const (
	dispatcherIP, relayIP = "127.20.1.9", "127.20.1.1"

	rate  = 50 // calls a second
	lives = 2 * time.Second
)

// books is a web server to which finished calls are posted: away for some time, it keeps
// what it has said yes to.
type books struct {
	*httptest.Server
	away atomic.Bool

	mu      sync.Mutex
	records map[string]report.Session // by their id; a partial one gives way to the full one
	posts   int
	refused int
}

func openBooks(t *testing.T) *books {
	b := &books{records: map[string]report.Session{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var s report.Session
		key := r.Header.Get("Idempotency-Key")
		if err != nil || json.Unmarshal(body, &s) != nil || key != s.RecordID && key != s.RecordID+"-partial" {
			t.Errorf("posted %q: %s, %v", key, body, err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.away.Load() {
			b.refused++
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		b.posts++
		if _, full := b.records[s.RecordID]; !full || !s.Partial {
			b.records[s.RecordID] = s
		}
	}))
	t.Cleanup(b.Close)
	return b
}

// rows is how many records each call has.
func (b *books) rows() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := map[string]int{}
	for _, s := range b.records {
		rows[s.CallID]++
	}
	return rows
}

// round is who is killed while calls go on, how often.
type round struct {
	name  string
	kills int
	// start returns what starts the victim, again and again, and the storm's socket.
	start func(*testing.T, *site.Site, []string) (func() *site.Process, string)
}

func rounds() []round {
	kills := 3
	if os.Getenv("MEDIAPROXY_TEST") == "soak" {
		kills = 20
	}
	return []round{
		{"dispatcher", kills, func(t *testing.T, s *site.Site, settings []string) (func() *site.Process, string) {
			start := func() *site.Process { return s.DispatcherAt(dispatcherIP, settings...) }
			d := start()
			s.RelayAt("r1", relayIP, dispatcherIP, "fast_path = off")
			first := true
			return func() *site.Process {
				if first {
					first = false
					return d
				}
				return start()
			}, filepath.Join(d.Dir, "dispatcher.sock")
		}},
		{"relay", kills, func(t *testing.T, s *site.Site, settings []string) (func() *site.Process, string) {
			d := s.DispatcherAt(dispatcherIP, settings...)
			return func() *site.Process { return s.RelayAt("r1", relayIP, dispatcherIP, "fast_path = off") }, filepath.Join(d.Dir, "dispatcher.sock")
		}},
	}
}

// Each finished call is stored once in effect, although the dispatcher or the relay is
// killed at random moments and the receiver is away for half of the time; no call ends
// meanwhile, and none is unknown.
func TestNothingIsLost(t *testing.T) {
	for _, r := range rounds() {
		t.Run(r.name, func(t *testing.T) { r.run(t) })
	}
}

func (r round) run(t *testing.T) {
	s := site.New(t, site.Options{})
	b := openBooks(t)
	start, socket := r.start(t, s, []string{"accounting = webhook", "[Webhook]", "url = " + b.URL})
	victim := start()
	storm := &storm{t: t, socket: socket, over: make(chan struct{})}
	storm.restarted()
	done := make(chan struct{})
	go func() { defer close(done); storm.run() }()
	for n := range r.kills {
		time.Sleep(time.Second + time.Duration(n*337%1000)*time.Millisecond) // the storm goes on
		b.away.Store(n%2 == 0)
		storm.killed()
		victim.Kill()
		victim = start()
		storm.restarted()
	}
	time.Sleep(time.Second)
	close(storm.over)
	<-done
	b.away.Store(false)
	r.compare(t, s, b, storm)
}

// compare counts what was stored.
func (r round) compare(t *testing.T, s *site.Site, b *books, storm *storm) {
	answered, tally := storm.results()
	missing := func() []string {
		rows := b.rows()
		return slices.DeleteFunc(slices.Clone(answered), func(id string) bool { return rows[id] > 0 })
	}
	t.Cleanup(func() {
		if list := missing(); len(list) > 0 {
			t.Logf("%d calls have no record: %v", len(list), list)
		}
	})
	eventually(t, "all calls are stored", func() bool { return len(missing()) == 0 })
	ctl := func(args ...string) (string, int) {
		return site.Run(t, append([]string{"ctl", "--runtime-dir", filepath.Dir(storm.socket)}, args...)...)
	}
	eventually(t, "nothing waits", func() bool {
		out, code := ctl("accounting", "--json")
		var list []report.Backend
		return code == 0 && json.Unmarshal([]byte(out), &list) == nil && len(list) == 1 && list[0].Waiting == 0
	})
	rows := b.rows()
	for _, id := range answered {
		if rows[id] != 1 {
			t.Errorf("call %s has %d records", id, rows[id])
		}
	}
	if len(rows) != len(answered) {
		t.Errorf("%d calls are stored, %d were answered", len(rows), len(answered))
	}
	for _, r := range b.records {
		if r.Reason != report.ReasonRemoved {
			t.Errorf("call %s ended by %q", r.CallID, r.Reason)
		}
	}
	if tally.unknown > 0 || tally.late > 0 {
		t.Errorf("%d requests were refused more than 1 s after a restart, %d not answered within %v", tally.unknown, tally.late, module.Timeout)
	}
	out, _ := ctl("accounting")
	t.Logf("%d calls, %d kills of the %s: %d records in %d posts, %d refused; %d requests, of these %d cut off, %d refused near a kill, %d later, %d late; slowest answer %v\n%s",
		len(answered), r.kills, r.name, len(b.records), b.posts, b.refused, tally.requests, tally.cut, tally.early, tally.unknown, tally.late, tally.slowest, out)
	if !strings.Contains(out, "webhook") {
		t.Error("ctl accounting does not name the back-end")
	}
}

// eventually waits longer than other tests do: what was being stored when its process was
// killed is given to the next one some seconds later.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
