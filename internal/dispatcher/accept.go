package dispatcher

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

const (
	// handshakeTimeout bounds TLS and the greeting together.
	handshakeTimeout = 10 * time.Second
	// probeTimeout is how long the holder of a name has to show that it lives
	// when another process announces the same one.
	probeTimeout = time.Second
	// tcpSilence ends a link whose peer's host is gone, after about half a
	// minute, as fast as a relay notices ours.
	tcpSilence = 15 * time.Second
)

// withLink2 offers link/2 besides the plain protocol, which has no ALPN name.
func withLink2(c *tls.Config) *tls.Config {
	c = c.Clone()
	if !slices.Contains(c.NextProtos, relaylink.ALPN) {
		c.NextProtos = append(slices.Clone(c.NextProtos), relaylink.ALPN)
	}
	return c
}

// acceptRelays serves relay connections until the listener is closed.
func (d *Dispatcher) acceptRelays(ctx context.Context, l net.Listener) {
	d.acceptLoop(l, &d.running, func(conn net.Conn) {
		err := d.serveRelay(ctx, conn)
		if err != nil && ctx.Err() == nil {
			d.log.Warn("relay refused", "peer", conn.RemoteAddr().String(), "reason", err)
		}
	})
}

// acceptLoop runs serve for each connection in its own goroutine.
func (d *Dispatcher) acceptLoop(l net.Listener, group *sync.WaitGroup, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, a peer that gave up
			d.log.Error("accept a connection", "address", l.Addr().String(), "error", err)
			select {
			case <-d.stopping:
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		group.Go(func() {
			defer conn.Close()
			defer d.recovered("connection", "", nil)
			serve(conn)
		})
	}
}

// serveRelay runs one relay connection from handshake to end. An error means
// that it was never attached.
func (d *Dispatcher) serveRelay(ctx context.Context, raw net.Conn) error {
	if tcp, ok := raw.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: tcpSilence, Interval: 5 * time.Second, Count: 3})
	}
	conn := tls.Server(raw, d.relayTLS)
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake (is its certificate of our CA, in date and not revoked?): %w", err)
	}
	if d.cfg.TrackRelay != nil {
		defer d.cfg.TrackRelay(conn)()
	}
	l := newLink(d, conn, remoteIP(conn), conn.ConnectionState().NegotiatedProtocol != relaylink.ALPN)
	in := &lineReader{conn: conn}
	if !l.plain {
		if err := l.greet(in); err != nil {
			return err
		}
	}
	if err := d.attach(l); err != nil {
		return err
	}
	raw.SetDeadline(time.Time{})
	l.run(ctx, in)
	return nil
}

func remoteIP(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// greet reads the relay's hello.
func (l *link) greet(in *lineReader) error {
	line, err := in.next(relaylink.MaxCommandLine)
	if err != nil {
		return fmt.Errorf("read the relay's hello: %w", err)
	}
	r, err := relaylink.ParseReport(line)
	if err == nil && r.Kind != relaylink.ReportHello {
		err = fmt.Errorf("first line is %q", clip(line))
	}
	if err != nil {
		return fmt.Errorf("read the relay's hello: %w", err)
	}
	if l.hello, err = relaylink.ParseRelayHello(r.Body); err != nil {
		return err
	}
	if l.d.cfg.AllowName == nil {
		return nil
	}
	if err := l.d.cfg.AllowName(l.hello.Name, l.conn.ConnectionState().PeerCertificates[0]); err != nil {
		return l.refuse(fmt.Errorf("name %q: %w", l.hello.Name, err))
	}
	return nil
}

// refuse tells the relay why it cannot stay.
func (l *link) refuse(why error) error {
	l.conn.Write(l.d.hello(why.Error()))
	l.conn.CloseWrite()
	// Closing with something unread would throw the refusal away.
	l.conn.SetReadDeadline(time.Now().Add(probeTimeout))
	io.Copy(io.Discard, io.LimitReader(l.conn, 1<<20))
	return why
}

func (d *Dispatcher) hello(refused string) []byte {
	body, err := json.Marshal(relaylink.DispatcherHello{Name: d.cfg.Name, Instance: d.instance, Version: d.cfg.Version,
		Features: []string{relaylink.FeatureReleased}, Refused: refused})
	if err != nil {
		panic("dispatcher: hello does not marshal: " + err.Error())
	}
	return relaylink.AppendHello(nil, body)
}

// attach makes the link its relay's connection. A relay that reconnects before
// we saw its old connection end replaces it; so does an old relay from the same
// address. Another process under the same name does only if the one that has
// the name no longer answers.
func (d *Dispatcher) attach(l *link) error {
	name := l.hello.Name
	if l.plain {
		name = l.ip.String()
	} else {
		l.out = d.hello("")
	}
	l.log = d.log.With("relay", name)
	replaced, incumbent := d.registry.attach(l, nil)
	if incumbent != nil {
		if incumbent.alive() {
			return l.refuse(fmt.Errorf("name %q is in use by a relay connected from %s: give each relay its own name ([Relay] name)",
				name, incumbent.ip))
		}
		if replaced, incumbent = d.registry.attach(l, incumbent); incumbent != nil {
			return l.refuse(fmt.Errorf("name %q was taken by a relay connected from %s just now", name, incumbent.ip))
		}
	}
	if replaced != nil {
		replaced.close(errors.New("replaced by a newer connection"))
	}
	return nil
}

// alive asks the relay for anything and waits a moment for any answer.
func (l *link) alive() bool {
	_, err := l.ask(relaylink.Summary, nil, time.Now().Add(probeTimeout), nil)
	return err == nil
}

// run serves an attached link until it ends.
func (l *link) run(ctx context.Context, in *lineReader) {
	protocol := relaylink.ALPN
	if l.plain {
		protocol = "plain"
	}
	l.log.Info("relay connected", "address", l.ip.String(), "protocol", protocol, "version", l.hello.Version, "draining", l.hello.Draining)
	l.wakeLocked()
	var parts sync.WaitGroup
	parts.Go(l.writeLoop)
	parts.Go(func() { l.resync(false) })
	parts.Go(func() {
		defer l.d.recovered("finished calls", "", nil)
		l.finishLoop()
	})
	err := l.readLoop(in)
	l.close(err)
	l.finish.end()
	parts.Wait()
	if ctx.Err() == nil {
		l.log.Warn("relay connection lost", "reason", l.cause, "calls", l.relay.calls.Load())
	}
}

// readLoop handles what the relay says.
func (l *link) readLoop(in *lineReader) error {
	limit := relaylink.MaxReport
	for {
		line, err := in.next(limit)
		if errors.Is(err, io.EOF) {
			return errors.New("closed by the relay")
		}
		if err != nil {
			return fmt.Errorf("read from relay: %w", err)
		}
		l.d.registry.heard(l)
		l.line(line)
	}
}

func (l *link) line(line []byte) {
	defer l.d.recovered("line of a relay", "", nil)
	r, err := relaylink.ParseReport(line)
	if err != nil {
		l.log.Warn("line of the relay cannot be read", "error", err, "line", clip(line))
		return
	}
	switch r.Kind {
	case relaylink.ReportAnswer:
		l.answered(string(r.Seq), l.d.reader.keep(r.Body))
	case relaylink.ReportExpired:
		l.expiredLine(r.Body)
	case relaylink.ReportReleased:
		l.released(r.Body)
	case relaylink.ReportPing:
		l.ping(r.Body)
	case relaylink.ReportHello:
		l.log.Warn("relay greets a second time")
	}
}

// ping answers a keep-alive, which also shows that the relay works again.
func (l *link) ping(body []byte) {
	l.d.registry.change(l, func(r *relayState) { r.timedOut = time.Time{} })
	if l.plain {
		l.finish.add(finished{pong: true}, false) // after the calls reported before it
		return
	}
	l.write(relaylink.AppendPong(nil))
	load, err := relaylink.ParseLoad(body)
	if err != nil {
		l.log.Warn("load of the relay cannot be read", "error", err)
		return
	}
	l.d.registry.change(l, func(r *relayState) {
		r.load, r.given = load, 0
		if load.Draining != nil {
			r.halting = *load.Draining
		}
	})
}

// halted notes that the relay takes no new calls.
func (l *link) halted() {
	news := false
	l.d.registry.change(l, func(r *relayState) {
		news = !r.halting
		r.halting = true
	})
	if news {
		l.log.Info("relay takes no new calls")
	}
}

// callHeaders names a call in a command.
func callHeaders(callID, fromTag string) []control.Header {
	hs := []control.Header{{Name: relaylink.HeaderCallID, Value: callID}}
	if fromTag != "" {
		hs = append(hs, control.Header{Name: relaylink.HeaderFromTag, Value: fromTag})
	}
	return hs
}
