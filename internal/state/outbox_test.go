package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var quiet = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STATE_TEST_WRITER"); dir != "" {
		writeUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

// writeUntilKilled adds records and says on its output which are kept.
func writeUntilKilled(dir string) {
	o, err := Open(Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		id := fmt.Sprint(os.Getpid(), "-", i)
		if err := o.Add(context.Background(), id, []byte("data of "+id), "a", "b"); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("kept", id)
	}
}

func open(t *testing.T, cfg Config) *Outbox {
	t.Helper()
	o, err := Open(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// openSaying opens an outbox whose log can be read.
func openSaying(t *testing.T, cfg Config) (*Outbox, func() string) {
	t.Helper()
	log := &lines{}
	o, err := Open(cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o, log.String
}

// receiver collects what it is given, until the test ends.
type receiver struct {
	mu   sync.Mutex
	got  []Record
	fail func(Record) error
}

func receive(t *testing.T, o *Outbox, name string, fail func(Record) error) *receiver {
	t.Helper()
	r := &receiver{fail: fail}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Receive(ctx, name, Handler{One: r.handle}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("receive for %s: %v", name, err)
		}
	})
	return r
}

func (r *receiver) handle(_ context.Context, record Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	record.Data = slices.Clone(record.Data)
	r.got = append(r.got, record)
	if r.fail != nil {
		return r.fail(record)
	}
	return nil
}

func (r *receiver) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for _, g := range r.got {
		ids = append(ids, g.ID)
	}
	return ids
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func add(t *testing.T, o *Outbox, id string, receivers ...string) {
	t.Helper()
	if err := o.Add(t.Context(), id, []byte("data of "+id), receivers...); err != nil {
		t.Fatal(err)
	}
}

func waiting(t *testing.T, o *Outbox, name string) uint64 {
	t.Helper()
	q, err := o.Queue(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if (q.Waiting == 0) != q.Oldest.IsZero() {
		t.Errorf("queue %+v", q)
	}
	return q.Waiting
}

// Each receiver gets each record once, the oldest first, and what waited for one that was
// not there yet.
func TestEachReceiverGetsAll(t *testing.T) {
	o := open(t, Config{Dir: t.TempDir()})
	for i := range 5 {
		add(t, o, fmt.Sprint("r", i), "a", "b")
	}
	add(t, o, "r4", "a", "b") // again: nobody was told of the first time
	if a, b := waiting(t, o, "a"), waiting(t, o, "b"); a != 5 || b != 5 {
		t.Errorf("%d and %d wait, want 5", a, b)
	}
	want := []string{"r0", "r1", "r2", "r3", "r4"}
	a := receive(t, o, "a", nil)
	eventually(t, "a has all", func() bool { return slices.Equal(a.ids(), want) })
	eventually(t, "nothing waits for a", func() bool { return waiting(t, o, "a") == 0 })
	if got, err := o.Receivers(t.Context()); err != nil || len(got) != 1 || got["b"] != 5 {
		t.Errorf("receivers %v, %v", got, err)
	}
	b := receive(t, o, "b", nil)
	eventually(t, "b has all", func() bool { return slices.Equal(b.ids(), want) })
	if r := b.got[0]; string(r.Data) != "data of r0" || r.Tries != 1 || time.Since(r.Added) > time.Minute {
		t.Errorf("record %+v", r)
	}
}

// A record that fails comes again, and those behind it get through.
func TestFailedRecordComesAgain(t *testing.T) {
	o := open(t, Config{Dir: t.TempDir()})
	for _, id := range []string{"bad", "good"} {
		add(t, o, id, "a")
	}
	a := receive(t, o, "a", func(r Record) error {
		if r.ID == "bad" && r.Tries < 3 {
			return errors.New("not now")
		}
		return nil
	})
	eventually(t, "all is handled", func() bool { return waiting(t, o, "a") == 0 })
	ids := a.ids()
	slices.Sort(ids)
	if want := []string{"bad", "bad", "bad", "good"}; !slices.Equal(ids, want) {
		t.Errorf("got %v, want %v", ids, want)
	}
}

// A receiver that can gets what waits in few portions, in order. One bad record holds up
// no other.
func TestManyAtOnce(t *testing.T) {
	o := open(t, Config{Dir: t.TempDir()})
	const all = 300
	for i := range all {
		add(t, o, fmt.Sprint("r", i), "a")
	}
	var mu sync.Mutex
	var stored []string
	portions := 0
	take := func(list ...Record) error {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range list {
			if r.ID == "r7" && r.Tries < 3 {
				return errors.New("not this one")
			}
		}
		portions++
		for _, r := range list {
			stored = append(stored, r.ID)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- o.Receive(ctx, "a", Handler{
			One:  func(_ context.Context, r Record) error { return take(r) },
			Many: func(_ context.Context, list []Record) error { return take(list...) }})
	}()
	eventually(t, "all are handled", func() bool { return waiting(t, o, "a") == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if portions > 30 {
		t.Errorf("%d portions for %d records", portions, all)
	}
	if !slices.Equal(stored[:7], []string{"r0", "r1", "r2", "r3", "r4", "r5", "r6"}) {
		t.Errorf("began with %v", stored[:7])
	}
	slices.Sort(stored)
	if n := len(stored); n != all || len(slices.Compact(stored)) != all {
		t.Errorf("%d records stored, want %d, each once", n, all)
	}
}

// When the clock of the host is set, records that failed do not wait until it is as late again.
func TestClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			var moved atomic.Int64
			o, said := openSaying(t, Config{Dir: t.TempDir(), Wall: func() time.Time { return time.Now().Add(time.Duration(moved.Load())) }})
			var failing atomic.Bool
			failing.Store(true)
			r := receive(t, o, "a", func(Record) error {
				if failing.Load() {
					return errors.New("not now")
				}
				return nil
			})
			add(t, o, "r", "a")
			eventually(t, "it has failed twice", func() bool { return len(r.ids()) == 2 })
			failing.Store(false)
			moved.Store(int64(by))
			add(t, o, "another", "a") // wakes the receiver, which looks at the clock now and then
			eventually(t, "nothing waits", func() bool { return waiting(t, o, "a") == 0 })
			if !strings.Contains(said(), "the clock of the host was set") {
				t.Errorf("said %s", said())
			}
		})
	}
}

func TestClockWatch(t *testing.T) {
	var moved time.Duration
	c := watchClock(func() time.Time { return time.Now().Add(moved) })
	for _, step := range []struct {
		by   time.Duration
		want bool
	}{{0, false}, {time.Second, false}, {-10 * time.Second, true}, {0, false}, {time.Hour, true}, {-time.Second, false}} {
		if moved += step.by; c.wasSet() != step.want {
			t.Errorf("set by %v: want %v", step.by, step.want)
		}
	}
}

// A process that ends while it handles a record leaves it to the next one, which need not
// wait until the first would have been late.
func TestEndsWhileHandling(t *testing.T) {
	dir := t.TempDir()
	t.Run("first process", func(t *testing.T) {
		o := open(t, Config{Dir: dir})
		add(t, o, "r", "a")
		began := make(chan struct{})
		receive(t, o, "a", func(Record) error {
			o.store.node.conn.Close() // nothing it says is heard
			close(began)
			return errors.New("too late")
		})
		<-began
	})
	o := open(t, Config{Dir: dir})
	receive(t, o, "a", nil)
	eventually(t, "the record is handled", func() bool { return waiting(t, o, "a") == 0 })
}

// A handler that is slow, but at work, keeps its record to itself.
func TestSlowHandler(t *testing.T) {
	o := open(t, Config{Dir: t.TempDir(), Silence: time.Second})
	add(t, o, "r", "a")
	began := make(chan struct{}, 3)
	a := receive(t, o, "a", func(Record) error { began <- struct{}{}; time.Sleep(3 * time.Second); return nil })
	<-began
	b := receive(t, o, "a", nil)
	eventually(t, "the record is handled", func() bool { return waiting(t, o, "a") == 0 })
	if ids := append(a.ids(), b.ids()...); len(ids) != 1 {
		t.Errorf("handled %d times", len(ids))
	}
}

// What was kept is there after the process was killed at any moment.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	kept := map[string]bool{}
	for range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STATE_TEST_WRITER="+dir)
		var out lines
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "records are kept", func() bool { return out.count() > 50 })
		cmd.Process.Kill()
		cmd.Wait()
		for line := range strings.Lines(out.String()) {
			word, id, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if word == "error" {
				t.Fatal(line)
			}
			if strings.HasSuffix(line, "\n") {
				kept[id] = true
			}
		}
	}
	o := open(t, Config{Dir: dir})
	for _, name := range []string{"a", "b"} {
		r := receive(t, o, name, nil)
		eventually(t, "nothing waits", func() bool { return waiting(t, o, name) == 0 })
		found := map[string]int{}
		for _, id := range r.ids() {
			found[id]++
		}
		for id := range kept {
			if found[id] != 1 {
				t.Errorf("record %s of %s is there %d times", id, name, found[id])
			}
		}
		if extra := len(found) - len(kept); extra < 0 || extra > 3 { // one that a process had not reported yet
			t.Errorf("%d records, %d were kept", len(found), len(kept))
		}
	}
	t.Logf("%d records kept by processes that were killed", len(kept))
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) count() int { return strings.Count(l.String(), "\n") }

// The disk that it may use has an end, which is said and passes.
func TestFull(t *testing.T) {
	o := open(t, Config{Dir: t.TempDir(), MaxDisk: 64 << 10})
	data := make([]byte, 4<<10)
	n := 0
	var err error
	for ; err == nil && n < 100; n++ {
		err = o.Add(t.Context(), fmt.Sprint(n), data, "a")
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d records: %v, want %v", n, err, ErrFull)
	}
	receive(t, o, "a", nil)
	eventually(t, "there is room again", func() bool { return o.Add(t.Context(), "last", data, "a") == nil })
}

func TestPause(t *testing.T) {
	last := time.Duration(0)
	for n := 1; n < 100; n++ {
		d := pause(n)
		if d < last || d < firstPause || d > longestPause {
			t.Fatalf("pause %d is %v after %v", n, d, last)
		}
		last = d
	}
	if pause(1) != firstPause || pause(3) != 4*time.Second || last != longestPause {
		t.Errorf("%v, %v, %v", pause(1), pause(3), last)
	}
}

func TestFolderThatCannotBe(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: file + "/outbox"}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "outbox's folder") {
		t.Errorf("error %v", err)
	}
}
