package durable

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
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
	records map[string]report.Session // by their key
	posts   int
	refused int
}

func openBooks(t *testing.T) *books {
	b := &books{records: map[string]report.Session{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var s report.Session
		key := r.Header.Get("Idempotency-Key")
		if err != nil || json.Unmarshal(body, &s) != nil || key == "" || key != s.RecordID {
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
		b.records[key] = s
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

// storm makes calls, each for a while, as the processes of a SIP proxy do. What gets no
// answer is asked again, as the next message of the call would be.
type storm struct {
	socket string
	over   chan struct{} // closed: no more calls

	mu       sync.Mutex
	answered []string // calls that were set up and answered
	slowest  time.Duration
}

func (s *storm) ask(what func(*module.Client) error) bool {
	for range 300 {
		c, err := module.Dial(s.socket, module.Timeout)
		if err == nil {
			began := time.Now()
			err = what(c)
			c.Close()
			if err == nil {
				s.mu.Lock()
				s.slowest = max(s.slowest, time.Since(began))
				s.mu.Unlock()
				return true
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

// call has an offer, an answer, a re-INVITE and an end.
func (s *storm) call(t *testing.T, id string) {
	message := func(kind control.Kind, to string, cseq uint32) func(*module.Client) error {
		return func(c *module.Client) error {
			_, err := c.Update(control.Update{Kind: kind, CallID: id, FromTag: "a", ToTag: to, CSeq: cseq, FromURI: "alice@example.com", ToURI: "bob@example.com",
				UserAgent: "Phone/1.0", HasMedia: true, Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("127.0.0.1"), Port: 4000, Direction: "sendrecv"}}})
			return err
		}
	}
	if !s.ask(message(control.KindRequest, "", 1)) || !s.ask(message(control.KindReply, "b", 1)) {
		t.Errorf("call %s was not set up", id)
		return
	}
	s.mu.Lock()
	s.answered = append(s.answered, id)
	s.mu.Unlock()
	time.Sleep(lives)
	if !s.ask(message(control.KindRequest, "b", 2)) {
		t.Errorf("call %s was forgotten", id)
	}
	removed := func(c *module.Client) error {
		return c.Remove(control.Remove{CallID: id, FromTag: "a", ToTag: "b"})
	}
	if !s.ask(removed) {
		t.Logf("remove of call %s was answered to nobody", id) // it may have been done before the answer was lost
	}
}

func (s *storm) run(t *testing.T) {
	var calls sync.WaitGroup
	defer calls.Wait()
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-s.over:
			return
		case <-tick.C:
			calls.Go(func() { s.call(t, fmt.Sprintf("%d@durable", n)) })
		}
	}
}

// Each finished call is stored once in effect, although the dispatcher is killed at random
// moments and the receiver is away for half of the time; and no call ends meanwhile.
func TestNothingIsLost(t *testing.T) {
	kills := 3
	if os.Getenv("MEDIAPROXY_TEST") == "soak" {
		kills = 20
	}
	s := site.New(t, site.Options{})
	b := openBooks(t)
	settings := []string{"accounting = webhook", "[Webhook]", "url = " + b.URL}
	d := s.DispatcherAt(dispatcherIP, settings...)
	s.RelayAt("r1", relayIP, dispatcherIP, "fast_path = off")
	storm := &storm{socket: filepath.Join(d.Dir, "dispatcher.sock"), over: make(chan struct{})}
	done := make(chan struct{})
	go func() { defer close(done); storm.run(t) }()
	for n := range kills {
		time.Sleep(time.Second + time.Duration(n*337%1000)*time.Millisecond) // the storm goes on
		b.away.Store(n%2 == 0)
		d.Kill()
		d = s.DispatcherAt(dispatcherIP, settings...)
	}
	time.Sleep(time.Second)
	close(storm.over)
	<-done
	b.away.Store(false)
	storm.mu.Lock()
	answered := slices.Clone(storm.answered)
	storm.mu.Unlock()
	site.Eventually(t, "all calls are stored", func() bool { return len(b.rows()) >= len(answered) })
	site.Eventually(t, "nothing waits", func() bool {
		out, code := d.Ctl("accounting", "--json")
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
	out, _ := d.Ctl("accounting")
	t.Logf("%d calls, %d kills: %d records in %d posts, %d refused; slowest answer %v\n%s", len(answered), kills, len(b.records), b.posts, b.refused, storm.slowest, out)
	if !strings.Contains(out, "webhook") {
		t.Error("ctl accounting does not name the back-end")
	}
}
