package main

import (
	"bytes"
	"fmt"
	"time"
)

const (
	activeCalls = 100 // 10,000 packets/s beside the idle sessions
	stallTurn   = 3 * time.Second
	// While statistics are written, dispatcher, relay and reader keep a processor
	// busy that packets had for themselves, so some wait for a time slice. A loop
	// that is stalled makes them wait for the whole reading, which takes longer
	// than this by an order of magnitude.
	stallRatio = 1.5
	stallSlack = time.Millisecond
)

// statisticsStall compares the time that packets take through the relay while
// the statistics of all sessions are read and while they are not.
func statisticsStall(s *settings) (rows []row, err error) {
	c, err := startCluster(s)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer c.explain(&err)
	if err := setUpAll(c.socket, "idle", s.sessions-activeCalls); err != nil {
		return nil, err
	}
	p, err := dialProxy(c.socket)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	phones, err := newPhones()
	if err != nil {
		return nil, err
	}
	defer phones.stop()
	if err := phones.dial(module{p}, "active", activeCalls); err != nil {
		return nil, err
	}
	phones.run()
	time.Sleep(settleTime)
	var quiet, busy, took []float64
	for round := range s.rounds + 2 {
		h, _ := phones.during(func() error { time.Sleep(stallTurn); return nil })
		quiet = append(quiet, h.microseconds(0.99))
		readings := 0
		h, err := phones.during(func() (err error) { readings, err = c.readStatistics(s.sessions); return err })
		if err != nil {
			return nil, err
		}
		busy = append(busy, h.microseconds(0.99))
		took = append(took, stallTurn.Seconds()/float64(readings))
		s.progress.Printf("p99 %.0f µs, while statistics are read %d times %.0f µs", quiet[round], readings, busy[round])
	}
	limit := max(stallRatio*median(quiet), median(quiet)+float64(stallSlack.Microseconds()))
	return []row{{
		name:    fmt.Sprintf("p99 of relaying, statistics of %d read", s.sessions),
		value:   fmt.Sprintf("%.0f µs (a reading takes %.0f ms)", median(busy), 1000*median(took)),
		peer:    fmt.Sprintf("not read %.0f µs, ratio %.2f", median(quiet), median(ratios(busy, quiet))),
		bound:   fmt.Sprintf("<= x%.1f or +%v", stallRatio, stallSlack),
		verdict: judge(median(busy) <= limit),
	}}, nil
}

// readStatistics reads those of all sessions again and again.
func (c *cluster) readStatistics(sessions int) (readings int, err error) {
	m, err := c.manage()
	if err != nil {
		return 0, err
	}
	defer m.Close()
	for began := time.Now(); time.Since(began) < stallTurn; readings++ {
		answer, err := m.ask("sessions")
		if err != nil {
			return readings, fmt.Errorf("read the statistics: %w", err)
		}
		if n := bytes.Count(answer, []byte(`"call_id"`)); n != sessions {
			return readings, fmt.Errorf("read the statistics: %d sessions in the answer, want %d", n, sessions)
		}
	}
	return readings, nil
}

func (h *histogram) microseconds(q float64) float64 { return float64(h.quantile(q)) / 1e3 }
