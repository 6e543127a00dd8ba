package main

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/internal/wire/control"
)

const (
	updateRate      = 500 // per second, and as many removes
	updateTime      = 4 * time.Second
	callTime        = time.Second // between a call's update and its remove
	maxLatencyRatio = 10
)

// updateLatency measures how long updates take that come at a fixed rate,
// whether or not the ones before are answered: a time counts from when the
// request was due, so that a server that stalls pays for all who wait.
func updateLatency(s *settings) (rows []row, err error) {
	c, err := startCluster(s, loopback, "auto")
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer c.explain(&err)
	peer, echoSocket, err := startEcho(c.dir)
	if err != nil {
		return nil, err
	}
	defer peer.stop()
	if _, err := paced(c.socket, "warm", time.Second); err != nil {
		return nil, err
	}
	var p50, p99, echo50, echo99 []float64
	for round := range s.rounds + 2 { // a p99 needs more turns than a mean
		theirs, err := paced(echoSocket, fmt.Sprint("echo-", round), updateTime)
		if err != nil {
			return nil, err
		}
		ours, err := paced(c.socket, fmt.Sprint("call-", round), updateTime)
		if err != nil {
			return nil, err
		}
		p50, p99 = append(p50, micros(ours, 0.5)), append(p99, micros(ours, 0.99))
		echo50, echo99 = append(echo50, micros(theirs, 0.5)), append(echo99, micros(theirs, 0.99))
		s.progress.Printf("update p50 %.0f p99 %.0f µs, echo p50 %.0f p99 %.0f µs", p50[round], p99[round], echo50[round], echo99[round])
	}
	ratio := median(ratios(p99, echo99))
	return []row{{
		name:    fmt.Sprintf("update at %d/s, p99", updateRate),
		value:   fmt.Sprintf("%.0f µs (p50 %.0f)", median(p99), median(p50)),
		peer:    fmt.Sprintf("echo %.0f µs (p50 %.0f), ratio %.1f", median(echo99), median(echo50), ratio),
		bound:   fmt.Sprintf("ratio <= %d", maxLatencyRatio),
		verdict: judge(ratio <= maxLatencyRatio),
	}}, nil
}

// micros is a quantile in microseconds.
func micros(latencies []time.Duration, q float64) float64 {
	return float64(quantile(latencies, q)) / 1e3
}

// pool are connections that are idle, or wait for one reply each.
type pool struct {
	idle    chan *waiting
	proxies []*proxy
	wg      sync.WaitGroup

	mu        sync.Mutex // guards what follows
	latencies []time.Duration
	err       error
}

// waiting is a connection with the time its request was due.
type waiting struct {
	*proxy
	due chan time.Time
}

func newPool(socket string, n int) (*pool, error) {
	proxies, err := dialProxies(socket, n)
	if err != nil {
		return nil, err
	}
	p := &pool{idle: make(chan *waiting, n), proxies: proxies}
	for _, c := range proxies {
		w := &waiting{c, make(chan time.Time, 1)}
		p.wg.Add(1)
		go p.collect(w)
		p.idle <- w
	}
	return p, nil
}

// collect reads the replies of one connection.
func (p *pool) collect(w *waiting) {
	defer p.wg.Done()
	for due := range w.due {
		_, err := w.reply()
		took := time.Since(due)
		p.mu.Lock()
		p.latencies = append(p.latencies, took)
		p.err = cmp.Or(p.err, err) // the first
		p.mu.Unlock()
		p.idle <- w
	}
}

// send writes a request on an idle connection; if there is none, it waits, and
// the request is late.
func (p *pool) send(due time.Time, request []byte) error {
	w := <-p.idle
	_, err := w.Write(request)
	w.due <- due
	return err
}

// close waits for the replies that are still due.
func (p *pool) close() error {
	for range p.proxies {
		w := <-p.idle
		close(w.due)
	}
	p.wg.Wait()
	closeAll(p.proxies)
	return p.err
}

// paced sends updates at the fixed rate, and each call's remove later on, and
// returns the times of the updates.
func paced(socket, name string, d time.Duration) ([]time.Duration, error) {
	updates, err := newPool(socket, connections)
	if err != nil {
		return nil, err
	}
	removes, err := newPool(socket, connections)
	if err != nil {
		return nil, err
	}
	// The thread sleeps by itself: the runtime rounds short sleeps up to 1 ms.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	id := func(n int) string { return fmt.Sprintf("%s-%d@bench", name, n) }
	const interval = time.Second / updateRate
	total, lag := int(d/interval), int(callTime/interval)
	began := time.Now()
	for n := range total + lag {
		due := began.Add(time.Duration(n) * interval)
		sleepUntil(due)
		var errs [2]error
		if n < total {
			errs[0] = updates.send(due, update(id(n), control.KindRequest, onLoopback(30000)))
		}
		if n >= lag {
			errs[1] = removes.send(due, remove(id(n-lag)))
		}
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(updates.close(), removes.close()); err != nil {
		return nil, err
	}
	return updates.latencies, nil
}

func sleepUntil(t time.Time) {
	if d := time.Until(t); d > 0 {
		left := unix.NsecToTimespec(int64(d))
		unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &left, nil) // woken early is fine
	}
}
