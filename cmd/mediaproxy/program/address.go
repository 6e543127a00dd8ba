package program

import (
	"net/netip"

	"example.org/mediaproxy/internal/media"
)

// Documentation addresses: nobody has them, so they are reached by the default route.
var faraway = []netip.Addr{
	netip.AddrFrom4([4]byte{192, 0, 2, 1}),
	netip.MustParseAddr("2001:db8::1"),
}

// ownAddresses are this host's addresses as the internet sees them, or would without
// NAT: IPv4 first, at most one of each family.
func ownAddresses() []netip.Addr {
	var out []netip.Addr
	for _, far := range faraway {
		ip, err := media.FacingAddress(far)
		if err == nil && ip.IsGlobalUnicast() {
			out = append(out, ip.WithZone(""))
		}
	}
	return out
}
