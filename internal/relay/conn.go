package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

const (
	// maxUnanswered keep-alives may be outstanding when the next is due; with
	// one more the dispatcher counts as gone, after four intervals.
	maxUnanswered = 3

	// window is how many unacknowledged records one link/2 connection carries
	// at once. A dispatcher that was away for hours gets its backlog at the
	// pace at which it stores it.
	window = 256

	// plainWindow is the same for a dispatcher of the original. It has to have
	// read all reports before our answer to its first `sessions`, so this only
	// keeps a huge backlog from filling the outbox.
	plainWindow = 10000

	// lastWrite bounds writing what still waits when a connection is closed.
	lastWrite = time.Second
)

var (
	errSilent  = errors.New("dispatcher did not answer our keep-alives")
	errNoHello = errors.New("dispatcher did not send its hello")
)

// conn is one connection to a dispatcher. Three goroutines serve it: the
// reader, which also executes the commands, the writer, and the one that sends
// keep-alives and waits for the end.
type conn struct {
	// set in newConn, read-only afterwards
	relay *Relay
	link  *link
	log   *slog.Logger
	nc    net.Conn
	plain bool
	out   *outbox
	greet chan struct{} // closed when the connection is ready for use

	// of the reader only: memory of the latest page and of the latest answer, and the
	// record that this answer carries for good, because a dispatcher of the original
	// acknowledges nothing
	body, answer []byte
	told         string

	mu         sync.Mutex // guards what follows
	owner      string     // of calls created here; "" until ready
	pings      []ping     // unanswered, oldest first
	unanswered int        // keep-alives among them
}

// ping is what the next pong will prove: that a keep-alive arrived, or that
// the dispatcher read the reports sent before it.
type ping struct {
	keepAlive bool
	records   []string
}

func newConn(l *link, nc net.Conn, plain bool) *conn {
	return &conn{relay: l.relay, link: l, log: l.log, nc: nc, plain: plain, out: newOutbox(l.relay.cfg.MaxBacklog), greet: make(chan struct{})}
}

// stood reports whether the connection was ever ready for use.
func (c *conn) stood() bool {
	select {
	case <-c.greet:
		return true
	default:
		return false
	}
}

func (c *conn) protocol() string {
	if c.plain {
		return "plain"
	}
	return "link/2"
}

// serve returns when the connection has ended and its goroutines with it.
func (c *conn) serve(ctx context.Context) error {
	if c.plain {
		// Before the first command is read: an old dispatcher asks for all
		// sessions at once and forgets those that are missing, so it must hear
		// first how the missing ones ended.
		c.ready(c.link.addr.String(), relaylink.DispatcherHello{})
	} else if err := c.sendHello(); err != nil {
		c.nc.Close()
		return err
	}
	ended := make(chan error, 2)
	written := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { ended <- c.out.writeTo(c.nc); close(written) })
	running.Go(func() { ended <- c.read() })

	err := c.keepAlive(ctx, ended)
	c.out.close()
	if ctx.Err() != nil {
		// A stop of ours: the last answers and reports are still written.
		c.nc.SetWriteDeadline(time.Now().Add(lastWrite))
		<-written
	}
	c.nc.Close()
	running.Wait()
	return err
}

// keepAlive sends pings until something ends the connection.
func (c *conn) keepAlive(ctx context.Context, ended <-chan error) error {
	interval := c.relay.cfg.KeepaliveInterval
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return err
		case <-tick.C:
			if !c.stood() {
				return fmt.Errorf("%w within %v", errNoHello, interval)
			}
			if err := c.sendPing(); err != nil {
				return err
			}
		}
	}
}

func (c *conn) sendPing() error {
	load := c.load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unanswered >= maxUnanswered {
		return fmt.Errorf("%w (%d in a row)", errSilent, c.unanswered)
	}
	c.unanswered++
	return c.pingLocked(ping{keepAlive: true}, relaylink.AppendPing(nil, load))
}

// announce sends the load outside the rhythm of keep-alives.
func (c *conn) announce() error {
	load := c.load()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pingLocked(ping{}, relaylink.AppendPing(nil, load))
}

// pingLocked queues lines that end in a ping. Pings and what is remembered of
// them must keep the same order, so both happen under the lock.
func (c *conn) pingLocked(p ping, lines []byte) error {
	c.pings = append(c.pings, p)
	if err := c.out.add(lines); err != nil {
		return err
	}
	c.out.flush()
	return nil
}

// load is the body of a ping, empty on the plain protocol.
func (c *conn) load() []byte {
	if c.plain {
		return nil
	}
	load, draining := c.relay.load(), c.relay.Draining()
	load.Draining = &draining
	body, _ := json.Marshal(load) // numbers only: cannot fail
	return body
}

// pong takes the answer to the oldest ping.
func (c *conn) pong() {
	c.mu.Lock()
	if len(c.pings) == 0 {
		c.mu.Unlock()
		return
	}
	p := c.pings[0]
	c.pings = c.pings[1:]
	if p.keepAlive {
		c.unanswered--
	}
	c.mu.Unlock()
	for _, id := range p.records {
		c.relay.acknowledged(id)
	}
	if len(p.records) > 0 {
		c.relay.deliver(c) // what the window held back
	}
}

// ready makes the connection count as connected and sends what waits for this
// dispatcher.
func (c *conn) ready(owner string, peer relaylink.DispatcherHello) {
	c.mu.Lock()
	c.owner = owner
	c.mu.Unlock()
	c.relay.records.attach(c)
	close(c.greet)
	c.link.up(c, peer)
	c.relay.deliver(c)
}

// hello takes the dispatcher's greeting on link/2.
func (c *conn) hello(body []byte) error {
	peer, err := relaylink.ParseDispatcherHello(body)
	if err != nil {
		return err
	}
	if peer.Refused != "" {
		return fmt.Errorf("%w: %s", errRefused, peer.Refused)
	}
	if !c.stood() { // a second greeting changes nothing
		c.ready(peer.Name, peer)
	}
	return nil
}

func (c *conn) sendHello() error {
	cfg := &c.relay.cfg
	ips := make([]string, 0, len(cfg.IPs))
	for _, ip := range cfg.IPs {
		ips = append(ips, ip.String())
	}
	labels := append([]string{}, cfg.Labels...) // never null
	body, err := json.Marshal(relaylink.RelayHello{
		Name: cfg.Name, Instance: cfg.Instance, Version: cfg.Version,
		Features: []string{"ack", "list", "session", "explain", "terminate", "drain"},
		IP:       ips[0], IPs: ips, Capacity: c.relay.media.Capacity(), Labels: labels,
		Draining: c.relay.Draining(), Load: c.relay.load(),
	})
	if err != nil {
		return fmt.Errorf("write hello: %w", err)
	}
	if err := c.out.add(relaylink.AppendHello(nil, body)); err != nil {
		return err
	}
	c.out.flush()
	return nil
}

// send queues the reports of finished calls. On the plain protocol one ping
// behind them proves, once answered, that all were read.
func (c *conn) send(docs []report.Session) error {
	var lines []byte
	var ids []string
	for _, doc := range docs {
		id := doc.RecordID
		if c.plain {
			doc = doc.Plain()
		}
		body, err := report.Append(nil, doc)
		if err != nil { // a bug; repeating it would not help
			c.log.Error("cannot write the report of a finished call, it is lost", "call_id", doc.CallID, "error", err)
			c.relay.acknowledged(id)
			continue
		}
		ids = append(ids, id)
		lines = relaylink.AppendExpired(lines, body)
	}
	if len(ids) == 0 {
		return nil
	}
	if c.plain {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.pingLocked(ping{records: ids}, relaylink.AppendPing(lines, nil))
	}
	if err := c.out.add(lines); err != nil {
		return err
	}
	c.out.flush()
	return nil
}
