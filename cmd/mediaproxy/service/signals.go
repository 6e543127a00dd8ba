package service

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Actions are what signals do. None but Now may be nil.
type Actions struct {
	Stop  func() // the first TERM or INT
	Hurry func() // each further one
	Hup   func() // HUP
	Debug func() // USR1

	Now func() time.Time // default time.Now
}

// echo is how long after the first TERM another one is taken for the same request:
// timeout(1) and others signal a process and then its group. People are slower.
const echo = 200 * time.Millisecond

// HandleSignals calls actions one after another, in the order of the signals, until the
// returned function is called.
func HandleSignals(a Actions) (end func()) {
	now := a.Now
	if now == nil {
		now = time.Now
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		var first time.Time // of TERM or INT
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				switch s {
				case syscall.SIGHUP:
					a.Hup()
				case syscall.SIGUSR1:
					a.Debug()
				default:
					switch at := now(); {
					case first.IsZero():
						first = at
						a.Stop()
					case at.Sub(first) >= echo:
						a.Hurry()
					}
				}
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(done)
		running.Wait()
	}
}
