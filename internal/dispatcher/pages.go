package dispatcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/manage"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// Statistics are read all the time, by monitoring, and on hosts whose processors
// have packets to move. So a reading comes in pages, with pauses between them: it
// takes some tenths of a second and a fraction of one processor, and whatever
// waits for the relay, its link or a processor waits for a page at most.

const (
	// nearPage is how many sessions a relay on this host is asked for at once. With
	// one stream each they are some 9 kB, which relay and dispatcher each handle in less
	// than a tenth of a millisecond, system calls included: many kernels let no packet
	// thread in before such a call is over.
	nearPage = 12
	// farPage is the same for another host, where the relay has the processors for
	// itself, and where every page takes a round trip.
	farPage = 128
	// The pause after a page is pauseFactor times what the relay took for it, so
	// that a reading takes less on a host that is busy. The least pause is for hosts
	// that are not, the most for relays that are far away.
	pauseFactor = 3
	leastPause  = time.Millisecond
	mostPause   = 4 * time.Millisecond
	// A relay on this host that moves packets itself gets longer pauses, so that few
	// packets meet a page at all; but for no more than this time in a reading.
	calmPause   = 12 * time.Millisecond
	calmReading = 6 * time.Second
	calmFrom    = 500 // packets a second
	// Answers of this length are likely to be pages; the memory of larger ones is
	// not kept.
	fromPage, toPage = 8 << 10, 256 << 10
)

// page is a part of the sessions of a relay.
type page struct {
	docs []json.RawMessage // cut from body, or written here
	body []byte
	next uint64        // where the next page begins; 0: there is none
	took time.Duration // to get it
}

// reader is what readings have in common.
type reader struct {
	pause  chan struct{} // full while somebody pauses
	bodies chan []byte   // the memory of old pages
	pages  chan *page    // the same, without body
}

// spares is how many pages are worth keeping.
const spares = 4

func newReader() *reader {
	return &reader{pause: make(chan struct{}, 1), bodies: make(chan []byte, spares), pages: make(chan *page, spares)}
}

// keep takes an answer out of the buffer of a link.
func (r *reader) keep(body []byte) []byte {
	if len(body) < fromPage {
		return slices.Clone(body)
	}
	return append(r.memory(), body...)
}

// memory is an empty slice with room for a page, if there is an old one.
func (r *reader) memory() []byte {
	select {
	case body := <-r.bodies:
		return body[:0]
	default:
		return nil
	}
}

func (r *reader) reuse(body []byte) {
	if n := cap(body); n < fromPage || n > toPage {
		return
	}
	select {
	case r.bodies <- body:
	default:
	}
}

func (r *reader) page() *page {
	select {
	case p := <-r.pages:
		return p
	default:
		return &page{}
	}
}

func (r *reader) release(p *page) {
	r.reuse(p.body)
	if cap(p.docs) > 2*farPage {
		return
	}
	clear(p.docs)
	*p = page{docs: p.docs[:0]}
	select {
	case r.pages <- p:
	default:
	}
}

// pageAfter asks a relay that speaks link/2 for one page. What is returned is the
// caller's until it is released.
func (l *link) pageAfter(after uint64, plain bool) (*page, error) {
	hs := []control.Header{{Name: relaylink.HeaderLimit, Value: strconv.Itoa(l.pageSize())}}
	if plain {
		hs = append(hs, control.Header{Name: relaylink.HeaderPlain, Value: "yes"})
	}
	if after != 0 {
		hs = append(hs, control.Header{Name: relaylink.HeaderAfter, Value: strconv.FormatUint(after, 10)})
	}
	asked := time.Now()
	body, err := l.query(relaylink.Sessions, hs)
	if err != nil {
		return nil, err
	}
	p := l.d.reader.page()
	p.body, p.took = body, time.Since(asked)
	if p.docs, p.next, err = relaylink.ParsePage(p.docs, body); err == nil && p.next != 0 && p.next <= after {
		err = errors.New("a page leads back")
	}
	if err != nil {
		return nil, fmt.Errorf("answer to sessions: %w", err)
	}
	return p, nil
}

// turnPages gives each what is on a page and on those that follow it.
func (l *link) turnPages(p *page, plain bool, each func(docs []json.RawMessage) error) error {
	for {
		err := each(p.docs)
		next, took := p.next, p.took
		l.d.reader.release(p)
		if err != nil || next == 0 {
			return err
		}
		l.d.rest(l.pauseAfter(took))
		if p, err = l.pageAfter(next, plain); err != nil {
			return err
		}
	}
}

func (l *link) pageSize() int {
	here, ok := l.conn.LocalAddr().(*net.TCPAddr)
	if ok && here.AddrPort().Addr().Unmap().WithZone("") == l.ip {
		return nearPage
	}
	return farPage
}

// pauseAfter is the pause after a page that the relay took so long for.
func (l *link) pauseAfter(took time.Duration) time.Duration {
	pause := min(max(pauseFactor*took, leastPause), mostPause)
	if load := l.d.registry.loadOf(l); load.OwnPackets >= calmFrom && l.pageSize() == nearPage {
		pause = max(pause, min(calmPause, calmReading*nearPage/time.Duration(max(load.Sessions, 1))))
	}
	return pause
}

// rest pauses after a page. One reading pauses at a time, so several together turn
// no more pages than one.
func (d *Dispatcher) rest(pause time.Duration) {
	select {
	case d.reader.pause <- struct{}{}:
	case <-d.stopping:
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.stopping:
	}
	<-d.reader.pause
}

// eachPage gives each the sessions of all relays that answer, in the form of the
// original and the order of the relays' names. Our relays write that form themselves,
// and it is passed on as it came. All are asked for their first page at once, so that
// those that do not answer are waited for together. A relay that fails midway is left
// out from there on.
func (d *Dispatcher) eachPage(each func(docs []json.RawMessage) error) error {
	links := d.registry.links()
	firsts := make([]chan *page, len(links))
	var asking sync.WaitGroup
	defer asking.Wait()
	for i, l := range links {
		firsts[i] = make(chan *page, 1)
		asking.Go(func() {
			defer close(firsts[i])
			defer d.recovered("reading of statistics", "", nil)
			if p := l.firstPage(); p != nil {
				firsts[i] <- p
			}
		})
	}
	for i, l := range links {
		p := <-firsts[i]
		if p == nil {
			continue
		}
		sessions := 0
		var failed error
		err := l.turnPages(p, true, func(docs []json.RawMessage) error {
			sessions += len(docs)
			failed = each(docs)
			return failed
		})
		if failed != nil {
			return failed
		}
		if err != nil {
			l.log.Warn("relay left out of the rest of an answer to an operator", "error", err, "sessions", sessions)
		}
	}
	return nil
}

// firstPage is nil if the relay does not answer.
func (l *link) firstPage() *page {
	if l.plain {
		docs, ok := l.rewritten()
		if !ok {
			return nil
		}
		return &page{docs: docs}
	}
	p, err := l.pageAfter(0, true)
	if err != nil {
		l.log.Warn("relay left out of an answer to an operator", "error", err)
		return nil
	}
	return p
}

// rewritten are the documents of an old relay with the members that came later.
func (l *link) rewritten() ([]json.RawMessage, bool) {
	list, ok := l.sessions(relaylink.Sessions, nil)
	if !ok {
		return nil, false
	}
	for i := range list {
		list[i].Strip()
	}
	docs, err := encode(list)
	return docs, err == nil
}

// paged are the sessions of a relay in full.
func (l *link) paged() (list []report.Session, err error) {
	p, err := l.pageAfter(0, false)
	if err != nil {
		return nil, err
	}
	err = l.turnPages(p, false, func(docs []json.RawMessage) error {
		for _, doc := range docs {
			list = append(list, report.Session{})
			if err := json.Unmarshal(doc, &list[len(list)-1]); err != nil {
				return fmt.Errorf("answer to sessions: %w", err)
			}
		}
		return nil
	})
	return list, err
}

// writeSessions answers the plain command sessions. What is written cannot be taken
// back: after an error the answer lacks its end, and the connection must not go on.
func (d *Dispatcher) writeSessions(conn net.Conn) (err error) {
	defer d.recovered("management command sessions", "", &err)
	out := d.reader.memory()
	defer func() { d.reader.reuse(out) }()
	list := manage.List{Format: d.cfg.ManagementFormat}
	err = d.eachPage(func(docs []json.RawMessage) error {
		out = list.Append(out[:0], docs)
		return writeAnswer(conn, out)
	})
	if err != nil {
		return err
	}
	out = list.Close(out[:0])
	return writeAnswer(conn, out)
}

func writeAnswer(conn net.Conn, answer []byte) error {
	conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	_, err := conn.Write(answer)
	return err
}
