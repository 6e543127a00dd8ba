package dispatcher

import (
	"context"
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
	// sessionPage is how many sessions are asked for at once, some 100 kB.
	sessionPage = 128
	// The pause after a page is pauseFactor times what the relay took for it, so
	// that a reading takes less on a host that is busy. The least pause is for hosts
	// that are not, the most for relays that are far away.
	pauseFactor = 2
	leastPause  = 3 * time.Millisecond
	mostPause   = 10 * time.Millisecond
	// Answers of this length are likely to be pages; the memory of larger ones is
	// not kept.
	fromPage, toPage = 8 << 10, 512 << 10
)

// page is a part of the sessions of a relay.
type page struct {
	docs []json.RawMessage // cut from body, or written here
	body []byte
}

// reader is what readings have in common.
type reader struct {
	pause  chan struct{} // full while somebody pauses
	bodies sync.Pool     // of []byte, for pages
	pages  sync.Pool     // of *page, without body
}

func newReader() *reader { return &reader{pause: make(chan struct{}, 1)} }

// keep takes an answer out of the buffer of a link.
func (r *reader) keep(body []byte) []byte {
	if len(body) < fromPage {
		return slices.Clone(body)
	}
	return append(r.memory(), body...)
}

// memory is an empty slice with room for a page, if there is an old one.
func (r *reader) memory() []byte {
	body, _ := r.bodies.Get().([]byte)
	return body[:0]
}

func (r *reader) reuse(body []byte) {
	if n := cap(body); n >= fromPage && n <= toPage {
		//lint:ignore SA6002 the slice's header is all that is allocated, once for each page
		r.bodies.Put(body[:0])
	}
}

func (r *reader) release(p *page) {
	r.reuse(p.body)
	if cap(p.docs) <= 2*sessionPage {
		clear(p.docs)
		p.docs, p.body = p.docs[:0], nil
		r.pages.Put(p)
	}
}

// readPages reads the sessions of a relay that speaks link/2. each has a page for
// good; its error ends the reading.
func (l *link) readPages(plain bool, each func(*page) error) error {
	reader := l.d.reader
	after := uint64(0)
	for {
		hs := []control.Header{{Name: relaylink.HeaderLimit, Value: strconv.Itoa(sessionPage)}}
		if plain {
			hs = append(hs, control.Header{Name: relaylink.HeaderPlain, Value: "yes"})
		}
		if after != 0 {
			hs = append(hs, control.Header{Name: relaylink.HeaderAfter, Value: strconv.FormatUint(after, 10)})
		}
		asked := time.Now()
		body, err := l.query(relaylink.Sessions, hs)
		if err != nil {
			return err
		}
		took := time.Since(asked)
		p, _ := reader.pages.Get().(*page)
		if p == nil {
			p = &page{}
		}
		p.body = body
		next := uint64(0)
		if p.docs, next, err = relaylink.ParsePage(p.docs, body); err != nil {
			return fmt.Errorf("answer to sessions: %w", err)
		}
		if next != 0 && next <= after {
			return errors.New("answer to sessions: a page leads back")
		}
		if err := each(p); err != nil || next == 0 {
			return err
		}
		after = next
		l.d.rest(took)
	}
}

// rest pauses after a page. One reading pauses at a time, so several together turn
// no more pages than one.
func (d *Dispatcher) rest(took time.Duration) {
	select {
	case d.reader.pause <- struct{}{}:
	case <-d.stopping:
		return
	}
	timer := time.NewTimer(min(max(pauseFactor*took, leastPause), mostPause))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.stopping:
	}
	<-d.reader.pause
}

// eachPage gives each the sessions of all relays that answer, in the form of the
// original and the order of the relays' names. Our relays write that form themselves,
// and it is passed on as it came. All are asked at once and have their first page
// ready when it is their turn. A relay that fails midway is left out from there on.
func (d *Dispatcher) eachPage(each func(docs []json.RawMessage) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	links := d.registry.links()
	turns := make([]chan *page, len(links))
	for i, l := range links {
		turns[i] = make(chan *page)
		reading.Go(func() {
			defer close(turns[i])
			defer d.recovered("reading of statistics", "", nil)
			l.plainPages(ctx, turns[i])
		})
	}
	for _, turn := range turns {
		for p := range turn {
			err := each(p.docs)
			d.reader.release(p)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// plainPages hands out this relay's sessions until ctx ends.
func (l *link) plainPages(ctx context.Context, turn chan<- *page) {
	sessions := 0
	give := func(p *page) error {
		sessions += len(p.docs) // it is theirs once it is given
		select {
		case turn <- p:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if l.plain {
		if docs, ok := l.rewritten(); ok {
			give(&page{docs: docs})
		}
		return
	}
	if err := l.readPages(true, give); err != nil && ctx.Err() == nil {
		l.log.Warn("relay left out of an answer to an operator", "error", err, "sessions_before", sessions)
	}
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
	err = l.readPages(false, func(p *page) error {
		defer l.d.reader.release(p)
		for _, doc := range p.docs {
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
