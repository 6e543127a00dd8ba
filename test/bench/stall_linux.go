package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"time"
)

const (
	activeCalls = 100 // 10,000 packets/s beside the idle sessions
	stallTurn   = time.Second
	stallTurns  = 8 // of each kind, for each round
	// Packets are looked at in windows so short that the host leaves some of them alone;
	// those in which it took a processor from this machine are not counted.
	stallWindow = 100 * time.Millisecond
	// Reading statistics may not show in the time that packets take. On a machine of
	// few processors that time is never twice the same, so what is compared is the
	// median of windows, and their upper quartile, because a collection of garbage comes
	// in one of several windows. "The same" is: a fifth more; or no more than quiet turns
	// differ from each other in this very run; or no more than a tenth of a millisecond.
	// A loop that is stalled makes packets wait for a good part of a page, milliseconds.
	// The row below shows what a process costs that has nothing to do with us.
	stallRatio = 1.2
	stallSlack = 100 // µs
)

// burnCommand makes this program a process that does nothing but compute.
const burnCommand = "burn"

func burn() {
	for h := fnv.New64(); ; {
		h.Write([]byte{1})
	}
}

// kind of a turn.
type kind int

const (
	quiet kind = iota
	reading
	quietAgain // a quiet turn comes before each that is not
	burning
	kinds
)

// stallFigures are those of all turns.
type stallFigures struct {
	p99               [kinds][]float64 // µs, of windows
	taken             int              // windows in which the host took a processor
	took              []float64        // milliseconds for a reading
	relay, dispatcher []float64        // milliseconds of CPU for a reading; with that for packets
	packets           []float64        // milliseconds of CPU that the relay needs for packets in a turn
}

// statisticsStall compares the time that packets take through the relay while
// the statistics of all sessions are read and while they are not.
func statisticsStall(s *settings) (rows []row, err error) {
	c, err := startCluster(s, loopback, "auto")
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
	time.Sleep(2 * settleTime) // by then the relay has told its dispatcher that it moves packets
	f := &stallFigures{}
	for n := range stallTurns * s.rounds {
		for k := range kinds {
			if err := f.turn(k, c, phones, s.sessions); err != nil {
				return nil, err
			}
		}
		s.progress.Printf("%d turns of each kind, the host took a processor in %d windows", n+1, f.taken)
	}
	return f.rows(s.sessions)
}

// turn takes the figures of one turn.
func (f *stallFigures) turn(k kind, c *cluster, phones *phoneSet, sessions int) error {
	readings, took := 0, stallTurn
	something := func() error { time.Sleep(stallTurn); return nil }
	switch k {
	case reading:
		something = func() (err error) {
			began := time.Now()
			readings, err = c.readStatistics(sessions)
			took = time.Since(began)
			return err
		}
	case burning:
		self, err := os.Executable()
		if err != nil {
			return err
		}
		p, err := start(self, burnCommand)
		if err != nil {
			return err
		}
		defer p.kill()
	}
	relay, dispatcher, err := c.cpu()
	if err != nil {
		return err
	}
	windows, taken, err := phones.windows(stallWindow, something)
	if err != nil {
		return err
	}
	relay2, dispatcher2, err := c.cpu()
	if err != nil {
		return err
	}
	f.taken += taken
	for _, w := range windows {
		f.p99[k] = append(f.p99[k], float64(w.Quantile(0.99))/1e3)
	}
	inRelay, inDispatcher := (relay2-relay).Seconds()*1000, (dispatcher2-dispatcher).Seconds()*1000
	switch k {
	case quiet:
		f.packets = append(f.packets, inRelay)
	case reading:
		n := float64(readings)
		f.took = append(f.took, took.Seconds()*1000/n)
		packets := median(f.packets) * took.Seconds() / stallTurn.Seconds()
		f.relay, f.dispatcher = append(f.relay, (inRelay-packets)/n), append(f.dispatcher, inDispatcher/n)
	}
	return nil
}

// cpu is the time that both programs have used.
func (c *cluster) cpu() (relay, dispatcher time.Duration, err error) {
	u, s, err1 := cpuTime(c.relay.pid())
	u2, s2, err2 := cpuTime(c.dispatcher.pid())
	return u + s, u2 + s2, errors.Join(err1, err2)
}

func (f *stallFigures) rows(sessions int) ([]row, error) {
	for _, windows := range f.p99 {
		if len(windows) < 20 {
			return nil, fmt.Errorf("the host took a processor in %d windows, too few are left to compare", f.taken)
		}
	}
	var rows []row
	compared := func(name string, k kind, q float64) row {
		first, second := quantile(f.p99[quiet], q), quantile(f.p99[quietAgain], q)
		calm, p99 := (first+second)/2, quantile(f.p99[k], q)
		r := row{
			name:  name,
			value: fmt.Sprintf("%.0f µs", p99),
			peer:  fmt.Sprintf("quiet %.0f and %.0f µs, ratio %.2f, %+.0f µs", first, second, p99/calm, p99-calm),
		}
		if k == reading {
			slack := max(stallSlack, math.Abs(first-second))
			r.bound = fmt.Sprintf("ratio <= %.1f or <= +%.0f µs", stallRatio, slack)
			r.verdict = judge(p99 <= stallRatio*calm || p99-calm <= slack)
		}
		return r
	}
	for i, of := range []string{"median", "upper quartile"} {
		q := []float64{0.5, 0.75}[i]
		rows = append(rows,
			compared(fmt.Sprintf("p99 of relaying, %s of %d windows, statistics of %d read", of, len(f.p99[reading]), sessions), reading, q),
			compared("the same, another process computes instead", burning, q))
	}
	return append(rows, row{
		name:  fmt.Sprintf("reading the statistics of %d", sessions),
		value: fmt.Sprintf("%.0f ms", median(f.took)),
		peer:  fmt.Sprintf("CPU: relay %.0f ms, dispatcher %.0f ms", median(f.relay), median(f.dispatcher)),
	}), nil
}

// readStatistics reads those of all sessions again and again.
func (c *cluster) readStatistics(sessions int) (readings int, err error) {
	m, err := c.manage()
	if err != nil {
		return 0, err
	}
	defer m.Close()
	for began := time.Now(); time.Since(began) < stallTurn; readings++ {
		n, err := m.count("sessions", `"call_id"`)
		if err != nil {
			return readings, fmt.Errorf("read the statistics: %w", err)
		}
		if n != sessions {
			return readings, fmt.Errorf("read the statistics: %d sessions in the answer, want %d", n, sessions)
		}
	}
	return readings, nil
}

// count asks and counts a word in the answer. It keeps nothing: this process plays
// the phones, too, and is to have no garbage of its own to collect.
func (m *manager) count(command, word string) (n int, err error) {
	if _, err := m.Write([]byte(command + "\r\n")); err != nil {
		return 0, err
	}
	edge := make([]byte, 0, 2*len(word)) // where two parts meet, which can be within the word
	for {
		part, err := m.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return n, err
		}
		most := min(len(word)-1, len(part))
		n += bytes.Count(append(edge, part[:most]...), []byte(word)) + bytes.Count(part, []byte(word))
		if err == nil {
			return n, nil
		}
		edge = append(edge[:0], part[len(part)-most:]...)
	}
}
