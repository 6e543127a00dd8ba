package service

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Actions are what signals do. None may be nil.
type Actions struct {
	Stop  func() // the first TERM or INT
	Hurry func() // each further one
	Hup   func() // HUP
	Debug func() // USR1
}

// HandleSignals calls actions one after another, in the order of the signals, until the
// returned function is called.
func HandleSignals(a Actions) (end func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		stop := a.Stop
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
					stop()
					stop = a.Hurry
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
