package restart

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/test/internal/site"
)

// cable is a stretch of network between relay and dispatcher that does not tell the
// dispatcher when a relay has gone.
type cable struct {
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns []net.Conn
}

func newCable(t *testing.T, from, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: l}
	c.running.Go(func() { c.accept(to) })
	t.Cleanup(c.cut)
	return c
}

func (c *cable) accept(to string) {
	for {
		near, err := c.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			near.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, near, far)
		c.mu.Unlock()
		c.running.Go(func() { io.Copy(far, near) }) // and no word of the end
		c.running.Go(func() { io.Copy(near, far) })
	}
}

func (c *cable) cut() {
	c.listener.Close()
	c.mu.Lock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.running.Wait()
}

// TestOldConnectionStands: the dispatcher has not noticed that the relay's connection is
// dead when the next process comes under the same name. That one gets its place after a
// question that nobody answers, and all its calls are known.
func TestOldConnectionStands(t *testing.T) {
	t.Parallel()
	s := newStage(t, movers[0])
	s.r.Kill() // this one was connected without the cable
	newCable(t, s.net+"8:25060", s.net+"9:25060")
	s.link = s.net + "8"
	s.start()
	calls := []*call{s.setUp("one", nil), s.setUp("two", nil)}
	lost := s.d.Log.Count("relay connection lost")
	s.r.Kill()
	began := s.start()
	for _, c := range calls {
		c.heard(began)
	}
	if n := s.d.Log.Count("relay connection lost"); n != lost+1 || !s.d.Log.Has("relay connection lost", "replaced by a newer connection") {
		t.Errorf("%d connections were lost, want the one that was replaced", n-lost)
	}
	if n := len(s.sessions()); n != len(calls) {
		t.Errorf("%d sessions, want %d", n, len(calls))
	}
	for _, c := range calls {
		c.invite()
		c.heard(time.Now())
		c.hangUp()
	}
	s.undisturbed()
}

// TestNoJournal: a relay whose journal cannot be opened serves calls, says what is wrong,
// and ends them when it is told to stop.
func TestNoJournal(t *testing.T) {
	t.Parallel()
	s := newStage(t, movers[0])
	s.r.Kill()
	state := s.StateOf("r1")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, nil, 0o600); err != nil { // not a folder
		t.Fatal(err)
	}
	s.start()
	s.r.Log.Await(t, "level=ERROR", "calls of this relay will end with its process", state, "state_dir")
	s.setUp("c", nil)
	s.r.Signal(syscall.SIGTERM)
	s.gone()
	site.Eventually(t, "the end is taken over", func() bool { return s.records("c") == 1 })
	if !s.d.Log.Has("call over", "call_id=c ", "relay stopped") {
		t.Error("the call did not end because the relay stopped")
	}
}

// TestDamagedJournal: a damaged place is reported, and what it did not hit goes on.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	s := newStage(t, movers[0])
	calls := []*call{s.setUp("one", nil), s.setUp("two", nil)}
	s.r.Kill()
	files, err := filepath.Glob(filepath.Join(s.StateOf("r1"), "relay", "*.journal"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the journal has the files %v (%v)", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[100] ^= 0xff // in the first record of the first call, which later ones have replaced
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	began := s.start()
	s.r.Log.Await(t, "level=ERROR", "the journal is damaged", filepath.Base(files[0]))
	for _, c := range calls {
		c.heard(began)
		c.hangUp()
	}
	s.undisturbed()
}

// TestSecondRelay: a second relay with the same state folder says whose it is, and ends.
func TestSecondRelay(t *testing.T) {
	t.Parallel()
	s := newStage(t, movers[1])
	c := s.setUp("c", nil)
	dir := s.Folder("r2", "[Relay]", "name = r1", "relay_ip = "+s.net+"1", "dispatchers = "+s.link, "state_dir = "+s.StateOf("r1"))
	second := s.Start("relay", dir)
	second.Log.Await(t, "this relay runs already", "process "+fmt.Sprint(s.r.PID()))
	site.Eventually(t, "the second relay has ended", func() bool { return !second.Alive() })
	c.heard(time.Now())
	c.hangUp()
}
