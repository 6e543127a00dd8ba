package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

const (
	// Steady traffic of 5 s lets our ports connect; measuring begins after that.
	settleTime  = 6 * time.Second
	cpuTurn     = 4 * time.Second
	maxCPURatio = 2.0 / 3
)

// cpuTurns are the numbers of calls to compare with, 100 packets/s each.
var cpuTurns = []int{250, 500}

// load is what one turn of relaying showed.
type load struct {
	user, system float64 // µs of CPU for each packet that arrived
	lost         float64 // share of the packets sent
	p50, p99     time.Duration
}

func (l load) cpu() float64 { return l.user + l.system }

// cpuPerPacket compares the CPU time that the process needs for a packet. What
// the kernel does for it outside (receiving, in the sender's context on
// loopback) is the same for both and in neither.
func cpuPerPacket(s *settings) (rows []row, err error) {
	c, err := startCluster(s, loopback, "auto")
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer c.explain(&err)
	p, err := dialProxy(c.socket)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	e, err := startEngine(s, loopback)
	if err != nil {
		return nil, err
	}
	defer e.stop()
	for _, calls := range cpuTurns {
		var ours, theirs []load
		for round := range s.rounds {
			name := fmt.Sprintf("cpu-%d-%d", calls, round)
			for _, turn := range []struct {
				board switchboard
				pid   int
				loads *[]load
			}{{module{p}, c.relay.pid(), &ours}, {e, e.pid(), &theirs}} {
				l, err := relaying(turn.board, turn.pid, name, calls)
				if err != nil {
					return rows, err
				}
				*turn.loads = append(*turn.loads, l)
				s.progress.Printf("%d calls: %.2f µs/packet (user %.2f), %.2f %% lost, p50 %v p99 %v", calls, l.cpu(), l.user, 100*l.lost, l.p50, l.p99)
			}
		}
		rows = append(rows, cpuRow(calls, ours, theirs))
	}
	return rows, nil
}

func cpuRow(calls int, ours, theirs []load) row {
	cpu := func(loads []load) []float64 { return column(loads, load.cpu) }
	lost := func(loads []load) float64 {
		return 100 * median(column(loads, func(l load) float64 { return l.lost }))
	}
	ratio := median(ratios(cpu(ours), cpu(theirs)))
	return row{
		name:    fmt.Sprintf("CPU for a relayed packet, %d calls", calls),
		value:   fmt.Sprintf("%.2f µs (%.1f %% lost)", median(cpu(ours)), lost(ours)),
		peer:    fmt.Sprintf("rtpengine %.2f µs (%.1f %% lost), ratio %.2f", median(cpu(theirs)), lost(theirs), ratio),
		bound:   fmt.Sprintf("ratio <= %.2f", maxCPURatio),
		verdict: judge(ratio <= maxCPURatio),
	}
}

func column(loads []load, of func(load) float64) []float64 {
	var out []float64
	for _, l := range loads {
		out = append(out, of(l))
	}
	return out
}

// relaying has calls with media both ways, and measures while they are steady.
func relaying(board switchboard, pid int, name string, calls int) (l load, err error) {
	phones, err := newPhones()
	if err != nil {
		return l, err
	}
	if err := phones.dial(board, name, calls); err != nil {
		phones.stop()
		return l, err
	}
	phones.run()
	time.Sleep(settleTime)
	l, err = phones.load(pid)
	phones.stop()
	for i := range calls {
		err = cmp.Or(err, board.tearDown(callID(name, i)))
	}
	return l, err
}

// load measures one turn of steady traffic through the process.
func (p *phoneSet) load(pid int) (l load, err error) {
	user, system, err1 := cpuTime(pid)
	sent, received := p.sent.Load(), p.received.Load()
	h, _ := p.during(func() error { time.Sleep(cpuTurn); return nil })
	user2, system2, err2 := cpuTime(pid)
	sent, received = p.sent.Load()-sent, p.received.Load()-received
	switch {
	case err1 != nil || err2 != nil:
		return l, errors.Join(err1, err2)
	case received == 0:
		return l, errors.New("no packet arrived at a phone")
	}
	return load{
		user:   float64((user2 - user).Microseconds()) / float64(received),
		system: float64((system2 - system).Microseconds()) / float64(received),
		lost:   max(0, 1-float64(received)/float64(sent)),
		p50:    h.Quantile(0.5), p99: h.Quantile(0.99),
	}, nil
}

// dial sets up calls between the phones.
func (p *phoneSet) dial(board switchboard, name string, calls int) error {
	for i := range calls {
		ports, err := board.setUp(callID(name, i), onLoopback(p.sides[0].port), onLoopback(p.sides[1].port))
		if err != nil {
			return fmt.Errorf("call %d of %d: %w", i+1, calls, err)
		}
		p.call(ports)
	}
	return nil
}
