package relay

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// BenchmarkSessions is how long a full relay's answer to `sessions` keeps the
// commands behind it waiting: a page of it, and the whole, as old dispatchers want it.
func BenchmarkSessions(b *testing.B) {
	calls := &fakeCalls{}
	for i := range 4500 {
		calls.docs = append(calls.docs, report.Session{CallID: fmt.Sprintf("3c26700c1adb-%d@192.0.2.10", i), FromTag: "k2u5x",
			FromURI: "alice@example.com", ToURI: "bob@example.com", CallerUA: "Phone/1.0", CalleeUA: "Phone/1.0",
			Streams: []report.Stream{{MediaType: "audio", Status: report.StatusActive, CallerCodec: "G711u", CalleeCodec: "G711u",
				CallerLocal: "203.0.113.9:50000", CalleeLocal: "203.0.113.9:50002", CallerRemote: "198.51.100.7:9000", CalleeRemote: "Unknown"}}})
	}
	r, err := New(Config{Name: "r1", IPs: []netip.Addr{netip.MustParseAddr("203.0.113.9")}, Dial: newFakeNet().dial},
		calls, &fakeMedia{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	c := &conn{relay: r}
	for name, headers := range map[string][]control.Header{"page": {{Name: relaylink.HeaderLimit, Value: "128"}}, "whole": nil} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				line, err := c.sessions(relaylink.Command{Headers: headers})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(line)))
			}
		})
	}
}
