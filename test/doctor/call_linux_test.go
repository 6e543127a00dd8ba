package doctor

import (
	"net/netip"
	"testing"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/module"
)

// holdCall sets up a call, which has ports of the relay until the test ends, and returns
// the first of them.
func holdCall(t *testing.T, socket string) (port uint16) {
	t.Helper()
	c, err := module.Dial(socket, module.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	media, err := control.ParseMedia("audio:192.0.2.1:4000:sendrecv:ice=no")
	if err != nil {
		t.Fatal(err)
	}
	reply, err := c.Update(control.Update{Kind: control.KindRequest, CallID: "held", FromTag: "f", CSeq: 1, UserAgent: "test",
		FromURI: "a@example.org", ToURI: "b@example.org", HasMedia: true, Media: media})
	if err != nil {
		t.Fatal(err)
	}
	return reply.Ports[0]
}

// listenFree takes a port of the range where no socket is bound.
func listenFree(t *testing.T, p *patient) (port uint16) {
	t.Helper()
	for port := uint16(40000); port < 40100; port++ {
		if c, err := p.host.ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), port)); err == nil {
			t.Cleanup(func() { c.Close() })
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
