package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"slices"
	"time"
)

const (
	activeCalls = 100 // 10,000 packets/s beside the idle sessions
	stallTurn   = time.Second
	// A turn is not counted when others had more than this part of a processor.
	disturbance   = 20
	stallPatience = 100 * time.Second
	// Reading statistics may not show in the time that packets take. On a machine of
	// few processors that time is never twice the same, so what is compared is the
	// median of turns, and "the same" is: a fifth more; or no more than quiet turns
	// differ from each other in this very run; or no more than a tenth of a
	// millisecond, which is twice what a process shows that has nothing to do with us
	// and uses one processor (the row below). A loop that is stalled makes packets wait
	// for a good part of a page, milliseconds; garbage collection does for as long.
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

// stallTurns are the figures of the turns.
type stallTurns struct {
	p99               [kinds][]float64 // µs
	took              []float64        // milliseconds for a reading
	relay, dispatcher []float64        // milliseconds of CPU for a reading; with that for packets
	packets           []float64        // milliseconds of CPU that the relay needs for packets in a turn
	disturbed         int
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
	time.Sleep(settleTime)
	t := &stallTurns{}
	for began := time.Now(); !t.enough(2*s.rounds + 1); {
		if time.Since(began) > stallPatience {
			return nil, fmt.Errorf("others had a processor in %d turns, too few are left to compare", t.disturbed)
		}
		for k := range kinds {
			if err := t.turn(k, c, phones, s.sessions); err != nil {
				return nil, err
			}
		}
		s.progress.Printf("%d turns of others; p99 in µs: quiet %.0f %.0f, statistics are read %.0f, another process computes %.0f",
			t.disturbed, t.p99[quiet], t.p99[quietAgain], t.p99[reading], t.p99[burning])
	}
	return t.rows(s.sessions), nil
}

func (t *stallTurns) enough(rounds int) bool {
	return len(slices.MinFunc(t.p99[:], func(a, b []float64) int { return cmp.Compare(len(a), len(b)) })) >= rounds
}

// turn takes the figures of one turn. Where somebody else had a good part of a
// processor, or the host took it, they are theirs, and not counted.
func (t *stallTurns) turn(k kind, c *cluster, phones *phoneSet, sessions int) error {
	programs := []int{os.Getpid(), c.relay.pid(), c.dispatcher.pid()}
	readings := 0
	something := func() error { time.Sleep(stallTurn); return nil }
	switch k {
	case reading:
		something = func() (err error) { readings, err = c.readStatistics(sessions); return err }
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
		programs = append(programs, p.pid())
	}
	before, err := lookAround(programs)
	if err != nil {
		return err
	}
	h, err := phones.during(something)
	if err != nil {
		return err
	}
	after, err := lookAround(programs)
	if err != nil {
		return err
	}
	used := func(program int) float64 {
		return (after.programs[program] - before.programs[program]).Seconds() * 1000
	}
	if k == quiet {
		t.packets = append(t.packets, used(1))
	}
	if after.others-before.others > stallTurn/disturbance {
		t.disturbed++
		return nil
	}
	t.p99[k] = append(t.p99[k], float64(h.quantile(0.99))/1e3)
	if k == reading {
		n := float64(readings)
		t.took = append(t.took, stallTurn.Seconds()*1000/n)
		t.relay, t.dispatcher = append(t.relay, (used(1)-median(t.packets))/n), append(t.dispatcher, used(2)/n)
	}
	return nil
}

func (t *stallTurns) rows(sessions int) []row {
	calm := median(slices.Concat(t.p99[quiet], t.p99[quietAgain]))
	spread := math.Abs(median(t.p99[quiet]) - median(t.p99[quietAgain]))
	slack := max(stallSlack, spread)
	read, burnt := median(t.p99[reading]), median(t.p99[burning])
	compared := func(p99 float64) string {
		return fmt.Sprintf("not read %.0f µs ±%.0f, ratio %.2f, %+.0f µs", calm, spread, p99/calm, p99-calm)
	}
	return []row{{
		name:    fmt.Sprintf("p99 of relaying, statistics of %d read", sessions),
		value:   fmt.Sprintf("%.0f µs", read),
		peer:    compared(read),
		bound:   fmt.Sprintf("ratio <= %.1f or <= +%.0f µs", stallRatio, slack),
		verdict: judge(read <= stallRatio*calm || read-calm <= slack),
	}, {
		name:  "the same, another process computes instead",
		value: fmt.Sprintf("%.0f µs", burnt),
		peer:  compared(burnt),
	}, {
		name:  fmt.Sprintf("reading the statistics of %d", sessions),
		value: fmt.Sprintf("%.0f ms", median(t.took)),
		peer:  fmt.Sprintf("CPU: relay %.0f ms, dispatcher %.0f ms", median(t.relay), median(t.dispatcher)),
	}}
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
