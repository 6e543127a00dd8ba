package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// diary notes what rooms do, in order.
type diary struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (d *diary) add(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) has(line string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lines {
		if l == line {
			return true
		}
	}
	return false
}

// fakeRoom runs until stop, and then, if it is slow, until hurry.
func (d *diary) room(name string, slow bool, fails error) room {
	ready, stopped, hurried := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r := room{
		name: name, ready: ready,
		run: func(context.Context) error {
			d.add("%s runs", name)
			if fails != nil {
				return fails
			}
			close(ready)
			<-stopped
			if slow {
				<-hurried
			}
			return nil
		},
		stop:  func() { d.add("%s stops", name); close(stopped) },
		hup:   func() { d.add("%s hup", name) },
		alive: func() {},
		close: func() error { d.add("%s closes", name); return nil },
	}
	if slow {
		r.hurry = func() { d.add("%s hurries", name); close(hurried) }
	}
	return r
}

func testHost() *host {
	return &host{options: &options{name: "test"}, log: slog.New(slog.DiscardHandler), level: new(slog.LevelVar)}
}

// raise signals this process. What comes when nobody handles signals any more must not
// kill the tests.
func raise(t *testing.T, s syscall.Signal) {
	t.Helper()
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, s)
	t.Cleanup(func() { signal.Stop(caught) })
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
}

func TestServeOrder(t *testing.T) {
	d := new(diary)
	var again sync.WaitGroup
	err := testHost().serve([]room{d.room("first", true, nil), d.room("second", true, nil)}, func() {
		d.add("ready")
		raise(t, syscall.SIGHUP)
		eventually(t, "HUP is heard", func() bool { return d.has("second hup") })
		again.Go(func() { insist(t, func() bool { return d.has("second hurries") }) })
	})
	again.Wait()
	if err != nil {
		t.Errorf("serve = %v", err)
	}
	want := []string{"first runs", "second runs", "ready", "first hup", "second hup", "second stops", "second hurries", "second closes", "first stops", "first hurries", "first closes"}
	if diff := cmp.Diff(want, d.lines); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestServeFailingStart(t *testing.T) {
	d := new(diary)
	broken := errors.New("port in use")
	err := testHost().serve([]room{d.room("first", false, nil), d.room("second", false, broken), d.room("third", false, nil)}, func() { d.add("ready") })
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "second: port in use") {
		t.Errorf("serve = %v, want what the second room said", err)
	}
	want := []string{"first runs", "second runs", "second stops", "second closes", "first stops", "first closes"}
	if diff := cmp.Diff(want, d.lines); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A room that ends by itself, as a relay does that was drained, ends the program.
func TestServeRoomEnds(t *testing.T) {
	d := new(diary)
	short := room{name: "short", run: func(context.Context) error { return nil }, stop: func() {}, hup: func() {}, alive: func() {}}
	if err := testHost().serve([]room{d.room("long", false, nil), short}, func() {}); err != nil {
		t.Errorf("serve = %v", err)
	}
	if !d.has("long closes") {
		t.Error("the other room was left running")
	}
}

func TestServeStopBeforeReady(t *testing.T) {
	d := new(diary)
	r := d.room("slow start", false, nil)
	run := r.run
	r.ready = make(chan struct{}) // never
	r.run = func(ctx context.Context) error { raise(t, syscall.SIGINT); return run(ctx) }
	if err := testHost().serve([]room{r}, func() { d.add("ready") }); !errors.Is(err, errNotReady) || d.has("ready") {
		t.Errorf("serve = %v, want %v", err, errNotReady)
	}
}

// A room that cannot hurry is left behind when the second request comes.
func TestServeLeavesBehind(t *testing.T) {
	d := new(diary)
	r := d.room("stubborn", true, nil)
	release := r.hurry
	r.hurry = nil
	var again sync.WaitGroup
	left := make(chan struct{})
	err := testHost().serve([]room{r}, func() {
		again.Go(func() {
			insist(t, func() bool {
				select {
				case <-left:
					return true
				default:
					return false
				}
			})
		})
	})
	close(left)
	release()
	again.Wait()
	if err == nil || !strings.Contains(err.Error(), "told to end at once") {
		t.Errorf("serve = %v", err)
	}
}

// insist sends TERM again and again: those right behind the first do not count.
func insist(t *testing.T, enough func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !enough(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("TERM is not obeyed")
			return
		}
		raise(t, syscall.SIGTERM)
	}
}
