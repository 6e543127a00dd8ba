package dispatcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"example.org/mediaproxy/internal/hangup"
	"example.org/mediaproxy/internal/report"
)

// sipProxy is the management end of a SIP proxy. As the real ones do, it removes a call
// whose dialog it ends before it answers.
type sipProxy struct {
	mu    sync.Mutex
	ended []string
}

func (p *sipProxy) calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(slices.Values(p.ended))
}

func startSIPProxy(t *testing.T, remove func(callID string)) (*sipProxy, *hangup.Hangup) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "proxy.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	p := &sipProxy{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 8192)
		for {
			n, from, err := conn.ReadFromUnix(b)
			if err != nil {
				return
			}
			var r struct {
				ID     string   `json:"id"`
				Params []string `json:"params"`
			}
			if err := json.Unmarshal(b[:n], &r); err != nil || len(r.Params) != 1 {
				t.Errorf("request %s: %v", b[:n], err)
				continue
			}
			p.mu.Lock()
			p.ended = append(p.ended, r.Params[0])
			p.mu.Unlock()
			remove(r.Params[0])
			fmt.Fprintf(&answering{conn, from}, `{"jsonrpc":"2.0","result":"OK","id":"%s"}`, r.ID)
		}
	}()
	h := hangup.New(hangup.Config{Dialect: hangup.OpenSIPS, Sockets: []string{path}, Local: filepath.Join(t.TempDir(), "own.sock")}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { h.Close(); conn.Close(); <-done })
	return p, h
}

type answering struct {
	conn *net.UnixConn
	to   *net.UnixAddr
}

func (a *answering) Write(b []byte) (int, error) { return a.conn.WriteToUnix(b, a.to) }

// The dialog of a call without media is ended, once, and not that of any other call.
func TestHangup(t *testing.T) {
	started := make(chan *under, 1)
	var mu sync.Mutex
	answers := map[string]string{}
	p, h := startSIPProxy(t, func(dialog string) {
		u := <-started
		started <- u
		got := u.module().ask(remove("c"+dialog, "f", "t"))
		mu.Lock()
		defer mu.Unlock()
		answers[dialog] = got
	})
	u := start(t, func(c *Config) { c.Hangup = h })
	started <- u
	r := u.relay("a")
	m := u.module()
	finish := func(dialog, reason string, edit func(*report.Session)) {
		t.Helper()
		if got := m.ask(message{call: "c" + dialog, from: "f", dialog: dialog}.String()); got != ports {
			t.Fatal(got)
		}
		doc := sessionDoc("c"+dialog, "f")
		doc.RecordID, doc.Reason = "r"+dialog, reason
		if edit != nil {
			edit(&doc)
		}
		r.expire(doc)
	}
	none, noTag := (*string)(nil), ""
	finish("1", report.ReasonTimeout, nil)
	finish("2", report.ReasonTerminated, nil)
	finish("3", report.ReasonUnused, nil)
	finish("4", report.ReasonTimeout, func(s *report.Session) { s.ToTag = none })
	finish("5", report.ReasonTimeout, func(s *report.Session) { s.ToTag = &noTag })
	finish("6", report.ReasonUnanswered, func(s *report.Session) { s.StartTime = nil })
	eventually(t, "six records", func() bool { return len(u.records()) == 6 })
	u.failFinished(errors.New("disk full")) // the relay repeats it
	finish("7", report.ReasonTimeout, nil)
	again := sessionDoc("c7", "f")
	again.RecordID, again.Reason, again.DialogID = "r7", report.ReasonTimeout, "7"
	eventually(t, "the hook failed", func() bool { return u.Stats().FinishErrors == 1 })
	u.failFinished(nil)
	r.expire(again)
	eventually(t, "all records", func() bool { return len(u.records()) == 7 })
	// One that nobody here knows: we were restarted after it ended.
	finishUnknown := sessionDoc("c8", "f")
	finishUnknown.RecordID, finishUnknown.Reason, finishUnknown.DialogID = "r8", report.ReasonTimeout, "8"
	r.expire(finishUnknown)
	eventually(t, "dialogs are ended", func() bool { return h.Stats().Ended == 4 })
	if got := p.calls(); !slices.Equal(got, []string{"1", "2", "7", "8"}) {
		t.Errorf("ended %v", got)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, dialog := range []string{"1", "2", "7"} {
		if answers[dialog] != "removed" {
			t.Errorf("the proxy's remove of call %s was answered %q", dialog, answers[dialog])
		}
	}
}

// A SIP proxy without a management socket costs nothing but the dialog.
func TestNobodyHangsUp(t *testing.T) {
	h := hangup.New(hangup.Config{Sockets: []string{"/does/not/exist"}, Local: filepath.Join(t.TempDir(), "own.sock"), Tries: 1}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { h.Close() })
	u := start(t, func(c *Config) { c.Hangup = h })
	r := u.relay("a")
	m := u.module()
	m.ask(message{call: "c", from: "f", dialog: "5"}.String())
	doc := sessionDoc("c", "f")
	doc.RecordID, doc.Reason = "r", report.ReasonTimeout
	r.expire(doc)
	eventually(t, "it was given up", func() bool { return h.Stats().Failed == 1 })
	if got := m.ask(offer("next")); got != ports || r.gone() {
		t.Errorf("the next call got %q, the relay is gone: %v", got, r.gone())
	}
}
