package dispatcher

import (
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/relaylink"
)

// benchRelay answers at once, in batches as a real relay does.
func benchRelay(b *testing.B, u *under) {
	conn, err := tls.Dial("tcp", u.RelayAddr().String(), clientTLS(relaylink.ALPN))
	if err != nil {
		b.Fatal(err)
	}
	hello, err := json.Marshal(relaylink.RelayHello{Name: "bench", Instance: "1", Capacity: 5000})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	b.Cleanup(func() { conn.NetConn().Close(); <-done })
	conn.Write(relaylink.AppendHello(nil, hello))
	statistics := sessionDoc("c", "f")
	record := 0
	go func() {
		defer close(done)
		in := &lineReader{conn: conn}
		orders := relaylink.OrderReader{Link2: true}
		var out []byte
		for {
			if in.start == in.end && len(out) > 0 {
				if _, err := conn.Write(out); err != nil {
					return
				}
				out = out[:0]
			}
			line, err := in.next(relaylink.MaxCommandLine)
			if err != nil {
				return
			}
			o, complete, _ := orders.Line(line)
			if !complete || o.Kind != relaylink.OrderCommand {
				continue
			}
			answer := "203.0.113.9 50002"
			switch o.Command.Name {
			case relaylink.List:
				answer = `{"total": 0, "calls": []}`
			case relaylink.Remove:
				record++
				statistics.RecordID, statistics.Reason = strconv.Itoa(record), "removed"
				answer = docText(statistics)
			}
			out = relaylink.AppendAnswer(out, o.Command.Seq, []byte(answer))
		}
	}()
	eventually(b, "the relay is known", func() bool { ok, _ := u.registry.readyFor(""); return ok })
}

func benchDispatcher(b *testing.B) *under {
	u := start(b, nil)
	u.Dispatcher.log = slog.New(slog.DiscardHandler)
	benchRelay(b, u)
	return u
}

// BenchmarkPairs is update and remove over 50 module connections, dispatcher and
// relay in one process.
func BenchmarkPairs(b *testing.B) {
	u := benchDispatcher(b)
	const connections = 50
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range connections {
		m := u.module()
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				call := "call-" + strconv.FormatInt(n, 10)
				if got := m.ask(offer(call)); got != ports {
					b.Errorf("update: %q", got)
					return
				}
				if got := m.ask(remove(call, "f", "")); got != "removed" {
					b.Errorf("remove: %q", got)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
}

// BenchmarkUpdateLatency is the time of an update at 500 a second.
func BenchmarkUpdateLatency(b *testing.B) {
	u := benchDispatcher(b)
	const connections, rate = 10, 500
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	each := (b.N + connections - 1) / connections
	for c := range connections {
		m := u.module()
		wg.Go(func() {
			ticker := time.NewTicker(time.Second * connections / rate)
			defer ticker.Stop()
			for i := range each {
				<-ticker.C
				call := strings.Repeat("c", c+1) + strconv.Itoa(i)
				begun := time.Now()
				if got := m.ask(offer(call)); got != ports {
					b.Errorf("update: %q", got)
				}
				d := time.Since(begun)
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
				m.ask(remove(call, "f", ""))
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
