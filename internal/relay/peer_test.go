package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/mediaproxy/internal/dispatcher"
	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// peer is the program's own dispatcher.
type peer struct {
	t      *testing.T
	d      *dispatcher.Dispatcher
	cancel context.CancelFunc
	ended  chan error

	mu       sync.Mutex // guards what follows
	finished []report.Session
	refuse   bool // the hook fails: nothing is acknowledged
	refusals int
}

func startPeer(t *testing.T, ca *authority, name, addr, dir string) *peer {
	t.Helper()
	p := &peer{t: t, ended: make(chan error, 1)}
	d, err := dispatcher.New(dispatcher.Config{
		Name: name, SocketPath: filepath.Join(dir, name), RelayListen: netip.MustParseAddrPort(addr),
		RelayTLS: ca.config("dispatcher"), Finished: p.hook,
	}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	p.d = d
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() { p.ended <- d.Run(ctx); close(p.ended) }()
	t.Cleanup(p.stop)
	select {
	case <-d.Ready():
	case err := <-p.ended:
		t.Fatal(err)
	}
	return p
}

func (p *peer) stop() {
	p.cancel()
	<-p.ended
}

func (p *peer) hook(doc report.Session) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse {
		p.refusals++
		return errors.New("nothing can be stored now")
	}
	p.finished = append(p.finished, doc)
	return nil
}

// store says whether the hook works.
func (p *peer) store(works bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = !works
}

// refused counts the failures of the hook.
func (p *peer) refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refusals
}

// reports lists the finished calls as call and reason.
func (p *peer) reports() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, doc := range p.finished {
		out = append(out, doc.CallID+" "+doc.Reason)
	}
	return strings.Join(out, ", ")
}

// ask sends one command as a SIP proxy's module does.
func (p *peer) ask(command string, headers ...control.Header) string {
	p.t.Helper()
	nc, err := net.Dial("unix", p.d.SocketPath())
	if err != nil {
		p.t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(control.Append(nil, control.Request{Command: command, Headers: headers})); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(nc).ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (p *peer) offer(callID string) string {
	p.t.Helper()
	u := control.Update{Kind: control.KindRequest, CallID: callID, FromTag: "f", FromURI: "a@x", ToURI: "b@x", UserAgent: "UA", CSeq: 1,
		DialogID: "77", HasMedia: true, Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("192.0.2.5"), Port: 4000, Direction: "sendrecv"}}}
	return p.ask("update", u.Headers()...)
}

func (p *peer) remove(callID string) string {
	p.t.Helper()
	return p.ask("remove", control.Remove{CallID: callID, FromTag: "f"}.Headers()...)
}

// pairs counts those of pairUp.
var pairs atomic.Uint32

// pairUp runs dispatcher and relay of this program. again starts another
// dispatcher in the place of the first.
func pairUp(t *testing.T, plain bool) (g *rig, network *forward.Fake, p *peer, again func() *peer) {
	ca := newAuthority(t)
	dir, err := os.MkdirTemp("", "mp") // short: the paths of UNIX sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// An address of this test alone: nobody may take the port while the first dispatcher
	// has gone and the second has not come.
	own := fmt.Sprintf("127.%d.%d.%d:0", 64+os.Getpid()%64, os.Getpid()/64%256, 1+pairs.Add(1)%250)
	p = startPeer(t, ca, "d1", own, dir)
	addr := p.d.RelayAddr().String()
	config := ca.config("relay", relaylink.ALPN)
	if plain {
		config.NextProtos = nil
	}
	network = forward.NewFake()
	g = start(t, func(g *rig, c *Config) {
		realTable(t, network)(g, c)
		c.Dispatchers, c.Dial = []string{addr}, dialTLS(config)
		c.ReconnectDelay, c.KeepaliveInterval, c.RepeatInterval = 50*time.Millisecond, time.Second, 500*time.Millisecond
	})
	return g, network, p, func() *peer { return startPeer(t, ca, "d1", addr, dir) }
}

func TestOwnDispatcher(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			g, network, p, again := pairUp(t, plain)
			waitFor(t, "the relay is connected", func() bool { return strings.HasPrefix(p.offer("c1"), "203.0.113.9 ") })
			if got := p.remove("c1"); got != "removed" {
				t.Errorf("got %q, want removed", got)
			}
			waitFor(t, "the removed call is reported", func() bool { return p.reports() == "c1 removed" })
			waitFor(t, "it is acknowledged", func() bool { return g.relay.Stats().Waiting == 0 })

			// Two calls that die while the dispatcher is away.
			p.offer("c2")
			p.offer("c3")
			p.stop()
			network.Advance(91 * time.Second)
			waitFor(t, "both calls time out", func() bool { return g.table.Len() == 0 && g.relay.Stats().Waiting == 2 })
			p = again()
			waitFor(t, "the reports are taken", func() bool { return g.relay.Stats().Waiting == 0 })
			if got := p.reports(); strings.Count(got, "c2") != 1 || strings.Count(got, "c3") != 1 {
				t.Errorf("got reports %q, want c2 and c3 once", got)
			}

			// A stop ends and reports what is left.
			waitFor(t, "the relay is connected again", func() bool { return strings.HasPrefix(p.offer("c5"), "203.0.113.9 ") })
			g.relay.Stop(true)
			if err := <-g.ended; err != nil {
				t.Error(err)
			}
			want := "c5 " + report.ReasonShutdown
			if plain { // that protocol has no word for the reason
				want = "c5 "
			}
			waitFor(t, "the stop is reported", func() bool { return strings.Contains(p.reports(), want) })
		})
	}
}

// While the dispatcher can store nothing, the relay keeps and repeats.
func TestOwnDispatcherThatCannotStore(t *testing.T) {
	t.Parallel()
	g, network, p, _ := pairUp(t, false)
	p.store(false)
	waitFor(t, "the relay is connected", func() bool { return strings.HasPrefix(p.offer("c1"), "203.0.113.9 ") })
	network.Advance(91 * time.Second)
	waitFor(t, "the report is refused and repeated", func() bool { return p.refused() > 1 })
	if waiting := g.relay.Stats().Waiting; waiting != 1 {
		t.Errorf("got %d reports waiting, want the one that is not stored", waiting)
	}
	p.store(true)
	waitFor(t, "it is stored in the end", func() bool { return g.relay.Stats().Waiting == 0 && strings.Count(p.reports(), "c1") == 1 })
}

// Whoever of two dispatchers serves a call last owns it: the other forgets it, finds it
// again when it is asked, and is not told of its end.
func TestTwoOwnDispatchers(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	dir, err := os.MkdirTemp("", "mp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a, b := startPeer(t, ca, "d1", "127.0.0.1:0", dir), startPeer(t, ca, "d2", "127.0.0.1:0", dir)
	network := forward.NewFake()
	g := start(t, func(g *rig, c *Config) {
		realTable(t, network)(g, c)
		c.Dispatchers, c.Dial = []string{a.d.RelayAddr().String(), b.d.RelayAddr().String()}, dialTLS(ca.config("relay", relaylink.ALPN))
		c.ReconnectDelay, c.KeepaliveInterval, c.RepeatInterval = 50*time.Millisecond, time.Second, 500*time.Millisecond
	})
	waitFor(t, "both are connected", func() bool { return a.d.Stats().Relays == 1 && b.d.Stats().Relays == 1 })
	later := func(p *peer, callID string) string {
		u := control.Update{Kind: control.KindRequest, CallID: callID, FromTag: "f", ToTag: "t", FromURI: "a@x", ToURI: "b@x", UserAgent: "UA", CSeq: 2,
			DialogID: "77", HasMedia: true, Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("192.0.2.5"), Port: 4000, Direction: "sendrecv"}}}
		return p.ask("update", u.Headers()...)
	}
	for i, c := range []string{"dies", "removed"} {
		waitFor(t, "the call is set up", func() bool { return strings.HasPrefix(a.offer(c), "203.0.113.9 ") })
		if got := later(b, c); !strings.HasPrefix(got, "203.0.113.9 ") {
			t.Errorf("the second dispatcher answered %q", got)
		}
		waitFor(t, "the first has forgotten the call", func() bool { return a.d.Stats().Calls == 0 && b.d.Stats().Calls == i+1 })
	}
	if got := later(a, "removed"); !strings.HasPrefix(got, "203.0.113.9 ") {
		t.Errorf("the first dispatcher answered %q", got)
	}
	waitFor(t, "the second has forgotten that call", func() bool { return a.d.Stats().Calls == 1 && b.d.Stats().Calls == 1 })
	if got := b.remove("removed"); got != "removed" {
		t.Errorf("got %q", got)
	}
	network.Advance(91 * time.Second)
	waitFor(t, "the reports are taken", func() bool { return g.table.Len() == 0 && g.relay.Stats().Waiting == 0 })
	if got, want := b.reports(), "removed removed, dies "+report.ReasonUnanswered; got != want || a.reports() != "" {
		t.Errorf("reports %q at the second dispatcher, want %q, and %q at the first", got, want, a.reports())
	}
	waitFor(t, "nobody remembers a call", func() bool { return a.d.Stats().Calls == 0 && b.d.Stats().Calls == 0 })
}
