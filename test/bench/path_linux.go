package main

import (
	"cmp"
	"fmt"
	"runtime"
)

const (
	pathCalls = 500 // 1,000 flows
	maxLost   = 0.001

	maxKernelToNAT    = 1.0 / 2
	maxKernelToEngine = 1.0 / 10
	maxLookupToEngine = 1.0 / 2
	maxBoundToEngine  = 2.0 / 3
)

// comparison is a row: a way of relaying, its peer, and what their ratio may be.
type comparison struct {
	what, peer string
	bound      float64
}

var comparisons = []comparison{
	{"tc", "nftables NAT", maxKernelToNAT},
	{"tc", "rtpengine", maxKernelToEngine},
	{"sk_lookup", "rtpengine", maxLookupToEngine},
	{"off", "rtpengine", maxBoundToEngine},
}

// processorPerPacket compares what one packet costs the processor of a relay, all of
// it: reception, the kernel's program or stack, the process, transmission.
//
// Each way of relaying has a host of its own and all stand at once, so that turns are
// taken in quick succession. Generator, relay and sink share one processor. The
// generator hands the relay's device 64 packets; what the kernel does for them
// happens in the generator's place, then a relay in user space goes before the
// generator until it has nothing left to do. So packets come as fast as they are
// relayed and none is lost. The figure is the CPU time of generator and relay, from
// the scheduler's clocks, less what the generator needs when packets end at the
// relay's door. What comes on top when a processor is woken for few packets is in
// none of the figures.
func processorPerPacket(s *settings) (rows []row, err error) {
	movers := []*mover{
		{name: "door", turn: 1_000_000, begin: beginDoor},
		{name: "nftables NAT", turn: 1_000_000, begin: beginNAT},
		{name: "tc", turn: 1_000_000, begin: beginOurs("tc")},
		{name: "sk_lookup", turn: 150_000, begin: beginOurs("sk_lookup")},
		{name: "off", turn: 150_000, settle: settleTime, begin: beginOurs("off")}, // to connect its sockets again
		{name: "rtpengine", turn: 150_000, begin: beginEngine},
	}
	defer func() {
		for _, m := range movers {
			m.end()
		}
	}()
	for _, m := range movers {
		m.calls = pathCalls
		if err := m.start(s); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	for range s.rounds + 2 { // turns are short, and a machine is not always its own
		door := 0.0
		for _, m := range movers {
			if err := m.measure(&door); err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
			s.progress.Printf("%s: %.0f ns/packet", m.name, m.took[len(m.took)-1])
		}
	}
	by := map[string]*mover{}
	for _, m := range movers {
		by[m.name] = m
	}
	for _, c := range comparisons {
		rows = append(rows, c.row(s, by[c.what], by[c.peer]))
	}
	return rows, nil
}

func (c comparison) row(s *settings, ours, theirs *mover) row {
	ratio := median(ratios(ours.took, theirs.took))
	r := row{
		name:    fmt.Sprintf("processor for a packet, %s, %d flows", ours.title(), 2*pathCalls),
		value:   fmt.Sprintf("%.0f ns", median(ours.took)),
		peer:    fmt.Sprintf("%s %.0f ns, ratio %.3f", theirs.name, median(theirs.took), ratio),
		bound:   fmt.Sprintf("ratio <= %.2f", c.bound),
		verdict: judge(ratio <= c.bound),
	}
	if err := cmp.Or(ours.proof(), theirs.proof()); err != nil {
		r.value, r.verdict = "not measured: "+err.Error(), fail
	} else if r.verdict == fail {
		r.peer += profiles(s, ours, theirs)
	}
	return r
}

// pathCore is the processor that all share. The first one has most of the machine's
// interrupts.
func pathCore() int { return runtime.NumCPU() - 1 }

// measure has one turn, after as much traffic as makes the relay steady.
func (m *mover) measure(door *float64) error {
	if m.settle > 0 {
		if err := m.steady(m.settle); err != nil {
			return err
		}
	}
	before, err := m.cpu()
	if err != nil {
		return err
	}
	sender := m.senderTime
	if err := m.send(m.turn, 0); err != nil {
		return err
	}
	after, err := m.cpu()
	if err != nil {
		return err
	}
	total := float64(after - before + m.senderTime - sender)
	if took := total / float64(m.turn); m.name == "door" {
		*door = took
		m.took = append(m.took, took)
	} else {
		m.took = append(m.took, took-*door)
	}
	return nil
}
