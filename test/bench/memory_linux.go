package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxResident = 15000 // bytes for a session with one audio stream
	maxKernel   = 12000

	socketsPerSession = 4
	maxDescriptors    = 100
)

// memoryPerSession fills a relay with sessions and looks at its memory and at
// the kernel's, before, during and afterwards. The kernel's is that of the whole
// machine, so what others do at the same time is noise: what the sessions took
// and what came back with them are measured on their own.
func memoryPerSession(s *settings) (rows []row, err error) {
	c, err := startCluster(s, loopback, "off") // the most expensive way: a socket for each port
	if err != nil {
		return nil, err
	}
	defer c.stop()
	defer c.explain(&err)
	// The first sessions pay for what all need.
	if err := setUpAll(c.socket, "warm", 100); err != nil {
		return nil, err
	}
	if err := tearDownAll(c.socket, "warm", 100); err != nil {
		return nil, err
	}
	rss, kernel, err := memory(c)
	if err != nil {
		return nil, err
	}
	if err := setUpAll(c.socket, "memory", s.sessions); err != nil {
		return []row{sessionsRow(s, false)}, err
	}
	rss2, kernel2, err := memory(c)
	if err != nil {
		return nil, err
	}
	if err := tearDownAll(c.socket, "memory", s.sessions); err != nil {
		return nil, err
	}
	_, kernel3, err := memory(c)
	if err != nil {
		return nil, err
	}
	perSession := func(bytes int) float64 { return float64(bytes) / float64(s.sessions) }
	ours, rise, fall := perSession(rss2-rss), perSession(kernel2-kernel), perSession(kernel2-kernel3)
	s.progress.Printf("RSS before %d, with %d; kernel before %d, with %d, after %d", rss, rss2, kernel, kernel2, kernel3)
	return []row{sessionsRow(s, true), {
		name:  "relay's RSS for a session",
		value: fmt.Sprintf("%.0f bytes", ours), peer: fmt.Sprintf("empty relay %.1f MB", float64(rss)/1e6),
		bound: fmt.Sprintf("<= %d", maxResident), verdict: judge(ours <= maxResident),
	}, {
		name:  "kernel memory for a session",
		value: fmt.Sprintf("%.0f bytes taken, %.0f given back", rise, fall), peer: fmt.Sprintf("%d bound UDP sockets", socketsPerSession),
		bound: fmt.Sprintf("<= %d (mean)", maxKernel), verdict: judge((rise+fall)/2 <= maxKernel),
	}}, nil
}

func sessionsRow(s *settings, ok bool) row {
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return row{
		name: "sessions in one relay", value: fmt.Sprintf("%d (%d sockets)", s.sessions, s.sessions*socketsPerSession),
		peer: fmt.Sprintf("descriptor limit %d", limit.Max), bound: "all set up", verdict: judge(ok),
	}
}

// memory of the relay and of the kernel, when both have come to rest: the kernel
// frees sockets after a grace period, and a relay some of its own behind the call.
func memory(c *cluster) (rss, kernel int, err error) {
	const rest, step = 3 * time.Second, 500 * time.Millisecond
	last := -1
	for deadline := time.Now().Add(10 * time.Second); ; {
		time.Sleep(rest)
		if rss, err = resident(c.relay.pid()); err != nil {
			return 0, 0, err
		}
		if kernel, err = kernelMemory(); err != nil {
			return 0, 0, err
		}
		if diff := kernel - last; last >= 0 && max(diff, -diff) < 1<<20 || time.Now().After(deadline) {
			return rss, kernel, nil
		}
		last = kernel
		time.Sleep(step)
	}
}
