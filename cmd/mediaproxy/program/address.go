package program

import (
	"net"
	"net/netip"
	"slices"

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

// otherAddresses are this host's addresses that are not in the list: those that a
// relay between networks may turn out to face a party with.
func otherAddresses(known []netip.Addr) (other []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then such a call is refused, and says why
	}
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		if ip := prefix.Addr().Unmap(); ip.IsGlobalUnicast() && !slices.Contains(known, ip) {
			other = append(other, ip)
		}
	}
	return other
}
