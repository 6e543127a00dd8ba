package forward

import "sync"

// reaper ends ports behind the backs of the threads: a descriptor or a record may
// be used again only when no thread can still have the port in hand. It waits until
// all have finished the batch they were in.
type reaper struct {
	wait   func()      // until then
	finish func(*port) // what is left to do with a port

	mu    sync.Mutex // guards what follows
	queue []closing
	ended bool
	wake  chan struct{}
}

type closing struct {
	port *port
	done func(used bool)
}

func newReaper(wait func(), finish func(*port)) *reaper {
	return &reaper{wait: wait, finish: finish, wake: make(chan struct{}, 1)}
}

func (r *reaper) add(p *port, done func(used bool)) {
	r.mu.Lock()
	ended := r.ended
	if !ended {
		r.queue = append(r.queue, closing{p, done})
	}
	r.mu.Unlock()
	if !ended { // else the table closes all ports itself
		r.poke()
	}
}

func (r *reaper) stop() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.poke()
}

func (r *reaper) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reaper) run() {
	for range r.wake {
		for {
			r.mu.Lock()
			queue, ended := r.queue, r.ended
			r.queue = nil
			r.mu.Unlock()
			if len(queue) == 0 {
				if ended {
					return
				}
				break
			}
			r.wait()
			for _, c := range queue {
				r.finish(c.port)
				if c.done != nil {
					c.done(c.port.used.Load())
				}
			}
		}
	}
}
