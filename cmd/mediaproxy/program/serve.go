package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"

	"example.org/mediaproxy/cmd/mediaproxy/service"
)

// A room is a part of the program that runs until it is told to stop.
type room struct {
	name string
	// run works until stop, or until it has nothing to do any more.
	run   func(ctx context.Context) error
	ready <-chan struct{} // closed when sockets are open; nil: it is ready at once
	stop  func()          // in good order
	hurry func()          // after stop: at once; nil: it is left behind
	hup   func()          // HUP
	alive func()          // returns quickly unless the room hangs
	close func() error    // after run; may be nil
}

// runningRoom is a room whose run was called.
type runningRoom struct {
	room
	done chan struct{} // closed when run has returned err
	err  error
}

// serve runs rooms, each started when the one before is ready, until a signal or
// until one of them ends. They stop in the opposite order. ready is called once
// everything is open.
func (h *host) serve(rooms []room, ready func()) error {
	stopped := make(chan struct{})
	hurried := make(chan struct{})
	hurry := sync.OnceFunc(func() { close(hurried) })
	end := service.HandleSignals(service.Actions{
		Stop:  func() { close(stopped) },
		Hurry: hurry,
		Hup: func() {
			for _, r := range rooms {
				r.hup()
			}
		},
		Debug: h.toggleDebug,
	})
	defer end()
	if h.options.foreground != nil {
		pid, err := service.WritePID(filepath.Join(h.runtimeDir, h.options.name+".pid"))
		if err != nil {
			return err
		}
		defer func() {
			if err := pid.Remove(); err != nil {
				h.log.Warn("the PID file stays behind", "error", err)
			}
		}()
		h.keepCrash()
	}
	if h.options.debugMemory {
		defer h.reportMemory()
	}
	running, opened := open(rooms, stopped)
	if opened {
		h.untilEnd(running, stopped, ready)
	}
	var err error
	for i := len(running) - 1; i >= 0; i-- {
		err = errors.Join(err, running[i].end(hurried))
	}
	if err == nil && !opened {
		return errNotReady
	}
	return err
}

var errNotReady = errors.New("stopped before it was ready")

// end stops a room and waits for it, in a hurry if hurried is or becomes closed.
func (r *runningRoom) end(hurried <-chan struct{}) error {
	r.stop()
	select {
	case <-r.done:
	case <-hurried:
		if r.hurry == nil {
			return fmt.Errorf("%s: told to end at once, before it was in good order", r.name)
		}
		r.hurry()
		<-r.done
	}
	if r.close != nil {
		return errors.Join(r.err, r.close())
	}
	return r.err
}

// open starts the rooms one after another, each when the one before is ready. It
// returns those that run, and false if they are not all or not all ready.
func open(rooms []room, stopped <-chan struct{}) (running []*runningRoom, ok bool) {
	for _, r := range rooms {
		one := &runningRoom{room: r, done: make(chan struct{})}
		go func() { // ends with run; serve waits for done
			defer close(one.done)
			if err := r.run(context.Background()); err != nil {
				one.err = fmt.Errorf("%s: %w", r.name, err)
			}
		}()
		running = append(running, one)
		if r.ready == nil {
			continue
		}
		select {
		case <-r.ready:
		case <-one.done:
			return running, false
		case <-stopped:
			return running, false
		}
	}
	return running, true
}

// untilEnd tells everyone that the program serves, and waits for its end.
func (h *host) untilEnd(running []*runningRoom, stopped <-chan struct{}, ready func()) {
	ready()
	if err := service.Ready("serving"); err != nil {
		h.log.Warn("systemd does not know that this program is ready", "error", err)
	}
	if h.options.foreground != nil {
		h.options.foreground.Ready()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		service.Watchdog(ctx, h.log, func() {
			for _, r := range running {
				r.alive()
			}
		})
	})
	defer watching.Wait()
	defer cancel()
	waitAny(running, stopped)
	if err := service.Stopping(); err != nil {
		h.log.Warn("systemd does not know that this program stops", "error", err)
	}
}

// waitAny returns when a signal asked for the end, or a room ended by itself.
func waitAny(running []*runningRoom, stopped <-chan struct{}) {
	any := make(chan struct{}, len(running))
	for _, r := range running {
		go func() { <-r.done; any <- struct{}{} }() // ends with the room, which serve waits for
	}
	select {
	case <-stopped:
	case <-any:
	}
}

// keepCrash has the last words of a bug written to a file: in the background there is
// no terminal to print them on.
func (h *host) keepCrash() {
	path := filepath.Join(h.runtimeDir, h.options.name+".crash")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		defer f.Close()
		err = debug.SetCrashOutput(f, debug.CrashOptions{})
	}
	if err != nil {
		h.log.Warn("a crash of this program would leave no trace", "error", err)
	}
}

func (h *host) reportMemory() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.log.Info("memory at the end", "heap_bytes", m.HeapAlloc, "from_system_bytes", m.Sys,
		"allocated_bytes", m.TotalAlloc, "objects", m.HeapObjects, "collections", m.NumGC, "goroutines", runtime.NumGoroutine())
}
