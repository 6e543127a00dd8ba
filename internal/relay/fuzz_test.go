package relay

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"

	"example.org/mediaproxy/internal/wire/relaylink"
)

// FuzzCommands feeds what a dispatcher might send to a connection. Whatever it
// is, each command gets exactly one answer, on one line, with its number.
func FuzzCommands(f *testing.F) {
	for _, s := range []string{
		"update 7\r\ntype: request\r\ncall_id: c1\r\ncseq: 1\r\nfrom_tag: f\r\nmedia: audio:192.0.2.1:4000:sendrecv\r\n\r\n",
		"remove 8\r\ncall_id: c1\r\nfrom_tag: f\r\n\r\nsessions 0\r\n\r\nsummary 1\r\n\r\n",
		"hello {\"name\": \"d\"}\r\nlist 1\r\nlimit: 2\r\n\r\nack r1\r\nexplain 2\r\ncall_id: c\r\n\r\nterminate 3\r\ncall_id: c1\r\n\r\n",
		"update 1\r\ncall_id: bug\r\ntype: reply\r\ncseq: 1\r\nfrom_tag: \xff\r\n\r\npong\r\ndrain 4\r\ncancel: a\rb\r\n\r\n",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, b []byte, plain bool) {
		r, err := New(Config{
			Name: "r1", IPs: []netip.Addr{netip.MustParseAddr("203.0.113.9")}, Dial: newFakeNet().dial,
		}, &fakeCalls{}, &fakeMedia{}, log)
		if err != nil {
			t.Fatal(err)
		}
		c := newConn(&link{relay: r, addr: netip.MustParseAddrPort(addrA), log: log}, nil, plain)
		c.ready("d", relaylink.DispatcherHello{Name: "d"})
		if _, err := c.lines(&relaylink.OrderReader{Link2: !plain}, b); err != nil {
			return // the connection ends; what was answered does not matter
		}
		commands := expectedCommands(b, plain)
		c.out.mu.Lock()
		got := c.out.buf
		c.out.mu.Unlock()
		for _, line := range bytes.Split(got, []byte("\r\n")) {
			if bytes.ContainsAny(line, "\r\n") {
				t.Fatalf("answer %q is not one line", line)
			}
			report, err := relaylink.ParseReport(line)
			if err != nil || report.Kind != relaylink.ReportAnswer {
				continue
			}
			if len(commands) == 0 || commands[0] != string(report.Seq) {
				t.Fatalf("got answer %q, want one to the first of %q", line, commands)
			}
			commands = commands[1:]
		}
		if len(commands) > 0 {
			t.Fatalf("no answer to commands %q", commands)
		}
	})
}

// expectedCommands lists the numbers of the commands in b that have an answer
// which reads as one: a number like `ping` makes its answer look like a ping.
func expectedCommands(b []byte, plain bool) (seqs []string) {
	orders := relaylink.OrderReader{Link2: !plain}
	for {
		line, n, err := relaylink.SplitLine(b, relaylink.MaxCommandLine)
		if err != nil {
			return seqs
		}
		b = b[n:]
		order, done, _ := orders.Line(line)
		if !done || order.Kind != relaylink.OrderCommand {
			continue
		}
		switch seq := order.Command.Seq; seq {
		case "ping", "expired", "hello":
		default:
			seqs = append(seqs, seq)
		}
	}
}
