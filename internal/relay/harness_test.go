package relay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// remote is a dispatcher: the other end of a link.
type remote struct {
	t     *testing.T
	addr  netip.AddrPort
	nc    net.Conn
	lines chan string
	done  chan struct{}
}

func newRemote(t *testing.T, addr netip.AddrPort, nc net.Conn) *remote {
	d := &remote{t: t, addr: addr, nc: nc, lines: make(chan string, 200000), done: make(chan struct{})}
	go func() {
		defer close(d.done)
		defer close(d.lines)
		in := bufio.NewReaderSize(nc, 64<<10)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			d.lines <- line
		}
	}()
	return d
}

// close breaks the connection.
func (d *remote) close() {
	d.nc.Close()
	<-d.done
}

// next returns the next line, of which CR LF are a part.
func (d *remote) next() string {
	d.t.Helper()
	select {
	case line, open := <-d.lines:
		if !open {
			d.t.Fatal("the relay closed the connection")
		}
		return line
	case <-time.After(5 * time.Minute):
		d.t.Fatal("no line from the relay")
		return ""
	}
}

func (d *remote) want(want string) {
	d.t.Helper()
	if got := d.next(); got != want+"\r\n" {
		d.t.Fatalf("got line %q, want %q", got, want+"\r\n")
	}
}

// skipTo returns the first line with that beginning and answers pings on the way.
func (d *remote) skipTo(prefix string) string {
	d.t.Helper()
	for {
		line := d.next()
		if strings.HasPrefix(line, prefix) {
			return line
		}
		if strings.HasPrefix(line, "ping") {
			d.send("pong\r\n")
		}
	}
}

// none fails if a line other than a keep-alive comes within that time.
func (d *remote) none(within time.Duration) {
	d.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		select {
		case line, open := <-d.lines:
			if !open {
				d.t.Fatal("the relay closed the connection")
			}
			if !strings.HasPrefix(line, "ping") {
				d.t.Fatalf("got line %q, want none", line)
			}
			d.send("pong\r\n")
		case <-timer.C:
			return
		}
	}
}

// closed fails unless the relay closes the connection within that time.
func (d *remote) closed(within time.Duration) {
	d.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		select {
		case _, open := <-d.lines:
			if !open {
				return
			}
		case <-timer.C:
			d.t.Fatalf("the connection still stands after %v", within)
		}
	}
}

// answerPings keeps the link alive until it is closed and ignores all else.
func (d *remote) answerPings() {
	for line := range d.lines {
		if strings.HasPrefix(line, "ping") {
			d.nc.Write([]byte("pong\r\n"))
		}
	}
}

// skipUntilClosed answers keep-alives until the relay closes the connection.
func (d *remote) skipUntilClosed(within time.Duration) {
	d.t.Helper()
	ended := make(chan struct{})
	go func() { d.answerPings(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(within):
		d.t.Fatalf("the connection still stands after %v", within)
	}
}

func (d *remote) send(text string) {
	d.t.Helper()
	if _, err := d.nc.Write([]byte(text)); err != nil {
		d.t.Fatalf("write %q: %v", text, err)
	}
}

// greet exchanges the greetings of link/2 and returns the relay's.
func (d *remote) greet(name string, features ...string) relaylink.RelayHello {
	d.t.Helper()
	line := d.next()
	body, ok := strings.CutPrefix(strings.TrimSuffix(line, "\r\n"), "hello ")
	if !ok {
		d.t.Fatalf("got first line %q, want a hello", line)
	}
	hello, err := relaylink.ParseRelayHello([]byte(body))
	if err != nil {
		d.t.Fatal(err)
	}
	known, err := json.Marshal(append([]string{}, features...))
	if err != nil {
		d.t.Fatal(err)
	}
	d.send(fmt.Sprintf("hello {\"name\": %q, \"instance\": \"i-%s\", \"version\": \"1\", \"features\": %s}\r\n", name, name, known))
	return hello
}

// command sends a command with headers, given as name and value in turn.
func (d *remote) command(name, seq string, headers ...string) {
	d.t.Helper()
	cmd := relaylink.Command{Name: name, Seq: seq}
	for i := 0; i < len(headers); i += 2 {
		cmd.Headers = append(cmd.Headers, control.Header{Name: headers[i], Value: headers[i+1]})
	}
	d.send(string(relaylink.AppendCommand(nil, cmd)))
}

// offer sends an update that offers one audio stream.
func (d *remote) offer(seq, callID string, more ...string) {
	d.t.Helper()
	d.command("update", seq, append([]string{"type", "request", "call_id", callID, "cseq", "1", "from_uri", "a@x", "to_uri", "b@x",
		"from_tag", "f", "user_agent", "UA", "media", "audio:192.0.2.5:4000:sendrecv:ice=no"}, more...)...)
}

// expired decodes the next report of a finished call.
func (d *remote) expired() report.Session {
	d.t.Helper()
	line := d.skipTo("expired ")
	var doc report.Session
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "expired ")), &doc); err != nil {
		d.t.Fatalf("%q: %v", line, err)
	}
	return doc
}

// rig is a relay with everything around it faked.
type rig struct {
	t     *testing.T
	net   *fakeNet
	calls *fakeCalls
	table Calls // instead of calls, if set
	media *fakeMedia
	dns   *fakeResolver
	log   *lockedBuffer
	relay *Relay
	ended chan error
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

const (
	addrA = "192.0.2.1:25060"
	addrB = "192.0.2.2:25060"
)

// start runs a relay with the two addresses above, unless change says
// otherwise. It is stopped at the end of the test.
func start(t *testing.T, change func(*rig, *Config)) *rig {
	t.Helper()
	g := &rig{
		t: t, net: newFakeNet(), calls: &fakeCalls{}, media: &fakeMedia{}, log: &lockedBuffer{}, ended: make(chan error, 1),
		dns: &fakeResolver{srv: map[string][]*net.SRV{}, hosts: map[string][]netip.Addr{}, fail: map[string]error{}},
	}
	cfg := Config{
		Name: "r1", Instance: "i1", Version: "1.0", IPs: []netip.Addr{netip.MustParseAddr("203.0.113.9")},
		Dispatchers: []string{"192.0.2.1"}, Dial: g.net.dial, Resolver: g.dns, TrafficSampling: 15 * time.Second,
	}
	if change != nil {
		change(g, &cfg)
	}
	var calls Calls = g.calls
	if g.table != nil {
		calls = g.table
	}
	r, err := New(cfg, calls, g.media, slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	g.relay = r
	go func() { g.ended <- r.Run(context.Background()); close(g.ended) }()
	t.Cleanup(func() {
		r.Stop(false)
		r.Stop(false)
		<-g.ended
		for {
			select {
			case a := <-g.net.accepts:
				a.nc.Close()
			default:
				if t.Failed() {
					t.Log(g.log.String())
				}
				return
			}
		}
	})
	return g
}

// accept waits for the relay to connect to that address.
func (g *rig) accept(addr string) *remote {
	g.t.Helper()
	select {
	case a := <-g.net.accepts:
		if a.addr.String() != addr {
			g.t.Fatalf("the relay connected to %v, want %s", a.addr, addr)
		}
		d := newRemote(g.t, a.addr, a.nc)
		g.t.Cleanup(func() { d.close() })
		return d
	case <-time.After(10 * time.Minute):
		g.t.Fatalf("the relay did not connect to %s", addr)
		return nil
	}
}

// acceptAll waits for connections to all of these addresses, in any order.
func (g *rig) acceptAll(addrs ...string) map[string]*remote {
	g.t.Helper()
	all := map[string]*remote{}
	for range addrs {
		a := <-g.net.accepts
		d := newRemote(g.t, a.addr, a.nc)
		g.t.Cleanup(func() { d.close() })
		all[a.addr.String()] = d
	}
	for _, addr := range addrs {
		if all[addr] == nil {
			g.t.Fatalf("the relay did not connect to %s", addr)
		}
	}
	return all
}

func plainAt(addrs ...string) func(*rig, *Config) {
	return func(g *rig, _ *Config) {
		for _, a := range addrs {
			g.net.plain[netip.MustParseAddrPort(a)] = true
		}
	}
}
