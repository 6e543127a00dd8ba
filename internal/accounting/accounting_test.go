package accounting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hook is a web server that notes what is posted to it.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	posts  []post
	status int
}

type post struct {
	key, token, kind string
	doc              map[string]any
}

func newHook(t *testing.T) *hook {
	h := &hook{status: http.StatusOK}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		p := post{key: r.Header.Get("Idempotency-Key"), token: r.Header.Get("Authorization"), kind: r.Header.Get("Content-Type")}
		if err != nil || r.Method != http.MethodPost || json.Unmarshal(body, &p.doc) != nil {
			t.Errorf("%s %s, %v", r.Method, body, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.posts = append(h.posts, p)
		w.WriteHeader(h.status)
		io.WriteString(w, "what the server says")
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) answers(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status = status
}

func (h *hook) all() []post {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]post(nil), h.posts...)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func open(t *testing.T, dir string, backends map[string]Backend) *Accounting {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	outbox, err := state.Open(state.Config{Dir: dir}, log)
	if err != nil {
		t.Fatal(err)
	}
	a := New(backends, outbox, log)
	t.Cleanup(func() {
		if err := errors.Join(a.Close(), outbox.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

func backend(t *testing.T, url string) map[string]Backend {
	t.Helper()
	b, err := Open([]string{"webhook"}, &config.Config{Webhook: config.Webhook{URL: url, Token: "secret"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func finished(id, reason string) report.Session {
	start, to := 1700000000.5, "t"
	return report.Session{CallID: "c-" + id, FromTag: "f", ToTag: &to, StartTime: &start, Duration: 61, RecordID: id, Reason: reason, DialogID: "1:2", Relay: "r1",
		Streams: []report.Stream{{MediaType: "audio", Status: "closed", CallerBytes: 1 << 40}}}
}

func status(t *testing.T, a *Accounting) report.Backend {
	t.Helper()
	list, err := a.Status(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	return list[0]
}

// A finished call is posted with all that readers of the original know, and gone.
func TestWebhook(t *testing.T) {
	h := newHook(t)
	a := open(t, t.TempDir(), backend(t, h.URL))
	unanswered := finished("never", report.ReasonUnanswered)
	unanswered.StartTime = nil
	noDialog := finished("r3", report.ReasonUnused)
	noDialog.DialogID = ""
	for _, s := range []report.Session{finished("r1", report.ReasonRemoved), unanswered, finished("r2", report.ReasonTimeout), noDialog} {
		if err := a.Finished(s); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three posts", func() bool { return status(t, a).Stored == 3 })
	for i, want := range []map[string]any{
		{"call_id": "c-r1", "timed_out": false, "dialog_id": "1:2", "all_streams_ice": nil, "duration": 61.0, "reason": "removed", "record_id": "r1", "relay": "r1"},
		{"call_id": "c-r2", "timed_out": true, "dialog_id": "1:2", "all_streams_ice": false},
		{"call_id": "c-r3", "timed_out": false, "dialog_id": nil, "all_streams_ice": true},
	} {
		got := h.all()[i]
		for member, value := range want {
			if got.doc[member] != value {
				t.Errorf("post %d: %s is %v, want %v", i, member, got.doc[member], value)
			}
		}
		if _, there := got.doc["dialog_id"]; !there {
			t.Errorf("post %d has no dialog_id", i)
		}
		if got.key != fmt.Sprint("r", i+1) || got.token != "Bearer secret" || got.kind != "application/json" {
			t.Errorf("post %d: %+v", i, got)
		}
	}
	if s := status(t, a); s.Waiting != 0 || s.Failed != 0 || s.LastError != "" || s.OldestAge != 0 {
		t.Errorf("status %+v", s)
	}
}

// What is refused waits, over a restart too, and is posted later.
func TestReceiverIsAway(t *testing.T) {
	h, dir := newHook(t), t.TempDir()
	h.answers(http.StatusServiceUnavailable)
	t.Run("first process", func(t *testing.T) {
		a := open(t, dir, backend(t, h.URL))
		if err := errors.Join(a.Finished(finished("r1", report.ReasonRemoved)), a.Finished(finished("r2", report.ReasonRemoved))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it was tried", func() bool { return status(t, a).Failed > 0 })
		s := status(t, a)
		if s.Waiting != 2 || s.Stored != 0 || !strings.Contains(s.LastError, `503 Service Unavailable: "what the server says"`) {
			t.Errorf("status %+v", s)
		}
	})
	h.answers(http.StatusNoContent)
	a := open(t, dir, backend(t, h.URL))
	eventually(t, "both are stored", func() bool { return status(t, a).Waiting == 0 })
	keys := map[string]bool{}
	for _, p := range h.all() {
		keys[p.key] = true
	}
	if len(keys) != 2 {
		t.Errorf("posted %v", keys)
	}
}

// faulty is a back-end with a bug.
type faulty struct{ tries int }

func (f *faulty) Store(_ context.Context, r Record) error {
	if f.tries++; f.tries == 1 {
		panic("a bug")
	}
	if r.Tries != 2 || r.Session.CallID != "c-r1" {
		return fmt.Errorf("record %+v", r)
	}
	return nil
}

func (f *faulty) Close() error { return nil }

func TestBugOfABackend(t *testing.T) {
	a := open(t, t.TempDir(), map[string]Backend{"faulty": &faulty{}})
	if err := a.Finished(finished("r1", report.ReasonRemoved)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is stored", func() bool { return status(t, a).Stored == 1 })
	if s := status(t, a); !strings.Contains(s.LastError, "a bug") || s.Failed != 1 {
		t.Errorf("status %+v", s)
	}
}

// batches is a back-end that takes several at once, but not all.
type batches struct {
	faulty
	mu    sync.Mutex
	sizes []int
}

func (b *batches) Store(context.Context, Record) error { return b.StoreAll(nil, make([]Record, 1)) }

func (b *batches) StoreAll(_ context.Context, list []Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sizes = append(b.sizes, len(list))
	if len(b.sizes) == 1 {
		panic("a bug")
	}
	return nil
}

func TestBatcher(t *testing.T) {
	dir := t.TempDir()
	t.Run("while it is away", func(t *testing.T) {
		away := httptest.NewServer(http.NotFoundHandler())
		away.Close()
		a := open(t, dir, map[string]Backend{"b": backend(t, away.URL)["webhook"]})
		for i := range 50 {
			if err := a.Finished(finished(fmt.Sprint("r", i), report.ReasonRemoved)); err != nil {
				t.Fatal(err)
			}
		}
	})
	b := &batches{}
	a := open(t, dir, map[string]Backend{"b": b})
	eventually(t, "all are stored", func() bool { s := status(t, a); return s.Waiting == 0 && s.Stored == 50 })
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.ContainsFunc(b.sizes, func(n int) bool { return n > 1 }) {
		t.Errorf("portions of %v", b.sizes)
	}
}

// What an operator reads shows no password.
func TestPasswordOfTheURL(t *testing.T) {
	h := newHook(t)
	h.answers(http.StatusForbidden)
	for _, url := range []string{strings.Replace(h.URL, "//", "//user:topsecret@", 1), "http://user:topsecret@127.0.0.1:1/"} {
		err := backend(t, url)["webhook"].Store(t.Context(), Record{ID: "r1", JSON: []byte("{}")})
		if err == nil || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("error %v", err)
		}
	}
}

func TestOpen(t *testing.T) {
	for _, c := range []struct{ name, want string }{{"webhook", "set url"}, {"nonsense", "there are "}} {
		if _, err := Open([]string{c.name}, &config.Config{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
