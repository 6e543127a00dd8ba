package bench

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
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
	"example.org/mediaproxy/internal/wire/relaylink"
)

// repeatAfter is when a finished call is reported again that nobody acknowledged.
const repeatAfter = 10 * time.Second

// relay is a simulated one: it has calls and answers for them, but no ports. One
// goroutine reads its link and answers; reports and pings come from others.
type relay struct {
	// set before run, read-only afterwards
	f        *fleet
	name     string
	instance string
	ip       string // what updates are answered with; says which relay it is

	mu      sync.Mutex // guards what follows
	conn    *tls.Conn
	out     []byte          // answers that are not written yet
	calls   map[call]string // and what the report of each is called
	page    []call          // what list turns the pages of
	listed  func()          // called once the last page was given; nil: it was
	owner   string          // name of the dispatcher
	owed    map[string]owed
	offers  int
	written uint64 // bytes, both ways below TLS
	read    uint64
}

// owed is a finished call that is not acknowledged yet.
type owed struct {
	call  call
	line  []byte // the report; nil: it went out in the answer to remove
	first time.Time
	last  time.Time
}

// connect greets the dispatcher and returns when it has greeted back. listed is
// called when the dispatcher has read the list of calls.
func (r *relay) connect(ctx context.Context, listed func()) error {
	hello, err := json.Marshal(relaylink.RelayHello{
		Name: r.name, Instance: r.instance, Version: "bench", Features: []string{}, IP: r.ip, IPs: []string{r.ip},
		Capacity: 5000, Labels: []string{}, Load: r.load(),
	})
	if err != nil {
		return err
	}
	dialer := tls.Dialer{Config: r.f.tls, NetDialer: &net.Dialer{LocalAddr: r.f.localAddr(r.ip)}}
	conn, err := dialer.DialContext(ctx, "tcp", r.f.address)
	if err != nil {
		return fmt.Errorf("%s connects to %s: %w", r.name, r.f.address, err)
	}
	secure := conn.(*tls.Conn)
	if p := secure.ConnectionState().NegotiatedProtocol; p != relaylink.ALPN {
		conn.Close()
		return fmt.Errorf("what listens at %s does not speak %s: is it the dispatcher's address for relays?", r.f.address, relaylink.ALPN)
	}
	r.mu.Lock()
	r.conn, r.out, r.listed = secure, nil, listed
	r.out = relaylink.AppendHello(r.out, hello)
	err = r.flushLocked()
	r.mu.Unlock()
	if err != nil {
		conn.Close()
		return fmt.Errorf("%s greets: %w", r.name, err)
	}
	r.f.running.Go(func() { r.run(secure) })
	return nil
}

// cut ends the link as a network does.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		r.conn.NetConn().Close()
		r.conn = nil
	}
}

// run reads until the link ends. What it answers is written when nothing more has
// arrived, many answers at a time.
func (r *relay) run(conn *tls.Conn) {
	defer conn.NetConn().Close()
	in := bufio.NewReaderSize(conn, relaylink.MaxCommandLine+2)
	orders := relaylink.OrderReader{Link2: true}
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			r.ended(conn, err)
			return
		}
		text, n, err := relaylink.SplitLine(line, relaylink.MaxCommandLine)
		if err != nil {
			r.f.fault("%s: line of the dispatcher: %v", r.name, err)
			return
		}
		order, done, err := orders.Line(text)
		if err != nil { // the reader goes on behind it
			r.f.fault("%s: %v", r.name, err)
		}
		if err := r.take(order, done, n, in.Buffered() == 0); err != nil {
			r.ended(conn, err)
			return
		}
	}
}

func (r *relay) take(order relaylink.Order, done bool, size int, last bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read += uint64(size)
	if done {
		r.orderLocked(order)
	}
	if !last {
		return nil
	}
	return r.flushLocked()
}

// ended is a fault unless it was us.
func (r *relay) ended(conn *tls.Conn, err error) {
	r.mu.Lock()
	ours := r.conn != conn
	r.mu.Unlock()
	if !ours && !r.f.over.Load() {
		r.f.fault("%s: the dispatcher ended the link: %v", r.name, err)
	}
}

func (r *relay) flushLocked() error {
	if len(r.out) == 0 || r.conn == nil {
		return nil
	}
	n, err := r.conn.Write(r.out)
	r.written += uint64(n)
	r.out = r.out[:0]
	return err
}

func (r *relay) orderLocked(o relaylink.Order) {
	switch o.Kind {
	case relaylink.OrderPong:
		r.f.pongs.Add(1)
	case relaylink.OrderHello:
		hello, err := relaylink.ParseDispatcherHello(o.Body)
		if err == nil && hello.Refused != "" {
			err = errors.New("refused: " + hello.Refused)
		}
		if err != nil {
			r.f.fault("%s: %v", r.name, err)
			return
		}
		r.owner = hello.Name
	case relaylink.OrderAck:
		if had, ok := r.owed[string(o.Body)]; ok {
			delete(r.owed, string(o.Body))
			r.f.acks.Add(time.Since(had.first))
		}
	case relaylink.OrderCommand:
		before := len(r.out)
		r.out = append(append(r.out, o.Command.Seq...), ' ')
		out, err := r.appendAnswerLocked(r.out, o.Command)
		if err != nil {
			r.f.fault("%s: %s: %v", r.name, o.Command.Name, err)
			r.out = relaylink.AppendAnswer(r.out[:before], o.Command.Seq, []byte("error "+err.Error()))
			return
		}
		r.out = append(out, '\r', '\n')
	}
}

// appendAnswerLocked does what a relay does. An error is what no dispatcher may
// make happen.
func (r *relay) appendAnswerLocked(dst []byte, c relaylink.Command) ([]byte, error) {
	switch c.Name {
	case relaylink.Update:
		return r.updateLocked(dst, c)
	case relaylink.Remove:
		return r.removeLocked(dst, c)
	case relaylink.List:
		return r.listLocked(dst, c)
	case relaylink.Session:
		found := []report.Session{}
		if n, err := parseCall(header(c, relaylink.HeaderCallID)); err == nil {
			if _, ok := r.calls[n]; ok {
				found = append(found, n.document(r.ip, time.Now()))
			}
		}
		return report.Append(dst, found)
	case relaylink.Sessions:
		docs := make([]report.Session, 0, len(r.calls))
		for n := range r.calls {
			docs = append(docs, n.document(r.ip, time.Now()))
		}
		return report.Append(dst, docs)
	case relaylink.Summary:
		return report.Append(dst, report.Relay{IP: r.ip, Version: "bench", Status: "active", SessionCount: len(r.calls),
			StreamCount: map[string]int{"audio": len(r.calls)}, Name: r.name, Capacity: 5000})
	}
	return append(dst, "error unknown command"...), nil
}

// updateLocked places a call, or answers for one that is here: one that is not shows
// that the dispatcher has lost its way.
func (r *relay) updateLocked(dst []byte, c relaylink.Command) ([]byte, error) {
	u, err := control.DecodeUpdate(c.Headers)
	if err != nil {
		return dst, err
	}
	n, err := parseCall(u.CallID)
	if err != nil {
		return dst, err
	}
	if _, here := r.calls[n]; !here {
		if u.ToTag != "" {
			return dst, fmt.Errorf("answer of a call that is not on this relay: %s", u.CallID)
		}
		r.calls[n] = cmp.Or(header(c, relaylink.HeaderRecord), r.record(n))
		r.offers++
	}
	// Four ports a stream, out of a usual range.
	return fmt.Appendf(dst, "%s %d", r.ip, 40000+4*(uint64(n)%5000)), nil
}

// removeLocked ends a call; the answer is its document.
func (r *relay) removeLocked(dst []byte, c relaylink.Command) ([]byte, error) {
	n, err := parseCall(header(c, relaylink.HeaderCallID))
	if err != nil {
		return dst, err
	}
	if _, here := r.calls[n]; !here {
		for _, o := range r.owed {
			if o.call == n { // reported meanwhile
				return append(dst, "error unknown session"...), nil
			}
		}
		return dst, fmt.Errorf("remove of a call that is not on this relay: %s", n.id())
	}
	return r.finishLocked(dst, n, report.ReasonRemoved, false)
}

// finishLocked ends a call, writes its document and notes that it is owed.
func (r *relay) finishLocked(dst []byte, n call, reason string, repeat bool) ([]byte, error) {
	now := time.Now()
	doc := n.document(r.ip, now)
	doc.RecordID, doc.Reason = r.calls[n], reason
	delete(r.calls, n)
	from := len(dst)
	dst, err := report.AppendSession(dst, &doc)
	o := owed{call: n, first: now, last: now}
	if repeat {
		o.line = slices.Clone(dst[from:])
	}
	r.owed[doc.RecordID] = o
	return dst, err
}

// record is what the report of a call is called that no dispatcher has named.
func (r *relay) record(n call) string { return r.instance + "-" + strconv.FormatUint(uint64(n), 10) }

// expire reports that a call has lost its media.
func (r *relay) expire(n call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, here := r.calls[n]; !here {
		r.f.fault("%s: %s is not here to expire", r.name, n.id())
		return
	}
	r.out = append(r.out, "expired "...)
	var err error
	if r.out, err = r.finishLocked(r.out, n, report.ReasonTimeout, true); err == nil {
		r.out = append(r.out, '\r', '\n')
		err = r.flushLocked()
	}
	if err != nil {
		r.f.fault("%s reports an expired call: %v", r.name, err)
	}
}

// listLocked gives a page. The first one fixes what the others are of.
func (r *relay) listLocked(dst []byte, c relaylink.Command) ([]byte, error) {
	limit, err1 := strconv.Atoi(header(c, relaylink.HeaderLimit))
	offset, err2 := strconv.Atoi(header(c, relaylink.HeaderOffset))
	if err := errors.Join(err1, err2); err != nil {
		return dst, err
	}
	if offset == 0 {
		r.page = r.page[:0]
		for n := range r.calls {
			r.page = append(r.page, n)
		}
		slices.Sort(r.page)
	}
	last := min(offset+limit, len(r.page))
	now := time.Now()
	answer := relaylink.CallList{Total: len(r.page), Calls: []relaylink.Call{}}
	for _, n := range r.page[min(offset, last):last] {
		answer.Calls = append(answer.Calls, n.listed(r.owner, r.calls[n], now))
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return dst, err
	}
	if last == len(r.page) && r.listed != nil {
		r.page = nil
		r.listed()
		r.listed = nil
	}
	return append(dst, body...), nil
}

func (r *relay) load() relaylink.Load {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loadLocked()
}

func (r *relay) loadLocked() relaylink.Load {
	n := len(r.calls)
	return relaylink.Load{Sessions: n, Streams: n, BPS: float64(n) * 160_000, PortsFree: max(20_000-4*n, 0)}
}

// ping keeps the link alive, and says again what nobody has acknowledged.
func (r *relay) ping() {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := json.Marshal(r.loadLocked())
	if err != nil {
		r.f.fault("%s: %v", r.name, err)
		return
	}
	r.out = relaylink.AppendPing(r.out, body)
	now := time.Now()
	for id, o := range r.owed {
		if o.line != nil && now.Sub(o.last) > repeatAfter {
			r.out = relaylink.AppendExpired(r.out, o.line)
			o.last = now
			r.owed[id] = o
		}
	}
	r.flushLocked() // the reader says why it fails
}

func header(c relaylink.Command, name string) string {
	v, _ := control.Request{Headers: c.Headers}.Get(name)
	return v
}
