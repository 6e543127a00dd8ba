package relay

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

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
