package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"example.org/mediaproxy/internal/wire/control"
)

// minimumAccounted is how much of the calls without accounting have to be made with it.
const minimumAccounted = 0.8

// accountedCalls measures answered calls with all of accounting on: each is kept on the disk
// before its relay forgets it, and stored in a database meanwhile. That is SQLite, whose work
// the dispatcher does itself: another server would take these processors from both.
func accountedCalls(s *settings) (rows []row, err error) {
	var rates [2][]float64
	var clusters [2]*cluster
	for i, books := range []string{"", "database"} {
		if clusters[i], err = startCluster(s, place{core: -1, books: books}, "auto"); err != nil {
			return nil, err
		}
		defer clusters[i].stop()
		defer clusters[i].explain(&err)
		if _, err := calls(clusters[i].socket, time.Second, answeredCall); err != nil { // warm
			return nil, err
		}
	}
	waiting, stored := 0, 0
	for range s.rounds + 2 {
		for i, c := range clusters {
			rate, err := calls(c.socket, commandTime, answeredCall)
			if err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], rate)
		}
		if waiting, stored, err = clusters[1].books(); err != nil {
			return nil, err
		}
		n := len(rates[0]) - 1
		s.progress.Printf("answered calls/s: %.0f, with accounting %.0f; %d stored, %d wait", rates[0][n], rates[1][n], stored, waiting)
		if err := clusters[1].idleBooks(); err != nil { // what waits would be stored in the next one's turn
			return nil, err
		}
	}
	ratio := median(ratios(rates[1], rates[0]))
	return []row{{
		name:    "answered calls with accounting",
		value:   fmt.Sprintf("%.0f calls/s, each stored (%d waited at the end of the last turn)", median(rates[1]), waiting),
		peer:    fmt.Sprintf("without %.0f calls/s, ratio %.2f", median(rates[0]), ratio),
		bound:   fmt.Sprintf("ratio >= %.1f", minimumAccounted),
		verdict: judge(ratio >= minimumAccounted),
	}}, nil
}

func answeredCall(p *proxy, id string) error {
	for _, kind := range []control.Kind{control.KindRequest, control.KindReply} {
		if _, err := p.port(update(id, kind, onLoopback(30000))); err != nil {
			return err
		}
	}
	_, err := p.do(remove(id))
	return err
}

// books is what waits for the slowest back-end, and what the slowest has stored.
func (c *cluster) books() (waiting, stored int, err error) {
	m, err := c.manage()
	if err != nil {
		return 0, 0, err
	}
	defer m.Close()
	line, err := m.ask("accounting")
	if err != nil {
		return 0, 0, err
	}
	var list []struct{ Waiting, Stored int }
	if err := json.Unmarshal(bytes.TrimSpace(line), &list); err != nil || len(list) == 0 {
		return 0, 0, fmt.Errorf("accounting: %s: %v", line, err)
	}
	stored = list[0].Stored
	for _, b := range list {
		waiting, stored = max(waiting, b.Waiting), min(stored, b.Stored)
	}
	return waiting, stored, nil
}

// idleBooks waits until everything is stored.
func (c *cluster) idleBooks() error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		waiting, _, err := c.books()
		if err != nil || waiting == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d calls still wait to be stored", waiting)
		}
	}
}
