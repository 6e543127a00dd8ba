package session

import (
	"net/netip"
	"testing"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/wire/control"
)

// A bug met by one call must not lock up the next command, nor leave ports open.
func TestPanicLeavesNothingBehind(t *testing.T) {
	panics := 0
	b := newBench(t, func(c *media.Config) {
		c.Detect = func(netip.Addr) (netip.Addr, error) {
			if panics++; panics == 3 { // the second stream's first address
				panic("bug")
			}
			return netip.MustParseAddr(relayIP), nil
		}
	})
	u := control.Update{Kind: control.KindRequest, CallID: "c", FromTag: "F", CSeq: 1, HasMedia: true,
		Signaling: control.Signaling{IP: netip.MustParseAddr("10.0.0.1"), DestinationIP: netip.MustParseAddr("10.0.0.2")},
		Media: []control.Media{
			{Type: "audio", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4000}, {Type: "video", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4002}}}
	func() {
		defer func() { recover() }()
		b.Update(u, "d", true)
		t.Error("no panic")
	}()
	if n := b.Len(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
	if f := b.Sweep(); len(f) != 0 {
		t.Errorf("%d sessions finished", len(f))
	}
	if _, _, err := b.Update(u, "d", true); err != nil {
		t.Errorf("the same call again: %v", err)
	}
	b.EndAll("test")
	if n := b.network.OpenPorts(); n != 0 {
		t.Errorf("%d ports left open", n)
	}
}
