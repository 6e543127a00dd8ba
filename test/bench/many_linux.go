package main

import (
	"fmt"
	"net/netip"
	"time"

	"example.org/mediaproxy/test/bench/traffic"
)

const (
	manyCalls = 10_000
	manyPace  = 2 * 5 * manyCalls // packets a second: 5 in each direction of a stream

	maxManyCPU    = 0.03 // of a processor
	maxManyGrowth = 0.02 // of the memory

	walkedSessions = 25_000 // 100,000 ports
	walkTime       = 20 * time.Second
	maxWalkCPU     = 0.005
)

// manyStreams has the kernel move the packets of 10,000 calls, each with few of them:
// what they cost the relay's process is what there is to do for a stream, not for a
// packet.
func manyStreams(s *settings) (rows []row, err error) {
	m := &mover{name: "tc", calls: manyCalls, begin: beginOurs("tc")}
	defer m.end()
	if err := m.start(s); err != nil {
		return nil, err
	}
	defer m.cluster.explain(&err)
	// What begins with the streams is over, garbage of setting them up included.
	if err := m.send(uint64(manyPace*10), manyPace); err != nil {
		return nil, err
	}
	rss, err := resident(m.pid)
	if err != nil {
		return nil, err
	}
	before, err := traffic.CPUTime(m.pid)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for time.Since(began) < s.many {
		if err := m.send(manyPace, manyPace); err != nil {
			return nil, err
		}
	}
	took := time.Since(began)
	after, err := traffic.CPUTime(m.pid)
	if err != nil {
		return nil, err
	}
	rss2, err := resident(m.pid)
	if err != nil {
		return nil, err
	}
	sockets, err := descriptors(m.pid)
	if err != nil {
		return nil, err
	}
	used, growth := (after-before).Seconds()/took.Seconds(), float64(rss2-rss)/float64(rss)
	rows = []row{{
		name:  fmt.Sprintf("processor of the relay for %d streams at 5 packets/s each way, %v", manyCalls, took.Round(time.Second)),
		value: fmt.Sprintf("%.2f %%", 100*used), peer: fmt.Sprintf("%d packets, %.4f %% lost", m.sent, 100*(1-float64(m.arrived)/float64(m.sent))),
		bound: fmt.Sprintf("<= %.0f %%", 100*maxManyCPU), verdict: judge(used <= maxManyCPU),
	}, {
		name:  "its memory before and after",
		value: fmt.Sprintf("%.1f and %.1f MB", float64(rss)/1e6, float64(rss2)/1e6),
		bound: fmt.Sprintf("<= +%.0f %%", 100*maxManyGrowth), verdict: judge(growth <= maxManyGrowth),
	}, {
		name: fmt.Sprintf("its descriptors with %d sessions", manyCalls), value: fmt.Sprint(sockets),
		bound: fmt.Sprintf("< %d", maxDescriptors), verdict: judge(sockets < maxDescriptors),
	}}
	if err := m.proof(); err != nil {
		rows[0].value, rows[0].verdict = "not measured: "+err.Error(), fail
	}
	return rows, nil
}

// walkedTable is what 100,000 open ports on two addresses give a relay to do when nothing
// happens: each second it looks for streams that timed out. What it does without any call
// is not counted.
func walkedTable(s *settings) (_ []row, err error) {
	c, err := startCluster(s, place{core: -1, wide: true}, "sk_lookup")
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer c.explain(&err)
	empty, err := c.idle()
	if err != nil {
		return nil, err
	}
	phone6 := netip.MustParseAddrPort("[fd00::2]:4000")
	err = each(c.socket, walkedSessions, func(m module, i int) error {
		phone := onLoopback(4000)
		if i%2 == 1 {
			phone = phone6
		}
		_, err := m.setUp(callID("walk", i), phone, phone)
		return err
	})
	if err != nil {
		return nil, err
	}
	full, err := c.idle()
	if err != nil {
		return nil, err
	}
	sockets, err := descriptors(c.relay.pid())
	if err != nil {
		return nil, err
	}
	used := full - empty
	return []row{{
		name:  fmt.Sprintf("processor of the relay for %d open ports without packets", 4*walkedSessions),
		value: fmt.Sprintf("%.2f %%", 100*used), peer: fmt.Sprintf("empty relay %.2f %%; %d descriptors", 100*empty, sockets),
		bound: fmt.Sprintf("<= %.1f %%", 100*maxWalkCPU), verdict: judge(used <= maxWalkCPU && sockets < maxDescriptors),
	}}, nil
}

// idle is the part of a processor that the relay uses when nobody asks it for anything.
func (c *cluster) idle() (float64, error) {
	time.Sleep(settleTime)
	before, err := traffic.CPUTime(c.relay.pid())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	time.Sleep(walkTime)
	took := time.Since(began)
	after, err := traffic.CPUTime(c.relay.pid())
	return (after - before).Seconds() / took.Seconds(), err
}
