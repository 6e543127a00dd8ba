package main

import (
	"bytes"
	"fmt"
	"time"
)

const (
	activeCalls = 100 // 10,000 packets/s beside the idle sessions
	stallTurn   = 2 * time.Second
	// While statistics are written, dispatcher, relay and reader keep the processors
	// busy that packets had for themselves, so some wait for their turn. A loop that
	// is stalled makes them wait for a good part of the reading, hundreds of
	// milliseconds; one without a processor of the Go scheduler, for 10 ms.
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
	for round := range 2*s.rounds + 1 {
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
	more := make([]float64, len(busy))
	for i := range busy {
		more[i] = busy[i] - quiet[i]
	}
	ratio, added := median(ratios(busy, quiet)), median(more)
	return []row{{
		name:    fmt.Sprintf("p99 of relaying, statistics of %d read", s.sessions),
		value:   fmt.Sprintf("%.0f µs (a reading takes %.0f ms)", median(busy), 1000*median(took)),
		peer:    fmt.Sprintf("not read %.0f µs, ratio %.2f, %+.0f µs", median(quiet), ratio, added),
		bound:   fmt.Sprintf("ratio <= %.1f or <= +%v", stallRatio, stallSlack),
		verdict: judge(ratio <= stallRatio || added <= float64(stallSlack.Microseconds())),
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
