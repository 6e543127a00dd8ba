package main

import (
	"fmt"
	"sync"
	"time"

	"example.org/mediaproxy/internal/wire/control"
)

const (
	connections = 50 // SIP proxies have a few dozen processes
	minimumRate = 3000
	commandTime = 4 * time.Second // of one turn
)

// commandsPerSecond measures pairs of update and remove. Every update opens the
// four ports of an audio stream.
func commandsPerSecond(s *settings) (rows []row, err error) {
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
	if _, err := pairs(c.socket, time.Second); err != nil { // warm
		return nil, err
	}
	var ours, theirs []float64
	for range s.rounds {
		for _, turn := range []struct {
			socket string
			rates  *[]float64
		}{{c.socket, &ours}, {echoSocket, &theirs}} {
			rate, err := pairs(turn.socket, commandTime)
			if err != nil {
				return nil, err
			}
			*turn.rates = append(*turn.rates, rate)
		}
		s.progress.Printf("pairs/s: %.0f, echo %.0f", ours[len(ours)-1], theirs[len(theirs)-1])
	}
	rate := median(ours)
	return []row{{
		name:    fmt.Sprintf("update + remove, %d connections", connections),
		value:   fmt.Sprintf("%.0f pairs/s", rate),
		peer:    fmt.Sprintf("echo %.0f pairs/s, ratio %.2f", median(theirs), median(ratios(ours, theirs))),
		bound:   fmt.Sprintf(">= %d pairs/s", minimumRate),
		verdict: judge(rate >= minimumRate),
	}}, nil
}

// pairs has all connections ask as fast as they are answered.
func pairs(socket string, d time.Duration) (perSecond float64, err error) {
	return calls(socket, d, func(p *proxy, id string) error {
		if _, err := p.port(update(id, control.KindRequest, onLoopback(30000))); err != nil {
			return err
		}
		_, err := p.do(remove(id))
		return err
	})
}

// calls has all connections make calls as fast as they are answered.
func calls(socket string, d time.Duration, call func(*proxy, string) error) (perSecond float64, err error) {
	proxies, err := dialProxies(socket, connections)
	if err != nil {
		return 0, err
	}
	defer closeAll(proxies)
	var (
		wg     sync.WaitGroup
		counts [connections]int
		errs   [connections]error
	)
	began := time.Now()
	for i, p := range proxies {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; time.Since(began) < d; n++ {
				id := fmt.Sprintf("pair-%d-%d-%d@bench", began.UnixNano(), i, n)
				if errs[i] = call(p, id); errs[i] != nil {
					return
				}
				counts[i]++
			}
		}()
	}
	wg.Wait()
	elapsed := time.Since(began)
	total := 0
	for i := range counts {
		if errs[i] != nil {
			return 0, errs[i]
		}
		total += counts[i]
	}
	return float64(total) / elapsed.Seconds(), nil
}
