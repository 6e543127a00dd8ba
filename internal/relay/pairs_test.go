package relay

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/journal"
	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/session"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// BenchmarkPairs measures pairs of update and remove over one link/2
// connection, with the dispatcher on the same cores: once with a session table
// that costs nothing, once with ports really opened, once with these kept for the next
// process, too.
func BenchmarkPairs(b *testing.B) {
	b.Run("link only", func(b *testing.B) { benchmarkPairs(b, &fakeCalls{}, &fakeMedia{}) })
	b.Run("ports", func(b *testing.B) { benchmarkPorts(b, session.Config{}) })
	b.Run("journal", func(b *testing.B) {
		j, err := journal.Open(b.TempDir(), journal.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer j.Close()
		benchmarkPorts(b, session.Config{Keeper: j})
	})
}

func benchmarkPorts(b *testing.B, cfg session.Config) {
	log := slog.New(slog.DiscardHandler)
	loops, err := forward.NewLoops(forward.Config{}, log)
	if err != nil {
		b.Skip(err)
	}
	// Not 127.0.0.1: other tests may hold most of its ports just now.
	engine := media.NewEngine(media.Config{Locals: []netip.Addr{netip.MustParseAddr("127.0.77.1")}}, loops, log)
	defer engine.Close()
	benchmarkPairs(b, session.New(cfg, engine, log), engine)
}

func benchmarkPairs(b *testing.B, calls Calls, engine Media) {
	ca := newAuthority(b)
	l := listen(b, ca.config("dispatcher", relaylink.ALPN), "127.0.0.1:0")
	r, err := New(Config{
		Name: "r1", IPs: []netip.Addr{netip.MustParseAddr("203.0.113.9")},
		Dispatchers: []string{l.addr.String()}, Dial: dialTLS(ca.config("relay", relaylink.ALPN)),
	}, calls, engine, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- r.Run(context.Background()) }()
	nc, err := l.ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	runPairs(b, nc)
	nc.Close()
	r.Stop(false)
	<-ended
}

// pairsInFlight is how many calls the benchmark has open at once, like as many
// busy processes of a SIP proxy.
const pairsInFlight = 50

// runPairs plays a dispatcher that creates and removes b.N calls.
func runPairs(b *testing.B, nc net.Conn) {
	in := bufio.NewReaderSize(nc, 64<<10)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "hello ") {
		b.Fatalf("got %q, %v, want a hello", line, err)
	}
	out := bufio.NewWriterSize(nc, 64<<10)
	out.WriteString("hello {\"name\": \"d1\", \"instance\": \"i\"}\r\n")
	update := func(i int) {
		fmt.Fprintf(out, "update %d\r\ntype: request\r\ncall_id: c%d\r\ncseq: 1\r\nfrom_uri: a@x\r\nto_uri: b@x\r\nfrom_tag: f\r\n"+
			"user_agent: bench\r\nmedia: audio:192.0.2.5:4000:sendrecv:ice=no\r\n\r\n", 2*i, i)
	}
	sent, done := 0, 0
	b.ReportAllocs()
	b.ResetTimer()
	for ; sent < min(pairsInFlight, b.N); sent++ {
		update(sent)
	}
	for done < b.N {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				b.Fatal(err)
			}
		}
		line, err := in.ReadString('\n')
		if err != nil {
			b.Fatal(err)
		}
		var seq int
		switch {
		case strings.HasPrefix(line, "ping"):
			out.WriteString("pong\r\n")
			continue
		case strings.Contains(line, " error"):
			b.Fatalf("got %q", line)
		}
		fmt.Sscanf(line, "%d ", &seq)
		if seq%2 == 0 {
			fmt.Fprintf(out, "remove %d\r\ncall_id: c%d\r\nfrom_tag: f\r\n\r\n", seq+1, seq/2)
			continue
		}
		_, id, _ := strings.Cut(line, `"record_id": "`)
		id, _, _ = strings.Cut(id, `"`)
		fmt.Fprintf(out, "ack %s\r\n", id)
		done++
		if sent < b.N {
			update(sent)
			sent++
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
	out.Flush()
}
